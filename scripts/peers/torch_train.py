"""A process that trains in PyTorch when told to; worker.py talks to it, serve.py answers.

  load  {"config", "ids", "rows", "length", "dtype", "compile", "update", "weights"?}
                                                         -> {"seconds", "loss"} of a first step
  step  {"count"}                                        -> {"seconds": [..], "loss"}

"ids" is a file of int32, rows of "length" ids; id 0 is padding and not learned. "update" says
whether a step ends with clipping and AdamW (else it is one micro-batch of an accumulation);
"weights" a safetensors file to start from.
"""

import time

import numpy
import torch

from serve import serve, use_threads
from torch_model import Model

PAD, IGNORED = 0, -100


class Trainer:
    def load(self, order):
        torch.manual_seed(42)
        shape = (-1, order["rows"], order["length"])
        self.ids = torch.from_numpy(numpy.fromfile(order["ids"], numpy.int32)).long().view(shape)
        self.next = 0
        self.model = Model(order["config"], order["length"])
        if order.get("weights"):
            from safetensors.torch import load_file

            self.model.load_state_dict(load_file(order["weights"]))
        self.bf16 = order["dtype"] == "bf16"
        self.update = order["update"]
        # fused is the fastest of its three ways on a CPU too.
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=5e-4, fused=True)
        self.forward = torch.compile(self.model) if order["compile"] else self.model
        started = time.monotonic()
        loss = self.one_step()
        return {"seconds": time.monotonic() - started, "loss": loss}

    def one_step(self):
        ids = self.ids[self.next]
        self.next = (self.next + 1) % len(self.ids)
        labels = torch.full_like(ids, IGNORED)
        labels[:, :-1] = ids[:, 1:]
        labels[labels == PAD] = IGNORED
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.forward(ids, labels)
        loss.backward()
        if self.update:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def step(self, order):
        seconds, loss = [], None
        for _ in range(order["count"]):
            started = time.monotonic()
            loss = self.one_step()
            seconds.append(time.monotonic() - started)
        return {"seconds": seconds, "loss": loss}


if __name__ == "__main__":
    use_threads(torch)
    trainer = Trainer()
    serve({"load": trainer.load, "step": trainer.step})
