"""End-to-end tests of the program: what a test file needs and nothing else.

A test file is tests/cli/test_NAME.py:

    import harness

    class TestRuns(harness.CliTest):
        def test_lists_nothing_in_an_empty_folder(self):
            answer = self.run_mmrun("runs", "--json")           # expects exit code 0
            self.assertEqual(answer.json(), [])
            self.run_mmrun("show", "nobody", expect=2, err="no run .*nobody")

    if __name__ == "__main__":
        harness.main()

Every test has an empty folder of its own (self.dir), which is also the working directory and the
home of the program, and an environment without anything from outside. The program is found through
the environment variable MMRUN, which CTest sets. A failure prints command, output and how to run
that test alone.
"""
import collections
import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest

SKIPPED = 77  # CTest's SKIP_RETURN_CODE
CLONE_NEWNS = 0x00020000


class Answer(collections.namedtuple("Answer", "command code out err seconds")):
    """What a finished program left: exit code (negative: signal), stdout, stderr."""

    def json(self):
        return json.loads(self.out)

    def json_lines(self):
        return [json.loads(line) for line in self.out.splitlines()]

    def __str__(self):
        return (f"command: {' '.join(self.command)}\nexit code: {self.code}\n"
                f"stdout:\n{clip(self.out)}\nstderr:\n{clip(self.err)}")


