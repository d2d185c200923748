#!/usr/bin/env python3
"""mmrun beside PyTorch, transformers and tokenizers, on this machine, in one run.

Never a test, and nothing the product needs: the peers are installed with pip into a virtual
environment of their own (build/peers-venv), from whatever index pip is set up for.

usage: scripts/bench_peers.py [--rounds N] [--only NAME,...] [--sizes NAME,...] [--threads N]
                              [--quick] [--eager] [--keep] [--json FILE] [--venv DIR] [--mmrun FILE]

The sides run in turn, round after round (A B C, A B C ..., so that a machine whose speed drifts
drifts for all of them), and what counts is the median of the rounds' ratios. Every turn of mmrun
measures the multiply-add peak of the machine before and after itself, so peaks lie around the
peers' turns too; their spread says how far a row can be trusted. The peers are processes that stay
and sleep between their turns: imports, warm-up and compilation are not counted.

measures: agree       the peer's model is ours: the same loss from the same weights
          train-bf16  forward, backward, clipping and AdamW, against bf16 autocast; and the share of
                      the bf16 peak
          train-fp32  the same in fp32
          shipped     ours in bf16, packed, against fp32 and padded rows as MiniMind trains on a
                      CPU, real tokens counted
          memory      peak of a process that does two steps
          decode      greedy generation, one row and 32, against transformers' generate
          encode      tokenizer, one thread
          bpe         learning a vocabulary
          sft, dpo,   a stage on real conversations, both number types, against trl's trainers;
          lora        lora against peft in trl's, and our adapters' step against our full one
          stage-memory  peak of a process that does two steps of each stage

sizes:    256x4, v2-small, v3; tiny, to try the script
"""

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True  # the source tree stays as it is

from peers.figures import Comparison, Share, table_of
from peers.ours import Ours
from peers.stages import STAGES, lora_against_full, stage_memory, stage_rate
from peers.worker import KEEP_BLOCKS, PeerError, Worker, say

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OUT = os.path.join(ROOT, "build", "bench", "peers")
DATA = os.path.join(os.path.dirname(ROOT), "shared", "data")
PAGE = os.path.join(ROOT, "docs", "benchmarks.md")
# The tables of the page, each between two marks: what is measured of one leaves the other.
ENGINE, STAGE = "scripts/bench_peers.py", "scripts/bench_peers.py, stages"
PACKAGES = ["torch==2.13.0", "transformers", "tokenizers", "trl", "peft", "numpy", "safetensors"]
MODULES = ["numpy", "peft", "safetensors", "tokenizers", "torch", "transformers", "trl"]

ROWS, LENGTH = 8, 512  # of a training step
SHIPPED_ROWS, SHIPPED_LENGTH = 32, 340  # MiniMind's defaults for pretraining
PROMPT_TOKENS, NEW_TOKENS = 64, 64
DOCUMENTS = 16 * ROWS
VOCABULARY = 6400
TRIAL = "tiny"  # a size whose figures say nothing


@dataclasses.dataclass
class Size:
    name: str
    flags: list  # mmrun's
    config: dict  # Hugging Face's config.json
    steps: int  # training steps in a turn: a turn of a small model is short
    cost: float  # seconds of a training step of a peer on two cores, for the estimate


def config_of(kind, hidden, layers, kv_heads, inner, eps):
    return {
        "model_type": kind,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 8,
        "num_key_value_heads": kv_heads,
        "head_dim": hidden // 8,
        "intermediate_size": inner,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 32768,
        "rms_norm_eps": eps,
        "rope_theta": 1e6,
    }


SIZES = {
    size.name: size
    for size in (
        Size(
            TRIAL,
            ["--preset", "v3", "--hidden", 64, "--layers", 2],
            config_of("qwen3", 64, 2, 4, 256, 1e-6),
            steps=1,
            cost=0.1,
        ),
        Size(
            "256x4",
            ["--preset", "v3", "--hidden", 256, "--layers", 4],
            config_of("qwen3", 256, 4, 4, 832, 1e-6),
            steps=3,
            cost=1.0,
        ),
        Size(
            "v2-small",
            ["--preset", "v2-small"],
            config_of("llama", 512, 8, 2, 1408, 1e-5),
            steps=1,
            cost=4.0,
        ),
        Size(
            "v3",
            ["--preset", "v3"],
            config_of("qwen3", 768, 8, 4, 2432, 1e-6),
            steps=1,
            cost=9.0,
        ),
    )
}


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"bench_peers: {' '.join(command)} ended with {done.returncode}\n{done.stderr}")
    return done.stdout


