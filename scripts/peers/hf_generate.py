"""A process that decodes with transformers when told to; worker.py talks to it, serve.py answers.

  load    {"config", "dtype"}                            -> {}
  decode  {"rows", "prompt_tokens", "new_tokens"}        -> {"decode_tokens_per_s", "seconds"}

Greedy, with the end of text disabled. Generating a single token takes the time of the prompt; that
is taken off, so the rate is that of the tokens after the first.
"""

import time

import torch
import transformers

from serve import serve, use_threads


class Generator:
    def load(self, order):
        torch.manual_seed(42)
        fields = dict(order["config"])
        kind = {"qwen3": "Qwen3", "llama": "Llama"}[fields.pop("model_type")]
        config = getattr(transformers, kind + "Config")(**fields, tie_word_embeddings=True)
        self.model = getattr(transformers, kind + "ForCausalLM")(config).eval()
        if order["dtype"] == "bf16":
            self.model.to(torch.bfloat16)
        self.model.generation_config.eos_token_id = None
        return {}

    def generate(self, prompt, count):
        started = time.monotonic()
        with torch.inference_mode():
            out = self.model.generate(
                prompt, max_new_tokens=count, do_sample=False, use_cache=True, pad_token_id=0
            )
        seconds = time.monotonic() - started
        made = out.shape[1] - prompt.shape[1]
        if made != count:
            raise RuntimeError(f"{made} tokens instead of {count}")
        return seconds

    def decode(self, order):
        rows, count = order["rows"], order["new_tokens"]
        shape = (rows, order["prompt_tokens"])
        prompt = torch.randint(36, self.model.config.vocab_size, shape)
        first = self.generate(prompt, 1)
        whole = self.generate(prompt, count)
        rate = rows * (count - 1) / (whole - first)
        return {"decode_tokens_per_s": rate, "seconds": [first, whole]}


if __name__ == "__main__":
    use_threads(torch)
    generator = Generator()
    serve({"load": generator.load, "decode": generator.decode})
