#!/usr/bin/env python3
"""Renders conversations with jinja2 and with the C renderer, and compares byte for byte; real ones
also as ids and learned positions, if the Python package tokenizers and the shared data are at hand.

    check_chat.py TEXT_TOOL SHARED_DATA

Two templates are rendered: the one mmrun writes and, where the shared data is at hand, MiniMind's.
Exits 77 (skipped) without jinja2.
"""
import json
import os
import random
import subprocess
import sys
import tempfile

try:
    import jinja2.sandbox
except ImportError:
    print("skipped: jinja2 is not installed")
    sys.exit(77)

CONVERSATIONS = 600
WORDS = ["", "a", "hello", "\n", "\n\n", "  ", " x", "你好", "<think>", "</think>",
         "<think>\n", "\n</think>\n\n", "<tool_call>", "<|im_end|>", "\"quoted\"", "back\\slash",
         "\t", "é", "👍🏽", "<b>&amp;'", "\x01", "\u2028"]
# Where a number changes its form: with or without an exponent, as an integer or not.
NUMBERS = [1e16, 1e15, 9999999999999998.0, 0.0001, 0.00001, 5e-324, 1.7976931348623157e308, -0.0,
           0.1]


def output_of(*command):
    return subprocess.run(command, check=True, capture_output=True).stdout.decode()


def text(rng):
    return "".join(rng.choice(WORDS) for _ in range(rng.randrange(6)))


def number(rng):
    kind = rng.randrange(7)
    if kind == 0:
        return rng.randrange(-10 ** 12, 10 ** 12)
    if kind == 1:
        return float(rng.randrange(-1000, 1000))
    if kind == 2:
        return rng.random() * 10 ** rng.randrange(-20, 25)
    if kind == 3:
        return rng.choice(NUMBERS)
    if kind == 4:
        return round(rng.random() * 1000, rng.randrange(4))
    return rng.choice([True, False, None])


def value(rng, depth=0):
    kind = rng.randrange(4 if depth < 3 else 2)
    if kind == 0:
        return text(rng)
    if kind == 1:
        return number(rng)
    if kind == 2:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {text(rng) or "k": value(rng, depth + 1) for _ in range(rng.randrange(4))}


def tool_call(rng):
    arguments = value(rng) if rng.random() < 0.7 else json.dumps(value(rng), ensure_ascii=False)
    call = {"name": "f" + text(rng), "arguments": arguments}
    return {"type": "function", "function": call} if rng.random() < 0.4 else call


def conversation(rng):
    messages = []
    for index in range(1 + rng.randrange(7)):
        roles = ["user", "assistant", "assistant", "tool", "tool"]
        systems = ["system"] * (3 if index == 0 else 1)
        message = {"role": rng.choice(roles + systems), "content": text(rng)}
        # A system turn in front must hold text: the template joins it without looking.
        if rng.random() < 0.05 and not (index == 0 and message["role"] == "system"):
            message["content"] = None
        if message["role"] == "assistant":
            if rng.random() < 0.3:
                message["reasoning_content"] = text(rng)
            if rng.random() < 0.4:
                message["tool_calls"] = [tool_call(rng) for _ in range(rng.randrange(3))]
        messages.append(message)
    result = {"messages": messages}
    if rng.random() < 0.3:
        result["tools"] = [value(rng) for _ in range(rng.randrange(3))]
    if rng.random() < 0.5:
        result["add_generation_prompt"] = True
        if rng.random() < 0.5:
            result["open_thinking"] = rng.random() < 0.5
    return result


def compile_template(source):
    # As transformers sets it up.
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda item: json.dumps(item, ensure_ascii=False)
    return environment.from_string(source)


def learned_positions(ids):
    """MiniMind's way to find them (docs/minimind.md): between these two sequences of ids."""
    opening, closing = [1, 1388, 570, 811, 234], [2, 234]
    mask = [0] * len(ids)
    at = 0
    while at < len(ids):
        if ids[at:at + len(opening)] != opening:
            at += 1
            continue
        at += len(opening)
        while at < len(ids) and ids[at:at + 2] != closing:
            mask[at] = 1
            at += 1
        for _ in range(min(2, len(ids) - at)):
            mask[at] = 1
            at += 1
    return mask


def check_real(tool, shared, template):
    try:
        from tokenizers import Tokenizer
    except ImportError:
        print("skipped: ids of real conversations, the Python package tokenizers is not installed")
        return
    folder = os.path.join(shared, "minimind-tokenizer")
    tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    conversations = []
    for name, key in (("sft_zh.jsonl", "conversations"), ("lora_identity.jsonl", "conversations"),
                      ("dpo_zh.jsonl", "chosen"), ("dpo_zh.jsonl", "rejected"),
                      ("rlaif.jsonl", "conversations")):
        with open(os.path.join(shared, name), encoding="utf-8") as file:
            conversations += [{"messages": json.loads(line)[key]} for line in file]
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        file.writelines(json.dumps(item, ensure_ascii=False) + "\n" for item in conversations)
        file.flush()
        lines = output_of(tool, "chat", folder, file.name).splitlines()
    assert len(lines) == 2 * len(conversations), len(lines)
    for index, item in enumerate(conversations):
        expected = tokenizer.encode(template.render(**item)).ids
        if expected != [int(number) for number in lines[2 * index].split()]:
            sys.exit(f"ids differ on {item}\nexpected {expected}\nfound    {lines[2 * index]}")
        mask = "".join(map(str, learned_positions(expected)))
        if mask != lines[2 * index + 1]:
            sys.exit(f"learned positions differ on {item}\nexpected {mask}\n"
                     f"found    {lines[2 * index + 1]}")
    print(f"ids and learned positions: {len(conversations)} real conversations equal")


def main():
    tool, shared = sys.argv[1:3]
    rng = random.Random(3)
    conversations = [conversation(rng) for _ in range(CONVERSATIONS)]
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        # Through JSON and back, so that both sides read the same numbers.
        lines = [json.dumps(item, ensure_ascii=False) for item in conversations]
        file.write("\n".join(lines) + "\n")
        file.flush()
        rendered = output_of(tool, "render", file.name)
        ours = [json.loads(line) for line in rendered.split("\n") if line]
    assert len(ours) == CONVERSATIONS, len(ours)

    templates = {"mmrun": output_of(tool, "template")[:-1]}
    config = os.path.join(shared, "minimind-tokenizer", "tokenizer_config.json")
    if os.path.exists(config):
        with open(config, encoding="utf-8") as file:
            templates["MiniMind"] = json.load(file)["chat_template"]
    for name, source in templates.items():
        template = compile_template(source)
        for line, found in zip(lines, ours):
            expected = template.render(**json.loads(line))
            if expected != found:
                sys.exit(f"{name} template differs on {line}\nexpected {expected!r}\n"
                         f"found    {found!r}")
        print(f"{name} template: {CONVERSATIONS} conversations equal")
    if "MiniMind" in templates:
        check_real(tool, shared, compile_template(templates["MiniMind"]))


if __name__ == "__main__":
    main()
