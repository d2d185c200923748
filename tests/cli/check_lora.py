#!/usr/bin/env python3
"""Five LoRA steps give the losses and adapters that peft gives, from the same base and the same A;
so do merged weights. Exit 77 (skipped) without peft or the data.

usage: check_lora.py MMRUN SHARED_DATA

A run that learns nothing (rate 0) hands its first adapters over in peft's format.
"""
import reference
from reference import LENGTH, STEPS, check, check_close

try:
    import peft
    import torch
    import transformers
    from safetensors.torch import load_file
except ImportError as missing:
    reference.skip(missing)

LIMIT = 1e-4
# targets, rank, alpha, learning rate (high, as A is small and B zero at first)
CASES = (("q_proj+o_proj", 4, 8, 3e-2), ("all", 3, 3, 5e-3))


def batch_of(rows):
    """Padded ids, attention mask and labels, cut."""
    rows = [{key: values[:LENGTH] for key, values in row.items()} for row in rows]
    widest = max(len(row["input_ids"]) for row in rows)
    filled = lambda values, pad: values + [pad] * (widest - len(values))
    return {
        "input_ids": torch.tensor([filled(row["input_ids"], 0) for row in rows]),
        "labels": torch.tensor([filled(row["labels"], -100) for row in rows]),
        "attention_mask": torch.tensor([filled([1] * len(row["input_ids"]), 0) for row in rows]),
    }


def train(model, batch, rate):
    """Losses of five steps; the model is left trained."""
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def distance(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def check_adapters(folder, model):
    """Ours in the folder against those of the trained model."""
    ours = load_file(folder / "adapter_model.safetensors")
    theirs = peft.get_peft_model_state_dict(model)
    check(set(ours) == set(theirs), f"tensors differ: {sorted(set(ours) ^ set(theirs))[:4]}")
    worst = max(distance(ours[name], theirs[name].detach()) for name in ours)
    check(worst <= 1e-3, f"adapters after {STEPS} steps: {worst:.1e} apart")
    return worst


def check_merged(mmrun, name, model, batch):
    """The exported model, adapters merged into it, has the logits of peft's."""
    mmrun.run("export", name, "-o", mmrun.folder / f"{name}-merged")
    merged = transformers.AutoModelForCausalLM.from_pretrained(mmrun.folder / f"{name}-merged")
    with torch.no_grad():
        found, expected = (each(input_ids=batch["input_ids"]).logits for each in (merged, model))
    check(distance(found, expected) <= LIMIT, "merged weights have other logits than adapters")


def check_case(mmrun, base, rows, case):
    targets, rank, alpha, rate = case
    path, encoded = rows
    flags = ("--targets", targets, "--rank", rank, "--alpha", alpha, "--system-prompt-share", 0)
    name = targets.partition("+")[0]
    mmrun.stage("lora", f"{name}-start", path, *flags, rate=0)
    mmrun.run("export", f"{name}-start", "--format", "peft", "-o", mmrun.folder / f"{name}-start")
    found = mmrun.stage("lora", name, path, *flags, rate=rate)
    mmrun.run("export", name, "--format", "peft", "-o", mmrun.folder / name)

    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, mmrun.folder / f"{name}-start",
                                           is_trainable=True)
    batch = batch_of(encoded)
    losses = train(model, batch, rate)
    apart = check_close(f"lora {targets}: loss", found["loss"], losses, LIMIT)
    check(losses[-1] < losses[0] - 0.01, f"nothing was learned: {losses}")
    adapters = check_adapters(mmrun.folder / name, model)
    check_merged(mmrun, name, model, batch)
    print(f"lora {targets}: loss {losses[0]:.6f} to {losses[-1]:.6f}, {apart:.1e} apart; "
          f"adapters {adapters:.1e}")


def main():
    torch.set_num_threads(2)
    print(f"peft {peft.__version__}, transformers {transformers.__version__}")
    with reference.Program() as mmrun:
        base = mmrun.base("--hidden", 64, "--layers", 2)
        tokenizer = transformers.AutoTokenizer.from_pretrained(mmrun.tokenizer)
        rows = mmrun.rows("sft_zh.jsonl", lambda row: reference.chat_rows.supervised(
            tokenizer, row["conversations"]))
        for case in CASES:
            check_case(mmrun, base, rows, case)


if __name__ == "__main__":
    main()
