"""Runs that start from runs: parents that do not fit, rows that are strange, sweeps over stages."""
import json
import re
import shlex

import harness

TINY = ["--hidden", 32, "--layers", 1, "--heads", 2, "--kv-heads", 1]
QUICK = ["--threads", 1, "--gen-tokens", 0, "--seq-len", 160, "--eval-rows", 8]
STAGES = ("sft", "lora", "dpo", "distill")


def said(*turns):
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]


def chat(*turns):
    return {"conversations": said(*turns)}


def pair(question, good, bad):
    return {"chosen": said(question, good), "rejected": said(question, bad)}


CHATS = [chat(f"What is {i} and {i}?", f"It is {2 * i}, dear reader.") for i in range(24)]
PAIRS = [pair(f"What is {i} and {i}?", f"It is {2 * i}.", f"No idea, {i}?") for i in range(24)]


class LineageTest(harness.CliTest):
    """Every test has a run `base`: pretrained for a moment, tokenizer of 300 ids."""

    def setUp(self):
        super().setUp()
        texts = [turn["content"] for row in CHATS for turn in row["conversations"]]
        self.rows("text.jsonl", [{"text": text} for text in texts])
        self.rows("chat.jsonl", CHATS)
        self.rows("pair.jsonl", PAIRS)
        self.tokenizer("tok", 300)
        self.pretrain("base")

    def rows(self, name, rows):
        lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
        return self.write(name, "".join(line + "\n" for line in lines))

    def tokenizer(self, name, vocab):
        self.run_mmrun("tokenizer", "train", "--data", "text.jsonl", "--vocab", vocab, "-o", name)

    def pretrain(self, name, *more, tokenizer="tok"):
        self.run_mmrun("pretrain", "--data", "text.jsonl", "--tokenizer", tokenizer, *TINY, *QUICK,
                       "--batch", 2, "--steps", 4, "--save-every", 2, "--name", name, *more)

    def stage(self, stage, name, *more, parent="base", data=None, **expected):
        """Trains three steps of a stage; keyword arguments are run_mmrun's."""
        files = {"dpo": "pair.jsonl"}
        options = ["--data", data or files.get(stage, "chat.jsonl"), "--from", parent, "--name",
                   name, "--steps", 3, "--batch", 4, *QUICK]
        if stage == "distill" and "--teacher" not in more:
            options += ["--teacher", "base"]
        return self.run_mmrun(stage, *options, *more, **expected)

    def param(self, run, name):
        return self.value("SELECT p.value FROM params p JOIN runs r ON r.id = p.run_id "
                          "WHERE r.name = ? AND p.name = ?", run, name)

    def first_loss(self, run):
        return self.value("SELECT m.value FROM metrics m JOIN runs r ON r.id = m.run_id "
                          "WHERE r.name = ? AND m.name = 'loss' AND m.step = 1", run)

    def final_digest(self, run, db=None):
        return self.value("SELECT c.sha256 FROM checkpoints c JOIN runs r ON r.id = c.run_id "
                          "WHERE r.name = ? ORDER BY c.step DESC LIMIT 1", run, db=db)

    def count_runs(self):
        return self.value("SELECT count(*) FROM runs")


