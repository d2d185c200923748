"""Training as a user sees it: it learns, it is on record, it comes out again."""

# timeout: 300
import json
import math
import os

import harness

SHARED = os.path.join(os.environ.get("MMRUN_SOURCE", "."), "..", "shared", "data")
SMALL = [
    "--hidden",
    "48",
    "--layers",
    "2",
    "--heads",
    "4",
    "--kv-heads",
    "2",
    "--batch",
    "4",
    "--seq-len",
    "96",
    "--lr",
    "3e-3",
    "--eval-rows",
    "16",
    "--gen-tokens",
    "8",
]


class TestTraining(harness.CliTest):
    def synth(self, rows=400):
        self.run_mmrun("data", "synth", "--out", "data", "--kind", "pretrain", "--rows", rows)
        self.run_mmrun(
            "tokenizer", "train", "--data", "data/pretrain.jsonl", "--vocab", "512", "-o", "tok"
        )
        return [
            "--data",
            "data/pretrain.jsonl",
            "--val",
            "data/pretrain_val.jsonl",
            "--tokenizer",
            "tok",
        ]

    def test_it_learns_and_everything_is_on_record(self):
        inputs = self.synth()
        answer = self.run_mmrun(
            "pretrain",
            *inputs,
            *SMALL,
            "--steps",
            "120",
            "--name",
            "one",
            "--tag",
            "try",
            "--note",
            "first of all",
        )
        self.assertEqual(answer.out, "one\n")
        first = self.value("SELECT value FROM metrics WHERE name = 'loss' AND step = 1")
        last = self.value("SELECT value FROM metrics WHERE name = 'loss' AND step = 120")
        self.assertAlmostEqual(first, math.log(512), delta=0.3)
        self.assertLess(last, first - 0.8)
        names = {name for (name,) in self.query("SELECT DISTINCT name FROM metrics")}
        self.assertGreaterEqual(
            names,
            {
                "loss",
                "val_loss",
                "val_bpb",
                "perplexity",
                "lr",
                "grad_norm",
                "tokens",
                "tokens_per_s",
                "step_ms",
                "mem_bytes",
            },
        )
        run = self.query(
            "SELECT status, stage, seed, device, dtype, steps, params_total, command, error "
            "FROM runs"
        )[0]
        self.assertEqual(run[:4], ("finished", "pretrain", 42, "cpu"))
        self.assertIn(run[4], ("fp32", "bf16"))
        self.assertEqual(run[5], 120)
        self.assertGreater(run[6], 0)
        self.assertIn("mmrun pretrain --data data/pretrain.jsonl", run[7])
        self.assertIsNone(run[8])
        origins = dict(self.query("SELECT name, origin FROM params"))
        self.assertEqual(origins["hidden_size"], "command line")
        self.assertEqual(origins["beta1"], "default")
        self.assertEqual(origins["rope_theta"], "preset")
        roles = self.query(
            "SELECT role, length(d.sha256), rows > 0, tokens > 0 FROM run_datasets u "
            "JOIN datasets d ON d.id = u.dataset_id ORDER BY role"
        )
        self.assertEqual(roles, [("train", 64, 1, 1), ("val", 64, 1, 1)])
        self.assertEqual(self.value("SELECT count(*) FROM generations WHERE step = 120"), 3)
        self.assertGreaterEqual(self.value("SELECT count(*) FROM checkpoints"), 1)
        self.assert_db_sound()

    def test_eval_gives_the_number_of_the_training(self):
        inputs = self.synth()
        self.run_mmrun(
            "pretrain", *inputs, *SMALL, "--steps", "40", "--name", "one", "--eval-rows", "1000000"
        )
        recorded = self.value(
            "SELECT value FROM metrics WHERE name = 'val_loss' ORDER BY step DESC LIMIT 1"
        )
        scored = self.run_mmrun("eval", "one", "--json").json()
        self.assertAlmostEqual(scored["val_loss"], recorded, places=9)
        again = self.run_mmrun("eval", "one", "--data", "data/pretrain_val.jsonl", "--json").json()
        self.assertAlmostEqual(again["val_loss"], recorded, places=9)
        self.assertAlmostEqual(again["perplexity"], math.exp(again["val_loss"]), places=6)
        self.assertGreater(again["bpb"], 0)
        padded = self.run_mmrun(
            "eval",
            "one",
            "--data",
            "data/pretrain_val.jsonl",
            "--pack",
            "off",
            "--seq-len",
            "2000",
            "--json",
        ).json()
        packed = self.run_mmrun(
            "eval",
            "one",
            "--data",
            "data/pretrain_val.jsonl",
            "--pack",
            "on",
            "--seq-len",
            "2000",
            "--json",
        ).json()
        self.assertEqual(padded["tokens"], packed["tokens"])
        self.assertAlmostEqual(padded["val_loss"], packed["val_loss"], delta=1e-5)
        few = self.run_mmrun("eval", "one", "--limit", "3", "--json").json()
        self.assertLess(few["tokens"], again["tokens"])

    def test_defaults_make_data_and_tokenizer(self):
        self.run_mmrun("pretrain", *SMALL, "--vocab", "400", "--steps", "2", err="self-made")
        self.assertEqual(self.value("SELECT source FROM datasets LIMIT 1"), "synth")

    def test_a_config_file_stands_between_default_and_command_line(self):
        inputs = self.synth(60)
        self.write(
            "run.toml",
            "# a comment\nhidden_size = 32\nlearning_rate = 1e-3 # here too\n"
            "lr-schedule = \"constant\"\n",
        )
        answer = self.run_mmrun(
            "pretrain",
            *inputs,
            "--config",
            "run.toml",
            "--layers",
            "1",
            "--heads",
            "2",
            "--kv-heads",
            "1",
            "--hidden",
            "16",
            "--dry-run",
            "--json",
        ).json()
        config = answer["config"]
        self.assertEqual(config["hidden_size"], {"value": "16", "origin": "command line"})
        self.assertEqual(config["learning_rate"], {"value": "0.001", "origin": "file"})
        self.assertEqual(config["lr_schedule"]["value"], "constant")
        self.assertFalse(os.path.exists(self.db))
        self.write("wrong.toml", "hidden_size = 32\nhiden = 3\n")
        self.run_mmrun(
            "pretrain",
            *inputs,
            "--config",
            "wrong.toml",
            expect=2,
            err=r"wrong\.toml line 2.*hidden",
        )

    def test_from_takes_weights_shape_and_tokenizer(self):
        inputs = self.synth()
        self.run_mmrun("pretrain", *inputs, *SMALL, "--steps", "60", "--name", "base")
        self.run_mmrun(
            "pretrain",
            *inputs[:4],
            "--from",
            "base",
            "--steps",
            "4",
            "--name",
            "more",
            "--lr",
            "1e-4",
            "--batch",
            "4",
            "--seq-len",
            "96",
        )
        base = self.value("SELECT best_val_loss FROM runs WHERE name = 'base'")
        first = self.value(
            "SELECT value FROM metrics m JOIN runs r ON r.id = m.run_id WHERE r.name = 'more' "
            "AND m.name = 'loss' AND step = 1"
        )
        self.assertLess(abs(first - base), 1)
        self.assertEqual(
            self.query("SELECT parent_id, parent_step FROM runs WHERE name = 'more'"), [(1, 60)]
        )

    def test_generate_streams_and_records(self):
        inputs = self.synth()
        self.run_mmrun("pretrain", *inputs, *SMALL, "--steps", "30", "--name", "one")
        answer = self.run_mmrun(
            "generate", "one", "Once upon", "--max-new-tokens", "12", "--seed", "7"
        )
        self.assertTrue(answer.out.startswith("Once upon"))
        again = self.run_mmrun(
            "generate", "one", "Once upon", "--max-new-tokens", "12", "--seed", "7", "--json"
        ).json()
        self.assertEqual("Once upon" + again["text"] + "\n", answer.out)
        texts = self.query("SELECT text FROM generations WHERE prompt = 'Once upon'")
        self.assertEqual(texts, [(again["text"],)] * 2)

    def test_the_real_data_are_learned(self):
        for name in ("pretrain_poetry.jsonl", "tinyshakespeare.txt"):
            path = os.path.join(SHARED, name)
            if not os.path.exists(path):
                self.skipTest(f"no shared data beside the project ({name})")
            self.run_mmrun(
                "pretrain",
                "--data",
                path,
                "--tokenizer",
                os.path.join(SHARED, "minimind-tokenizer"),
                "--hidden",
                "64",
                "--layers",
                "2",
                "--heads",
                "4",
                "--kv-heads",
                "2",
                "--batch",
                "4",
                "--steps",
                "60",
                "--lr",
                "3e-3",
                "--name",
                name,
                "--eval-rows",
                "64",
            )
            curve = self.query(
                "SELECT value FROM metrics m JOIN runs r ON r.id = m.run_id WHERE r.name = ? AND "
                "m.name = 'val_loss' ORDER BY step",
                name,
            )
            self.assertLess(curve[-1][0], curve[0][0] - 0.5)

    def test_json_of_the_end(self):
        inputs = self.synth(60)
        answer = self.run_mmrun(
            "pretrain", *inputs, *SMALL, "--steps", "3", "--json", "--progress", "none"
        )
        done = json.loads(answer.out)
        self.assertEqual((done["status"], done["steps"]), ("finished", 3))


