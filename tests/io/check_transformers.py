#!/usr/bin/env python3
"""An exported folder loads in transformers without remote code and computes what the engine does.

For a Qwen3-shaped and a Llama-shaped model: the same loss on the same packed tokens within 1e-5,
the same greedy continuation, the same token ids, the same rendered chat, and the same tensors, bit
for bit, when the engine imports the folder that transformers saves in turn. Exit 77, which CTest
counts as skipped, where transformers or torch is missing.

usage: check_transformers.py HF_TOOL [TOKENIZER]
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
try:
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

LIMIT = 1e-5
CLASSES = {"v3": "Qwen3ForCausalLM", "v2-small": "LlamaForCausalLM"}


def check(condition, message):
    if not condition:
        sys.exit(f"FAILED: {message}")


def mean_loss(model, tokens, bounds):
    """Every document on its own, as packed attention means it."""
    total, count = 0.0, 0
    for begin, end in zip(bounds, bounds[1:]):
        if end - begin < 2:
            continue
        ids = torch.tensor([tokens[begin:end]])
        logits = model(input_ids=ids).logits[0, :-1].double()
        total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        count += end - begin - 1
    return total / count


def run_tool(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    check(done.returncode == 0, done.stderr)
    return done.stdout


def check_model(model, preset, found):
    check(type(model).__name__ == CLASSES[preset], f"loaded as {type(model).__name__}")
    check(model.dtype == torch.float32, f"loaded as {model.dtype}")
    with torch.no_grad():
        loss = mean_loss(model, found["tokens"], found["bounds"])
        prompt = torch.tensor([found["prompt"]])
        row = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                             max_new_tokens=48)[0].tolist()
    error = abs(loss - found["loss"]) / abs(loss)
    check(error <= LIMIT, f"{preset}: loss {found['loss']}, transformers {loss}")
    eos = model.generation_config.eos_token_id
    check(eos == 2, f"eos_token_id {eos}")
    greedy = row[len(found["prompt"]):]
    if greedy and greedy[-1] == eos:
        greedy.pop()
    check(len(greedy) > 10, "the continuation is too short to say anything")
    check(greedy == found["greedy"], f"{preset}: greedy {found['greedy']}, transformers {greedy}")
    return loss, error, len(greedy)


def check_tokenizer(folder, found):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for row in found["texts"]:
        ids = tokenizer(row["text"], add_special_tokens=False)["input_ids"]
        check(ids == row["ids"], f"{row['text']!r}: {row['ids']}, transformers {ids}")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"},
                {"role": "assistant", "content": "4"}, {"role": "user", "content": "再加一？"}]
    chat = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    check(chat == found["chat"], f"chat {found['chat']!r}, transformers {chat!r}")
    ids = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    check(ids == (1, 2, 0), f"bos, eos, pad {ids}")


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    tool = sys.argv[1]
    words = sys.argv[2] if len(sys.argv) == 3 and pathlib.Path(sys.argv[2]).exists() else "train"
    torch.set_num_threads(1)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, tokenizer {words}")
    for preset in CLASSES:
        with tempfile.TemporaryDirectory() as parent:
            folder = pathlib.Path(parent) / "export"
            found = json.loads(run_tool(tool, preset, words, str(folder)))
            model = AutoModelForCausalLM.from_pretrained(folder).eval()
            loss, error, length = check_model(model, preset, found)
            check_tokenizer(folder, found)
            saved = pathlib.Path(parent) / "saved"
            model.save_pretrained(saved)
            run_tool(tool, "compare", str(folder), str(saved))
            print(f"{CLASSES[preset]}: loss {loss:.9f}, relative difference {error:.1e}, "
                  f"{length} greedy tokens equal, {len(found['texts'])} texts and a chat equal")


if __name__ == "__main__":
    main()
