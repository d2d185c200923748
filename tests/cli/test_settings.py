"""What people give as settings and data: few rows, other spellings, contradictions, names."""
import json
import os
import re
import signal
import subprocess

import harness

TINY = ["--hidden", 16, "--layers", 1, "--heads", 2, "--kv-heads", 1, "--seq-len", 32, "--batch", 2,
        "--vocab", 300, "--threads", 1, "--gen-tokens", 8]
ROWS = [f"Row {i} tells of a fox, a river and the number {i * 7}." for i in range(40)]


class SettingsTest(harness.CliTest):
    def rows(self, name, texts):
        return self.write(name, "".join(json.dumps({"text": t}) + "\n" for t in texts))

    def params(self, run):
        return dict(self.query("SELECT p.name, p.value FROM params p "
                               "JOIN runs r ON r.id = p.run_id WHERE r.name = ?", run))


class TestFewRows(SettingsTest):
    def test_one_row_is_learned_from_and_nothing_is_held_out(self):
        data = self.rows("one.jsonl", ROWS[:1])
        self.run_mmrun("pretrain", "--data", data, *TINY, "--steps", 3, "--name", "one",
                       err="held out")
        self.assertEqual(self.value("SELECT status FROM runs"), "finished")
        self.assertEqual(self.query("SELECT * FROM metrics WHERE name = 'val_loss'"), [])
        self.run_mmrun("eval", "one", expect=2, err="eval one --data FILE")
        self.run_mmrun("report", "--all", "-o", "r.html")

    def test_from_two_rows_on_there_is_a_val_loss(self):
        for n in (2, 3, 40):
            data = self.rows(f"{n}.jsonl", ROWS[:n])
            self.run_mmrun("pretrain", "--data", data, *TINY, "--steps", 3, "--name", f"rows{n}")
        self.assertEqual(self.value("SELECT count(*) FROM runs WHERE best_val_loss > 0"), 3)

    def test_a_text_that_gives_too_few_tokens_for_the_vocabulary_can_be_sampled(self):
        data = self.rows("long.jsonl", ["word " * 5000, "word " * 300])
        self.run_mmrun("pretrain", "--data", data, *TINY, "--vocab", 5000, "--steps", 3,
                       "--prompt", "word", "--gen-tokens", 200)
        self.assertGreater(self.value("SELECT count(*) FROM generations"), 0)

    def test_data_without_text_is_named(self):
        data = self.rows("numbers.jsonl", [1, 2, None])
        self.run_mmrun("pretrain", "--data", data, *TINY, expect=2,
                       err="numbers.jsonl: 3 of 3 rows are bad")


class TestLength(SettingsTest):
    def test_two_lengths_are_a_contradiction(self):
        data = self.rows("d.jsonl", ROWS)
        for flag in ("--tokens", "--epochs"):
            self.run_mmrun("pretrain", "--data", data, *TINY, "--steps", 5, flag, 7, expect=2,
                           err=f"--steps and {flag} both say how long")

    def test_the_command_line_goes_before_the_file(self):
        data = self.rows("d.jsonl", ROWS)
        config = self.write("c.toml", "steps = 77\n")
        self.run_mmrun("pretrain", "--data", data, "--config", config, *TINY, "--steps", 2,
                       "--name", "a")
        self.run_mmrun("pretrain", "--data", data, "--config", config, *TINY, "--tokens", 500,
                       "--name", "b")
        self.assertEqual(self.value("SELECT steps FROM runs WHERE name = 'a'"), 2)
        self.assertEqual(self.params("b")["tokens"], "500")
        self.assertNotEqual(self.params("b")["steps"], "77")

    def test_tokens_are_what_is_learned_not_what_has_room(self):
        # One short row per step: a step learns far less than batch times seq_len.
        data = self.rows("d.jsonl", ROWS[:2])
        for pack in ("on", "off"):
            self.run_mmrun("pretrain", "--data", data, *TINY, "--tokens", 1000, "--pack", pack,
                           "--name", pack)
            tokens = self.value("SELECT tokens FROM runs WHERE name = ?", pack)
            self.assertGreaterEqual(tokens, 1000)
            self.assertLess(tokens, 1100)