class TestParents(LineageTest):
    def test_a_stage_says_what_it_starts_from(self):
        for stage in ("sft", "lora", "dpo"):
            self.run_mmrun(stage, "--data", "chat.jsonl", expect=2,
                           err=f"{stage} needs --from RUN.*\n.*mmrun {stage} --from last")
        self.run_mmrun("distill", "--from", "base", expect=2, err="needs --teacher RUN")
        self.run_mmrun("distill", "--teacher", "base", expect=2, err="--from none --hidden")
        self.run_mmrun("sft", "--from", "none", "--data", "chat.jsonl", expect=2,
                       err="--from none: fresh weights need --tokenizer")
        self.run_mmrun("lora", "--from", "none", "--tokenizer", "tok", expect=2,
                       err="--from none: adapters stand beside weights that were learned")
        self.run_mmrun("sft", "--from", "bas", expect=2,
                       err="--from bas: there is no run 'bas'; near: base")
        self.assertEqual(self.count_runs(), 1)

    def test_all_that_differs_from_the_parent_is_said_at_once(self):
        self.tokenizer("other", 310)
        answer = self.stage("sft", "wrong", "--hidden", 64, "--layers", 3, "--heads", 4,
                            "--kv-heads", 2, "--ffn", 128, "--vocab", 320, "--qk-norm", "off",
                            "--tie-embeddings", "off", "--tokenizer", "other", expect=2)
        self.assertRegex(answer.err, r"--from base@4 does not fit --hidden 64 \(it has 32\)")
        for difference in (r"--layers 3 \(1\)", r"--heads 4 \(2\)", r"--kv-heads 2 \(1\)",
                           r"--vocab 320 \(300\)",
                           r"--qk-norm false \(true\)", r"--tie-embeddings false \(true\)",
                           r"--tokenizer [0-9a-f]{12}… \([0-9a-f]{12}…\)"):
            self.assertRegex(answer.err, difference)
        self.assertEqual(self.count_runs(), 1)
        # What is said again, and right, is no difference.
        self.stage("sft", "right", "--hidden", 32, "--tokenizer", "tok")

    def test_a_file_of_settings_is_held_to_the_weights_too(self):
        self.write("settings.toml", "hidden_size = 48\nbeta = 0.2\n")
        self.stage("sft", "wrong", "--config", "settings.toml", expect=2,
                   err=r"settings\.toml line 2: sft has no hyperparameter 'beta': it belongs to "
                       r"dpo")
        self.stage("dpo", "wrong", "--config", "settings.toml", expect=2,
                   err=r"--hidden 48 \(it has 32\)")

    def test_a_checkpoint_that_is_not_there_names_those_that_are(self):
        self.stage("sft", "wrong", parent="base@3", expect=2,
                   err="--from base@3.*no checkpoint at step 3; there are: 2, 4")
        self.stage("sft", "early", parent="base@2")
        self.assertEqual(self.query("SELECT parent_id, parent_step FROM runs WHERE name = 'early'"),
                         [(1, 2)])

    def test_a_parent_without_a_checkpoint_is_refused(self):
        self.run_mmrun("pretrain", "--data", "text.jsonl", "--tokenizer", "tok", *TINY, *QUICK,
                       "--lr", 10, "--clip", 0, "--beta1", 0, "--beta2", 0, "--weight-decay", 10,
                       "--batch", 2, "--steps", 300, "--save-every", 0, "--eval-every", 0,
                       "--name", "wild", expect=1)
        self.stage("sft", "wrong", parent="wild", expect=2,
                   err="run 'wild' is failed and has no checkpoint to start from")

    def test_a_teacher_has_the_tokenizer_and_no_smaller_vocabulary(self):
        self.tokenizer("other", 310)
        self.pretrain("stranger", tokenizer="other")
        self.stage("distill", "wrong", "--teacher", "stranger", expect=2,
                   err=r"--teacher stranger@4 does not fit the student's tokenizer "
                       r"[0-9a-f]{12}… \(it has [0-9a-f]{12}…\)")
        self.pretrain("wide", "--vocab", 320)
        answer = self.stage("distill", "wrong", "--teacher", "base", parent="wide", expect=2)
        self.assertRegex(answer.err, r"--teacher base@4 does not fit a vocabulary of 320 "
                                     r"\(it has 300\)")
        self.stage("distill", "taught", "--teacher", "wide")
        self.stage("distill", "fresh", "--hidden", 16, "--layers", 1, "--heads", 2, "--kv-heads", 1,
                   parent="none")
        self.assertEqual(self.param("fresh", "hidden_size"), "16")
        self.assertEqual(self.param("fresh", "tokenizer_hash"),
                         self.param("base", "tokenizer_hash"))

    def test_a_flag_of_another_stage_names_its_stage(self):
        self.stage("sft", "wrong", "--beta", 0.1, expect=2,
                   err="`mmrun sft` has no --beta: it belongs to dpo")
        self.stage("sft", "wrong", "--rank", 4, expect=2, err="it belongs to lora, dpo")
        self.stage("dpo", "wrong", "--temperature", 2, expect=2, err="it belongs to distill")
        help_text = self.run_mmrun("help", "dpo").out
        self.assertIn("--beta", help_text)
        self.assertNotIn("--temperature", help_text)
        self.assertNotIn("--beta X", self.run_mmrun("help", "sft").out)

    def test_a_run_with_adapters_is_a_parent_with_them_merged(self):
        self.stage("lora", "adapted", "--rank", 2, "--lr", "1e-2", "--dropout", 0)
        self.assertEqual(self.param("adapted", "lora_targets"), "q_proj+o_proj")
        self.assertEqual(self.param("adapted", "lora_alpha"), "2")
        answer = self.stage("sft", "after", parent="adapted")
        self.assertRegex(answer.err, "adapted has adapters: .* merged in")
        # The child's first loss is the parent's at its end: the weights really are the merged ones.
        self.stage("sft", "before")
        self.assertNotEqual(self.first_loss("after"), self.first_loss("before"))
        self.assertEqual(self.param("after", "hidden_size"), "32")


