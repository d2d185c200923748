#!/usr/bin/env python3
"""Writes the golden fixtures of the stages, tests/data/golden/stages: SFT, LoRA, DPO, distillation.

Written from the formulas (docs/minimind.md and the papers named below), not with trl or peft: those
are compared with on their own (tests/io/check_trl.py, tests/io/check_peft.py). Two tiny models with
seeded weights, `v3` shaped like MiniMind v3 and `v2` like v2 but untied and with a few tokens more;
then one file per case, CASE.safetensors:

    tokens, labels, segments     one line per micro-batch, filled up with 0; segments are the bounds
                                 of its rows; labels are already shifted, -100 is not learned
    loss, grad_norm, lr          of each of the five steps, as are
      margin, chosen, rejected   the mean margin and the summed log-probabilities (dpo)
      ce, kl                     the two parts, means over the labels (distill)
    reference                    the reference's log-probability of every row (dpo)
    settings                     what the case is about, in the order of SETTINGS
    start/NAME                   where training starts, if not at the model's weights
    grad/NAME                    d(loss of the first step)/d(NAME), before clipping
    final/NAME                   the parameters after five AdamW steps
    logits                       of the first micro-batch after that (lora)

A step has two micro-batches of rows of different length. Every row is run on its own, which is what
"rows do not see each other" means, and the loss is the mean over all labels (dpo: pairs) of the
step. Two of the rows have several answers, one has nothing to learn.

    venv/bin/python scripts/make_golden_stages.py       (the packages of scripts/make_golden.py)

Each case is computed in fp64 too, and the distance is printed: Adam's first steps take little but
the sign of a gradient, so a seed is chosen by hand with which rounding flips none that matters.
"""

import argparse
import dataclasses
import math
import pathlib

import numpy
import torch
from safetensors.numpy import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from make_golden import BETAS, EPS, IGNORE, LEARNING_RATE, WEIGHT_DECAY, draw_weights

STEPS = 5
MICRO_BATCHES = 2
ROWS = 4  # of a micro-batch: two pairs
CLIP = 1.0
SETTINGS = ("beta", "label_smoothing", "gamma", "is_mean", "alpha", "temperature", "rank")


def make_model(name):
    shared = {
        "num_hidden_layers": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "rope_theta": 1e6,
        "attention_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "attn_implementation": "eager",
    }
    if name == "v3":
        return Qwen3ForCausalLM(Qwen3Config(
            vocab_size=97, hidden_size=32, intermediate_size=56, num_attention_heads=4,
            num_key_value_heads=2, rms_norm_eps=1e-6, tie_word_embeddings=True,
            use_sliding_window=False, **shared))
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=101, hidden_size=24, intermediate_size=40, num_attention_heads=3,
        num_key_value_heads=1, rms_norm_eps=1e-5, tie_word_embeddings=False, **shared))


@dataclasses.dataclass
class Case:
    name: str
    stage: str
    model: str
    seed: int
    targets: tuple = ()  # of lora
    kind: str = ""  # of dpo
    settings: dict = dataclasses.field(default_factory=dict)


ALL_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CASES = (
    Case("sft_v3", "sft", "v3", 1),
    Case("sft_v2", "sft", "v2", 1),
    Case("lora_qo_v3", "lora", "v3", 1, ("q_proj", "o_proj"), settings={"alpha": 8, "rank": 4}),
    Case("lora_all_v3", "lora", "v3", 1, ALL_TARGETS, settings={"alpha": 8, "rank": 4}),
    Case("lora_all_v2", "lora", "v2", 1, ALL_TARGETS, settings={"alpha": 8, "rank": 4}),
    Case("dpo_sigmoid_v3", "dpo", "v3", 1, kind="sigmoid", settings={"beta": 0.15}),
    Case("dpo_smoothed_v2", "dpo", "v2", 1, kind="sigmoid",
         settings={"beta": 0.15, "label_smoothing": 0.1}),
    Case("dpo_ipo_v2", "dpo", "v2", 1, kind="ipo", settings={"beta": 0.15, "is_mean": 1}),
    Case("dpo_hinge_v2", "dpo", "v2", 1, kind="hinge", settings={"beta": 0.15}),
    Case("dpo_simpo_v2", "dpo", "v2", 1, kind="simpo",
         settings={"beta": 2.0, "gamma": 0.5, "is_mean": 1}),
    Case("distill_v3", "distill", "v3", 1, settings={"alpha": 0.5, "temperature": 1.5}),
)


class Adapted(torch.nn.Module):
    """W x + alpha / rank B A x, W frozen. Hu et al., "LoRA", 2021, equation 3."""

    def __init__(self, base, rank, alpha, generator):
        super().__init__()
        self.base = base
        self.scale = alpha / rank
        draw = lambda *shape: torch.nn.Parameter(0.1 * torch.randn(*shape, generator=generator))
        self.lora_A = draw(rank, base.in_features)
        self.lora_B = draw(base.out_features, rank)  # not zero, or A would have no gradient

    def forward(self, x):
        return self.base(x) + self.scale * ((x @ self.lora_A.T) @ self.lora_B.T)


