"""mmrun eval beyond held-out text: conversations, pairs, multiple choice, prompts with answers."""
import json
import math
import os
import random
import shutil
import tempfile

import harness

SMALL = ("--hidden", "32", "--layers", "1", "--heads", "2", "--kv-heads", "1")
FACTS = {
    "天空是什么颜色？": ("蓝色", ["红色", "蓝色", "绿色", "黑色"]),
    "草是什么颜色？": ("绿色", ["绿色", "红色", "白色", "蓝色"]),
    "What colour is coal?": ("black", ["white", "red", "green", "black"]),
    "What colour is snow?": ("white", ["blue", "black", "white", "red"]),
}


def lines_of(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def conversation(question, answer):
    return {
        "conversations": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    }


def question_row(question, **more):
    right, options = FACTS[question]
    row = dict(zip("ABCD", options), question=question, answer="ABCD"[options.index(right)])
    return {**row, **more}


class TestEvalTasks(harness.CliTest):
    made = None  # folder with the database that every test begins with

    def setUp(self):
        super().setUp()
        if not TestEvalTasks.made:
            self.make_models()
            TestEvalTasks.made = tempfile.mkdtemp(prefix="mmrun-cli-")
            self.addClassCleanup(shutil.rmtree, TestEvalTasks.made)
            shutil.copy(self.db, TestEvalTasks.made)
        else:
            shutil.copy(os.path.join(TestEvalTasks.made, "mmrun.db"), self.db)

    def make_models(self):
        """`base` knows nothing, `taught` the FACTS."""
        rows = [(q, a) for q, (a, _) in FACTS.items()] * 15
        self.write("text.jsonl", lines_of({"text": q + a} for q, a in rows))
        self.write("chat.jsonl", lines_of(conversation(q, a) for q, a in rows))
        self.run_mmrun(
            "pretrain", "--data", "text.jsonl", *SMALL, "--vocab", "340", "--steps", "1",
            "--seq-len", "64", "--batch", "4", "--val-fraction", "0", "--name", "base",
        )  # fmt: skip
        self.run_mmrun(
            "sft", "--from", "base", "--data", "chat.jsonl", "--steps", "100", "--batch", "12",
            "--accum", "1", "--lr", "1e-2", "--seq-len", "128", "--val-fraction", "0",
            "--name", "taught",
        )  # fmt: skip

    def eval(self, *args, **how):
        return self.run_mmrun("eval", *args, "--no-loss", "--json", **how).json()

    # ---- multiple choice

    def test_a_model_picks_what_it_was_taught(self):
        questions = self.write(
            "facts.jsonl",
            lines_of(
                question_row(q, subject="中文" if ord(q[0]) > 255 else "English") for q in FACTS
            ),
        )
        known = self.eval("taught", "--choices", questions, "--score", "text")
        self.assertEqual((known["choices"]["correct"], known["choices"]["n"]), (4, 4))
        self.assertEqual(known["choices"]["style"], "chat")
        self.assertEqual(
            [(s["subject"], s["n"], s["correct"]) for s in known["choices"]["subjects"]],
            [("中文", 2, 2), ("English", 2, 2)],
        )
        overall, norm = known["results"][:2]
        self.assertEqual(
            (overall["metric"], norm["metric"]), ("choice_accuracy", "choice_accuracy_norm")
        )
        # Source: the interval of 4 of 4 is n / (n + z²) to 1.
        self.assertAlmostEqual(overall["low"], 4 / (4 + 1.959963984540054**2), places=12)
        self.assertEqual((overall["high"], overall["n"], overall["correct"]), (1, 4, 4))
        rows = self.query(
            "SELECT run_id, task, metric, value, low, n, correct, length(data_sha256) FROM results"
            " WHERE metric = 'choice_accuracy'"
        )
        self.assertEqual(rows, [(2, "facts.jsonl", "choice_accuracy", 1, overall["low"], 4, 4, 64)])

        # The same questions as lists; letters are something this model was never taught.
        listed = self.write(
            "listed.jsonl",
            lines_of(
                {"question": q, "choices": options, "answer": options.index(right)}
                for q, (right, options) in FACTS.items()
            ),
        )
        again = self.eval("taught", "--choices", listed, "--score", "text")
        self.assertEqual(again["choices"]["correct"], 4)
        letters = self.eval("taught", "--choices", questions)
        self.assertEqual(letters["choices"]["score"], "letter")
        self.assertNotIn("choice_accuracy_norm", [r["metric"] for r in letters["results"]])

    def test_letters_are_learned_from_letters(self):
        # The prompt of an evaluation is the prompt of training, so a model can be taught it.
        asked = []
        for question in FACTS:
            row = question_row(question)
            listed = question + "".join(f"\n{k}. {row[k]}" for k in "ABCD")
            hint = "\n请只回答选项的字母。" if ord(question[0]) > 255 else "\nAnswer with the letter only."
            asked.append(conversation(listed + hint, row["answer"]))
        self.write("letters.jsonl", lines_of(asked * 15))
        self.run_mmrun(
            "sft", "--from", "base", "--data", "letters.jsonl", "--steps", "120", "--batch", "12",
            "--accum", "1", "--lr", "1e-2", "--seq-len", "192", "--val-fraction", "0",
            "--name", "lettered",
        )  # fmt: skip
        questions = self.write("facts.jsonl", lines_of(question_row(q) for q in FACTS))
        scored = self.eval("lettered", "--choices", questions)
        self.assertEqual((scored["choices"]["correct"], scored["choices"]["n"]), (4, 4))

    def test_what_knows_nothing_is_at_chance(self):
        rng = random.Random(5)
        words = ["one", "two", "six", "ten", "red", "sea"]
        rows = []
        for i in range(300):
            options = rng.sample(words, 4)
            rows.append({"question": f"Which {i}?", "choices": options, "answer": rng.randrange(4)})
        quiz = self.write("quiz.jsonl", lines_of(rows))
        for mode in ("letter", "text"):
            answer = self.run_mmrun(
                "eval", "base", "--choices", quiz, "--score", mode, "--no-loss", "--json",
                err="not told apart from guessing, which gets 25.0 %",
            )  # fmt: skip
            overall = answer.json()["results"][0]
            self.assertLess(overall["low"], 0.25)
            self.assertGreater(overall["high"], 0.25)
            self.assertEqual(overall["correct"] / 300, overall["value"])
        few = self.eval("base", "--choices", quiz, "--limit", "7")
        self.assertEqual(few["choices"]["n"], 7)

    def test_batching_decides_nothing(self):
        rows = [question_row(q) for q in FACTS]
        for style in ("text", "chat"):
            together = self.write("all.jsonl", lines_of(rows))
            picks = self.eval("taught", "--choices", together, "--style", style)["choices"]
            alone = 0
            for row in rows:
                one = self.write("one.jsonl", lines_of([row]))
                picked = self.eval("taught", "--choices", one, "--style", style)["choices"]
                alone += picked["correct"]
            self.assertEqual(picks["correct"], alone)
            threads = self.eval(
                "taught", "--choices", together, "--style", style, "--threads", "1"
            )["choices"]
            self.assertEqual(threads["correct"], picks["correct"])

    def test_examples_go_in_front_as_far_as_they_fit(self):
        questions = self.write("facts.jsonl", lines_of(question_row(q) for q in FACTS))
        dev = self.write("dev.jsonl", lines_of(question_row(q) for q in FACTS))
        shots = self.run_mmrun(
            "eval", "taught", "--choices", questions, "--dev", dev, "--shots", "2", "--no-loss",
            "--json", err="Prompts have up to .* taught was trained on 128",
        ).json()["choices"]  # fmt: skip
        self.assertEqual(shots["shots"], 2)
        self.run_mmrun(
            "eval", "taught", "--choices", questions, "--dev", dev, "--seq-len", "150",
            "--no-loss", err="prompts have fewer examples",
        )  # fmt: skip
        self.run_mmrun(
            "eval", "taught", "--choices", questions, "--seq-len", "20", "--no-loss",
            err="4 prompts lost their beginning",
        )  # fmt: skip
        self.run_mmrun(
            "eval", "taught", "--choices", questions, "--shots", "2", "--no-loss", expect=2,
            err="--shots needs --dev",
        )  # fmt: skip

    def test_bad_questions_are_named_by_line(self):
        rows = [question_row(q) for q in FACTS]
        rows[1]["answer"] = "E"
        bad = self.write("bad.jsonl", lines_of(rows) + "nonsense\n")
        refused = self.run_mmrun("eval", "taught", "--choices", bad, "--no-loss", expect=2)
        self.assertRegex(refused.err, "2 of 5 questions are bad, first at line 2: answer: expected")
        self.assertRegex(refused.err, "bad.jsonl line 5: not valid JSON")
        skipped = self.eval("taught", "--choices", bad, "--on-bad-row", "skip")
        self.assertEqual((skipped["choices"]["n"], skipped["choices"]["bad_rows"]), (3, 2))
        self.run_mmrun("eval", "taught", "--choices", "nowhere.jsonl", "--no-loss", expect=2)

    # ---- prompts

    def test_answers_are_verified_and_stand_side_by_side(self):
        prompts = self.write(
            "facts.jsonl",
            lines_of({"prompt": q, "expected": a} for q, (a, _) in FACTS.items())
            + lines_of([{"prompt": "草是什么颜色？", "expected": "蓝色"}, {"prompt": "hello"}]),
        )
        both = self.eval("base", "taught", "--prompts", prompts)["runs"]
        self.assertEqual([r["run"] for r in both], ["base", "taught"])
        taught = both[1]
        self.assertEqual(
            taught["prompts"],
            {"task": "facts.jsonl", "match": "exact", "n": 5, "correct": 4},
        )
        self.assertEqual(len(taught["generations"]), 6)
        self.assertEqual(taught["generations"][0]["correct"], True)
        self.assertEqual(taught["generations"][4]["correct"], False)
        self.assertNotIn("correct", taught["generations"][5])
        self.assertEqual(taught["results"][0]["metric"], "exact_match")
        language = taught["results"][1]  # every answer is in the script of its prompt but "hello"'s
        self.assertEqual((language["metric"], language["n"]), ("language_match", 6))
        self.assertGreaterEqual(language["correct"], 5)
        rows = self.query(
            "SELECT r.name, g.task, g.prompt_idx, g.expected, g.is_correct FROM generations g"
            " JOIN runs r ON r.id = g.run_id WHERE g.task = 'facts.jsonl'"
            " AND g.prompt_idx IN (0, 5) ORDER BY g.run_id, g.prompt_idx"
        )
        first = next(iter(FACTS.values()))[0]
        self.assertEqual([r[0] for r in rows], ["base", "base", "taught", "taught"])
        self.assertEqual(rows[2], ("taught", "facts.jsonl", 0, first, 1))
        self.assertEqual(rows[3][3:], (None, None))
        shown = self.run_mmrun("eval", "taught", "--prompts", prompts, "--no-loss").out
        self.assertRegex(shown, "天空是什么颜色？ → 蓝色  \\[right\\]")
        self.assertRegex(shown, "蓝色|绿色  \\[wrong: 蓝色\\]")
        self.assertRegex(shown, r"exact_match +5 +80\.0 % \(37\.6 to 96\.4\)")

    def test_how_answers_match(self):
        prompts = self.write(
            "p.jsonl", lines_of([{"prompt": "What colour is coal?", "expected": "lack"}])
        )
        for match, correct in (("exact", 0), ("contains", 1)):
            scored = self.eval("taught", "--prompts", prompts, "--match", match)["prompts"]
            self.assertEqual((scored["match"], scored["correct"]), (match, correct))
        self.run_mmrun(
            "eval", "taught", "--prompts", prompts, "--match", "number", "--no-loss", expect=2,
            err="prompt 1: expected: there is no number in 'lack'",
        )  # fmt: skip
        for content, message in (
            ('{"prompt": "a"}\n{"text": "b"}\n', "line 2: prompt: expected a text"),
            ('{"prompt": "a", "expected": [1]}\n', "line 1: expected: a text or a number"),
            ('{"prompt": "a"}\nnonsense\n', "line 2: "),
            ("\n", "prompt"),
        ):
            bad = self.write("bad.jsonl", content)
            self.run_mmrun("eval", "taught", "--prompts", bad, "--no-loss", expect=2, err=message)
        lines = self.write("lines.txt", "{not JSON\nsecond\n")
        self.assertEqual(len(self.eval("base", "--prompts", lines)["generations"]), 2)

    # ---- conversations and pairs

    def test_conversations_are_scored_on_answers(self):
        data = self.write("val.jsonl", lines_of(conversation(q, a) for q, (a, _) in FACTS.items()))
        by_run = {}
        for run in ("base", "taught"):
            scored = self.run_mmrun("eval", run, "--data", data, "--json").json()
            whole = self.run_mmrun("eval", run, "--data", data, "--mask", "all", "--json").json()
            self.assertLess(scored["tokens"], whole["tokens"])
            by_run[run] = scored
        # The same words are counted whatever a run was taught on.
        self.assertEqual(by_run["base"]["tokens"], by_run["taught"]["tokens"])
        self.assertEqual(by_run["base"]["bytes"], by_run["taught"]["bytes"])
        self.assertLess(by_run["taught"]["val_loss"], 0.3)
        self.assertGreater(by_run["base"]["val_loss"], 4)
        self.assertAlmostEqual(
            by_run["taught"]["perplexity"], math.exp(by_run["taught"]["val_loss"]), places=9
        )
        stored = self.query(
            "SELECT metric, value FROM results WHERE task = 'val.jsonl' AND run_id = 2"
            " AND metric LIKE 'val_loss%' ORDER BY metric"
        )
        self.assertEqual(
            stored,
            [("val_loss", by_run["taught"]["val_loss"]), ("val_loss/all", whole["val_loss"])],
        )
        commands = self.query("SELECT message FROM events WHERE run_id = 2 AND kind = 'eval'")
        self.assertEqual(commands[0][0], f"mmrun eval taught --data {data} --json")
        table = self.run_mmrun("eval", "base", "taught", "--data", data).out
        self.assertRegex(table, "task +metric +n +base +taught\n")

    def test_conversations_with_their_answer_are_prompts(self):
        question, (right, _) = next(iter(FACTS.items()))
        rows = [{**conversation(question, "?"), "gt": [right]}, conversation(question, "?")]
        asked = self.eval("taught", "--prompts", self.write("gt.jsonl", lines_of(rows)))
        self.assertEqual((asked["prompts"]["n"], asked["prompts"]["correct"]), (1, 1))
        self.assertEqual([g["prompt"] for g in asked["generations"]], [question, question])
        self.write("bad.jsonl", lines_of([{"conversations": [{"role": "user"}], "gt": ["1"]}]))
        self.run_mmrun("eval", "taught", "--prompts", "bad.jsonl", "--no-loss", expect=2,
                       err="bad.jsonl line 1.*a user's question")  # fmt: skip

    def test_pairs(self):
        pairs = self.write(
            "pairs.jsonl",
            lines_of(
                {
                    "chosen": conversation(q, right)["conversations"],
                    "rejected": conversation(q, next(o for o in options if o != right))[
                        "conversations"
                    ],
                }
                for q, (right, options) in FACTS.items()
            ),
        )
        plain = self.run_mmrun("eval", "taught", "--data", pairs, "--json",
                               err="without --reference").json()  # fmt: skip
        self.assertEqual((plain["preference"]["correct"], plain["preference"]["n"]), (4, 4))
        self.assertIsNone(plain["val_loss"])
        same = self.run_mmrun(
            "eval", "taught", "--data", pairs, "--reference", "taught", "--json"
        ).json()
        # Beside itself a model prefers nothing.
        self.assertEqual((same["preference"]["correct"], same["preference"]["margin"]), (0, 0))
        self.assertAlmostEqual(same["val_loss"], math.log(2), places=12)
        other = self.run_mmrun(
            "eval", "taught", "--data", pairs, "--reference", "base", "--json"
        ).json()
        self.assertEqual(other["preference"]["reference"], "base")
        base = self.run_mmrun("eval", "base", "--data", pairs, "--json").json()["preference"]
        self.assertAlmostEqual(
            other["preference"]["margin"], plain["preference"]["margin"] - base["margin"], places=4
        )
        self.run_mmrun(
            "dpo", "--from", "base", "--data", pairs, "--val", pairs, "--steps", "3", "--batch",
            "4", "--lr", "1e-3", "--name", "chosen",
        )  # fmt: skip
        held = self.run_mmrun("eval", "chosen", "--json").json()
        self.assertEqual(held["preference"]["reference"], "base")
        # Without a reference every stage is asked the same, under a name of its own.
        alone = self.run_mmrun(
            "eval", "chosen", "taught", "--data", pairs, "--reference", "none", "--json"
        ).json()["runs"]
        self.assertEqual([run["preference"]["reference"] for run in alone], [None, None])
        self.assertEqual(alone[1]["preference"]["margin"], plain["preference"]["margin"])
        self.assertEqual(
            [row["metric"] for row in alone[0]["results"]],
            ["preference_accuracy/alone", "preference_margin/alone"],
        )
        self.assertEqual(held["results"][2]["metric"], "preference_loss")
        self.assertAlmostEqual(
            held["val_loss"],
            self.value(
                "SELECT value FROM metrics WHERE run_id = 3 AND name = 'val_loss'"
                " ORDER BY step DESC LIMIT 1"
            ),
            places=9,
        )

    def test_adapters_of_another_run(self):
        data = self.write("val.jsonl", lines_of(conversation(q, a) for q, (a, _) in FACTS.items()))
        self.run_mmrun(
            "lora", "--from", "base", "--data", data, "--steps", "3", "--lr", "1e-2", "--batch",
            "4", "--val-fraction", "0", "--name", "adapter",
        )  # fmt: skip
        whole = self.run_mmrun("eval", "adapter", "--data", data, "--json").json()
        added = self.run_mmrun("eval", "base", "--lora", "adapter", "--data", data, "--json").json()
        alone = self.run_mmrun("eval", "base", "--data", data, "--json").json()
        # The same sum in another order, perhaps in bfloat16.
        self.assertAlmostEqual(added["val_loss"], whole["val_loss"], delta=1e-3)
        self.assertGreater(alone["val_loss"] - added["val_loss"], 1e-2)
        # With them the weights are no run's: nothing of it is recorded.
        self.assertEqual(
            self.query(
                "SELECT DISTINCT value FROM results WHERE run_id = 1 AND metric = 'val_loss'"
            ),
            [(alone["val_loss"],)],
        )

    def test_a_read_only_database_is_scored_without_a_record(self):
        questions = self.write("facts.jsonl", lines_of(question_row(q) for q in FACTS))
        self.make_read_only(self.dir)
        scored = self.run_mmrun(
            "eval", "taught", "--choices", questions, "--score", "text", "--no-loss", "--json",
            err="Nothing will be recorded: ",
        ).json()  # fmt: skip
        self.assertEqual(scored["choices"]["correct"], 4)


if __name__ == "__main__":
    harness.main()