class TestRecord(LineageTest):
    def test_the_stored_command_rebuilds_the_run(self):
        for stage in STAGES:
            more = ["--teacher=dpo-1"] if stage == "distill" else []
            self.stage(stage, f"{stage}-1", *more, parent="base")
            command = self.value("SELECT command FROM runs WHERE name = ?", f"{stage}-1")
            self.assertIn("--from base@4", command)
            if stage == "distill":
                self.assertRegex(command, "--teacher dpo-1@3( |$)")
            words = shlex.split(command)[1:]
            words[words.index(f"{stage}-1")] = f"{stage}-2"
            self.run_mmrun(*words)
            self.assertEqual(self.final_digest(f"{stage}-1"), self.final_digest(f"{stage}-2"))

    def test_minimind_names_give_the_same_run(self):
        ours = {
            "lora": ["--from", "base", "--data", "chat.jsonl", "--name", "ours-lora"],
            "distill": ["--from", "base", "--teacher", "base", "--data", "chat.jsonl", "--name",
                        "ours-distill", "--alpha", 0.7],
        }
        theirs = {
            "lora": ["--from_weight", "base", "--data_path", "chat.jsonl", "--lora_name",
                     "theirs-lora", "--save_dir", "out", "--from_resume", 0, "--use_moe", 0],
            "distill": ["--from_student_weight", "base", "--from_teacher_weight", "base",
                        "--data_path", "chat.jsonl", "--save_weight", "theirs-distill", "--alpha",
                        "0.70", "--student_hidden_size", 32, "--student_num_layers", 1,
                        "--teacher_hidden_size", 32, "--teacher_num_layers", 1, "--student_use_moe",
                        0, "--num_workers", 8],
        }
        for stage in ours:
            self.run_mmrun(stage, *ours[stage], *QUICK, "--steps", 2, "--batch", 4)
            answer = self.run_mmrun(stage, *theirs[stage], *QUICK, "--steps", 2, "--batch_size", 4)
            self.assertRegex(answer.err, "has no effect: ")
            self.assertEqual(self.final_digest(f"ours-{stage}"),
                             self.final_digest(f"theirs-{stage}"))

    def test_compat_takes_the_numbers_of_the_original(self):
        self.stage("dpo", "ours")
        self.stage("dpo", "theirs", "--compat", "minimind")
        self.stage("sft", "padded", "--compat", "minimind", "--lr", "2e-4")
        self.assertEqual(float(self.param("ours", "learning_rate")), 1e-6)
        self.assertEqual(float(self.param("theirs", "learning_rate")), 4e-8)
        self.assertEqual(self.param("theirs", "compat"), "minimind")
        self.assertEqual(self.param("padded", "pack"), "false")
        self.assertEqual(float(self.param("padded", "learning_rate")), 2e-4)

    def test_a_step_is_its_rows_however_they_are_counted(self):
        for stage in STAGES:
            self.stage(stage, f"{stage}-8", "--batch", 8, "--accum", 1)
            self.stage(stage, f"{stage}-4x2", "--batch", 4, "--accum", 2)
            self.assertEqual(self.query("SELECT count(*), count(DISTINCT value) FROM metrics m "
                                        "JOIN runs r ON r.id = m.run_id WHERE m.name = 'loss' "
                                        "AND m.step = 3 AND r.stage = ?", stage), [(2, 1)])

    def test_without_data_a_stage_makes_its_own(self):
        for stage in ("sft", "lora", "dpo", "distill"):
            teacher = ["--teacher", "base"] if stage == "distill" else []
            answer = self.run_mmrun(stage, "--from", "base", *teacher, *QUICK, "--steps", 2,
                                    "--batch", 2, "--name", stage)
            self.assertRegex(answer.err, "No --data given: using the self-made")
        roles = self.query("SELECT DISTINCT role FROM run_datasets ORDER BY role")
        self.assertEqual(roles, [("train",), ("val",)])