class TestSpellings(SettingsTest):
    def test_minimind_names_give_the_same_run(self):
        data = self.rows("d.jsonl", ROWS)
        self.run_mmrun("pretrain", "--data", data, "--hidden", 16, "--layers", 1, "--seq-len", 32,
                       "--batch", 2, "--lr", "5e-4", "--accum", 2, "--clip", 1, "--log-every", 1,
                       "--save-every", 2, "--vocab", 300, "--steps", 4, "--name", "ours",
                       "--lr-schedule", "cosine-v2", "--dtype", "fp32")
        self.run_mmrun("pretrain", "--data_path", data, "--hidden_size", 16, "--num_hidden_layers",
                       1, "--max_seq_len", 32, "--batch_size", 2, "--learning_rate", "0.0005",
                       "--accumulation_steps", 2, "--grad_clip", "1.0", "--log_interval", 1,
                       "--save_interval", 2, "--vocab_size", 300, "--steps", 4, "--save_weight",
                       "theirs", "--lr_schedule", "cosine_v2", "--dtype", "float32",
                       "--from_weight", "none")
        self.assertEqual(self.params("ours"), self.params("theirs"))
        losses = self.query("SELECT group_concat(value) FROM metrics WHERE name = 'loss' "
                            "GROUP BY run_id")
        self.assertEqual(losses[0], losses[1])

    def test_a_value_is_recorded_in_one_spelling_whoever_chose_it(self):
        data = self.rows("d.jsonl", ROWS)
        self.run_mmrun("pretrain", "--data", data, *TINY, "--steps", 2, "--name", "default")
        self.run_mmrun("pretrain", "--data", data, *TINY, "--steps", 2, "--name", "given",
                       "--lr", "5.0e-4", "--adam-eps", "0.00000001", "--rope-theta", "1e6",
                       "--norm-eps", "0.000001", "--weight-decay", ".01", "--clip", "1.0")
        self.assertEqual(self.params("default"), self.params("given"))

    def test_heads_that_do_not_fit_are_named_as_they_were_given(self):
        data = self.rows("d.jsonl", ROWS)
        self.run_mmrun("pretrain", "--data", data, "--heads", 7, "--hidden", 512, expect=2,
                       err="--heads 7 does not divide --hidden 512")
        # Without --kv-heads the groups follow the heads.
        answer = self.run_mmrun("pretrain", "--data", data, "--heads", 6, "--hidden", 96, "--vocab",
                                300, "--dry-run", "--json").json()
        self.assertEqual(answer["config"]["num_key_value_heads"]["value"], "3")


class TestNames(SettingsTest):
    def test_a_name_that_cannot_be_is_refused_before_anything_is_made(self):
        data = self.rows("d.jsonl", ROWS)
        for name in ("12", "last", "a@b", "", " ", "end ", "new\nline", "turn\u202eed", "x" * 201,
                     "not UTF-8 \udcff"):
            with self.subTest(name=name):
                answer = self.run_mmrun("pretrain", "--data", data, *TINY, f"--name={name}",
                                        expect=2, err="run name")
                self.assertNotIn("tokenizer", answer.err)
        self.assertFalse(os.path.exists(self.db))

    def test_strange_names_work_everywhere(self):
        data = self.rows("d.jsonl", ROWS)
        names = ["../x", "\U0001F600", "a'; DROP TABLE run;--", "<script>alert(1)</script>", "-x"]
        for name in names:
            self.run_mmrun("pretrain", "--data", data, *TINY, "--steps", 2, f"--name={name}")
            self.assertEqual(self.run_mmrun("show", "--json", "--", name).json()["run"]["name"],
                             name)
        self.run_mmrun("report", "--all", "-o", "r.html")
        self.assertNotIn("<script>alert", self.read("r.html"))

    def test_a_taken_name_is_said_at_once(self):
        data = self.rows("d.jsonl", ROWS)
        self.run_mmrun("pretrain", "--data", data, *TINY, "--steps", 2, "--name", "a")
        answer = self.run_mmrun("pretrain", "--data", data, *TINY, "--name", "a", expect=2,
                                err="a run named 'a' exists already")
        self.assertNotIn("tokenizer", answer.err)

    def test_a_database_that_cannot_be_made_is_said_at_once(self):
        data = self.rows("d.jsonl", ROWS)
        answer = self.run_mmrun("--db", "no/such/x.db", "pretrain", "--data", data, *TINY, expect=2,
                                err="no/such/x.db: cannot create")
        self.assertNotIn("tokenizer", answer.err)


class TestNotFinite(SettingsTest):
    WILD = ["--lr", 10, "--clip", 0, "--beta1", 0, "--beta2", 0]

    def test_a_loss_that_is_no_number_ends_the_run_and_is_kept(self):
        data = self.rows("d.jsonl", ROWS)
        answer = self.run_mmrun("pretrain", "--data", data, *TINY, *self.WILD, "--weight-decay", 10,
                                "--steps", 300, "--name", "wild", expect=1,
                                err="step [0-9]+: the loss is not finite.*\n.*lower --lr")
        self.assertNotIn("-nan", answer.err)
        self.assertEqual(self.query("SELECT status, final_loss FROM runs"), [("failed", None)])
        self.assertEqual(self.query("SELECT value, flag FROM metrics WHERE name = 'loss' "
                                    "ORDER BY step DESC LIMIT 1"), [(None, "nan")])
        self.assertEqual(self.value("SELECT kind FROM events"), "nan")
        self.run_mmrun("report", "wild", "-o", "r.html")

    def test_a_perplexity_beyond_all_numbers_is_given_as_such(self):
        data = self.rows("d.jsonl", ROWS)
        self.run_mmrun("pretrain", "--data", data, *TINY, *self.WILD, "--weight-decay", 0,
                       "--hidden", 64, "--steps", 6, "--eval-every", 1, "--save-every", 1,
                       "--keep", 9)
        beyond = self.query("SELECT step FROM metrics WHERE name = 'val_loss' AND value > 710")
        if not beyond:
            self.skipTest("no loss was large enough on this machine")
        score = self.run_mmrun("eval", f"last@{beyond[0][0]}", "--json").json()
        self.assertEqual(score["perplexity"], "Infinity")
        self.assertGreater(score["val_loss"], 710)
        self.run_mmrun("eval", f"last@{beyond[0][0]}", out="perplexity inf ")


