"""What the comparisons with other libraries share (check_*.py): the program in a folder of its own,
a tiny model that it has trained, real conversations.

Batches are as large as the data, so that every step sees all rows and no order needs to agree.
"""
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "scripts" / "peers"))
import chat_rows  # noqa: E402

STEPS = 5
LENGTH = 256  # at which rows are cut
ROWS = 6


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)


def check(condition, message):
    if not condition:
        sys.exit(f"FAILED: {message}")


def check_close(what, found, expected, limit):
    """Element by element, relative to the larger of the expected number and 1."""
    check(len(found) == len(expected), f"{what}: {len(found)} values, expected {len(expected)}")
    worst = max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(found, expected))
    check(worst <= limit, f"{what}: {worst:.1e} apart, at most {limit:.0e} allowed\n"
                          f"found    {found}\nexpected {expected}")
    return worst


def row_length(encoded):
    if "input_ids" in encoded:
        return len(encoded["input_ids"])
    answers = (encoded["chosen_ids"], encoded["rejected_ids"])
    return len(encoded["prompt_ids"]) + max(map(len, answers))


class Program:
    """with Program() as mmrun: mmrun.run("runs")"""

    def __init__(self):
        if len(sys.argv) != 3:
            sys.exit(f"usage: {sys.argv[0]} MMRUN SHARED_DATA")
        self.program, shared = sys.argv[1], pathlib.Path(sys.argv[2])
        if not shared.is_dir():
            skip(f"no real data at {shared}")
        self.shared = shared
        self.tokenizer = shared / "minimind-tokenizer"

    def __enter__(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self.scratch.name)
        self.db = self.folder / "check.db"
        return self

    def __exit__(self, *_):
        self.scratch.cleanup()

    def run(self, *arguments):
        command = [self.program, "--db", self.db, "--quiet", *arguments]
        environment = {"HOME": self.scratch.name, "MMRUN_CACHE": str(self.folder / "tokens"),
                       "PATH": os.environ["PATH"]}
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                              check=False, env=environment, cwd=self.folder)
        check(done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stderr}")
        return done.stdout

    def base(self, *shape):
        """The folder of a model that has learned a little; its run is called base."""
        self.run("pretrain", *shape, "--name", "base", "--data", self.shared / "rlaif.jsonl",
                 "--tokenizer", self.tokenizer, "--steps", 30, "--batch", 2, "--seq-len", 128,
                 "--lr", 2e-3, "--val-fraction", 0, "--gen-tokens", 0, "--dtype", "fp32")
        self.run("export", "base", "-o", self.folder / "base")
        return self.folder / "base"

    def stage(self, stage, name, data, *more, rate=1e-3, rows=ROWS):
        """Trains five steps; {metric: values}."""
        self.run(stage, "--from", "base", "--name", name, "--data", data, "--steps", STEPS,
                 "--batch", rows, "--seq-len", LENGTH, "--lr", rate, "--lr-schedule", "constant",
                 "--weight-decay", 0, "--dtype", "fp32", "--val-fraction", 0, "--gen-tokens", 0,
                 "--drop-think-share", 0, *more)
        db = sqlite3.connect(self.db)
        found = {}
        for metric, value in db.execute(
                "SELECT m.name, m.value FROM metrics m JOIN runs r ON r.id = m.run_id"
                " WHERE r.name = ? ORDER BY m.step", (name,)):
            found.setdefault(metric, []).append(value)
        db.close()
        return found

    def rows(self, name, encode):
        """(file, encoded rows): ROWS of a file of the shared data, one of them longer than LENGTH.
        encode gives None where it does not want a row."""
        found, long = [], []
        for row in chat_rows.rows_of(self.shared / name):
            encoded = encode(row)
            if encoded is None:
                continue
            enough = 1 if row_length(encoded) > LENGTH else ROWS - 1
            kept = long if row_length(encoded) > LENGTH else found
            # What is learned must not all be cut off.
            starts = len(encoded.get("prompt_ids", [])) + 20 < LENGTH
            if starts and len(kept) < enough:
                kept.append((row, encoded))
        both = found + long
        check(len(both) == ROWS, f"{name} has {len(both)} suitable rows")
        path = self.folder / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row, _ in both),
                        encoding="utf-8")
        return path, [encoded for _, encoded in both]
