"""What each stage learns: its first loss, which is known, and what it does with the rest.

Models of a few thousand weights, on rows written here. How runs go on after kills is in
test_resume_stages.py.
"""

# timeout: 240
import json
import math
import random

import harness

SHAPE = ["--hidden", 32, "--layers", 1, "--heads", 2, "--kv-heads", 1]
QUICK = ["--threads", 1, "--dtype", "fp32", "--seq-len", 96, "--gen-tokens", 0]
# Nothing is drawn: numbers can be compared.
PLAIN = ["--drop-think-share", 0]
WORDS = "red blue green small large old new round warm cold north south sea hill road".split()


def question(draw):
    return " ".join(draw.choice(WORDS) for _ in range(draw.randrange(3, 12)))


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def chat(asked, answered):
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


class StageTest(harness.CliTest):
    def setUp(self):
        super().setUp()
        draw = random.Random(1)
        asked = [question(draw) for _ in range(64)]
        # Answers of different lengths, so that a mean over rows is not one over labels.
        self.write("sft.jsonl", lines({"conversations": chat(q, q[: 8 + 3 * (i % 12)])}
                                      for i, q in enumerate(asked)))
        self.write("same.jsonl", lines({"conversations": chat(q, "Yes, of course.")}
                                       for q in asked))
        self.write("dpo.jsonl", lines({"chosen": chat(q, "yes, with pleasure"),
                                       "rejected": chat(q, "no, never again")} for q in asked))
        self.run_mmrun("tokenizer", "train", "--data", "sft.jsonl", "--vocab", 400, "-o", "tok")
        self.run_mmrun("pretrain", "--data", "sft.jsonl", "--tokenizer", "tok", *SHAPE, *QUICK,
                       "--steps", 20, "--batch", 2, "--lr", "1e-2", "--eval-every", 0,
                       "--name", "base")

    def train(self, stage, data, *options, name=None, parent="base", **how):
        name = name or f"run{len(self.query('SELECT id FROM runs'))}"
        self.run_mmrun(stage, "--data", data, "--from", parent, *QUICK, *options, "--name", name,
                       **how)
        return name

    def curve(self, run, metric):
        return [value for value, in self.query(
            "SELECT m.value FROM metrics m JOIN runs r ON r.id = m.run_id "
            "WHERE r.name = ? AND m.name = ? ORDER BY m.step", run, metric)]

    def assert_near(self, a, b, relative=1e-6):
        self.assertLessEqual(abs(a - b), relative * max(abs(a), abs(b)), f"{a} and {b}")