class TestRows(LineageTest):
    """Rows that real files have, for better or worse."""

    def test_a_file_of_the_wrong_kind_names_the_stage_that_wants_it(self):
        self.stage("sft", "wrong", data="pair.jsonl", expect=2, err=r"pair\.jsonl.*mmrun dpo")
        self.stage("dpo", "wrong", data="chat.jsonl", expect=2, err=r"chat\.jsonl.*mmrun sft")
        self.assertEqual(self.count_runs(), 1)

    def test_bad_rows_are_named_or_skipped(self):
        for stage, rows in (("sft", CHATS), ("dpo", PAIRS)):
            data = self.rows("bad.jsonl", [*rows, '{"conversations": 3}', "{nothing"])
            self.stage(stage, "wrong", data=data, expect=2, err=r"bad\.jsonl.*(25|26|2 of 26)")
            self.stage(stage, f"{stage}-skip", "--on-bad-row", "skip", data=data,
                       err="2 bad rows were skipped")

    def test_an_empty_answer_ends_a_turn_and_is_never_the_chosen_one(self):
        chosen = self.rows("f.jsonl", [pair("Hi", "", "x")] * 3 + PAIRS)
        self.stage("dpo", "wrong", data=chosen, expect=2,
                   err="3 of 27 rows are bad.*the chosen answer is empty")
        self.stage("dpo", "b", "--on-bad-row", "skip", data=chosen)
        self.stage("dpo", "c", data=self.rows("g.jsonl", [pair("Hi", "x", "")] * 3 + PAIRS))
        self.stage("sft", "a", data=self.rows("e.jsonl", [chat("Hi", "")] * 3 + CHATS))
        for run, rows in (("a", 27), ("b", 24), ("c", 27)):
            self.assertGreater(self.first_loss(run), 0)
            self.assertEqual(self.value(
                "SELECT d.rows FROM datasets d JOIN run_datasets u ON u.dataset_id = d.id "
                "JOIN runs r ON r.id = u.run_id WHERE r.name = ?", run), rows)

    def test_rows_longer_than_the_context_are_cut_and_those_without_an_answer_left_out(self):
        long_answer = chat("Say much", "word " * 400)
        long_question = chat("word " * 400, "Yes")
        data = self.rows("long.jsonl", [long_answer, long_question] + CHATS)
        for stage in ("sft", "distill"):
            self.stage(stage, stage, "--val-fraction", 0, data=data,
                       err="1 of 26 rows are left out: nothing of their answers lies within "
                           "--seq-len 160")
        data = self.rows("pairs.jsonl", [pair("word " * 400, "Yes", "No")] + PAIRS)
        self.stage("dpo", "dpo", "--val-fraction", 0, data=data, err="1 of 25 rows are left out")
        only = self.rows("only.jsonl", [long_question] * 4)
        self.stage("sft", "none", "--val-fraction", 0, data=only, expect=2,
                   err="only.jsonl|seq-len")

    def test_a_conversation_may_start_with_the_assistant(self):
        first = {"conversations": [{"role": "assistant", "content": "Welcome."},
                                   *said("Hi", "Hello.")]}
        self.stage("sft", "a", data=self.rows("first.jsonl", [first] * 4 + CHATS))
        both = {"chosen": first["conversations"], "rejected": first["conversations"][:2] + said(
            "", "Go away.")[1:]}
        self.stage("dpo", "b", data=self.rows("firsts.jsonl", [both] * 4 + PAIRS))

    def test_equal_pairs_push_nothing(self):
        equal = self.rows("equal.jsonl", [pair(f"Ask {i}", "Same.", "Same.") for i in range(8)])
        self.stage("dpo", "equal", "--drop-think-share", 0, "--weight-decay", 0, "--lr", "1e-2",
                   "--val-fraction", 0, data=equal)
        losses = self.query("SELECT value FROM metrics WHERE name = 'loss' AND run_id = 2")
        for (loss,) in losses:
            self.assertAlmostEqual(loss, 0.6931471805599453, places=6)
        norms = self.query("SELECT value FROM metrics WHERE name = 'grad_norm' AND run_id = 2")
        self.assertLess(max(norm for (norm,) in norms), 1e-5)

    def test_a_loss_that_explodes_ends_the_run_and_is_kept(self):
        wild = ["--lr", 10, "--clip", 0, "--beta1", 0, "--beta2", 0, "--weight-decay", 10]
        for stage in STAGES:
            self.stage(stage, stage, *wild, "--steps", 400, expect=1, err="not finite")
            self.assertEqual(self.value("SELECT status FROM runs WHERE name = ?", stage), "failed")
            kinds = self.query("SELECT DISTINCT e.kind FROM events e JOIN runs r "
                               "ON r.id = e.run_id WHERE r.name = ?", stage)
            self.assertIn(("nan",), kinds)


