#!/usr/bin/env python3
"""Writes the golden fixtures of tests/data/golden: what PyTorch and transformers compute.

Two tiny models with seeded weights, one Qwen3-shaped like MiniMind v3 (QK-norm, tied embedding),
one Llama-shaped like v2 but untied. For each: the weights as a Hugging Face folder (config.json and
model.safetensors as transformers itself saves them) and reference.safetensors with

    tokens, labels, segments     ten packed batches; labels are already shifted, -100 is ignored
    logits                       of the first batch, (T, V)
    loss, grad_norm, lr          mean loss, norm before clipping and rate of each of the ten steps
    grad_clip                    the norm clipped to
    grad/NAME                    d(mean loss of the first batch)/d(NAME), before any step
    final/NAME                   the parameters after ten AdamW steps

A packed batch holds several documents. The reference runs every document on its own and joins the
logits, which is what "attention never crosses a document, positions restart" means.

The fixtures are committed; neither the build nor the tests need Python. To make them again:

    python3 -m venv venv
    venv/bin/pip install torch --index-url https://download.pytorch.org/whl/cpu
    venv/bin/pip install 'transformers==4.57.6' safetensors numpy
    venv/bin/python scripts/make_golden.py

Made with torch 2.13.0 and transformers 4.57.6 in fp32 on one thread.
"""

import argparse
import math
import pathlib

import numpy
import torch
from safetensors.numpy import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

STEPS = 10
TOKENS = 45  # of a batch; not a multiple of anything a kernel likes
DOCUMENTS = 4
VOCAB = 97
# Adam's first step takes little but the sign of a gradient, so that one value whose gradient is
# rounding noise spoils a tensor. With this seed there is none: fp32 and fp64 runs of this script
# end within 2e-7 of each other (other seeds: up to 3e-5).
SEED = 9
IGNORE = -100

# MiniMind's optimizer (all parameters in one group, norms and embeddings are decayed too).
LEARNING_RATE = 5e-4
BETAS = (0.9, 0.999)
EPS = 1e-8
WEIGHT_DECAY = 0.01


def make_qwen3():
    config = Qwen3Config(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=512,
        rms_norm_eps=1e-6, rope_theta=1e6, tie_word_embeddings=True, attention_bias=False,
        use_sliding_window=False, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        attn_implementation="eager")
    return Qwen3ForCausalLM(config)


def make_llama():
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=48, intermediate_size=80, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=1, head_dim=12, max_position_embeddings=512,
        rms_norm_eps=1e-5, rope_theta=1e6, tie_word_embeddings=False, attention_bias=False,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, attn_implementation="eager")
    return LlamaForCausalLM(config)


def draw_weights(model, generator):
    """Larger than a fresh model's, so that attention and gates are far from linear."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.2 * noise if "norm" in name else 0.12 * noise)


def draw_batch(generator):
    """Tokens, shifted labels with holes, bounds of the documents (one has a single token)."""
    cuts = (torch.randperm(TOKENS - 2, generator=generator)[: DOCUMENTS - 2] + 1).sort().values
    bounds = [0, *cuts.tolist(), TOKENS - 1, TOKENS]
    tokens = torch.randint(3, VOCAB, (TOKENS,), generator=generator)
    labels = torch.full((TOKENS,), IGNORE)
    for begin, end in zip(bounds, bounds[1:]):
        labels[begin : end - 1] = tokens[begin + 1 : end]
    labels[torch.rand(TOKENS, generator=generator) < 0.15] = IGNORE
    labels[TOKENS - 1] = 7  # the document of one token learns too
    return tokens, labels, bounds


def packed_logits(model, tokens, bounds):
    """(T, V): each document alone, positions from 0."""
    documents = [tokens[begin:end].unsqueeze(0) for begin, end in zip(bounds, bounds[1:])]
    return torch.cat([model(input_ids=ids, use_cache=False).logits[0] for ids in documents])


def mean_loss(logits, labels):
    return torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORE)


def learning_rate(step):
    """MiniMind v3: cosine from the rate to a tenth of it, step from 1."""
    return LEARNING_RATE * (0.1 + 0.45 * (1 + math.cos(math.pi * step / STEPS)))


def reference(model, batches, clip):
    """The tensors of reference.safetensors; trains the model ten steps."""
    out = {}
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=BETAS, eps=EPS,
                                  weight_decay=WEIGHT_DECAY, foreach=False, fused=False)
    losses, norms, rates = [], [], []
    for step, (tokens, labels, bounds) in enumerate(batches, start=1):
        logits = packed_logits(model, tokens, bounds)
        loss = mean_loss(logits, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if step == 1:
            out["logits"] = logits.detach().numpy()
            for name, parameter in model.named_parameters():
                out[f"grad/{name}"] = parameter.grad.numpy().copy()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        optimizer.step()
        losses.append(loss.item())
        norms.append(norm.item())
        rates.append(learning_rate(step))
    for name, parameter in model.named_parameters():
        out[f"final/{name}"] = parameter.detach().numpy()
    out["loss"] = numpy.array(losses, dtype=numpy.float64)
    out["grad_norm"] = numpy.array(norms, dtype=numpy.float64)
    out["lr"] = numpy.array(rates, dtype=numpy.float64)
    out["grad_clip"] = numpy.array([clip], dtype=numpy.float64)
    for index, name in enumerate(("tokens", "labels", "segments")):
        rows = [torch.as_tensor(batch[index]).numpy() for batch in batches]
        out[name] = numpy.stack(rows).astype(numpy.int32)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "golden"
    parser.add_argument("--out", type=pathlib.Path, default=default)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    # 1.0 is MiniMind's and clips every step here; 4.5 clips some steps and leaves others alone.
    cases = (("qwen3", make_qwen3, 1.0), ("llama", make_llama, 4.5))
    for name, make, clip in cases:
        generator = torch.Generator().manual_seed(SEED)
        model = make().train()
        draw_weights(model, generator)
        batches = [draw_batch(generator) for _ in range(STEPS)]
        folder = out / name
        model.save_pretrained(folder, safe_serialization=True)
        (folder / "generation_config.json").unlink(missing_ok=True)
        tensors = reference(model, batches, clip)
        save_file({key: numpy.ascontiguousarray(value) for key, value in tensors.items()},
                  folder / "reference.safetensors", metadata={"format": "pt"})
        for path in folder.iterdir():
            path.chmod(0o644)
        losses, norms = tensors["loss"], tensors["grad_norm"]
        print(f"{name}: loss {losses[0]:.6f} to {losses[-1]:.6f}, "
              f"grad_norm {norms.min():.3f} to {norms.max():.3f}")


if __name__ == "__main__":
    main()
