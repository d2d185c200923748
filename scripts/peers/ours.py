"""mmrun as its peers' counterpart: `mmrun bench ... --json`, one process a turn."""

import contextlib
import datetime
import hashlib
import json
import os
import sqlite3
import struct
import subprocess
import time

from peers.worker import PeerError, clean_environment


def seconds_of(db, stage):
    """Steps of the run "turn" and their time; of dpo the time from its start to its last step,
    which holds the reference's pass, and loading."""
    run, started = db.execute("SELECT id, started_at FROM runs WHERE name = 'turn'").fetchone()
    steps, seconds, ended = db.execute(
        "SELECT count(*), sum(value) / 1000, max(time) FROM metrics"
        " WHERE run_id = ? AND name = 'step_ms'",
        (run,),
    ).fetchone()
    if stage.sides == 2:
        times = [datetime.datetime.fromisoformat(text.rstrip("Z")) for text in (started, ended)]
        seconds = (times[1] - times[0]).total_seconds()
    return {"steps": steps, "seconds": seconds}


class Ours:
    def __init__(self, program, threads, folder):
        self.program = program
        self.threads = threads
        self.log = os.path.join(folder, "mmrun.log")
        self.cache = os.path.join(folder, "tokens")
        self.db = os.path.join(folder, "stages.db")
        self.bases = set()  # runs of this database that stages start from

    def call(self, *arguments, stdin=None):
        """(parsed output, peak resident bytes) of one run."""
        command = [self.program, *map(str, arguments), "--json"]
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                command,
                stdin=open(stdin, "rb") if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=clean_environment(MMRUN_CACHE=self.cache),
            )
            text = process.stdout.read().decode()
            process.stdout.close()
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        lines = text.splitlines()
        last = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
        if process.returncode != 0:
            said = last.get("error", {}).get("message", f"exit code {process.returncode}")
            raise PeerError(f"mmrun {' '.join(map(str, arguments))}: {said}")
        return last, usage.ru_maxrss * 1024

    def idle_bytes(self):
        """Peak of a run that does nothing: the program and its libraries."""
        return self.call("--version")[1]

    def train(self, size, dtype, data, tokenizer, rounds, rows=8, length=512):
        return self.call(
            *("bench", "train", *size.flags, "--dtype", dtype, "--threads", self.threads),
            *("--batch", rows, "--seq-len", length, "--rounds", rounds),
            *("--data", data, "--tokenizer", tokenizer),
        )[0]

    def score(self, size, data, tokenizer, folder, length=512):
        """(loss on data, weights file) of a model that has learned one step of it."""
        run = ("--db", os.path.join(folder, "agree.db"))
        given = ("--data", data, "--val", data, "--tokenizer", tokenizer, "--dtype", "fp32")
        self.call(
            *run,
            *("pretrain", *size.flags, *given, "--threads", self.threads, "--steps", 1),
            *("--seq-len", length, "--gen-tokens", 0, "--eval-rows", 1),
        )
        model = os.path.join(folder, "agree")
        self.call(*run, "export", "last", "-o", model, "--overwrite")
        found = self.call(*run, "eval", "last", "--data", data, "--threads", self.threads)[0]
        return found["val_loss"], os.path.join(model, "model.safetensors")

    def probe(self):
        """The multiply-add peaks of the machine, now."""
        small = ("--hidden", 64, "--layers", 1, "--batch", 1, "--seq-len", 16, "--rounds", 1)
        return self.call("bench", "train", *small, "--threads", self.threads)[0]["probe"]

    def base(self, size, data, tokenizer):
        """A run to train on from, made once: its weights have learned one step."""
        name = f"base-{size.name}"
        if name not in self.bases:
            if not self.bases and os.path.exists(self.db):
                os.remove(self.db)
            self.call(
                *("--db", self.db, "pretrain", *size.flags, "--name", name, "--data", data),
                *("--tokenizer", tokenizer, "--threads", self.threads, "--steps", 1),
                *("--batch", 1, "--seq-len", 64, "--val-fraction", 0, "--gen-tokens", 0),
            )
            self.bases.add(name)
        return name

    def stage(self, stage, size, dtype, data, tokenizer):
        """One epoch of a stage: {"steps", "seconds" of them, "wall", "peak_rss_bytes"}."""
        texts = os.path.join(os.path.dirname(tokenizer), "pretrain_poetry.jsonl")
        base = self.base(size, texts, tokenizer)
        started = time.monotonic()
        _, peak = self.call(
            *("--db", self.db, stage.name, "--from", base, "--name", "turn", "--data", data),
            *("--epochs", 1, "--batch", stage.batch, "--seq-len", stage.length),
            *("--lr", stage.rate, "--lr-schedule", "constant", "--weight-decay", 0.01),
            *("--dtype", dtype, "--threads", self.threads, "--drop-think-share", 0),
            *("--val-fraction", 0, "--gen-tokens", 0, "--eval-every", 0, "--save-every", 0),
            *stage.flags,
        )
        wall = time.monotonic() - started
        with contextlib.closing(sqlite3.connect(self.db)) as db:
            found = seconds_of(db, stage)
        self.call("--db", self.db, "rm", "turn", "--force")
        return {**found, "wall": wall, "peak_rss_bytes": peak}

    def generate(self, size, dtype, rows, prompt_tokens, new_tokens):
        return self.call(
            *("bench", "generate", *size.flags, "--dtype", dtype, "--threads", self.threads),
            *("--rows", rows, "--prompt-tokens", prompt_tokens, "--new-tokens", new_tokens),
            *("--rounds", 1),
        )[0]

    def tokenizer(self, data, tokenizer):
        return self.call("bench", "tokenizer", "--data", data, "--tokenizer", tokenizer)[0]

    def ids(self, path, tokenizer):
        """(SHA-256, number) of the ids of a whole file as one text."""
        found = self.call("tokenizer", "encode", "-", "-t", tokenizer, stdin=path)[0]["ids"]
        packed = struct.pack(f"<{len(found)}i", *found)
        return hashlib.sha256(packed).hexdigest(), len(found)

    def learn(self, data, vocab_size, out):
        """The vocabulary learned from data, in the order of its ids."""
        self.call("tokenizer", "train", "--data", data, "--vocab", vocab_size, "-o", out)
        with open(os.path.join(out, "tokenizer.json"), encoding="utf-8") as file:
            learned = json.load(file)
        names = {id: name for name, id in learned["model"]["vocab"].items()}
        names.update((token["id"], token["content"]) for token in learned["added_tokens"])
        special = [token["content"] for token in learned["added_tokens"]]
        text = json.dumps([names[id] for id in sorted(names)])
        return hashlib.sha256(text.encode()).hexdigest(), special