def clip(text, limit=4000):
    return text if len(text) <= limit else text[:limit // 2] + "\n[...]\n" + text[-limit // 2:]


class Running:
    """A program that is still going. Output goes to files, so that it never blocks."""

    def __init__(self, test, command, env):
        self.test = test
        self.command = command
        self.files = [tempfile.TemporaryFile(mode="w+", errors="replace") for _ in range(2)]
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.files[0],
                                        stderr=self.files[1], cwd=test.dir, env=env)

    def answer(self):
        texts = []
        for file in self.files:
            # The offset is shared with the program: read beside it.
            size = os.fstat(file.fileno()).st_size
            texts.append(os.pread(file.fileno(), size, 0).decode("utf-8", "replace"))
        return Answer(self.command, self.process.poll(), *texts, time.monotonic() - self.started)

    def wait_for(self, condition, timeout=60):
        """Until condition() is true, or fails when the program ends or the time is up."""
        end = time.monotonic() + timeout
        while not condition():
            if self.process.poll() is not None:
                # It may have become true between the look and the end.
                if condition():
                    return
                self.test.fail(f"the program ended before it came to that\n{self.answer()}")
            if time.monotonic() > end:
                self.kill()
                self.test.fail(f"not within {timeout} s\n{self.answer()}")
            time.sleep(0.005)

    def wait_for_text(self, pattern, timeout=60):
        """Until stdout or stderr contains the pattern."""
        def seen():
            answer = self.answer()
            return re.search(pattern, answer.out + answer.err)
        self.wait_for(seen, timeout)

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """kill -9, and waits for the end. Returns the answer."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        return self.answer()

    def wait(self, expect=None, timeout=60):
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            self.test.fail(f"still running after {timeout} s\n{self.answer()}")
        answer = self.answer()
        if expect is not None and answer.code != expect:
            self.test.fail(f"expected exit code {expect}\n{answer}")
        return answer


class CliTest(unittest.TestCase):
    program = os.environ.get("MMRUN")

    def setUp(self):
        if not self.program:
            self.skipTest("MMRUN does not name the program")
        self.dir = tempfile.mkdtemp(prefix="mmrun-cli-")
        self.db = os.path.join(self.dir, "mmrun.db")
        self.env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": self.dir,
                    "LC_ALL": "C.UTF-8", "TERM": "dumb"}
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS"):
            if name in os.environ:
                self.env[name] = os.environ[name]
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    # ---- running

    def run_mmrun(self, *args, expect=0, out=None, err=None, stdin="", env=None, timeout=120):
        """Runs to the end and checks: exit code (None: any), patterns in stdout and stderr."""
        command = [self.program, *map(str, args)]
        started = time.monotonic()
        try:
            done = subprocess.run(command, input=stdin.encode(), stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, cwd=self.dir, timeout=timeout,
                                  env={**self.env, **(env or {})}, check=False)
        except subprocess.TimeoutExpired as stuck:
            self.fail(f"still running after {timeout} s: {' '.join(command)}\n{stuck.stderr}")
        answer = Answer(command, done.returncode, done.stdout.decode("utf-8", "replace"),
                        done.stderr.decode("utf-8", "replace"), time.monotonic() - started)
        if expect is not None and answer.code != expect:
            self.fail(f"expected exit code {expect}\n{answer}")
        for name, pattern in (("out", out), ("err", err)):
            if pattern is not None and not re.search(pattern, getattr(answer, name)):
                self.fail(f"std{name} does not match {pattern!r}\n{answer}")
        return answer

    def start_mmrun(self, *args, env=None):
        """Starts and returns a Running; it is killed when the test ends."""
        running = Running(self, [self.program, *map(str, args)], {**self.env, **(env or {})})
        self.addCleanup(running.kill)
        return running

    # ---- files and database

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def write(self, name, content):
        """A file in the test's folder, from text or bytes; returns its path."""
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        return path

    def read(self, name):
        with open(self.path(name), encoding="utf-8") as file:
            return file.read()

    def query(self, sql, *values, db=None):
        """Rows of a query on the database, read-only, as tuples."""
        address = f"file:{db or self.db}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=30)) as connection:
            return connection.execute(sql, values).fetchall()

    def value(self, sql, *values, db=None):
        rows = self.query(sql, *values, db=db)
        self.assertEqual((len(rows), len(rows[0]) if rows else 0), (1, 1), sql)
        return rows[0][0]

    def assert_db_sound(self, db=None):
        self.assertEqual(self.query("PRAGMA integrity_check", db=db), [("ok",)])
        self.assertEqual(self.query("PRAGMA foreign_key_check", db=db), [])

    # ---- bad places

    def make_read_only(self, path):
        """From now until the test ends nothing under `path` (a folder) can be written."""
        if os.geteuid() == 0:
            # Permissions do not bind root; a read-only mount does.
            self.mount("--bind", path, path)
            self.mount("-o", "remount,bind,ro", path, cleanup=False)
            return
        for folder, _, files in os.walk(path):
            for item in [folder] + [os.path.join(folder, f) for f in files]:
                mode = os.stat(item).st_mode
                os.chmod(item, mode & ~0o222)
                self.addCleanup(os.chmod, item, mode)

    def make_small_disk(self, name, size_kb):
        """A folder that can hold only so much; returns its path."""
        path = self.path(name)
        os.makedirs(path)
        self.mount("-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", path)
        return path

    def mount(self, *args, cleanup=True):
        if not shutil.which("mount"):
            self.skipTest("no mount program here")
        enter_private_mounts(self)
        done = subprocess.run(["mount", *args], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            self.skipTest(f"cannot mount here: {done.stderr.strip()}")
        if cleanup:
            self.addCleanup(subprocess.run, ["umount", "--lazy", args[-1]], check=False)


def enter_private_mounts(test):
    """Gives this process (and what it starts) a mount table of its own, once."""
    if getattr(enter_private_mounts, "done", False):
        return
    if os.geteuid() != 0:
        test.skipTest("needs root for a mount of its own")
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        test.skipTest(f"no mount namespace here: {os.strerror(ctypes.get_errno())}")
    done = subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        test.skipTest(f"no mount namespace here: {done.stderr.strip()}")
    enter_private_mounts.done = True


class Result(unittest.TextTestResult):
    """Adds to each failure the command that runs that test alone."""

    def _exc_info_to_string(self, err, test):
        text = super()._exc_info_to_string(err, test)
        name = test.id().split(".", 1)[-1]
        script = os.path.relpath(sys.argv[0])
        return f"{text}\nalone: MMRUN={CliTest.program} python3 {script} {name}\n"


def main():
    # A stopped suite must stop its programs too: the clean-ups run on an exception.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    runner = unittest.TextTestRunner(resultclass=Result, verbosity=2)
    done = unittest.main(testRunner=runner, exit=False).result
    if not done.wasSuccessful() or done.testsRun == 0:
        sys.exit(1)
    sys.exit(SKIPPED if len(done.skipped) == done.testsRun else 0)