class Bench:
    """What all measures share: the two sides, the data, the number of rounds."""

    def __init__(self, options):
        self.options = options
        self.rounds = options.rounds
        self.threads = options.threads
        self.python = os.path.join(options.venv, "bin", "python")
        self.folder = OUT
        self.ours = Ours(options.mmrun, self.threads, OUT)
        self.texts = os.path.join(DATA, "pretrain_poetry.jsonl")
        self.tokenizer = os.path.join(DATA, "minimind-tokenizer")
        self.documents = os.path.join(OUT, "documents.jsonl")
        self.said = {}  # what the environment and the data turned out to be

    def worker(self, script, threads=None, **environment):
        log = os.path.join(OUT, os.path.splitext(script)[0] + ".log")
        cache = os.path.join(OUT, "compiled")
        return Worker(
            self.python,
            script,
            log,
            threads or self.threads,
            TORCHINDUCTOR_CACHE_DIR=cache,
            **environment,
        )

    def tokens_worker(self, threads):
        worker = self.worker("hf_tokenizers.py", threads=threads)
        path = os.path.join(self.tokenizer, "tokenizer.json")
        self.said["bytes"] = worker.ask("load", texts=self.texts, tokenizer=path)["bytes"]
        return worker

    def prepare(self):
        """The data both sides read, once."""
        if not os.path.exists(self.texts):
            say(f"no {self.texts}: self-made data instead")
            self.ours.call("data", "synth", "--kind", "pretrain", "-n", 20000, "-o", OUT)
            self.texts = os.path.join(OUT, "pretrain.jsonl")
            self.tokenizer = os.path.join(OUT, "tokenizer")
            self.ours.learn(self.texts, VOCABULARY, self.tokenizer)
        with self.tokens_worker(1) as tokens:
            found = tokens.ask(
                "rows",
                out=OUT,
                length=LENGTH,
                documents=DOCUMENTS,
                padded_length=SHIPPED_LENGTH,
                padded_rows=self.shipped_rows() * 4,
            )
        self.said["fill"] = found["fill"]

    def shipped_rows(self):
        """As many as MiniMind takes, or as fit: a row of the largest size needs 0.4 GB."""
        with open("/proc/meminfo", encoding="utf-8") as file:
            free = int(re.search(r"MemAvailable:\s+(\d+)", file.read())[1]) * 1024
        rows = 8 if self.options.quick else SHIPPED_ROWS
        while rows > 1 and rows * 0.4e9 > 0.7 * free:
            rows //= 2
        return rows

    def load(self, worker, size, dtype, compiled=False, ids="documents.i32", **order):
        """Makes the model and does a first step, compilation included."""
        shape = {"rows": ROWS, "length": LENGTH, "update": True}
        return worker.ask(
            "load",
            config=size.config,
            dtype=dtype,
            compile=compiled,
            ids=os.path.join(OUT, ids),
            **{**shape, **order},
        )

    def torch(self, stack, size, dtype, compiled, environment=None):
        """A process ready to be timed."""
        worker = stack.enter_context(self.worker("torch_train.py", **(environment or {})))
        first = self.load(worker, size, dtype, compiled)
        say(f"  {'compiled' if compiled else 'eager'}: first step {first['seconds']:.0f} s")
        return worker

    def train_ours(self, size, dtype, data=None, steps=None):
        """(tokens per second, the whole answer) of one turn."""
        answer = self.ours.train(
            size, dtype, data or self.documents, self.tokenizer, steps or size.steps
        )
        self.said.setdefault("kernels", {})[dtype] = answer["isa"]
        return answer["train"]["tokens_per_s"], answer

    def alternate(self, result, turns, rounds=None):
        """Fills result from turns {name: function returning a value}, mmrun's first."""
        for number in range(rounds or self.rounds):
            values = {name: turn() for name, turn in turns.items()}
            result.ours.append(values.pop("mmrun"))
            for name, value in values.items():
                result.peers.setdefault(name, []).append(value)
            shown = {name: round(value, 2) for name, value in values.items()}
            say(f"  round {number + 1}: mmrun {result.ours[-1]:.2f}, {shown}")


