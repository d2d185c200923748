"""What the README says works: its SQL queries run on a real database, its commands exist."""

import os
import re
import shutil
import subprocess

import harness

SOURCE = os.environ.get("MMRUN_SOURCE", os.path.join(os.path.dirname(__file__), "..", ".."))


def fences(kind):
    with open(os.path.join(SOURCE, "README.md"), encoding="utf-8") as file:
        return re.findall(rf"^```{kind}\n(.*?)^```", file.read(), re.MULTILINE | re.DOTALL)


class TestReadme(harness.CliTest):
    def test_every_query_answers(self):
        queries = fences("sql")
        self.assertGreaterEqual(len(queries), 10)
        self.run_mmrun("data", "synth", "--out", "data", "--kind", "pretrain", "--rows", "60")
        self.run_mmrun(
            "sweep",
            "--data",
            "data/pretrain.jsonl",
            "--vocab",
            "320",
            "--hidden",
            "16,24",
            "--layers",
            "1",
            "--heads",
            "2",
            "--kv-heads",
            "1",
            "--batch",
            "2",
            "--seq-len",
            "32",
            "--steps",
            "4",
            "--eval-rows",
            "4",
            "--gen-tokens",
            "4",
        )
        # Only a resume or a mishap is an event: one of each kind the reader may meet.
        running = self.start_mmrun(
            "pretrain",
            "--data",
            "data/pretrain.jsonl",
            "--vocab",
            "320",
            "--hidden",
            "16",
            "--layers",
            "1",
            "--heads",
            "2",
            "--kv-heads",
            "1",
            "--batch",
            "2",
            "--seq-len",
            "32",
            "--steps",
            "400",
            "--save-every",
            "2",
            "--eval-rows",
            "4",
            "--name",
            "third",
        )
        running.wait_for(
            lambda: self.value(
                "SELECT count(*) FROM checkpoints c JOIN runs r ON r.id = c.run_id "
                "WHERE r.name = 'third'"
            )
            > 0
        )
        running.kill()
        self.run_mmrun("resume", "third")
        for query in queries:
            with self.subTest(query=query):
                self.assertTrue(self.query(query), "the query answers nothing")
                self.by_shell(query)

    def by_shell(self, query):
        """Plain sqlite3, as a user would."""
        shell = shutil.which("sqlite3")
        if not shell:
            return
        done = subprocess.run([shell, self.db, query], capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_every_command_exists(self):
        known = self.run_mmrun("help").out
        used = set(re.findall(r"^mmrun ([a-z]+)", "\n".join(fences("sh")), re.MULTILINE))
        self.assertGreater(len(used), 8)
        for command in used:
            self.assertRegex(known, rf"(?m)^\s+{command}\b", command)


if __name__ == "__main__":
    harness.main()
