"""A process that runs a stage of trl when told to; worker.py talks to it, serve.py answers.

  rows  {"stage", "data", "tokenizer", "length", "count", "out"}
        Writes the first `count` rows of data that both sides understand alike and that are not cut
        at `length` -> {"rows", "tokens" of all of them}
  load  {"stage", "data", "rows", "tokenizer", "config", "dtype", "compile", "batch", "length",
         "rate", "adapters"}
        Makes trainer and model and does an epoch -> {"seconds", "loss" of the first step}
  idle  {}  Loads the libraries and nothing else     -> {"trl"}
  epoch {}                                              -> {"seconds", "loss" of the last step}

stage is sft or dpo, "adapters" the options of peft's LoraConfig, or null. The reference of dpo is a
second model that computes in every step, which is what trl does unless told otherwise.
"""

import json
import os
import queue
import tempfile
import threading
import time

import torch

import chat_rows
from serve import serve, use_threads


def tokenizer_of(order):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(order["tokenizer"])


def encoded(stage, tokenizer, row):
    if stage == "dpo":
        return chat_rows.preference(tokenizer, row)
    return chat_rows.supervised(tokenizer, row["conversations"])


def lengths_of(stage, row):
    if stage == "dpo":
        prompt = len(row["prompt_ids"])
        return [prompt + len(row["chosen_ids"]), prompt + len(row["rejected_ids"])]
    return [len(row["input_ids"])]


def write_rows(order):
    tokenizer = tokenizer_of(order)
    tokens = count = 0
    with open(order["data"], encoding="utf-8") as source:
        with open(order["out"], "w", encoding="utf-8") as out:
            for line in source:
                row = encoded(order["stage"], tokenizer, json.loads(line))
                if row is None or max(lengths_of(order["stage"], row)) > order["length"]:
                    continue
                out.write(line)
                tokens += sum(lengths_of(order["stage"], row))
                count += 1
                if count == order["count"]:
                    break
    return {"rows": count, "tokens": tokens}


def make_model(order, folder):
    """By way of a folder, where trl looks for the reference."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(42)
    config = dict(order["config"], tie_word_embeddings=True)
    config = AutoConfig.for_model(config.pop("model_type"), **config)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def make_trainer(order, folder, callback):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    tokenizer = tokenizer_of(order)
    rows = [encoded(order["stage"], tokenizer, row) for row in chat_rows.rows_of(order["data"])]
    model = make_model(order, folder)
    shared = {
        "output_dir": folder,
        "per_device_train_batch_size": order["batch"],
        "num_train_epochs": 10_000,
        "max_length": order["length"],
        "learning_rate": order["rate"],
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "lr_scheduler_type": "constant",
        "bf16": order["dtype"] == "bf16",
        "use_cpu": True,
        "torch_compile": order["compile"],
        # On by itself: it saves memory for a third more time, which a processor has no need of.
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "report_to": [],
        "logging_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    more = {}
    if order.get("adapters"):
        from peft import LoraConfig

        more["peft_config"] = LoraConfig(task_type="CAUSAL_LM", **order["adapters"])
    more["callbacks"] = [callback]
    more["train_dataset"] = Dataset.from_list(rows)
    more["processing_class"] = tokenizer
    if order["stage"] == "sft":
        return SFTTrainer(model, args=SFTConfig(**shared), **more)

    class Tokenized(DPOTrainer):
        """Takes rows that are tokenized already, as SFTTrainer does by itself."""

        def _prepare_dataset(self, dataset, *_):
            return dataset

    arguments = DPOConfig(beta=0.1, **shared)
    return Tokenized(model, args=arguments, **more)


class Stage:
    """The trainer runs in a thread of its own and waits between epochs."""

    def load(self, order):
        from transformers import TrainerCallback

        stage = self
        self.permits, self.answers = queue.Queue(), queue.Queue()

        class Pause(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                if state.global_step % stage.steps == 0:
                    stage.wait()

        started = time.monotonic()
        self.steps = -(-order["rows"] // order["batch"])
        self.folder = tempfile.TemporaryDirectory(prefix="trl-")
        trainer = make_trainer(order, self.folder.name, Pause())
        self.losses = []
        inner = trainer.compute_loss

        def compute_loss(*args, **kwargs):
            found = inner(*args, **kwargs)
            self.losses.append((found[0] if isinstance(found, tuple) else found).item())
            return found

        trainer.compute_loss = compute_loss
        threading.Thread(target=self.train, args=(trainer,), daemon=True).start()
        self.take()
        return {"seconds": time.monotonic() - started, "loss": self.losses[0]}

    def train(self, trainer):
        try:
            trainer.train()
            self.answers.put(RuntimeError("the trainer came to its end"))
        except BaseException as error:  # the main thread raises it
            self.answers.put(error)

    def wait(self):
        """In the trainer's thread, behind the last step of an epoch."""
        self.answers.put(None)
        self.permits.get()

    def take(self):
        error = self.answers.get()
        if error is not None:
            raise error

    def epoch(self, order):
        del order
        started = time.monotonic()
        self.permits.put(None)
        self.take()
        return {"seconds": time.monotonic() - started, "loss": self.losses[-1]}


def idle(order):
    del order
    import trl
    from datasets import Dataset

    # The trainers are imported when they are asked for.
    return {"trl": trl.__version__, "ready": bool(Dataset and trl.SFTTrainer and trl.DPOTrainer)}


if __name__ == "__main__":
    os.environ["HF_DATASETS_OFFLINE"] = "1"
    use_threads(torch)
    stage = Stage()
    serve({"idle": idle, "rows": write_rows, "load": stage.load, "epoch": stage.epoch})