class TestFrom(SettingsTest):
    def test_another_shape_than_the_weights_have_is_refused_before_it_is_recorded(self):
        data = self.rows("d.jsonl", ROWS)
        self.run_mmrun("pretrain", "--data", data, *TINY, "--steps", 2, "--name", "a")
        for flag, value in (("--hidden", 32), ("--heads", 1), ("--vocab", 400), ("--layers", 2)):
            self.run_mmrun("pretrain", "--data", data, "--from", "a", flag, value, expect=2,
                           err=rf"--from a@2 does not fit {flag} {value} \(it has ")
        self.assertEqual(self.value("SELECT count(*) FROM runs"), 1)
        self.run_mmrun("pretrain", "--data", data, "--from", "a", "--hidden", 16, "--steps", 2,
                       "--name", "b")
        self.assertEqual(self.query("SELECT parent_id, parent_step FROM runs WHERE name = 'b'"),
                         [(1, 2)])

    def test_a_resume_says_how_to_go_on_with_data_that_were_moved(self):
        data = self.rows("d.jsonl", ROWS)
        running = self.start_mmrun("pretrain", "--data", data, *TINY, "--steps", 100000,
                                   "--save-every", 100, "--name", "a")
        running.wait_for_text("step=")
        running.signal(signal.SIGTERM)
        running.wait(expect=3)
        os.rename(data, self.path("moved.jsonl"))
        self.run_mmrun("resume", "a", expect=2,
                       err="d.jsonl: cannot open.*\n.*resume a --data FILE")
        resumed = self.start_mmrun("resume", "a", "--data", self.path("moved.jsonl"))
        resumed.wait_for_text("step=")
        resumed.signal(signal.SIGTERM)
        resumed.wait(expect=3)


class TestProposals(SettingsTest):
    """A command that is proposed or recorded does what it says when it is pasted into a shell."""

    def shell(self, command, expect=0):
        path = os.path.dirname(self.program) + os.pathsep + self.env["PATH"]
        done = subprocess.run(["sh", "-c", command], cwd=self.dir, env={**self.env, "PATH": path},
                              capture_output=True, text=True, check=False, timeout=60)
        self.assertEqual(done.returncode, expect, f"{command}\n{done.stderr}")

    def test_the_next_step_survives_blanks_and_quotes(self):
        data = self.rows("my rows.jsonl", ROWS)
        answer = self.run_mmrun("--db", "it's here.db", "pretrain", "--data", data, *TINY,
                                "--steps", 2, "--name", "a $(touch bad) 'b'")
        self.shell(re.search("mmrun [^·]* report [^·]*", answer.err).group())
        self.assertTrue(os.path.exists(self.path("report.html")))
        self.assertFalse(os.path.exists(self.path("bad")))

    def test_the_command_of_an_arm_trains_that_arm(self):
        data = self.rows("rows 'q' $(touch bad).jsonl", ROWS)
        tiny = [x for x in TINY if x not in ("--hidden", 16)]
        self.run_mmrun("sweep", "--data", data, *tiny, "--hidden", "16,24", "--steps", 3,
                       "--prompt", "Row 'x'", "--name", "s")
        command = self.value("SELECT command FROM runs WHERE name = 's/hidden=24'")
        self.shell(f"{command} --name again")
        self.assertFalse(os.path.exists(self.path("bad")))
        losses = self.query("SELECT value FROM metrics JOIN runs r ON r.id = run_id "
                            "WHERE r.name IN ('again', 's/hidden=24') "
                            "AND metrics.name = 'loss' ORDER BY step")
        self.assertEqual(losses[0::2], losses[1::2])

    def test_arms_that_are_the_same_are_refused_before_they_are_recorded(self):
        data = self.rows("d.jsonl", ROWS)
        self.run_mmrun("sweep", "--data", data, *TINY, "--lr", "1e-3,0.001", "--steps", 2, expect=2,
                       err="arms 1 and 2 are the same: .*=0.001")
        self.assertFalse(os.path.exists(self.db))

    def test_a_sweep_is_recorded_whole_or_not_at_all(self):
        data = self.rows("d.jsonl", ROWS)
        self.run_mmrun("sweep", "--data", data, *TINY, "--lr", "1e-3,2e-3", "--steps", 2, "--name",
                       "s" * 195, expect=2, err="run name of [0-9]+ bytes: 1 to 200")
        self.assertEqual(self.value("SELECT (SELECT count(*) FROM sweeps) + count(*) FROM runs"), 0)


if __name__ == "__main__":
    harness.main()
