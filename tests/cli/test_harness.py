"""The harness itself, on a small shell script in place of the program: a helper that cannot fail
would make every test that uses it worthless."""
import os
import signal
import sqlite3
import subprocess
import sys
import unittest

import harness

FAKE = r"""#!/bin/sh
case $1 in
    echo) shift; echo "$*"; echo "to stderr" >&2 ;;
    code) exit "$2" ;;
    env) env ;;
    pwd) pwd; cat ;;
    write) echo data > "$2" ;;
    fill) head -c "$2" /dev/zero > "$3" ;;
    slow) echo ready; trap 'echo caught >&2; exit 3' INT; while :; do sleep 0.02; done ;;
esac
"""


class TestHarness(harness.CliTest):
    program = "set by setUp"

    def setUp(self):
        super().setUp()
        self.program = self.write("fake", FAKE)
        os.chmod(self.program, 0o755)

    def test_run_checks_code_and_patterns(self):
        answer = self.run_mmrun("echo", "a", "b", out=r"^a b$", err="stderr")
        self.assertEqual(answer.out, "a b\n")
        self.run_mmrun("code", 7, expect=7)
        for arguments, checks in (
                (("code", 7), {}),
                (("code", 0), {"expect": 2}),
                (("echo", "a"), {"out": "b"}),
                (("echo", "a"), {"err": "b"})):
            with self.assertRaises(AssertionError) as caught:
                self.run_mmrun(*arguments, **checks)
            self.assertIn("exit code", str(caught.exception))

    def test_environment_and_folder_are_the_tests_own(self):
        os.environ["MMRUN_DB"] = "/elsewhere"
        try:
            seen = self.run_mmrun("env", env={"EXTRA": "1"}).out
        finally:
            del os.environ["MMRUN_DB"]
        self.assertNotIn("MMRUN_DB", seen)
        self.assertIn(f"HOME={self.dir}", seen)
        self.assertIn("EXTRA=1", seen)
        answer = self.run_mmrun("pwd", stdin="input")
        self.assertEqual(answer.out.splitlines()[1:], ["input"])
        self.assertEqual(os.path.realpath(answer.out.splitlines()[0]), os.path.realpath(self.dir))

    def test_kill_and_signals(self):
        running = self.start_mmrun("slow")
        running.wait_for_text("ready")
        self.assertEqual(running.kill().code, -signal.SIGKILL)
        running = self.start_mmrun("slow")
        running.wait_for_text("ready")
        running.signal(signal.SIGINT)
        self.assertIn("caught", running.wait(expect=3).err)

    def test_waiting_fails_when_it_cannot_come(self):
        running = self.start_mmrun("echo", "short")
        with self.assertRaises(AssertionError) as caught:
            running.wait_for_text("never")
        self.assertIn("ended before", str(caught.exception))
        running = self.start_mmrun("slow")
        with self.assertRaises(AssertionError):
            running.wait(timeout=0.2)
        self.assertEqual(running.process.returncode, -signal.SIGKILL)

    def test_query_reads_and_cannot_write(self):
        with sqlite3.connect(self.db) as connection:
            connection.execute("CREATE TABLE t (a INTEGER)")
            connection.execute("INSERT INTO t VALUES (5)")
        connection.close()
        self.assertEqual(self.query("SELECT a FROM t WHERE a > ?", 1), [(5,)])
        self.assertEqual(self.value("SELECT count(*) FROM t"), 1)
        self.assert_db_sound()
        with self.assertRaises(sqlite3.OperationalError):
            self.query("DELETE FROM t")

    def test_read_only_folder(self):
        self.write("place/old", "kept")
        self.make_read_only(self.path("place"))
        self.run_mmrun("write", self.path("place", "new"), expect=None)
        self.run_mmrun("write", self.path("place", "old"), expect=None)
        self.assertEqual(os.listdir(self.path("place")), ["old"])
        self.assertEqual(self.read("place/old"), "kept")

    def test_small_disk(self):
        place = self.make_small_disk("small", 64)
        self.run_mmrun("fill", 16384, os.path.join(place, "fits"))
        self.run_mmrun("fill", 1 << 20, os.path.join(place, "too-much"), expect=1, err="space")
        self.assertEqual(os.path.getsize(os.path.join(place, "fits")), 16384)


class TestExitCode(unittest.TestCase):
    """What CTest is told."""

    def outcome(self, body):
        script = ("import sys; sys.path.insert(0, sys.argv.pop(1))\nimport harness\n"
                  "class T(harness.CliTest):\n    program = 'any'\n"
                  f"    def test_it(self):\n        {body}\n"
                  "harness.main()\n")
        done = subprocess.run([sys.executable, "-c", script, os.path.dirname(harness.__file__)],
                              capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    def test_pass_fail_skip(self):
        self.assertEqual(self.outcome("pass")[0], 0)
        self.assertEqual(self.outcome("self.skipTest('no reason')")[0], harness.SKIPPED)
        code, text = self.outcome("self.fail('because')")
        self.assertEqual(code, 1)
        self.assertIn("T.test_it", text.split("alone:")[1])


if __name__ == "__main__":
    harness.main()