def torch_rate(worker, count, tokens):
    """Of a median step, as mmrun reckons it."""
    return lambda: tokens / statistics.median(worker.ask("step", count=count)["seconds"])


def agree(bench, size):
    """Nothing is measured here; what follows would mean nothing if the models differed."""
    with open(bench.documents, encoding="utf-8") as source:
        lines = [source.readline() for _ in range(ROWS)]
    few = os.path.join(OUT, "few.jsonl")
    with open(few, "w", encoding="utf-8") as file:
        file.writelines(lines)
    with tempfile.TemporaryDirectory(dir=OUT) as folder:
        ours, weights = bench.ours.score(size, few, bench.tokenizer, folder, LENGTH)
        with bench.worker("torch_train.py") as worker:
            theirs = bench.load(worker, size, "fp32", weights=weights)["loss"]
    difference = abs(ours - theirs) / theirs
    say(f"  loss {ours:.6f} here, {theirs:.6f} in PyTorch")
    if not difference < 1e-3:
        raise PeerError(f"the loss from the same weights is {ours} here, {theirs} in PyTorch")
    bench.said.setdefault("losses", []).append(difference)
    return []


def train(bench, size, dtype):
    asked = {"bf16": 3, "fp32": 1.5}[dtype]
    result = Comparison(f"training {dtype}, {size.name}", "tokens/s", "rate", asked)
    share = Share(f"of the bf16 peak, training {size.name}", 0.5)

    def ours():
        rate, answer = bench.train_ours(size, dtype)
        result.probes.append(answer["probe"][f"{dtype}_gflops"])
        share.ours.append(answer["train"]["share_of_peak"])
        return rate

    with contextlib.ExitStack() as stack:
        turns = {"mmrun": ours}
        for name, compiled in (("eager", False), ("compiled", True)):
            try:
                worker = bench.torch(stack, size, dtype, compiled, KEEP_BLOCKS)
            except PeerError as error:
                result.failed[name] = str(error)
                continue
            turns[name] = torch_rate(worker, size.steps, ROWS * LENGTH)
        bench.alternate(result, turns)
    share.probes = result.probes
    return [result, share] if dtype == "bf16" else [result]


def shipped(bench, size):
    """MiniMind's own loop: no autocast on a CPU, rows of its length, padded, nothing compiled."""
    result = Comparison(f"real tokens, MiniMind as shipped, {size.name}", "tokens/s", "rate", 8)

    def ours():
        rate, answer = bench.train_ours(size, "bf16", bench.texts)
        result.probes.append(answer["probe"]["bf16_gflops"])
        return rate

    with contextlib.ExitStack() as stack:
        rows = bench.shipped_rows()
        # The optimizer steps once in eight micro-batches there; it is left out, in its favour.
        worker = stack.enter_context(bench.worker("torch_train.py"))
        shape = {"rows": rows, "length": SHIPPED_LENGTH, "update": False}
        bench.load(worker, size, "fp32", ids="padded.i32", **shape)
        slots = torch_rate(worker, 1, rows * SHIPPED_LENGTH)
        turns = {"mmrun": ours, "PyTorch": lambda: slots() * bench.said["fill"]}
        bench.alternate(result, turns, min(3, bench.rounds))
    result.notes.append(
        f"micro-batches of {rows} x {SHIPPED_LENGTH}, {100 * bench.said['fill']:.0f} % real tokens"
    )
    return [result]


