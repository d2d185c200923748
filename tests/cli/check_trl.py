#!/usr/bin/env python3
"""Five steps of SFT and DPO give the losses and metrics that trl's trainers give, from the same
exported model on the same real conversations. Exit 77 (skipped) without trl or the data.

usage: check_trl.py MMRUN SHARED_DATA

The rows reach trl as ids, rendered by transformers with MiniMind's template. trl would leave the
empty think block, which is part of its prompt for an answer, out of what is learned.
"""
import reference
from reference import LENGTH, ROWS, STEPS, check_close

try:
    import torch
    import transformers
    import trl
    from datasets import Dataset
except ImportError as missing:
    reference.skip(missing)

RATE = 1e-3
LIMIT = 1e-4
# Kinds of ours and trl's name. Its ipo divides by the number of tokens, which ours does if asked.
KINDS = (
    ("sigmoid", (), "sigmoid"),
    ("sigmoid of means", ("--logp", "mean"), "sigmoid_norm"),
    ("hinge", ("--loss", "hinge"), "hinge"),
    ("ipo of means", ("--loss", "ipo", "--logp", "mean"), "ipo"),
)
METRICS = {"dpo/margin": "rewards/margins", "dpo/accuracy": "rewards/accuracies",
           "dpo/logp_chosen": "logps/chosen", "dpo/logp_rejected": "logps/rejected"}


def options_of(folder):
    return {
        "output_dir": str(folder / "trl"), "per_device_train_batch_size": ROWS,
        "max_steps": STEPS, "num_train_epochs": STEPS, "max_length": LENGTH,
        "learning_rate": RATE, "lr_scheduler_type": "constant", "weight_decay": 0.0,
        "max_grad_norm": 1.0, "optim": "adamw_torch", "bf16": False, "use_cpu": True,
        "gradient_checkpointing": False, "save_strategy": "no", "report_to": [],
        "logging_steps": 1, "disable_tqdm": True, "dataloader_pin_memory": False,
    }


class Tokenized(trl.DPOTrainer):
    """Takes rows that are tokenized already, as SFTTrainer does by itself."""

    def _prepare_dataset(self, dataset, *_):
        return dataset


def train(kind, folder, arguments, rows):
    """(losses, what the trainer logged) of every step."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    trainer = kind(model, args=arguments, train_dataset=Dataset.from_list(rows),
                   processing_class=transformers.AutoTokenizer.from_pretrained(folder))
    losses = []
    inner = trainer.compute_loss

    def compute_loss(*args, **kwargs):
        loss = inner(*args, **kwargs)
        losses.append(loss.item())
        return loss

    trainer.compute_loss = compute_loss  # what it logs is rounded
    trainer.train()
    return losses, trainer.state.log_history[:STEPS]


def check_sft(mmrun, folder, tokenizer):
    path, rows = mmrun.rows("sft_zh.jsonl", lambda row: reference.chat_rows.supervised(
        tokenizer, row["conversations"]))
    found = mmrun.stage("sft", "sft", path, "--system-prompt-share", 0, rate=RATE)
    losses, logged = train(trl.SFTTrainer, folder, trl.SFTConfig(**options_of(mmrun.folder)), rows)
    apart = check_close("sft: loss", found["loss"], losses, LIMIT)
    norms = [entry["grad_norm"] for entry in logged]
    check_close("sft: grad_norm", found["grad_norm"], norms, 10 * LIMIT)
    print(f"sft: loss {losses[0]:.6f} to {losses[-1]:.6f}, {apart:.1e} apart")


def check_dpo(mmrun, folder, tokenizer):
    path, rows = mmrun.rows("dpo_zh.jsonl",
                            lambda row: reference.chat_rows.preference(tokenizer, row))
    for number, (title, flags, name) in enumerate(KINDS):
        found = mmrun.stage("dpo", f"dpo{number}", path, "--beta", 0.15, *flags, rate=RATE)
        arguments = trl.DPOConfig(beta=0.15, loss_type=[name], **options_of(mmrun.folder))
        losses, logged = train(Tokenized, folder, arguments, rows)
        apart = check_close(f"dpo, {title}: loss", found["loss"], losses, LIMIT)
        if "--logp" not in flags:  # trl's are sums always
            for ours, theirs in METRICS.items():
                values = [entry[theirs] for entry in logged]
                check_close(f"dpo, {title}: {ours}", found[ours], values, LIMIT)
        print(f"dpo, {title}: loss {losses[0]:.6f} to {losses[-1]:.6f}, {apart:.1e} apart")


def main():
    torch.set_num_threads(2)
    print(f"trl {trl.__version__}, transformers {transformers.__version__}")
    with reference.Program() as mmrun:
        folder = mmrun.base("--hidden", 64, "--layers", 2)
        tokenizer = transformers.AutoTokenizer.from_pretrained(mmrun.tokenizer)
        check_sft(mmrun, folder, tokenizer)
        check_dpo(mmrun, folder, tokenizer)


if __name__ == "__main__":
    main()