class TestLanguage(StageTest):
    def sft(self, *options, data="sft.jsonl", stage="sft"):
        plain = [] if stage == "pretrain" else [*PLAIN, "--system-prompt-share", 0]
        return self.train(stage, data, *plain, *options)

    def first(self, run):
        return [self.curve(run, name)[0] for name in ("loss", "grad_norm", "tokens")]

    def test_only_answers_are_learned(self):
        length = ["--steps", 120, "--batch", 16, "--lr", "1e-2", "--eval-every", 0]
        answers = self.curve(self.sft(*length, data="same.jsonl"), "val_loss")[-1]
        # The same rows as text to model: random questions cannot be foreseen.
        texts = self.curve(self.sft(*length[:2], "--batch", 4, *length[4:], data="same.jsonl",
                                    stage="pretrain"), "val_loss")[-1]
        self.assertLess(answers, 0.05)
        self.assertGreater(texts, 10 * answers)

    def test_any_split_of_a_step_is_the_same_step(self):
        whole = self.first(self.sft("--batch", 16, "--steps", 1))
        for options in (["--batch", 4, "--accum", 4], ["--batch", 1, "--accum", 16],
                        ["--batch", 16, "--pack", "off"],
                        ["--batch", 2, "--accum", 8, "--pack", "off"]):
            with self.subTest(options=options):
                part = self.first(self.sft(*options, "--steps", 1))
                self.assertEqual(part[2], whole[2])
                for a, b in zip(part, whole):
                    self.assert_near(a, b)

    def test_compat_takes_the_mean_of_means(self):
        still = ["--lr", 0, "--pack", "off", "--batch", 8]
        for compat in ("off", "minimind"):
            apart = self.sft(*still, "--steps", 2, "--compat", compat)
            losses = self.curve(apart, "loss")
            seen = self.curve(apart, "tokens")
            labels = [seen[0], seen[1] - seen[0]]
            self.assertNotEqual(*labels)
            shares = [0.5, 0.5] if compat == "minimind" else [n / seen[1] for n in labels]
            together = self.first(self.sft(*still, "--accum", 2, "--steps", 1, "--compat", compat))
            self.assert_near(together[0], sum(s * loss for s, loss in zip(shares, losses)))

    def test_compat_gives_a_step_the_rate_of_its_last_micro_batch(self):
        # 64 rows are 16 micro-batches: five steps of three, and a rest of one.
        run = self.sft("--batch", 4, "--accum", 3, "--epochs", 2, "--lr", "1e-3", "--val",
                       "same.jsonl", "--compat", "minimind")
        ends = [3, 6, 9, 12, 15, 16, 19, 22, 25, 28, 31, 32]
        rates = self.curve(run, "lr")
        self.assertEqual(len(rates), len(ends))
        for rate, end in zip(rates, ends):
            self.assert_near(rate, 1e-3 * (0.1 + 0.45 * (1 + math.cos(math.pi * end / 32))))

    def test_held_out_loss_falls_and_the_lineage_is_on_record(self):
        run = self.sft("--steps", 30, "--batch", 16, "--lr", "1e-2", "--eval-every", 10)
        self.assertLess(self.curve(run, "val_loss")[-1], 0.8 * self.curve(run, "loss")[0])
        parent = self.query("SELECT p.name, r.parent_step, r.params_trainable, r.params_total "
                            "FROM runs r JOIN runs p ON p.id = r.parent_id WHERE r.name = ?", run)
        self.assertEqual(parent[0][:2], ("base", 20))
        self.assertEqual(parent[0][2], parent[0][3])

    def test_questions_of_held_out_rows_are_the_prompts(self):
        run = self.sft("--steps", 1, "--gen-tokens", 4, "--val", "same.jsonl")
        asked = [row["conversations"][0]["content"]
                 for row in map(json.loads, self.read("same.jsonl").splitlines())]
        prompts = [prompt for prompt, in self.query(
            "SELECT g.prompt FROM generations g JOIN runs r ON r.id = g.run_id WHERE r.name = ? "
            "ORDER BY g.prompt_idx", run)]
        self.assertEqual(prompts, [q for q in asked if len(q) <= 80][:3])

    def test_a_loss_that_explodes_stops_every_stage(self):
        wild = ["--steps", 60, "--lr", 10, "--clip", 0, "--weight-decay", 10]
        for stage, data in (("sft", "sft.jsonl"), ("lora", "sft.jsonl"), ("dpo", "dpo.jsonl"),
                            ("distill", "sft.jsonl")):
            with self.subTest(stage=stage):
                teacher = ["--teacher", "base"] if stage == "distill" else []
                self.train(stage, data, *wild, *teacher, name=stage, expect=1,
                           err=f"run '{stage}': step [0-9]+: the loss is not finite")
                losses = self.curve(stage, "loss")
                self.assertTrue(all(loss is not None and math.isfinite(loss)
                                    for loss in losses[:-1]))
                self.assertEqual(self.query("SELECT status FROM runs WHERE name = ?", stage),
                                 [("failed",)])
                self.assertEqual(self.query("SELECT e.kind FROM events e JOIN runs r ON "
                                            "r.id = e.run_id WHERE r.name = ?", stage), [("nan",)])

    def test_a_step_without_labels_passes(self):
        # A tokenizer whose pad is a letter, and whose texts have no end: "aaa" teaches nothing.
        with open(self.path("tok", "tokenizer_config.json"), encoding="utf-8") as file:
            settings = json.load(file)
        settings.update(pad_token="a", eos_token=None)
        self.write("tok/tokenizer_config.json", json.dumps(settings))
        texts = ["a" * n for n in range(1, 12)] + ["blue", "green"]
        self.write("pads.jsonl", lines({"text": text} for text in texts))
        self.run_mmrun("pretrain", "--data", "pads.jsonl", "--val", "same.jsonl", "--tokenizer",
                       "tok", *SHAPE, *QUICK, "--pack", "off", "--batch", 1, "--name", "pads",
                       err="has no label to learn from")
        self.assertEqual(self.query("SELECT status, steps FROM runs WHERE name = 'pads'"),
                         [("finished", 13)])
        losses = self.curve("pads", "loss")
        self.assertEqual(len(losses), 2)
        self.assertTrue(all(math.isfinite(loss) for loss in losses))
        events = self.query("SELECT e.kind FROM events e JOIN runs r ON r.id = e.run_id "
                            "WHERE r.name = 'pads'")
        self.assertEqual(events, [("no_labels",)])