def memory(bench, size):
    """Peaks of fresh processes that did two steps: the first makes AdamW's moments."""
    results = []
    for dtype in ("bf16", "fp32"):
        result = Comparison(f"peak memory {dtype}, {size.name}", "MB", "size", 0.5)
        above = Comparison(
            f"peak memory {dtype} less an idle process, {size.name}", "MB", "size", 0.5
        )
        results += [result, above]
        answer = bench.train_ours(size, dtype, steps=1)[1]
        idle = bench.ours.idle_bytes()
        result.ours.append(answer["train"]["peak_rss_bytes"] / 1e6)
        above.ours.append((answer["train"]["peak_rss_bytes"] - idle) / 1e6)
        with bench.worker("torch_train.py") as idle_worker:
            pass
        for name, compiled in (("eager", False), ("compiled", True)):
            try:
                with contextlib.ExitStack() as stack:
                    worker = bench.torch(stack, size, dtype, compiled)
                    worker.ask("step", count=1)
            except PeerError as error:
                result.failed[name] = str(error)
                continue
            result.peers[name] = [worker.peak_rss_bytes / 1e6]
            above.peers[name] = [(worker.peak_rss_bytes - idle_worker.peak_rss_bytes) / 1e6]
    return results


def decode(bench, size, rows):
    asked = {1: 5, 32: 3}[rows]
    result = Comparison(f"decode, {rows} at once, {size.name}", "tokens/s", "rate", asked)
    how = {"rows": rows, "prompt_tokens": PROMPT_TOKENS, "new_tokens": NEW_TOKENS}
    best = {}

    def ours():
        """The better of our two, as of theirs."""
        for dtype in ("fp32", "bf16"):
            answer = bench.ours.generate(size, dtype, **how)
            best.setdefault(dtype, []).append(answer["generate"]["decode_tokens_per_s"])
        result.probes.append(answer["probe"]["fp32_gflops"])
        return max(values[-1] for values in best.values())

    with contextlib.ExitStack() as stack:
        turns = {"mmrun": ours}
        for dtype in ("fp32", "bf16"):
            worker = stack.enter_context(bench.worker("hf_generate.py", **KEEP_BLOCKS))
            worker.ask("load", config=size.config, dtype=dtype)
            worker.ask("decode", **how)
            turns[dtype] = lambda it=worker: it.ask("decode", **how)["decode_tokens_per_s"]
        bench.alternate(result, turns)
    medians = {dtype: statistics.median(values) for dtype, values in best.items()}
    result.notes.append(f"mmrun's is {max(medians, key=medians.get)}")
    return [result]


def encode(bench):
    result = Comparison("tokenizer, one thread", "MB/s", "rate", 2)
    with bench.tokens_worker(1) as worker:
        plain = os.path.join(OUT, "texts.txt")
        with open(bench.texts, encoding="utf-8") as source, open(
            plain, "w", encoding="utf-8", newline=""
        ) as out:
            out.writelines(json.loads(line)["text"] + "\n" for line in source)
        theirs = worker.ask("ids", path=plain)
        if bench.ours.ids(plain, bench.tokenizer) != (theirs["sha256"], theirs["count"]):
            raise PeerError("the ids of the two sides differ, so their speeds mean nothing")
        result.notes.append(f"the same {theirs['count']:,} ids on both sides")
        worker.ask("encode")  # fills its cache of words, as ours is filled
        for _ in range(bench.rounds):
            answer = bench.ours.tokenizer(bench.texts, bench.tokenizer)["tokenizer"]
            result.ours.append(answer["encode_mb_per_s"])
            for name, rate in worker.ask("encode")["mb_per_s"].items():
                result.peers.setdefault(name, []).append(rate)
    return [result]


def bpe(bench):
    result = Comparison("learn a vocabulary", "s", "time", 1)
    with contextlib.ExitStack() as stack:
        workers = {
            name: stack.enter_context(bench.tokens_worker(threads))
            for name, threads in (("one thread", 1), (f"{bench.threads} threads", bench.threads))
        }
        result.name += f" of {VOCABULARY} on {bench.said['bytes'] / 1e6:.1f} MB"
        folder = os.path.join(OUT, "learned")
        ours, special = bench.ours.learn(bench.texts, VOCABULARY, folder)
        order = {"vocab_size": VOCABULARY, "special": special}
        for _ in range(min(3, bench.rounds)):
            answer = bench.ours.tokenizer(bench.texts, bench.tokenizer)["tokenizer"]
            result.ours.append(answer["train_s"])
            for name, worker in workers.items():
                theirs = worker.ask("learn", **order)
                result.peers.setdefault(name, []).append(theirs["seconds"])
        same = theirs["vocabulary_sha256"] == ours
        result.notes.append(f"{'the same' if same else 'another'} vocabulary on both sides")
    return [result]


