#!/usr/bin/env python3
"""Compares the tokenizer with Hugging Face tokenizers: character classes, ids, trained merges,
written files.

    check_tokenizer.py TEXT_TOOL SHARED_DATA

Exits 77 (skipped) without the Python package tokenizers. What needs real text is left out, and said
so, where the shared data is missing.
"""
import json
import os
import random
import subprocess
import sys
import tempfile

try:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
except ImportError:
    print("skipped: the Python package tokenizers is not installed")
    sys.exit(77)

TOOL, SHARED = sys.argv[1:3]
TOKENIZER = os.path.join(SHARED, "minimind-tokenizer")
HAS_DATA = os.path.isdir(SHARED)


def run(*arguments):
    command = [TOOL, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode()


class Strings:
    """A JSONL file of strings for the tool."""

    def __init__(self, texts):
        self.file = tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8")
        self.file.writelines(json.dumps(text, ensure_ascii=False) + "\n" for text in texts)
        self.file.flush()

    def __str__(self):
        return self.file.name


def real_texts():
    def path(name):
        return os.path.join(SHARED, name)
    with open(path("pretrain_poetry.jsonl"), encoding="utf-8") as file:
        poetry = [json.loads(line)["text"] for line in file]
    with open(path("sft_zh.jsonl"), encoding="utf-8") as file:
        sft = [turn["content"] for line in file for turn in json.loads(line)["conversations"]]
    with open(path("tinyshakespeare.txt"), encoding="utf-8") as file:
        shakespeare = file.read()
    plays = [shakespeare] + [shakespeare[at:at + 997] for at in range(0, len(shakespeare), 997)]
    return {"pretrain_poetry": poetry, "sft_zh": sft, "tinyshakespeare": plays}


def made_up_texts():
    rng = random.Random(4)
    pieces = ["the ", "then", " there", "\n", "  ", "aaaa", "aaaaaaaaaaa", "ab", "abab", "'s",
              "don't", "123", "中文", "今天", "é", "👍🏽", "\t", "<think>", "!!", "...", "\u00a0",
              "\u0085", "\ufeff", "x" * 70]
    return ["".join(rng.choice(pieces) for _ in range(rng.randrange(1, 60))) for _ in range(400)]


def check_words():
    """Every code point between letters, digits and signs is split alike."""
    rule = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    codes = [code for code in range(1, 0x110000) if not 0xD800 <= code < 0xE000]
    texts = [f"a{chr(code)}a1{chr(code)}1!{chr(code)}! {chr(code)}" for code in codes]
    for start in range(0, len(texts), 100000):
        part = texts[start:start + 100000]
        found = run("split", Strings(part)).splitlines()
        assert len(found) == len(part)
        for text, line in zip(part, found):
            expected = [len(word) for word, _ in rule.pre_tokenize_str(text)]  # one symbol per byte
            if expected != [int(length) for length in line.split()]:
                sys.exit(f"{text!r} splits as {line}, expected {expected}")
    print(f"splitting: {len(codes)} code points equal")


def check_ids(name, texts):
    theirs = Tokenizer.from_file(os.path.join(TOKENIZER, "tokenizer.json"))
    found = run("encode", TOKENIZER, Strings(texts)).splitlines()
    assert len(found) == len(texts)
    for text, line, encoding in zip(texts, found, theirs.encode_batch(texts)):
        if encoding.ids != [int(number) for number in line.split()]:
            sys.exit(f"ids of {text!r} differ\nexpected {encoding.ids}\nfound    {line}")
    print(f"ids: {name}, {len(texts)} texts equal")


def check_training(name, texts, size):
    with tempfile.TemporaryDirectory() as folder:
        run("train", str(size), Strings(texts), folder)
        path = os.path.join(folder, "tokenizer.json")
        with open(path, encoding="utf-8") as file:
            written = file.read()
        ours = json.loads(written)
        theirs = Tokenizer(models.BPE())
        theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        theirs.train_from_iterator(texts, trainers.BpeTrainer(
            vocab_size=size, special_tokens=[token["content"] for token in ours["added_tokens"]],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
        model = json.loads(theirs.to_str())["model"]
        if ours["model"]["vocab"] != model["vocab"] or ours["model"]["merges"] != model["merges"]:
            first = next((i for i, pair in enumerate(zip(ours["model"]["merges"], model["merges"]))
                          if pair[0] != pair[1]), None)
            sys.exit(f"{name} to {size}: the trained model differs, first at merge {first}")
        # The file is laid out as the library lays it out.
        loaded = Tokenizer.from_file(path)
        assert json.loads(loaded.to_str()) == ours
        assert loaded.to_str(pretty=True) == written, "another layout"
        sample = texts[:200]
        found = run("encode", folder, Strings(sample)).splitlines()
        for text, line in zip(sample, found):
            assert loaded.encode(text).ids == [int(number) for number in line.split()], text
        if size == 6400:
            check_transformers(folder, sample)
    n_merges = len(ours["model"]["merges"])
    print(f"training: {name} to {len(ours['model']['vocab'])}, {n_merges} merges equal")


def check_transformers(folder, texts):
    try:
        from transformers import AutoTokenizer
    except ImportError:
        return
    theirs = AutoTokenizer.from_pretrained(folder)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (1, 2, 0)
    assert theirs.decode(theirs(texts[0])["input_ids"]) == texts[0]
    rendered = theirs.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False,
                                          add_generation_prompt=True)
    assert rendered == ("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
                        "<think>\n\n</think>\n\n"), rendered


def main():
    check_words()
    made_up = made_up_texts()
    for size in (292, 293, 400, 3000, 60000):
        check_training("made-up text", made_up, size)
    if not HAS_DATA:
        print(f"skipped: real text, {SHARED} is missing")
        return
    check_ids("made-up text", made_up)
    for name, texts in real_texts().items():
        check_ids(name, texts)
        if name != "pretrain_poetry":
            check_training(name, texts[1:], 20000)
        check_training(name, texts[:3000], 6400)


if __name__ == "__main__":
    main()