class TestAdapters(StageTest):
    def tensors(self, run):
        return dict(self.query(
            "SELECT t.name, hex(t.sha256) FROM tensor t WHERE t.checkpoint_id = (SELECT c.id FROM "
            "checkpoints c JOIN runs r ON r.id = c.run_id WHERE r.name = ? "
            "ORDER BY c.step DESC LIMIT 1)", run))

    def test_adapters_learn_and_the_base_stays(self):
        options = ["--rank", 4, "--batch", 16, "--steps", 80, "--lr", "3e-2", "--eval-every", 40]
        run = self.train("lora", "same.jsonl", *options, "--targets", "all")
        val = self.curve(run, "val_loss")
        self.assertLess(val[-1], 0.7 * self.curve(run, "loss")[0])
        base, tuned = self.tensors("base"), self.tensors(run)
        weights = {name for name in base if not name.startswith("adam.")}
        self.assertTrue(weights)
        self.assertEqual({name: tuned[name] for name in weights},
                         {name: base[name] for name in weights})
        own = set(tuned) - weights
        self.assertTrue(own)
        self.assertEqual({name for name in own if "lora_" not in name}, set())
        self.assertEqual({name for name in own if name.startswith("adam.m/")},
                         {f"adam.m/{name}" for name in own if name.startswith("model.")})
        trained, total = self.query("SELECT params_trainable, params_total FROM runs "
                                    "WHERE name = ?", run)[0]
        self.assertLess(trained, total / 3)
        # Three arrays of what trains and no byte of the base.
        last = self.value("SELECT own_bytes FROM checkpoints c JOIN runs r ON r.id = c.run_id "
                          "WHERE r.name = ? ORDER BY c.step DESC LIMIT 1", run)
        self.assertLess(last, 3 * 4 * trained + 4096)

    def test_dpo_with_adapters_starts_at_its_reference(self):
        run = self.train("dpo", "dpo.jsonl", *PLAIN, "--rank", 4, "--steps", 20, "--lr", "1e-2")
        self.assertAlmostEqual(self.curve(run, "loss")[0], math.log(2), delta=1e-6)
        self.assertEqual(self.curve(run, "dpo/val_accuracy")[-1], 1)
        base, tuned = self.tensors("base"), self.tensors(run)
        for name in base:
            if not name.startswith("adam."):
                self.assertEqual(tuned[name], base[name], name)


class TestPreferences(StageTest):
    def dpo(self, *options, data="dpo.jsonl"):
        return self.train("dpo", data, *PLAIN, *options)

    def test_first_losses_are_known(self):
        beta = 0.2
        known = {"sigmoid": math.log(2), "ipo": (1 / (2 * beta)) ** 2, "hinge": 1.0}
        for loss, value in known.items():
            for logp in ("sum", "mean"):
                with self.subTest(loss=loss, logp=logp):
                    run = self.dpo("--loss", loss, "--beta", beta, "--logp", logp, "--steps", 1)
                    self.assertAlmostEqual(self.curve(run, "loss")[0], value, delta=1e-6)
                    self.assertEqual(self.curve(run, "dpo/margin")[0], 0)
                    self.assertEqual(self.curve(run, "dpo/accuracy")[0], 0)  # ties are none
                    self.assertGreater(self.curve(run, "grad_norm")[0], 0)
        run = self.dpo("--label-smoothing", 0.2, "--steps", 1)
        self.assertAlmostEqual(self.curve(run, "loss")[0], math.log(2), delta=1e-6)

    def test_simpo_has_no_reference(self):
        run = self.dpo("--loss", "simpo", "--beta", 2, "--gamma", 0.5, "--batch", 1, "--steps", 1)
        chosen, rejected = (self.curve(run, f"dpo/logp_{side}")[0]
                            for side in ("chosen", "rejected"))
        want = math.log1p(math.exp(-(2 * (chosen - rejected) - 0.5)))
        self.assert_near(self.curve(run, "loss")[0], want)

    def test_separable_pairs_are_told_apart(self):
        for loss in ("sigmoid", "ipo", "hinge", "simpo"):
            with self.subTest(loss=loss):
                run = self.dpo("--loss", loss, "--logp", "sum" if loss == "hinge" else "mean",
                               "--steps", 30, "--lr", "3e-3", "--eval-every", 10)
                self.assertEqual(self.curve(run, "dpo/val_accuracy")[-1], 1)
                self.assertGreater(self.curve(run, "dpo/val_margin")[-1], 0)
                self.assertLess(self.curve(run, "val_loss")[-1], self.curve(run, "loss")[0])

    def test_every_answer_that_is_drawn_has_its_reference(self):
        # Nothing moves, so that each pair of each epoch has the loss of the first one.
        for compat in ("off", "minimind"):
            run = self.train("dpo", "dpo.jsonl", "--drop-think-share", 0.5, "--lr", 0, "--epochs",
                             3, "--batch", 5, "--compat", compat,
                             err=r"(?s)reference steps=(\d+)/\1\n(?!.*reference steps)")
            losses = self.curve(run, "loss")
            self.assertGreaterEqual(len(losses), 30)
            for loss in losses:
                self.assertAlmostEqual(loss, math.log(2), delta=1e-9)

    def test_thousands_of_answers_have_theirs(self):
        # More than the table of references begins with, in batches that the pass cuts otherwise.
        self.write("many.jsonl", lines({"chosen": chat(f"{n} and {n % 7}", f"yes, {n}"),
                                        "rejected": chat(f"{n} and {n % 7}", f"no, {n * n}")}
                                       for n in range(1200)))
        run = self.dpo("--lr", 0, "--batch", 100, data="many.jsonl")
        losses = self.curve(run, "loss")
        self.assertEqual(len(losses), 12)
        for loss in losses:
            self.assertAlmostEqual(loss, math.log(2), delta=1e-9)

    def test_equal_sides_teach_nothing(self):
        self.write("equal.jsonl", lines({"chosen": chat(q, "yes"), "rejected": chat(q, "yes")}
                                        for q in WORDS))
        run = self.dpo("--steps", 3, "--weight-decay", 0, data="equal.jsonl")
        for loss in self.curve(run, "loss"):
            self.assertAlmostEqual(loss, math.log(2), delta=1e-12)
        self.assertLess(max(self.curve(run, "grad_norm")), 1e-6)  # up to rounding
        self.assertEqual(set(self.curve(run, "dpo/val_accuracy")), {0})

    def test_any_split_of_a_step_is_the_same_step(self):
        first = []
        for options in (["--batch", 16], ["--batch", 2, "--accum", 8],
                        ["--batch", 1, "--accum", 16]):
            run = self.dpo(*options, "--steps", 2, "--lr", "1e-3")
            first.append([self.curve(run, name) for name in ("loss", "grad_norm", "dpo/margin")])
        for other in first[1:]:
            for a, b in zip(other, first[0]):
                for x, y in zip(a, b):
                    self.assertAlmostEqual(x, y, delta=2e-6)


