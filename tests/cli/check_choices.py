#!/usr/bin/env python3
"""`mmrun eval --choices` chooses what transformers gives the highest log-probability, question by
question, in every way of asking. Exit 77 (skipped) without transformers or the data.

usage: check_choices.py MMRUN SHARED_DATA

The answers of the file are written so that every second question must be right and the others
wrong; each has a subject of its own, and so a result of its own.
"""
import json
import random

import reference
from reference import check

try:
    import torch
    import transformers
except ImportError as missing:
    reference.skip(missing)

QUESTIONS = 24
CLEAR = 1e-3  # nearer to each other than that, two options are no question for rounding
WORDS = ["red", "a blue whale", "seventeen", "in the north of the country", "never",
         "sugar and salt"]
CHARACTERS = ["红色", "一头蓝鲸", "十七", "在这个国家的北方", "从不", "糖和盐"]
CASES = [(score, style) for score in ("letter", "text") for style in ("text", "chat")]


def questions():
    rng = random.Random(5)
    for number in range(QUESTIONS):
        is_chinese = number % 2 == 1
        options = rng.sample(CHARACTERS if is_chinese else WORDS, rng.randrange(2, 6))
        text = f"{number} 加 {rng.randrange(99)} 是什么？" if is_chinese else \
            f"What is {number} and {rng.randrange(99)}?"
        yield {"question": text, "subject": f"s{number}", "choices": options}


def is_chinese(question):
    return any("\u4e00" <= letter <= "\u9fff" for letter in question["question"])


def prompt_of(question, score, style):
    """As runner/quiz_score.h describes it, written again."""
    chinese = is_chinese(question)
    text = question["question"]
    if score == "letter":
        for letter, option in zip("ABCDE", question["choices"]):
            text += f"\n{letter}. {option}"
        if style == "chat":
            return text + ("\n请只回答选项的字母。" if chinese else "\nAnswer with the letter only.")
        head = ("以下是关于{}的单项选择题，请给出正确答案的选项。\n\n" if chinese else
                "The following are multiple choice questions (with answers) about {}.\n\n")
        text = head.format(question["subject"]) + text
    elif style == "chat":
        return text
    else:
        text = ("问题：" if chinese else "Question: ") + text
    return text + ("\n答案：" if chinese else "\nAnswer:")


def scores_of(model, tokenizer, question, score, style):
    """Summed log-probability of every option."""
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
    prompt = prompt_of(question, score, style)
    if style == "chat":
        turns = [{"role": "user", "content": prompt}]
        ids = encode(tokenizer.apply_chat_template(turns, tokenize=False,
                                                   add_generation_prompt=True))
    else:
        ids = [tokenizer.bos_token_id, *encode(prompt)]
    gap = " " if style == "text" and not is_chinese(question) else ""
    found = []
    for number, option in enumerate(question["choices"]):
        answer = encode(gap + ("ABCDE"[number] if score == "letter" else option))
        logits = model(input_ids=torch.tensor([ids + answer])).logits[0, len(ids) - 1:-1]
        logp = logits.double().log_softmax(-1)
        found.append(logp.gather(-1, torch.tensor(answer)[:, None]).sum().item())
    return found


def per_byte(question, scores):
    return [value / len(option.encode()) for value, option in zip(scores, question["choices"])]


def shares_of(mmrun, path, score, style):
    """{(metric, subject): share right}"""
    answer = json.loads(mmrun.run("eval", "base", "--choices", path, "--score", score, "--style",
                                  style, "--dtype", "fp32", "--json"))
    found = {}
    for result in answer["results"]:
        metric, _, subject = result["metric"].partition("/")
        if subject:
            found[metric, subject] = result["value"]
    return found


def check_case(mmrun, model, tokenizer, score, style):
    metrics = {"choice_accuracy": lambda question, scores: scores}
    if score == "text":
        metrics["choice_accuracy_norm"] = per_byte
    found = [(question, scores_of(model, tokenizer, question, score, style))
             for question in questions()]
    for metric, weigh in metrics.items():
        kept, path = [], mmrun.folder / f"{metric}-{score}-{style}.jsonl"
        for question, summed in found:
            scores = weigh(question, summed)
            order = sorted(range(len(scores)), key=lambda i: -scores[i])
            if scores[order[0]] - scores[order[1]] > CLEAR:
                kept.append({**question, "answer": order[len(kept) % 2]})
        check(len(kept) > QUESTIONS / 2, f"{score}, {style}: only {len(kept)} clear questions")
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept),
                        encoding="utf-8")
        shares = shares_of(mmrun, path, score, style)
        for number, question in enumerate(kept):
            share = shares[metric, question["subject"]]
            check(share == 1 - number % 2, f"{score}, {style}: {metric} of {question}: {share}")
        print(f"{score}, {style}, {metric}: {len(kept)} choices equal")


def main():
    print(f"transformers {transformers.__version__}")
    torch.set_num_threads(1)
    with reference.Program() as mmrun, torch.no_grad():
        folder = mmrun.base("--hidden", 64, "--layers", 2)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(mmrun.tokenizer)
        for score, style in CASES:
            check_case(mmrun, model, tokenizer, score, style)


if __name__ == "__main__":
    main()