def adapt(model, case, generator):
    model.requires_grad_(False)
    for layer in model.model.layers:
        for part in (layer.self_attn, layer.mlp):
            for name, module in list(part.named_children()):
                if name in case.targets:
                    settings = case.settings
                    adapted = Adapted(module, settings["rank"], settings["alpha"], generator)
                    setattr(part, name, adapted)


def trained(model):
    """{name in the engine: parameter} of what has a gradient."""
    named = {name: value for name, value in model.named_parameters() if value.requires_grad}
    return {name + (".weight" if ".lora_" in name else ""): value for name, value in named.items()}


def draw_row(generator, vocab, answers):
    """Ids and labels of a conversation: per answer a question, not learned, and the answer."""
    length = lambda low, high: int(torch.randint(low, high, (1,), generator=generator))
    tokens, learned = [1], [False]
    for _ in range(max(1, answers)):
        for is_learned, count in ((False, length(2, 6)), (answers > 0, length(1, 7))):
            tokens += torch.randint(3, vocab, (count,), generator=generator).tolist()
            learned += [is_learned] * count
    labels = [t if known else IGNORE for t, known in zip(tokens[1:], learned[1:])]
    return tokens[:-1], labels


def draw_step(generator, vocab, case, step):
    """Micro-batches of rows (tokens, labels)."""
    batches = []
    for micro in range(MICRO_BATCHES):
        answers = [1] * ROWS
        if case.stage != "dpo":  # both sides of a pair are answers
            answers[(step + micro) % ROWS] = 0
            answers[(step + micro + 1) % ROWS] = 2 + micro
        batches.append([draw_row(generator, vocab, count) for count in answers])
    return batches


def logits_of(model, row):
    return model(input_ids=torch.tensor([row[0]]), use_cache=False).logits[0]


def logprob_of(model, row):
    """Summed over what is learned, and how many tokens that are."""
    labels = torch.tensor(row[1])
    known = labels != IGNORE
    logp = logits_of(model, row).log_softmax(-1)[known]
    return logp.gather(-1, labels[known][:, None]).sum(), int(known.sum())


def supervised_loss(model, rows, case, extra):
    """Mean cross entropy over all labels; with a teacher also its share of the divergence: Hinton,
    Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2."""
    labels = torch.cat([torch.tensor(row[1]) for row in rows])
    known = labels != IGNORE
    logits = torch.cat([logits_of(model, row) for row in rows])[known]
    entropy = torch.nn.functional.cross_entropy(logits, labels[known])
    if case.stage != "distill":
        return entropy, {}
    alpha, heat = case.settings["alpha"], case.settings["temperature"]
    with torch.no_grad():
        theirs = torch.cat([logits_of(extra["teacher"], row) for row in rows])[known]
    theirs = (theirs[:, : logits.shape[-1]] / heat).log_softmax(-1)
    ours = (logits / heat).log_softmax(-1)
    divergence = heat * heat * (theirs.exp() * (theirs - ours)).sum(-1).mean()
    return alpha * entropy + (1 - alpha) * divergence, {"ce": entropy, "kl": divergence}


def pair_loss(case, policy, reference, tokens):
    """(loss, difference of the implicit rewards) of one pair; each argument is (chosen, rejected).

    sigmoid: Rafailov et al., 2023, equation 7; ipo: Azar et al., 2023, equation 17; hinge: Zhao et
    al., 2023; simpo: Meng et al., 2024, equation 6."""
    beta = case.settings["beta"]
    if case.settings.get("is_mean"):
        policy = [value / count for value, count in zip(policy, tokens)]
        reference = [value / count for value, count in zip(reference, tokens)]
    gap = policy[0] - policy[1]
    if case.kind == "simpo":
        logit = beta * gap - case.settings["gamma"]
        return -torch.nn.functional.logsigmoid(logit), beta * gap
    gap = gap - (reference[0] - reference[1])
    if case.kind == "ipo":
        return (gap - 1 / (2 * beta)) ** 2, beta * gap
    if case.kind == "hinge":
        return torch.relu(1 - beta * gap), beta * gap
    smoothing = case.settings.get("label_smoothing", 0)
    logsigmoid = torch.nn.functional.logsigmoid
    loss = -(1 - smoothing) * logsigmoid(beta * gap) - smoothing * logsigmoid(-beta * gap)
    return loss, beta * gap


def preference_loss(model, rows, case, extra):
    """Mean over the step's pairs; chosen and rejected are neighbours."""
    found = [logprob_of(model, row) for row in rows]
    losses, margins = [], []
    for i in range(0, len(rows), 2):
        policy = [found[i][0], found[i + 1][0]]
        reference = [extra["logprobs"][id(rows[i])], extra["logprobs"][id(rows[i + 1])]]
        loss, margin = pair_loss(case, policy, reference, (found[i][1], found[i + 1][1]))
        losses.append(loss)
        margins.append(margin)
    mean = lambda values: torch.stack(values).mean()
    values = [value for value, _ in found]
    said = {"margin": mean(margins), "chosen": mean(values[::2]), "rejected": mean(values[1::2])}
    return mean(losses), said


