"""Conversations as ids and labels, by the tokenizer's own template and MiniMind's rule."""

import json

IGNORED = -100
# "<|im_start|>assistant\n" and "<|im_end|>\n" in MiniMind's vocabulary: what stands between them,
# the second included, is learned.
OPENING, CLOSING = [1, 1388, 570, 811, 234], [2, 234]


def rows_of(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def ids_of(tokenizer, messages):
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def learned_of(ids):
    """1 where an id is learned."""
    learned = [0] * len(ids)
    at = 0
    while at < len(ids):
        if ids[at : at + len(OPENING)] != OPENING:
            at += 1
            continue
        at += len(OPENING)
        end = at
        while end < len(ids) and ids[end : end + len(CLOSING)] != CLOSING:
            end += 1
        end = min(len(ids), end + len(CLOSING))
        learned[at:end] = [1] * (end - at)
        at = end
    return learned


def supervised(tokenizer, messages):
    """A row of an SFT data set."""
    ids = ids_of(tokenizer, messages)
    labels = [id if known else IGNORED for id, known in zip(ids, learned_of(ids))]
    return {"input_ids": ids, "labels": labels}


def preference(tokenizer, row):
    """A row of a DPO data set, None if more than one answer of a side is learned."""
    parts = {}
    for side in ("chosen", "rejected"):
        ids = ids_of(tokenizer, row[side])
        learned = learned_of(ids)
        first = learned.index(1)
        if 0 in learned[first:]:
            return None
        parts[side] = (ids[:first], ids[first:])
    if parts["chosen"][0] != parts["rejected"][0]:
        return None
    return {
        "prompt_ids": parts["chosen"][0],
        "chosen_ids": parts["chosen"][1],
        "rejected_ids": parts["rejected"][1],
    }
