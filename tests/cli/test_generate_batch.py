"""generate: chat turns, and files of prompts: every shape read, one row per prompt, going on after
a kill, answers that do not depend on the batch, and output that training takes."""
import json
import os
import signal

import harness

TINY = ["--hidden", "32", "--layers", "1", "--heads", "2", "--kv-heads", "1", "--seq-len", "96",
        "--batch", "4", "--threads", "1", "--gen-tokens", "0", "--dtype", "fp32"]
LENGTH = ["--max-new-tokens", "8", "--threads", "1"]


def roles(row):
    return [turn["role"] for turn in row["conversations"]]


class GenerateTest(harness.CliTest):
    def setUp(self):
        super().setUp()
        self.run_mmrun("data", "synth", "--out", "data", "--kind", "pretrain", "--rows", "200")
        self.run_mmrun("tokenizer", "train", "--data", "data/pretrain.jsonl", "--vocab", "600",
                       "-o", "tok")
        self.run_mmrun("pretrain", "--data", "data/pretrain.jsonl", "--tokenizer", "tok",
                       "--name", "base", "--steps", "5", *TINY)

    def answer(self, prompts, *more, out="out.jsonl", **how):
        return self.run_mmrun("generate", "base", "--prompts", prompts, "-o", out, *LENGTH, *more,
                              **how)

    def rows(self, name="out.jsonl"):
        return [json.loads(line) for line in self.read(name).splitlines()]

    def questions(self, count, name="prompts.jsonl"):
        return self.write(name, "".join(
            json.dumps({"prompt": f"Question number {i}?"}) + "\n" for i in range(count)))