def plan_of(options):
    """[(table, title, seconds expected on two cores, function of a Bench)]"""
    plan = []
    rounds = options.rounds
    sizes = [SIZES[name] for name in options.sizes.split(",")]

    def add(measure, title, seconds, function):
        if measure in options.only.split(","):
            table = STAGE if measure in STAGES or measure == "stage-memory" else ENGINE
            plan.append((table, title, seconds, function))

    for size in sizes:
        add(
            "agree",
            f"one model, {size.name}",
            15 + 3 * size.cost,
            lambda bench, size=size: agree(bench, size),
        )
    for size in sizes:
        for dtype, part in (("bf16", 0.6), ("fp32", 1.0)):
            add(
                f"train-{dtype}",
                f"training {dtype}, {size.name}",
                40 + part * size.cost * (4 + 2.6 * size.steps * rounds),
                lambda bench, size=size, dtype=dtype: train(bench, size, dtype),
            )
    for size in sizes:
        add(
            "shipped",
            f"MiniMind as shipped, {size.name}",
            8 + 3.2 * size.cost * (1 + min(3, rounds)) * (0.25 if options.quick else 1),
            lambda bench, size=size: shipped(bench, size),
        )
        add(
            "memory",
            f"memory, {size.name}",
            40 + 8 * size.cost,
            lambda bench, size=size: memory(bench, size),
        )
        for rows in (1, 32):
            add(
                "decode",
                f"decode, {rows} at once, {size.name}",
                15 + (1 + rounds) * size.cost * (1 if rows == 1 else 2),
                lambda bench, size=size, rows=rows: decode(bench, size, rows),
            )
    for size in sizes:
        for stage in STAGES:
            for dtype, part in (("bf16", 0.6), ("fp32", 1.0)):
                add(
                    stage,
                    f"{stage} {dtype}, {size.name}",
                    (20 if options.eager else 250) + part * size.cost * (8 + 6 * rounds),
                    lambda bench, size=size, stage=stage, dtype=dtype: stage_rate(
                        bench, size, stage, dtype
                    ),
                )
            add(
                "stage-memory",
                f"memory, {stage}, {size.name}",
                (60 if options.eager else 400) + 20 * size.cost,
                lambda bench, size=size, stage=stage: stage_memory(bench, size, stage),
            )
        for dtype in ("bf16", "fp32"):
            add(
                "lora",
                f"adapters and full steps, {dtype}, {size.name}",
                3 * size.cost * rounds,
                lambda bench, size=size, dtype=dtype: lora_against_full(bench, size, dtype),
            )
    add("encode", "tokenizer", 10 + 6 * rounds, encode)
    add("bpe", "learn a vocabulary", 15 + 15 * min(3, rounds), bpe)
    return plan


def install(folder):
    python = os.path.join(folder, "bin", "python")
    probe = [python, "-c", f"import {', '.join(MODULES)}"]
    if os.path.exists(python) and subprocess.run(probe, capture_output=True).returncode == 0:
        return
    say(f"installing {', '.join(PACKAGES)} into {folder}")
    if not os.path.exists(python):
        run([sys.executable, "-m", "venv", folder])
    run([python, "-m", "pip", "install", "--quiet", *PACKAGES])


def versions(python):
    names = [re.split("=", package)[0] for package in PACKAGES[:5]]
    code = f"from importlib.metadata import version as v; print([v(n) for n in {names}])"
    found = json.loads(run([python, "-c", code]).replace("'", '"'))
    return ", ".join(f"{name} {version}" for name, version in zip(names, found))


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        match = re.search(r"model name\s*:\s*(.*)", file.read())
    name = match[1] if match else platform.machine()
    return f"{name}, {os.cpu_count()} processors, {platform.system()} {platform.release()}"


def about_of(bench):
    commit = run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"]).strip()
    return (
        f"{machine()}; {bench.threads} threads; commit {commit}; {time.strftime('%Y-%m-%d')}; "
        f"{bench.rounds} rounds; {versions(bench.python)}"
    )