def train(model, case, steps, extra):
    """The tensors that training gives."""
    out, said = {}, {"loss": [], "grad_norm": [], "lr": []}
    parameters = trained(model)
    optimizer = torch.optim.AdamW(parameters.values(), lr=LEARNING_RATE, betas=BETAS, eps=EPS,
                                  weight_decay=WEIGHT_DECAY, foreach=False, fused=False)
    objective = preference_loss if case.stage == "dpo" else supervised_loss
    for step, batches in enumerate(steps, start=1):
        rows = [row for batch in batches for row in batch]
        optimizer.zero_grad(set_to_none=True)
        loss, more = objective(model, rows, case, extra)
        loss.backward()
        if step == 1:
            for name, parameter in parameters.items():
                out[f"grad/{name}"] = parameter.grad.numpy().copy()
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP)
        rate = LEARNING_RATE * (0.1 + 0.45 * (1 + math.cos(math.pi * step / STEPS)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        for name, value in {"loss": loss, "grad_norm": norm, **more}.items():
            said.setdefault(name, []).append(value.item())
        said["lr"].append(rate)
    for name, parameter in parameters.items():
        out[f"final/{name}"] = parameter.detach().numpy().copy()
    out.update({name: numpy.array(values, numpy.float64) for name, values in said.items()})
    return out


def packed(steps):
    """tokens, labels, segments of all micro-batches, as int32 matrices."""
    batches = [batch for step in steps for batch in step]
    widest = max(sum(len(row[0]) for row in batch) for batch in batches)
    out = {name: numpy.zeros((len(batches), widest), numpy.int32) for name in ("tokens", "labels")}
    out["segments"] = numpy.zeros((len(batches), ROWS + 1), numpy.int32)
    for i, batch in enumerate(batches):
        for part, name in enumerate(("tokens", "labels")):
            flat = [value for row in batch for value in row[part]]
            out[name][i, : len(flat)] = flat
        out["segments"][i, 1:] = numpy.cumsum([len(row[0]) for row in batch])
    return out


def run(case, folder, dtype):
    """The tensors of a case, computed in dtype from the weights in fp32."""
    kind = LlamaForCausalLM if case.model == "v2" else Qwen3ForCausalLM
    model = kind.from_pretrained(folder / case.model, attn_implementation="eager").train()
    generator = torch.Generator().manual_seed(case.seed)
    steps = [draw_step(generator, model.config.vocab_size, case, step) for step in range(STEPS)]
    out, extra = packed(steps), {}
    if case.stage == "lora":
        adapt(model, case, generator)
    model = model.to(dtype)
    if case.stage == "distill":
        extra["teacher"] = LlamaForCausalLM.from_pretrained(
            folder / "v2", attn_implementation="eager").to(dtype)
    if case.stage == "dpo":
        rows = [row for step in steps for batch in step for row in batch]
        with torch.no_grad():
            extra["logprobs"] = {id(row): logprob_of(model, row)[0] for row in rows}
            out["reference"] = numpy.array([extra["logprobs"][id(row)].item() for row in rows])
            # Elsewhere than the reference, so that no pair has the margin 0.
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter += (0.02 * noise).float().to(dtype)
    if case.stage in ("lora", "dpo"):
        for name, parameter in trained(model).items():
            out[f"start/{name}"] = parameter.detach().numpy().copy()
    out["settings"] = numpy.array([case.settings.get(name, 0) for name in SETTINGS], numpy.float64)
    out.update(train(model, case, steps, extra))
    if case.stage == "lora":
        with torch.no_grad():
            logits = torch.cat([logits_of(model, row) for row in steps[0][0]])
        out["logits"] = logits.numpy()
    return out


def distance(found, exact):
    """The worst relative L2 distance of a gradient or final parameter."""
    norm = numpy.linalg.norm
    names = [name for name in found if name.startswith(("grad/", "final/"))]
    return max(norm(found[name] - exact[name]) / norm(exact[name]) for name in names)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tests = pathlib.Path(__file__).resolve().parent.parent / "tests"
    parser.add_argument("--out", type=pathlib.Path, default=tests / "data" / "golden" / "stages")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in ("v3", "v2"):
        model = make_model(name)
        draw_weights(model, torch.Generator().manual_seed(7))
        model.save_pretrained(out / name)
        (out / name / "generation_config.json").unlink(missing_ok=True)
    for case in CASES:
        tensors = run(case, out, torch.float32)
        apart = distance(tensors, run(case, out, torch.float64))
        save_file({key: numpy.ascontiguousarray(value) for key, value in tensors.items()},
                  out / f"{case.name}.safetensors")
        losses, norms = tensors["loss"], tensors["grad_norm"]
        print(f"{case.name}: loss {losses[0]:.6f} to {losses[-1]:.6f}, grad_norm {norms.min():.3f} "
              f"to {norms.max():.3f}, fp64 is {apart:.1e} away")
    for path in out.rglob("*.*"):
        path.chmod(0o644)


if __name__ == "__main__":
    main()
