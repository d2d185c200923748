"""SFT, DPO and LoRA beside trl and peft: the rows of the table that scripts/bench_peers.py makes.

Both sides train on the same rows of real conversations, an epoch a turn, in batches of MiniMind's
sizes, with the same rate, AdamW and clipping. What is counted are the tokens of the rows; ours
packs, trl pads to the longest of a batch. Ours is `mmrun sft|dpo|lora`, whose time is that of its
steps, with dpo all from loading to the last step, the reference's pass included; trl's is the time
of an epoch inside its trainer.
"""

import contextlib
import dataclasses
import os

from peers.figures import Comparison
from peers.worker import KEEP_BLOCKS, PeerError, say

ADAPTERS = {"r": 16, "lora_alpha": 16, "target_modules": ["q_proj", "o_proj"]}  # as MiniMind's


def variants(bench):
    """[(name, whether torch.compile is asked of the trainer)]"""
    return [("eager", False)] + ([] if bench.options.eager else [("compiled", True)])


@dataclasses.dataclass
class Stage:
    name: str
    kind: str  # trl's trainer
    data: str
    batch: int
    length: int
    rate: float
    batches: int  # of an epoch
    flags: tuple = ()
    adapters: dict = None
    sides: int = 1  # rows are pairs

    def short(self):
        """The same with the fewest rows."""
        return dataclasses.replace(self, batches=2)


STAGES = {
    stage.name: stage
    for stage in (
        Stage("sft", "sft", "sft_zh.jsonl", 16, 768, 1e-5, 4, ("--system-prompt-share", 0)),
        Stage("dpo", "dpo", "dpo_zh.jsonl", 4, 1024, 1e-6, 4, ("--beta", 0.1), sides=2),
        Stage("lora", "sft", "lora_identity.jsonl", 32, 340, 1e-4, 2,
              ("--system-prompt-share", 0, "--rank", 16, "--targets", "q_proj+o_proj"),
              adapters=ADAPTERS),
    )
}


def rows_file(bench, stage):
    """(file, how many rows, their tokens): the first rows that both sides read alike."""
    source = os.path.join(os.path.dirname(bench.tokenizer), stage.data)
    if not os.path.exists(source):
        raise PeerError(f"no {source}")
    out = os.path.join(bench.folder, f"{stage.name}-{stage.batches}.jsonl")
    with bench.worker("trl_stage.py") as worker:
        found = worker.ask(
            "rows",
            **{"stage": stage.kind, "data": source, "tokenizer": bench.tokenizer, "out": out},
            **{"length": stage.length, "count": stage.batch * stage.batches},
        )
    if found["rows"] < stage.batch * stage.batches:
        raise PeerError(f"{source} has {found['rows']} fitting rows only")
    return out, found["rows"], found["tokens"]


def peer(bench, stack, stage, size, dtype, compiled, data, environment=None):
    """A process whose trainer has done an epoch and waits."""
    path, rows, _ = data
    worker = stack.enter_context(bench.worker("trl_stage.py", **(environment or {})))
    first = worker.ask(
        "load",
        **{"stage": stage.kind, "data": path, "rows": rows, "tokenizer": bench.tokenizer},
        **{"config": size.config, "dtype": dtype, "compile": compiled, "batch": stage.batch},
        **{"length": stage.length, "rate": stage.rate, "adapters": stage.adapters},
    )
    name = "compiled" if compiled else "eager"
    say(f"  {name}: first epoch {first['seconds']:.0f} s, first loss {first['loss']:.4f}")
    return worker


def ours(bench, stage, size, dtype, data):
    """(tokens per second of real tokens, seconds of the whole command, its peak memory)."""
    path, rows, tokens = data
    found = bench.ours.stage(stage, size, dtype, path, bench.tokenizer)
    if found["steps"] != -(-rows // stage.batch):
        raise PeerError(f"{found['steps']} steps of {rows} rows")
    bench.said.setdefault("whole", {}).setdefault((stage.name, size.name, dtype), []).append(
        (found["seconds"], found["wall"])
    )
    return tokens / found["seconds"], found["peak_rss_bytes"]


def stage_rate(bench, size, stage, dtype):
    stage = STAGES[stage]
    result = Comparison(
        f"{stage.name} {dtype}, {size.name}", "tokens/s", "rate", None if stage.adapters else 2
    )
    data = rows_file(bench, stage)

    def turn():
        result.probes.append(bench.ours.probe()[f"{dtype}_gflops"])
        rate = ours(bench, stage, size, dtype, data)[0]
        result.probes.append(bench.ours.probe()[f"{dtype}_gflops"])
        return rate

    with contextlib.ExitStack() as stack:
        turns = {"mmrun": turn}
        for name, compiled in variants(bench):
            try:
                worker = peer(bench, stack, stage, size, dtype, compiled, data, KEEP_BLOCKS)
            except PeerError as error:
                result.failed[name] = str(error)
                continue
            turns[name] = lambda it=worker: data[2] / it.ask("epoch")["seconds"]
        bench.alternate(result, turns)
    pairs = bench.said["whole"][stage.name, size.name, dtype]
    result.notes.append(
        f"{data[1]} rows, {data[2]:,} tokens a turn; the whole command takes "
        f"{sorted(wall / seconds for seconds, wall in pairs)[len(pairs) // 2]:.2f} times that"
    )
    return [result]


def stage_memory(bench, size, stage):
    """Peaks of fresh processes that did an epoch of two steps."""
    stage = STAGES[stage].short()
    data = rows_file(bench, stage)
    with bench.worker("trl_stage.py") as idle_worker:
        idle_worker.ask("idle")
    idle = bench.ours.idle_bytes()
    results = []
    for dtype in ("bf16", "fp32"):
        name = f"peak memory, {stage.name} {dtype}"
        result = Comparison(f"{name}, {size.name}", "MB", "size", 0.5)
        above = Comparison(f"{name} less an idle process, {size.name}", "MB", "size", 0.5)
        results += [result, above]
        peak = ours(bench, stage, size, dtype, data)[1]
        result.ours.append(peak / 1e6)
        above.ours.append((peak - idle) / 1e6)
        for variant, compiled in variants(bench):
            try:
                with contextlib.ExitStack() as stack:
                    worker = peer(bench, stack, stage, size, dtype, compiled, data)
            except PeerError as error:
                result.failed[variant] = str(error)
                continue
            result.peers[variant] = [worker.peak_rss_bytes / 1e6]
            above.peers[variant] = [(worker.peak_rss_bytes - idle_worker.peak_rss_bytes) / 1e6]
    return results


def lora_against_full(bench, size, dtype):
    """A step that trains adapters beside one that trains everything, both ours."""
    lora = STAGES["lora"]
    full = dataclasses.replace(
        lora, name="sft", adapters=None, flags=("--system-prompt-share", 0)
    )
    result = Comparison(f"lora step, {dtype}, {size.name}", "tokens/s", "rate", 1.3)
    data = rows_file(bench, lora)

    def turn(stage):
        result.probes.append(bench.ours.probe()[f"{dtype}_gflops"])
        return ours(bench, stage, size, dtype, data)[0]

    bench.alternate(
        result, {"mmrun": lambda: turn(lora), "our full step": lambda: turn(full)}
    )
    return [result]
