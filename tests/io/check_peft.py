#!/usr/bin/env python3
"""Adapters of the engine in peft, and those of peft in the engine.

For a Qwen3-shaped and a Llama-shaped model: peft loads the exported adapters over the exported base
and gives the engine's logits, merge_and_unload gives the engine's merged weights; adapters that
peft makes, trains and saves give peft's logits in the engine, also with rslora; what the engine
lacks is refused by its name. Exit 77, which CTest counts as skipped, where peft or torch is
missing.

usage: check_peft.py PEFT_TOOL
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
try:
    import numpy
    import peft
    import torch
    from transformers import AutoModelForCausalLM
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

LIMIT = 1e-5
CASES = [("v3", "4", "q_proj,o_proj"), ("v3", "3", "all"), ("v2-small", "2", "k_proj,down_proj"),
         ("v2-small", "5", "all")]


def check(condition, message):
    if not condition:
        sys.exit(f"FAILED: {message}")


def run_tool(*arguments, fails=None):
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, check=False)
    if fails:
        check(done.returncode != 0 and fails in done.stderr, f"{fails!r} not in {done.stderr!r}")
    else:
        check(done.returncode == 0, done.stderr)
    return done.stdout


def logits_of(model, found):
    """Every document on its own, as packed attention means it."""
    parts = []
    with torch.no_grad():
        for begin, end in zip(found["bounds"], found["bounds"][1:]):
            ids = torch.tensor([found["tokens"][begin:end]])
            parts.append(model(input_ids=ids).logits[0].double())
    return torch.cat(parts)


def distance(path, expected):
    ours = torch.from_numpy(numpy.fromfile(path, dtype=numpy.float32)).double()
    return ((ours.view_as(expected) - expected).norm() / expected.norm()).item()


def load_base(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def check_export(tool, case, folder):
    preset, rank, targets = case
    found = json.loads(run_tool(tool, "export", preset, rank, targets, folder))
    base = logits_of(load_base(folder / "base"), found)
    model = peft.PeftModel.from_pretrained(load_base(folder / "base"), folder / "adapters").eval()
    with_adapters = logits_of(model, found)
    error = distance(folder / "logits.f32", with_adapters)
    check(error <= LIMIT, f"{case}: logits are {error:.2e} apart")
    effect = ((with_adapters - base).norm() / base.norm()).item()
    check(effect > 0.01, f"{case}: the adapters change too little to say anything")
    merged = model.merge_and_unload().state_dict()
    ours = load_base(folder / "merged").state_dict()
    check(sorted(merged) == sorted(ours), "other names")
    apart = max(((merged[n] - ours[n]).norm() / merged[n].norm()).item() for n in merged)
    check(apart <= LIMIT, f"{case}: merged weights are {apart:.2e} apart")
    return found, error, apart


def make_adapters(folder, case, rslora):
    """Adapters that peft made and changed in two steps."""
    torch.manual_seed(3)
    targets = "all-linear" if case[2] == "all" else case[2].split(",")
    config = peft.LoraConfig(r=int(case[1]), lora_alpha=7, target_modules=targets, lora_dropout=0.1,
                             use_rslora=rslora, task_type="CAUSAL_LM")
    model = peft.get_peft_model(load_base(folder / "base"), config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    ids = torch.arange(40).view(2, 20)
    for _ in range(2):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def check_import(tool, case, folder, found):
    worst = 0.0
    for rslora in (False, True):
        saved = folder / f"saved-{rslora}"
        model = make_adapters(folder, case, rslora)
        model.save_pretrained(saved)
        run_tool(tool, "logits", folder / "base", saved, folder / "theirs.f32")
        error = distance(folder / "theirs.f32", logits_of(model, found))
        check(error <= LIMIT, f"{case}, rslora {rslora}: logits are {error:.2e} apart")
        worst = max(worst, error)
    return worst


def check_refusals(tool, folder):
    def with_settings(**changes):
        settings = json.loads((folder / "adapters" / "adapter_config.json").read_text())
        settings.update(changes)
        target = folder / "changed"
        target.mkdir(exist_ok=True)
        (target / "adapter_config.json").write_text(json.dumps(settings))
        (target / "adapter_model.safetensors").write_bytes(
            (folder / "adapters" / "adapter_model.safetensors").read_bytes())
        return target

    for fails, changes in (("use_dora", {"use_dora": True}), ("bias", {"bias": "all"}),
                           ("rank_pattern", {"rank_pattern": {"q_proj": 2}}),
                           ("LORA", {"peft_type": "IA3"}),
                           ("pissa", {"init_lora_weights": "pissa"}),
                           ("lm_head", {"target_modules": ["lm_head"]}), ("\"r\"", {"r": 0}),
                           ("lora_alpha", {"lora_alpha": "x"}), ("expected", {"r": 2}),
                           ("missing", {"target_modules": ["q_proj", "v_proj"]}),
                           ("no place", {"target_modules": ["q_proj"]})):
        run_tool(tool, "logits", folder / "base", with_settings(**changes), folder / "no.f32",
                 fails=fails)
    check(not (folder / "no.f32").exists(), "a refused folder left logits")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    tool = sys.argv[1]
    torch.set_num_threads(1)
    print(f"peft {peft.__version__}, torch {torch.__version__}")
    for case in CASES:
        with tempfile.TemporaryDirectory() as parent:
            folder = pathlib.Path(parent) / "out"
            found, error, apart = check_export(tool, case, folder)
            back = check_import(tool, case, folder, found)
            if case == CASES[0]:
                check_refusals(tool, folder)
            print(f"{case[0]}, rank {case[1]}, {case[2]}: logits {error:.1e} apart, merged weights "
                  f"{apart:.1e}, logits of peft's own adapters {back:.1e}")


if __name__ == "__main__":
    main()
