"""The command line as people first meet it: help, version, mistakes. The contract: stdout is data,
stderr is talk, a wrong call exits with 2, names what is wrong and leaves nothing behind."""
import os
import re
import subprocess

import harness

COMMANDS = ["demo", "doctor", "bench", "bench train", "bench generate", "bench tokenizer",
            "pretrain", "resume", "sweep", "runs", "show", "compare", "report", "eval",
            "generate", "export", "import", "data synth", "data check", "data show",
            "tokenizer train", "tokenizer encode", "tokenizer decode", "tokenizer show",
            "db info", "db check", "db backup"]


class TestHelp(harness.CliTest):
    def test_version(self):
        answer = self.run_mmrun("--version", out=r"^mmrun \d+\.\d+\.\d+")
        self.assertEqual(answer.err, "")

    def test_help_lists_every_command(self):
        answer = self.run_mmrun("--help")
        self.assertEqual(answer.err, "")
        for command in COMMANDS:
            self.assertRegex(answer.out, rf"(?m)\b{command.split()[0]}\b")
        self.assertEqual(self.run_mmrun("help").out, answer.out)

    def test_every_command_has_help(self):
        for command in COMMANDS:
            with self.subTest(command=command):
                answer = self.run_mmrun(*command.split(), "--help", out=rf"mmrun {command}\b")
                self.assertEqual(answer.err, "")
                # Readable on an ordinary terminal.
                self.assertLessEqual(max(map(len, answer.out.splitlines())), 100)

    def test_help_of_training_knows_the_hyperparameters(self):
        text = self.run_mmrun("pretrain", "--help").out
        for option in ("--preset", "--hidden", "--layers", "--heads", "--kv-heads", "--ffn",
                       "--vocab", "--seq-len", "--lr", "--lr-schedule", "--warmup", "--batch",
                       "--accum", "--epochs", "--steps", "--tokens", "--weight-decay", "--beta1",
                       "--beta2", "--clip", "--dtype", "--device", "--threads", "--seed",
                       "--eval-every", "--save-every", "--log-every", "--keep", "--name", "--tag",
                       "--note", "--data", "--tokenizer"):
            self.assertRegex(text, rf"(?m){option}\b", option)

    def test_no_command_shows_the_way(self):
        answer = self.run_mmrun(out=r"(?s)mmrun demo.*mmrun pretrain.*mmrun help")
        self.assertEqual(answer.err, "")
        self.assertEqual(os.listdir(self.dir), [])

    def test_plain_output_has_no_escape_sequences(self):
        for arguments in (["--help"], ["pretrain", "--help"], ["doctor"]):
            answer = self.run_mmrun(*arguments)
            self.assertNotIn("\x1b", answer.out + answer.err)


class TestMistakes(harness.CliTest):
    def assert_refused(self, *arguments, err):
        answer = self.run_mmrun(*arguments, expect=2, err=err)
        self.assertEqual(answer.out, "", answer)
        self.assertEqual(os.listdir(self.dir), [], "a refused call left something behind")
        return answer

    def test_unknown_command(self):
        self.assert_refused("pretrian", err="pretrian.*did you mean.*pretrain")
        self.assert_refused("xyzzy", err="no command 'xyzzy'")
        self.assert_refused("data", "chekc", "f", err="data check")

    def test_unknown_option(self):
        self.assert_refused("pretrain", "--hiden", "64", err="--hiden.*did you mean --hidden")
        self.assert_refused("pretrain", "--frobnicate", err="--frobnicate")
        self.assert_refused("runs", "--hidden", "64", err="--hidden")
        self.assert_refused("pretrain", "-Z", err="-Z")

    def test_values(self):
        for arguments, pattern in (
                (["--layers", "many"], "layers.*many"),
                (["--layers", "0"], "layers.*0"),
                (["--layers", "-3"], "layers.*-3"),
                (["--lr", "fast"], "l.*r.*fast"),
                (["--lr", "nan"], "nan"),
                (["--lr-schedule", "cosin"], "cosine.*found 'cosin'"),
                (["--dtype", "fp64"], "fp64"),
                (["--seed", "1.5"], "seed.*1\\.5"),
                (["--steps", "99999999999999999999"], "steps"),
                (["--steps"], "steps needs a value"),
                (["--heads", "7", "--hidden", "512"], "heads 7"),
                (["--heads", "6", "--kv-heads", "6", "--hidden", "512"], "heads 6.*hidden 512")):
            with self.subTest(arguments=arguments):
                self.assert_refused("pretrain", *arguments, err=pattern)

    def test_arguments(self):
        self.assert_refused("resume", err="(?s)needs.*RUN")
        self.assert_refused("show", "one", "two", err="two")
        self.assert_refused("compare", "one", err="needs")
        self.assert_refused("--progress", "loud", "runs", err="loud")

    def test_nothing_given_can_steer_the_terminal(self):
        for text in ("--\x1b[31mred", "\x1b]0;title\x07", "a\rb", "\u202egnp.exe"):
            answer = self.run_mmrun("show", text, expect=2)
            self.assertIsNone(re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", answer.err),
                              repr(answer.err))

    def test_full_output_is_an_error(self):
        with open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run([self.program, "--help"], stdout=full, stderr=subprocess.PIPE,
                                  cwd=self.dir, env=self.env, timeout=30, check=False)
        self.assertEqual(done.returncode, 6)  # no space
        self.assertNotEqual(done.stderr, b"")

    def test_reading_commands_make_no_database(self):
        for arguments in (["runs"], ["show", "last"], ["db", "info"], ["report"]):
            with self.subTest(arguments=arguments):
                answer = self.run_mmrun(*arguments, expect=None)
                self.assertIn(answer.code, (0, 2), answer)
                self.assertEqual(os.listdir(self.dir), [])


class TestDoctor(harness.CliTest):
    def test_names_what_it_looked_at(self):
        answer = self.run_mmrun("doctor")
        for word in ("(?i)sqlite", "(?i)zstd", "(?i)cpu", "(?i)thread|core", "(?i)disk|free"):
            self.assertRegex(answer.out, word)

    def test_json(self):
        told = self.run_mmrun("doctor", "--json").json()["doctor"]
        names = [check["name"] for check in told["checks"]]
        for name in ("threads", "features", "fp32 kernels", "bf16 kernels", "dtype", "fp32 peak",
                     "bf16 peak", "memory speed"):
            self.assertEqual(names.count(name), 1, name)
        machine = told["machine"]
        for name in ("threads", "fp32_gflops", "bf16_gflops", "read_gbs"):
            self.assertGreater(machine[name], 0, name)
        self.assertIn(machine["dtype"], ("fp32", "bf16"))

    def test_less_than_the_processor_has_is_told(self):
        told = self.run_mmrun("doctor", "--json", env={"MMRUN_ISA": "generic"}).json()["doctor"]
        self.assertEqual(told["machine"]["isa"], {"fp32": "generic", "bf16": "generic"})
        self.assertEqual(told["machine"]["dtype"], "fp32")
        fixes = {check["name"]: check["fix"] for check in told["checks"]}
        self.assertIn("MMRUN_ISA=generic", fixes["bf16 kernels"])
        self.run_mmrun("doctor", expect=2, err="generic, avx2, avx512, avx512bf16 or amx",
                       env={"MMRUN_ISA": "sse9"})


if __name__ == "__main__":
    harness.main()
