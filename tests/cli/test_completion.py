"""Completion in bash: commands, second words, options, and names of runs, which must not be run."""
import os
import shutil
import sqlite3
import subprocess

import harness

PROBE = """
source <(mmrun completion bash)
COMP_WORDS=("$@")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_mmrun
printf '%s\\n' "${COMPREPLY[@]}"
"""


class TestBash(harness.CliTest):
    def complete(self, *words):
        if not shutil.which("bash"):
            self.skipTest("no bash here")
        env = {**self.env, "PATH": f"{self.path('bin')}:{self.env['PATH']}"}
        done = subprocess.run(["bash", "-c", PROBE, "probe", "mmrun", *words], cwd=self.dir,
                              env=env, capture_output=True, text=True, check=False, timeout=30)
        self.assertEqual(done.stderr, "")
        return done.stdout.split("\n")[:-1]

    def setUp(self):
        super().setUp()
        self.write("bin/mmrun", f'#!/bin/sh\nexec "{self.program}" "$@"\n')
        subprocess.run(["chmod", "+x", self.path("bin/mmrun")], check=True)

    def test_words(self):
        self.assertEqual(self.complete("pretr"), ["pretrain"])
        self.assertEqual(self.complete("data", ""), ["synth", "check", "show"])
        self.assertEqual(self.complete("tokenizer", "en"), ["encode"])
        self.assertEqual(self.complete("--db", "x.db", "db", "b"), ["backup"])
        self.assertEqual(self.complete("completion", "z"), ["zsh"])
        self.assertEqual(self.complete("benc"), ["bench"])
        self.assertEqual(self.complete("bench", "t"), ["train", "tokenizer"])

    def test_options(self):
        self.assertEqual(self.complete("pretrain", "--hid"), ["--hidden"])
        self.assertEqual(self.complete("data", "check", "--tok"), ["--tokenizer"])
        self.assertEqual(self.complete("runs", "--sta"), ["--status", "--stage"])
        self.assertIn("--json", self.complete("show", "--"))
        self.assertEqual(self.complete("bench", "--rou"), ["--rounds"])
        self.assertEqual(self.complete("bench", "generate", "--pro"),
                         ["--prompt-tokens", "--progress"])

    def test_names_of_runs_are_never_executed(self):
        self.run_mmrun("data", "synth", "--out", "data", "--kind", "pretrain", "--rows", "40")
        self.run_mmrun("pretrain", "--data", "data/pretrain.jsonl", "--val",
                       "data/pretrain_val.jsonl", "--hidden", "16", "--layers", "1",
                       "--heads", "2", "--kv-heads", "1", "--vocab", "300", "--steps", "1",
                       "--name", "plain", "--batch", "1", "--seq-len", "32", "--gen-tokens", "2")
        self.assertEqual(self.complete("show", "p"), ["plain"])
        self.assertEqual(self.complete("show", ""), ["last", "plain"])
        with sqlite3.connect(self.db) as connection:
            connection.execute("UPDATE run SET name = '$(touch hit)'")
        self.assertEqual(self.complete("show", "$"), [r"\$\(touch\ hit\)"])
        self.assertFalse(os.path.exists(self.path("hit")))

    def test_another_shell(self):
        for shell in ("zsh", "fish"):
            self.run_mmrun("completion", shell, out="mmrun")
        self.run_mmrun("completion", "tcsh", expect=2, err="tcsh")


if __name__ == "__main__":
    harness.main()