class TestSweeps(LineageTest):
    def test_a_sweep_goes_over_the_settings_of_its_stage(self):
        quick = ["--steps", 2, "--batch", 4, *QUICK]
        self.run_mmrun("sweep", "--stage", "lora", "--from", "base", "--data", "chat.jsonl",
                       "--rank", "2,4", "--alpha", 8, *quick, "--name", "ranks")
        self.assertEqual(self.param("ranks/rank=4", "lora_rank"), "4")
        self.assertEqual(self.query("SELECT DISTINCT stage, parent_id, parent_step, status "
                                    "FROM runs WHERE name LIKE 'ranks/%'"),
                         [("lora", 1, 4, "finished")])
        command = self.value("SELECT command FROM runs WHERE name = 'ranks/rank=2'")
        self.assertRegex(command, "^mmrun lora --from base@4 --data .*--rank 2 --alpha 8")
        self.run_mmrun(*shlex.split(command)[1:], *["--threads", 1, "--name", "again"])
        self.assertEqual(self.final_digest("again"), self.final_digest("ranks/rank=2"))
        answer = self.run_mmrun("sweep", "--stage", "dpo", "--from", "base", "--data", "pair.jsonl",
                                "--beta", "0.1,0.3", *quick)
        self.assertRegex(answer.err, "--beta have losses on another scale.*dpo/val_accuracy")

    def test_a_sweep_refuses_what_its_stage_does_not_have(self):
        data = ["--data", "chat.jsonl", "--from", "base"]
        self.run_mmrun("sweep", "--stage", "sft", *data, "--beta", "0.1,0.3", expect=2,
                       err="sft has no hyperparameter 'beta': it belongs to dpo")
        self.run_mmrun("sweep", "--beta", "0.1,0.3", expect=2, err="pretrain has no hyperparameter")
        self.run_mmrun("sweep", "--stage", "sft", "--data", "chat.jsonl", "--lr", "1e-3,1e-4",
                       expect=2, err="sft needs --from")
        self.run_mmrun("sweep", "--stage", "sft", *data, "--hidden", "32,64", *QUICK, expect=2,
                       err=r"arm 2 \(hidden=64\): --from base@4 does not fit --hidden 64")
        self.assertEqual(self.count_runs(), 1)


if __name__ == "__main__":
    harness.main()