def remarks_of(bench, table):
    if table == STAGE:
        without = " Peers as they are, without torch.compile." if bench.options.eager else ""
        return f"Memory: one round.{without}"
    kernels = bench.said.get("kernels", {})
    words = [f"{dtype} with {isa}" for dtype, isa in kernels.items()]
    text = f"mmrun multiplies {', '.join(words)}. " if words else ""
    text += "MiniMind's loop and the vocabulary: at most three rounds; memory: one."
    if "losses" in bench.said:
        worst = max(bench.said["losses"])
        text += f" From the same weights both sides have the same loss, to {worst:.0e} of it."
    return text


def keep(table, text):
    begin, end = f"<!-- {table}: begin -->", f"<!-- {table}: end -->"
    with open(PAGE, encoding="utf-8") as file:
        before, found, rest = file.read().partition(begin)
    if not found or end not in rest:
        sys.exit(f"bench_peers: {PAGE} has no lines {begin} and {end}")
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write(f"{before}{begin}\n{text}{end}{rest.partition(end)[2]}")


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    measures = (
        "agree,train-bf16,train-fp32,shipped,memory,decode,encode,bpe,sft,dpo,lora,stage-memory"
    )
    parser.add_argument("--rounds", type=int, help="5, or 2 with --quick")
    parser.add_argument("--only", default=measures)
    parser.add_argument("--sizes", help="all, or with --quick v2-small")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="a look: about five minutes")
    parser.add_argument(
        "--eager",
        action="store_true",
        help="of the stages' peers only what trl does by itself: compiling one takes minutes",
    )
    parser.add_argument("--keep", action="store_true", help="put the table into the documentation")
    parser.add_argument(
        "--json",
        metavar="FILE",
        default=os.path.join(OUT, "results.json"),
        help="every figure of every round (build/bench/peers/results.json)",
    )
    parser.add_argument("--venv", default=os.path.join(ROOT, "build", "peers-venv"))
    parser.add_argument("--mmrun", metavar="FILE", help="this program instead of a fresh build")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    usual = ["v2-small"] if options.quick else [name for name in SIZES if name != TRIAL]
    options.sizes = options.sizes or ",".join(usual)
    for given, known in ((options.only, measures.split(",")), (options.sizes, SIZES)):
        for name in given.split(","):
            if name not in known:
                parser.error(f"no {name!r}: expected some of {', '.join(known)}")
    return options


def main():
    options = parse()
    os.makedirs(OUT, exist_ok=True)
    install(options.venv)
    if not options.mmrun:
        say("building the release preset")
        build = os.path.join(ROOT, "build", "release")
        is_new = not os.path.exists(os.path.join(build, "CMakeCache.txt"))
        tests = ["-DMMRUN_TESTS=OFF"] if is_new else []
        run([os.path.join(ROOT, "scripts", "build"), "release", *tests])
        options.mmrun = os.path.join(build, "mmrun")
    bench = Bench(options)
    plan = plan_of(options)
    left = total = sum(seconds for _, _, seconds, _ in plan)
    say(f"{options.rounds} rounds, {options.threads} threads, about {left / 60:.0f} min")
    bench.prepare()
    results, pace, started = {}, 1.0, time.monotonic()
    about = about_of(bench)
    for table, title, seconds, function in plan:
        say(f"{title} (about {pace * left / 60:.0f} min left)")
        try:
            found = function(bench)
        except PeerError as error:
            say(f"  {error}")
            found = [Comparison(title, "", "rate", None, failed={"it": str(error)})]
        results.setdefault(table, []).extend(found)
        # Kept after every measure, so that a run that is stopped has not been for nothing.
        with open(options.json, "w", encoding="utf-8") as file:
            kept = [dataclasses.asdict(result) for rows in results.values() for result in rows]
            json.dump({"about": about, "results": kept}, file, indent=1, ensure_ascii=False)
        left -= seconds
        pace = (time.monotonic() - started) / (total - left)
    for table, rows in results.items():
        text = f"{about}\n\n{remarks_of(bench, table)}\n\n{table_of(rows)}"
        print(text)
        if options.keep:
            keep(table, text)


if __name__ == "__main__":
    main()
