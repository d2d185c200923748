"""mmrun as its peers' counterpart: `mmrun bench ... --json`, one process a turn."""

import hashlib
import json
import os
import struct
import subprocess

from peers.worker import PeerError, clean_environment


class Ours:
    def __init__(self, program, threads, folder):
        self.program = program
        self.threads = threads
        self.log = os.path.join(folder, "mmrun.log")
        self.cache = os.path.join(folder, "tokens")

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