class TestShapes(GenerateTest):
    def check(self, content, expected, *more, name="prompts.jsonl"):
        """The turns in front of the answer."""
        if os.path.exists(self.path("out.jsonl")):
            os.remove(self.path("out.jsonl"))
        self.answer(self.write(name, content), *more)
        found = self.rows()
        for row in found:
            self.assertEqual(row["conversations"][-1]["role"], "assistant")
            self.assertEqual(set(row["conversations"][-1]), {"role", "content"})
        self.assertEqual([[(t["role"], t["content"]) for t in row["conversations"][:-1]]
                          for row in found], expected)
        return found

    def test_prompts_are_read_in_every_shape(self):
        self.check('{"prompt": "Why?"}\n{"prompt": [{"role": "user", "content": "How?"}]}\n',
                   [[("user", "Why?")], [("user", "How?")]], "--think", "off")
        self.check("First line\n\nsecond \\ \"line\"\n",
                   [[("user", "First line")], [("user", "second \\ \"line\"")]], name="lines.txt")
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                 {"role": "user", "content": "c"}, {"role": "assistant", "content": ""}]
        told = [("user", "a"), ("assistant", "b"), ("user", "c")]
        for key in "conversations", "messages":
            self.check(json.dumps({key: turns}) + "\n", [told], "--think", "off")
        self.check(json.dumps({"conversations": [
            {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}) + "\n",
                   [[("user", "a")]], "--think", "off")
        self.check(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + "\n",
                   [[("user", "a")]], "--think", "off")
        self.check(json.dumps({"instruction": "a", "output": "b"}) + "\n", [[("user", "a")]])

    def test_what_stands_beside_the_turns_is_kept(self):
        tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
        row = {"conversations": [{"role": "system", "content": "Be brief.", "tools": [tool]},
                                 {"role": "user", "content": "1 + 1?"},
                                 {"role": "assistant", "content": "2"}], "gt": ["2"]}
        found, = self.check(json.dumps(row) + "\n",
                            [[("system", "Be brief."), ("user", "1 + 1?")]], "--think", "off")
        self.assertEqual((found["gt"], found["tools"]), (["2"], [tool]))

    def test_a_system_turn_goes_in_front_of_those_without(self):
        own = [{"role": "system", "content": "mine"}, {"role": "user", "content": "b"}]
        self.check(json.dumps({"prompt": "a"}) + "\n" + json.dumps({"prompt": own}) + "\n",
                   [[("system", "yours"), ("user", "a")], [("system", "mine"), ("user", "b")]],
                   "--system", "yours")

    def test_raw_continues_the_last_words(self):
        self.check(json.dumps({"prompt": [{"role": "user", "content": "a"},
                                          {"role": "assistant", "content": "b"},
                                          {"role": "user", "content": "Once"}]}) + "\n",
                   [[("user", "Once")]], "--raw")
        alone = self.run_mmrun("generate", "base", "Once", "--raw", *LENGTH, "--temperature", "0",
                               "--json").json()["text"]
        self.check('{"prompt": "Once"}\n', [[("user", "Once")]], "--raw", "--temperature", "0")
        self.assertEqual(self.rows()[0]["conversations"][-1]["content"], alone)

    def test_open_thinking_is_part_of_the_answer(self):
        self.answer(self.questions(1), "--think", "on")
        self.assertTrue(self.rows()[0]["conversations"][-1]["content"].startswith("<think>\n"))

    def test_rows_without_a_question_are_left_out_and_bad_ones_named(self):
        prompts = self.write("p.jsonl", json.dumps({"prompt": "a"}) + "\n" + json.dumps(
            {"prompt": [{"role": "assistant", "content": "b"}]}) + "\n")
        self.answer(prompts, err="1 rows ask nothing")
        self.assertEqual(len(self.rows()), 1)
        for bad in '{"prompt": 5}', '{"prompt": [{"role": "root", "content": "a"}]}', "{":
            self.answer(self.write("bad.jsonl", '{"prompt": "a"}\n' + bad + "\n"), expect=2,
                        err="bad.jsonl.*line 2", out="never.jsonl")
        self.assertFalse(os.path.exists(self.path("never.jsonl")))
        self.answer(self.write("none.txt", "\n\n"), expect=None, err="none.txt", out="never.jsonl")

    def test_a_prompt_longer_than_the_model_is_shortened(self):
        self.answer(self.write("long.txt", "word " * 3000 + "\nshort\n"), "--think", "off",
                    err="1 prompts were longer")
        self.assertEqual(len(self.rows()), 2)


class TestBatch(GenerateTest):
    def test_an_answer_does_not_depend_on_the_others(self):
        prompts = self.questions(9)
        told = self.answer(prompts, "--json").json()
        self.assertEqual((told["prompts"], told["written"], told["kept"]), (9, 9, 0))
        self.assertEqual(told["tokens"] > 0, True)
        self.answer(prompts, "--rows", "1", out="one.jsonl")
        self.answer(prompts, "--rows", "4", "--threads", "2", out="four.jsonl")
        self.answer(prompts, "--limit", "3", out="three.jsonl")
        whole = self.read("out.jsonl")
        self.assertEqual(self.read("one.jsonl"), whole)
        self.assertEqual(self.read("four.jsonl"), whole)
        self.assertEqual(self.read("three.jsonl"), "".join(whole.splitlines(True)[:3]))
        self.answer(prompts, "--seed", "7", out="other.jsonl")
        self.assertNotEqual(self.read("other.jsonl"), whole)
        # Equal prompts draw for themselves.
        self.answer(self.write("same.txt", "Why?\n" * 8), "--think", "off", out="same.jsonl")
        self.assertGreater(len(set(self.read("same.jsonl").splitlines())), 1)

    def test_the_same_command_goes_on_where_the_file_ends(self):
        prompts = self.questions(12)
        self.answer(prompts)
        whole = self.read("out.jsonl")
        lines = whole.splitlines(True)
        for torn in "", lines[5][:30], lines[5][:-1], lines[5][:-4]:
            self.write("out.jsonl", "".join(lines[:5]) + torn)
            self.answer(prompts, err="5 of 12 answers are there already")
            self.assertEqual(self.read("out.jsonl"), whole)
        told = self.answer(prompts, "--json", err="12 of 12").json()
        self.assertEqual((told["kept"], told["written"]), (12, 0))
        self.assertEqual(self.read("out.jsonl"), whole)

    def test_a_file_of_something_else_is_not_touched(self):
        prompts = self.questions(3)
        for content in ("no newline", "a line\n", '{"prompt": "Question number 0?"}\n',
                        '{"conversations":[{"role":"user","content":"Question number 9?"}'):
            self.write("out.jsonl", content)
            self.answer(prompts, expect=None, err="line 1 is no answer to prompt 1(.|\n)*-o")
            self.assertEqual(self.read("out.jsonl"), content)
        self.answer(prompts, out="full.jsonl")
        whole = self.read("full.jsonl")
        self.answer(prompts, "--limit", "2", out="full.jsonl", expect=None, err="more rows than")
        self.assertEqual(self.read("full.jsonl"), whole)

    def test_stopped_and_killed_commands_leave_whole_rows(self):
        prompts = self.questions(700)
        self.answer(prompts, out="whole.jsonl")
        for number, code in (signal.SIGINT, 3), (signal.SIGKILL, -signal.SIGKILL):
            out = self.path(f"out-{int(number)}.jsonl")
            running = self.start_mmrun("generate", "base", "--prompts", prompts, "-o", out, *LENGTH)
            running.wait_for(lambda at=out: os.path.exists(at) and os.path.getsize(at) > 0)
            running.signal(number)
            answer = running.wait(timeout=60)
            if answer.code == 0:
                continue  # too fast to be caught
            self.assertEqual(answer.code, code, answer)
            kept = self.read(out).count("\n")
            self.assertIn(f"stopped by signal 2 after {kept} of 700" if code == 3 else "",
                          answer.err)
            self.answer(prompts, out=out, err=f"{kept} of 700 answers are there already")
            self.assertEqual(self.read(out), self.read("whole.jsonl"))

    def test_only_record_writes_to_the_database(self):
        before = self.value("SELECT count(*) FROM generations")
        prompts = self.questions(3)
        self.answer(prompts)
        self.assertEqual(self.value("SELECT count(*) FROM generations"), before)
        self.answer(prompts, "--record", out="recorded.jsonl")
        texts = [text for text, in self.query(
            "SELECT text FROM generations ORDER BY id DESC LIMIT 3")][::-1]
        self.assertEqual(texts, [row["conversations"][-1]["content"]
                                 for row in self.rows("recorded.jsonl")])


class TestUse(GenerateTest):
    def test_options_that_contradict_each_other(self):
        def refused(*args, err):
            self.run_mmrun("generate", "base", *args, expect=2, err=err)
        refused("Hello", "--prompts", "p.jsonl", "-o", "o.jsonl", err="--prompts: PROMPT")
        refused("--prompts", "p.jsonl", err="-o FILE")
        refused("Hello", "-o", "o.jsonl", err="--out: only with --prompts")
        refused("Hello", "--record", err="--record: only with --prompts")
        refused("Hello", "--raw", "--system", "s", err="--raw.*--system")
        refused("Hello", "--raw", "--think", "on", err="--raw.*--think")

    def test_a_chat_turn_has_another_prompt_than_text(self):
        def told_of(*more):
            told = self.run_mmrun("generate", "base", "Once upon", *LENGTH, "--temperature", "0",
                                  "--json", *more).json()
            return told["text"], told["logprob"]
        plain = told_of()
        self.assertEqual(told_of("--raw"), plain)
        chats = [told_of("--think", "off"), told_of("--think", "on"),
                 told_of("--system", "Be brief.")]
        self.assertEqual(len({plain, *chats}), 4)
        told = self.run_mmrun("generate", "base", "Once upon", *LENGTH, "--think", "off",
                              "--temperature", "0").out
        self.assertNotIn("Once upon", told)  # a chat shows the answer alone

    def test_random_bytes_are_valid_rows(self):
        # Every token is as likely as any other: halves of characters, NUL, quotes, tags.
        self.answer(self.questions(100), "--max-new-tokens", "60", "--temperature", "100",
                    "--top-p", "1", "--top-k", "0")
        texts = "".join(row["conversations"][-1]["content"] for row in self.rows())
        self.assertIn("\ufffd", texts)
        self.assertNotIn("\0", texts)
        self.assertTrue(set(texts) & set('"\\\n\t'))
        checked = self.run_mmrun("data", "check", "out.jsonl", "--json").json()["files"][0]
        self.assertEqual((checked["rows"], checked["bad_rows"]), (100, 0))

    def test_answers_are_training_data(self):
        self.answer(self.questions(40), "--think", "off")
        checked = self.run_mmrun("data", "check", "out.jsonl", "--json").json()["files"][0]
        self.assertEqual((checked["rows"], checked["bad_rows"]), (40, 0))
        self.run_mmrun("sft", "--from", "base", "--data", "out.jsonl", "--name", "student",
                       "--steps", "2", "--batch", "4", "--threads", "1", "--gen-tokens", "0")
        self.assertEqual(self.value("SELECT status FROM runs WHERE name = 'student'"), "finished")
        # A run that was taught to answer takes prompts as turns of a chat.
        self.run_mmrun("generate", "student", "Question number 1?", *LENGTH, "--temperature", "0")


if __name__ == "__main__":
    harness.main()