class TestDistillation(StageTest):
    def distill(self, *options, **how):
        return self.train("distill", "sft.jsonl", *PLAIN, "--system-prompt-share", 0, "--batch",
                          16, *options, **how)

    def test_a_teacher_equal_to_the_student_changes_nothing(self):
        run = self.distill("--teacher", "base", "--steps", 1, "--temperature", 3)
        self.assertAlmostEqual(self.curve(run, "distill/kl")[0], 0, delta=1e-9)
        alone = self.train("sft", "sft.jsonl", *PLAIN, "--system-prompt-share", 0, "--batch", 16,
                           "--steps", 1)
        self.assert_near(self.curve(run, "distill/ce")[0], self.curve(alone, "loss")[0])
        self.assert_near(self.curve(run, "loss")[0], 0.5 * self.curve(run, "distill/ce")[0])

    def test_a_smaller_student_comes_closer_to_its_teacher(self):
        teacher = self.train("sft", "same.jsonl", "--steps", 40, "--lr", "1e-2", name="teacher")
        run = self.distill("--teacher", teacher, "--hidden", 16, "--layers", 1, "--heads", 2,
                           "--kv-heads", 1, "--alpha", 0, "--steps", 40, "--lr", "1e-2",
                           parent="none")
        kl = self.curve(run, "distill/kl")
        self.assertLess(kl[-1], 0.5 * kl[0])
        self.assertEqual(self.curve(run, "loss"), kl)
        recorded = dict(self.query("SELECT p.name, p.value FROM params p JOIN runs r ON "
                                   "r.id = p.run_id WHERE r.name = ? AND p.name LIKE 'teacher%'",
                                   run))
        teacher_id = self.value("SELECT id FROM runs WHERE name = 'teacher'")
        self.assertEqual(recorded, {"teacher": f"{teacher_id}@40", "teacher_step": "40"})

    def test_the_plan_counts_the_teacher(self):
        def memory(*options):
            return self.run_mmrun(*options, "--data", "sft.jsonl", "--from", "base", *QUICK,
                                  "--batch", 16, "--steps", 1, "--dry-run",
                                  "--json").json()["memory_bytes"]
        self.assertGreater(memory("distill", "--teacher", "base"), memory("sft"))


if __name__ == "__main__":
    harness.main()