class TestSweep(harness.CliTest):
    GRID = [
        "sweep",
        "--hidden",
        "16,24",
        "--lr",
        "1e-3,3e-3",
        "--layers",
        "1",
        "--heads",
        "2",
        "--kv-heads",
        "1",
        "--batch",
        "2",
        "--seq-len",
        "48",
        "--steps",
        "6",
        "--vocab",
        "400",
        "--gen-tokens",
        "4",
        "--eval-rows",
        "4",
    ]

    def test_alone_in_an_empty_folder(self):
        answer = self.run_mmrun(*self.GRID, err="Plan: 4 arms")
        self.assertIn("self-made", answer.err)
        board = self.query(
            "SELECT rank, status, objective, params FROM sweep_leaderboard ORDER BY rank"
        )
        self.assertEqual([row[0] for row in board], [1, 2, 3, 4])
        self.assertEqual({row[1] for row in board}, {"finished"})
        self.assertEqual(sorted(board, key=lambda row: row[2]), board)
        self.assertEqual({json.loads(row[3])["hidden_size"] for row in board}, {16, 24})

    def test_a_failed_arm_does_not_stop_the_others_and_is_tried_again(self):
        # An arm without its data file fails; it is the only one that the second try runs.
        self.run_mmrun("data", "synth", "--out", "data", "--kind", "pretrain", "--rows", "60")
        running = self.start_mmrun(*self.GRID, "--data", "data/pretrain.jsonl", "--steps", "300")
        running.wait_for_text("Arm 1 of 4")
        running.wait_for(lambda: self.value("SELECT count(*) FROM metrics") > 0)
        child = self.child_of(running.process.pid)
        os.kill(child, 9)
        answer = running.wait(expect=1, timeout=100)
        self.assertRegex(answer.err, "1 of 4 arms")
        statuses = dict(self.query("SELECT status, count(*) FROM runs GROUP BY status"))
        self.assertEqual(statuses, {"killed": 1, "finished": 3})
        self.run_mmrun("sweep", "--resume", "last")
        self.assertEqual(
            self.query("SELECT status, count(*) FROM runs GROUP BY status"), [("finished", 4)]
        )
        self.assertEqual(self.query("SELECT count(*) FROM metrics WHERE name = 'loss'"), [(1200,)])

    def child_of(self, pid):
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return int(file.read().split()[0])

    def test_impossible_arms_are_left_out_and_none_is_refused(self):
        self.run_mmrun(*self.GRID, "--heads", "2,5", err="Left out: .*heads=5")
        self.assertEqual(self.query("SELECT count(*) FROM runs WHERE status = 'finished'"), [(4,)])
        self.run_mmrun(*self.GRID, "--heads", "5,7", "--name", "no", expect=2, err="heads=7")
        self.assertEqual(self.query("SELECT count(*) FROM sweeps"), [(1,)])

    def test_a_killed_sweep_says_so_and_goes_on(self):
        running = self.start_mmrun(*self.GRID, "--steps", "200")
        running.wait_for_text("Arm 2 of 4")
        # The arm would go on without its sweep: both are taken away.
        os.kill(self.child_of(running.process.pid), 9)
        running.kill()
        self.run_mmrun("runs")
        self.run_mmrun("sweep", "--resume", "last")
        self.assertEqual(self.query("SELECT status FROM sweeps"), [("finished",)])
        self.assertEqual(self.query("SELECT count(*) FROM metrics WHERE name = 'loss'"), [(800,)])

    def test_nothing_to_sweep_is_said(self):
        self.run_mmrun("sweep", "--hidden", "16", expect=2, err="comma list")


if __name__ == "__main__":
    harness.main()
