#!/usr/bin/env python3
"""`mmrun data show` gives, for every row of the real data, the ids that transformers gives for
MiniMind's own chat template, and learns what MiniMind's rule on ids learns. The files as they were
published (Alpaca, ShareGPT) read as the conversations they stand for. Exit 77 (skipped) without
transformers or the data.

usage: check_labels.py MMRUN SHARED_DATA
"""
import json

import reference
from reference import check

try:
    import transformers
except ImportError as missing:
    reference.skip(missing)

# Which turns of a row are rendered, by the name that `data show` gives them.
SIDES = {
    "sft_zh.jsonl": {"chat": lambda row: row["conversations"]},
    "lora_identity.jsonl": {"chat": lambda row: row["conversations"]},
    "dpo_zh.jsonl": {"chosen": lambda row: row["chosen"], "rejected": lambda row: row["rejected"]},
    "raw/alpaca_zh_demo.json": {"chat": lambda row: alpaca(row)},
    "raw/dpo_zh_demo.json": {"chosen": lambda row: sharegpt(row, "chosen"),
                             "rejected": lambda row: sharegpt(row, "rejected")},
}
ROLES = {"system": "system", "human": "user", "gpt": "assistant"}


def alpaca(row):
    question = row["instruction"] + ("\n" + row["input"] if row["input"] else "")
    return [{"role": "user", "content": question}, {"role": "assistant", "content": row["output"]}]


def sharegpt(row, side):
    turns = row["conversations"] + [row[side]]
    return [{"role": ROLES[turn["from"]], "content": turn["value"]} for turn in turns]


def rows_of(path):
    if path.suffix == ".jsonl":
        return reference.chat_rows.rows_of(path)
    return json.loads(path.read_text(encoding="utf-8"))


def shown(mmrun, name):
    answer = mmrun.run("data", "show", mmrun.shared / name, "-n", 1_000_000, "--json",
                       "--tokenizer", mmrun.tokenizer)
    return json.loads(answer)["samples"]


def check_file(mmrun, tokenizer, name, sides):
    rows = rows_of(mmrun.shared / name)
    samples = shown(mmrun, name)
    check(len(samples) == len(rows), f"{name}: {len(samples)} rows, expected {len(rows)}")
    learned = 0
    for number, (row, sample) in enumerate(zip(rows, samples), start=1):
        for side, turns_of in sides.items():
            ids = reference.chat_rows.ids_of(tokenizer, turns_of(row))
            mask = reference.chat_rows.learned_of(ids)
            found = sample[f"{side}_tokens"]
            check(found["ids"] == ids, f"{name}:{number}: ids of {side}\n{found['ids']}\n{ids}")
            check(found["learned"] == mask, f"{name}:{number}: what is learned of {side}")
            learned += sum(mask)
    print(f"{name}: {len(rows)} rows equal, {learned:,} ids learned")


def main():
    print(f"transformers {transformers.__version__}")
    with reference.Program() as mmrun:
        tokenizer = transformers.AutoTokenizer.from_pretrained(mmrun.tokenizer)
        for name, sides in SIDES.items():
            check_file(mmrun, tokenizer, name, sides)


if __name__ == "__main__":
    main()
