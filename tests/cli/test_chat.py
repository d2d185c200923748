"""mmrun chat: questions through a pipe and from a terminal, commands, what is kept and recorded."""
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import harness

SMALL = ("--hidden", "32", "--layers", "1", "--heads", "2", "--kv-heads", "1")
ROWS = [
    ("你叫什么名字？", "我叫小米。"),
    ("What is your name?", "My name is Mi."),
    ("早上好", "早上好！"),
]


def lines_of(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def conversation(question, answer, **more):
    return {
        "conversations": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer, **more},
        ]
    }


class Terminal:
    """The program on a terminal of its own."""

    def __init__(self, test, *args):
        self.test = test
        self.seen = ""
        try:
            self.pid, self.fd = pty.fork()
        except OSError as error:
            raise unittest.SkipTest(f"no pseudo-terminal here: {error}") from error
        if self.pid == 0:
            os.chdir(test.dir)
            os.execve(test.program, [test.program, *args], {**test.env, "TERM": "xterm"})
        test.addCleanup(self.close)

    def read_until(self, pattern, timeout=60):
        """Output up to the end of the match; what comes later is kept for the next call."""
        end = time.monotonic() + timeout
        while not (found := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            if not ready:
                self.test.fail(f"no {pattern!r} within {timeout} s:\n{harness.clip(self.seen)}")
            try:
                piece = os.read(self.fd, 65536)
            except OSError:
                piece = b""
            if not piece:
                self.test.fail(f"ended before {pattern!r}:\n{harness.clip(self.seen)}")
            self.seen += piece.decode("utf-8", "replace")
        text, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return text

    def type(self, text):
        os.write(self.fd, text.encode())

    def wait(self):
        """Exit code, after reading what is left."""
        try:
            while os.read(self.fd, 65536):
                pass
        except OSError:
            pass
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


class TestChat(harness.CliTest):
    made = None  # folder with the database that every test begins with

    def setUp(self):
        super().setUp()
        if not TestChat.made:
            self.make_models()
            TestChat.made = tempfile.mkdtemp(prefix="mmrun-cli-")
            self.addClassCleanup(shutil.rmtree, TestChat.made)
            shutil.copy(self.db, TestChat.made)
        else:
            shutil.copy(os.path.join(TestChat.made, "mmrun.db"), self.db)

    def make_models(self):
        """`base`, which has learned next to nothing, and `mi`, which knows the answers of ROWS."""
        rows = ROWS * 20
        self.write("text.jsonl", lines_of({"text": q + a} for q, a in rows))
        self.write("chat.jsonl", lines_of(conversation(q, a) for q, a in rows))
        self.run_mmrun(
            "pretrain", "--data", "text.jsonl", *SMALL, "--vocab", "340", "--steps", "2",
            "--seq-len", "64", "--batch", "4", "--val-fraction", "0", "--name", "base",
        )  # fmt: skip
        self.teach("mi", "chat.jsonl")

    def teach(self, name, data):
        self.run_mmrun(
            "sft", "--from", "base", "--data", data, "--steps", "120", "--batch", "12",
            "--accum", "1", "--lr", "1e-2", "--seq-len", "96", "--val-fraction", "0",
            "--name", name,
        )  # fmt: skip

    def chat(self, *args, lines, **expectations):
        return self.run_mmrun(
            "chat", "mi", "--temperature", "0", *args, stdin="\n".join(lines) + "\n", **expectations
        )

    def test_answers_lines_of_a_pipe(self):
        questions = [q for q, _ in ROWS]
        answer = self.chat("--history", "0", lines=questions)
        self.assertEqual(answer.out.splitlines(), [a for _, a in ROWS])
        self.assertRegex(answer.err, r"\d+ tokens, stop, \d+ tokens/s")

        before = self.value("SELECT count(*) FROM generations")
        turns = self.chat("--json", "--quiet", lines=questions).json_lines()
        self.assertEqual([t["prompt"] for t in turns], questions)
        self.assertEqual([t["turn"] for t in turns], [1, 2, 3])
        self.assertEqual([t["finish_reason"] for t in turns], ["stop"] * 3)
        self.assertEqual(turns[0]["text"], ROWS[0][1])
        # The second prompt holds the first exchange, and none of it is read twice.
        self.assertEqual(turns[0]["kept_tokens"], 0)
        self.assertGreaterEqual(
            turns[1]["kept_tokens"], turns[0]["prompt_tokens"] + turns[0]["tokens"]
        )
        self.assertLess(turns[1]["kept_tokens"], turns[1]["prompt_tokens"])
        self.assertEqual(self.value("SELECT count(*) FROM generations"), before)

    def test_what_is_kept_changes_no_answer(self):
        # Drawn text is seldom cut into tokens as the tokenizer cuts it, so prefixes end anywhere.
        how = ["--temperature", "1.2", "--top-k", "0", "--max-new-tokens", "20", "--json"]
        lines = ["hello", "早", "what?", "/seed 41", "/regenerate", "/seed 41", "/regenerate"]
        turns = self.chat(*how, lines=lines).json_lines()
        for again in turns[3:]:
            # Asked a second time, all of the prompt but its last token is there.
            self.assertEqual(again["kept_tokens"], again["prompt_tokens"] - 1)
            self.assertLess(turns[2]["kept_tokens"], again["kept_tokens"])
            for field in ("text", "logprob", "tokens", "finish_reason", "turn"):
                self.assertEqual(again[field], turns[2][field])

    def test_a_saved_conversation_is_training_data(self):
        self.chat("--system", "你是小米", lines=[ROWS[0][0], ROWS[1][0], "/save talk.jsonl"])
        self.chat(lines=["/save talk.jsonl"], expect=2, err="line 1: /save: nothing was said")
        self.chat(lines=[ROWS[2][0], "/save talk.jsonl"], err="1 exchange was added")
        rows = [json.loads(line) for line in self.read("talk.jsonl").splitlines()]
        self.assertEqual(
            [m["role"] for m in rows[0]["conversations"]],
            ["system", "user", "assistant", "user", "assistant"],
        )
        self.assertEqual(rows[1]["conversations"][0], {"role": "user", "content": ROWS[2][0]})
        checked = self.run_mmrun("data", "check", "talk.jsonl", "--json").json()["files"][0]
        self.assertEqual(
            (checked["usable"], checked["format"], checked["rows"], checked["bad_rows"]),
            (True, "conversations", 2, 0),
        )
        self.run_mmrun(
            "sft", "--from", "mi", "--data", "talk.jsonl", "--steps", "1", "--val-fraction", "0"
        )

    def test_commands(self):
        question = ROWS[0][0]
        turns = self.chat(
            "--json", lines=[question, "/reset", question, "/system 你是谁", question, "/system",
                             question, "/regenerate", " /not a command", "/quit", "never asked"],
        ).json_lines()  # fmt: skip
        self.assertEqual([t["turn"] for t in turns], [1, 1, 2, 3, 3, 4])
        self.assertEqual(turns[0]["prompt_tokens"], turns[1]["prompt_tokens"])
        self.assertGreater(turns[2]["prompt_tokens"], turns[3]["prompt_tokens"] // 2)
        self.assertEqual(turns[3]["prompt_tokens"], turns[4]["prompt_tokens"])
        self.assertEqual(turns[5]["prompt"], " /not a command")
        self.chat(
            lines=["/temp 0.5", "/top-p 0.9", "/top-k 7", "/seed 3", "/think on", "/help"],
            err="(?s)temperature 0.5.*top-p 0.9.*top-k 7.*seed 3.*thinking on.*/regenerate",
        )
        for line, message in (
            ("/tepm 1", "no command '/tepm', did you mean '/temp'"),
            ("/temp hot", "/temp: expected a number from 0 to 100, found 'hot'"),
            ("/temp", "/temp: expected X"),
            ("/top-k 1.5", "expected a whole number"),
            ("/reset now", "/reset: expected nothing, found 'now'"),
            ("/think maybe", "expected on or off"),
            ("/regenerate", "nothing was asked"),
        ):
            self.chat(lines=["", line], expect=2, err="input line 2: .*" + re.escape(message))
        self.run_mmrun("chat", "mi", stdin="/save /dev/full/x\n", expect=2)

    def test_thoughts_are_no_part_of_the_answer(self):
        row = conversation("7乘8？", "56", reasoning_content="七八五十六")
        self.write("think.jsonl", lines_of([row] * 20))
        self.teach("thinker", "think.jsonl")
        how = ("chat", "thinker", "--temperature", "0")
        turn = self.run_mmrun(*how, "--think", "--json", stdin="7乘8？\n/save t.jsonl").json()
        self.assertEqual((turn["text"], turn["reasoning"]), ("56", "七八五十六"))
        self.assertEqual(json.loads(self.read("t.jsonl")), row)
        answer = self.run_mmrun(*how, "--think", stdin="7乘8？\n")
        self.assertEqual(answer.out, "56\n")
        # Cut off in the middle of a thought there is no answer.
        turn = self.run_mmrun(
            *how, "--think", "--json", "--max-new-tokens", "3", stdin="7乘8？\n"
        ).json()
        self.assertEqual((turn["text"], turn["finish_reason"]), ("", "length"))
        # A model that was taught without thoughts has none.
        turn = self.chat("--think", "--json", lines=[ROWS[0][0]]).json()
        self.assertEqual((turn["text"], turn["reasoning"]), (ROWS[0][1], None))

        terminal = Terminal(self, *how, "--think")
        terminal.read_until("> ")
        terminal.type("7乘8？\n")
        terminal.read_until("\x1b\\[2m七八五十六\r\n\r\n\x1b\\[0m56\r\n(.|\n)*> ")
        terminal.type("/quit\n")
        self.assertEqual(terminal.wait(), 0)

    def test_records_on_request_and_never_needs_to_write(self):
        before = self.value("SELECT count(*) FROM generations")
        self.chat("--record", lines=[ROWS[0][0], ROWS[1][0]])
        rows = self.query(
            "SELECT prompt, text, task, prompt_idx, finish_reason FROM generations"
            " WHERE task = 'chat' ORDER BY id"
        )
        self.assertEqual(
            rows[0], (ROWS[0][0], ROWS[0][1], "chat", 0, "stop")
        )
        self.assertEqual((rows[1][0], rows[1][3]), (ROWS[1][0], 1))
        self.assertEqual(self.value("SELECT count(*) FROM generations"), before + 2)
        self.make_read_only(self.dir)
        self.assertEqual(self.chat(lines=[ROWS[0][0]]).out.strip(), ROWS[0][1])
        self.chat("--record", lines=[ROWS[0][0]], expect=None, err="mmrun: ")

    def test_a_full_context_forgets_the_oldest(self):
        turns = self.chat("--json", "--max-new-tokens", "4", lines=[ROWS[0][0]] * 8)
        self.assertRegex(turns.err, "context is full: the oldest .* no longer shown")
        forgotten = [t["forgotten"] for t in turns.json_lines()]
        self.assertEqual(forgotten[0], 0)
        self.assertGreater(sum(forgotten), 0)
        for turn in turns.json_lines():
            self.assertLessEqual(turn["prompt_tokens"], 96)
        self.chat(lines=["长" * 300], expect=2, err="line 1: the question does not fit")

    def test_a_pretrained_model_continues_text(self):
        answer = self.run_mmrun(
            "chat", "base", "--max-new-tokens", "3", stdin="早上\n", err="not taught to converse"
        )
        self.assertRegex(answer.err, "mmrun sft --from base")

    def test_refuses_what_is_no_text(self):
        self.write("bad", b"fine\n\xff\xfe\n")
        with open(self.path("bad"), "rb") as file:
            done = subprocess.run(
                [self.program, "chat", "mi"], stdin=file, capture_output=True, cwd=self.dir,
                env=self.env, check=False, timeout=60,
            )  # fmt: skip
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"input line 2: not valid UTF-8 at byte 0", done.stderr)
        self.chat(lines=["x" * (1 << 20) + "y"], expect=2, err="line 1: more than 1048576 bytes")
        self.run_mmrun("chat", "nobody", expect=2, err="nobody")
        self.run_mmrun("chat", "mi", "--lora", "nobody", expect=2, err="nobody")
        self.run_mmrun("chat", "mi", "--max-new-tokens", "999999", expect=2, err="in all")

    def test_control_characters_of_a_model_do_not_reach_the_terminal(self):
        self.write("evil.jsonl", lines_of([conversation("go", "a\x1b[31mb\u202ec")] * 20))
        self.teach("evil", "evil.jsonl")
        answer = self.run_mmrun("chat", "evil", "--temperature", "0", stdin="go\n")
        self.assertNotIn("\x1b", answer.out)
        self.assertEqual(answer.out, "a\\x1b[31mb\\u{202e}c\n")

    def test_on_a_terminal_an_interrupt_stops_the_answer(self):
        # Greedy and hardly trained, it goes on for ever.
        terminal = Terminal(
            self, "chat", "base", "--temperature", "0", "--max-new-tokens", "30000",
            "--repetition-penalty", "1",
        )  # fmt: skip
        terminal.read_until("Ctrl-D leaves(.|\n)*> ")
        terminal.type("\x03")
        terminal.read_until("Ctrl-C again or Ctrl-D leaves(.|\n)*> ")
        terminal.type("/nothing\n")
        terminal.read_until("no command '/nothing'(.|\n)*> ")
        terminal.type("早上\n")
        terminal.read_until("早上\r\n(.|\n){40}")
        terminal.type("\x03")
        terminal.read_until(r"\d+ tokens, canceled(.|\n)*> ")
        terminal.type("/temp 0.5\n")
        terminal.read_until("temperature 0.5(.|\n)*> ")
        terminal.type("\x04")
        self.assertEqual(terminal.wait(), 0)

        again = Terminal(self, "chat", "base")
        again.read_until("> ")
        again.type("\x03")
        again.read_until("leaves(.|\n)*> ")
        again.type("\x03")
        self.assertEqual(again.wait(), 0)


if __name__ == "__main__":
    harness.main()
