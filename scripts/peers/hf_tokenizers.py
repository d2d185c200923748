"""A process that runs Hugging Face tokenizers when told to; worker.py talks, serve.py answers.

  load    {"texts", "tokenizer"}    -> {"bytes"}
  encode  {}                        -> {"mb_per_s": {WAY: rate}}, every row by every way there is
  ids     {"path"}                  -> {"sha256", "count"} of the ids of a whole file as one text
  learn   {"vocab_size", "special"} -> {"seconds", "vocabulary_sha256"}
  rows    {"out", "length", ...}    -> see rows()

"texts" is a file of JSON lines with a text each.
"""

import hashlib
import json
import time

import numpy
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from serve import serve

BOS, EOS, PAD = 1, 2, 0


def sha256_of(ids):
    return hashlib.sha256(numpy.asarray(ids, "<i4").tobytes()).hexdigest()


class Tokens:
    def load(self, order):
        with open(order["texts"], encoding="utf-8") as file:
            self.texts = [json.loads(line)["text"] for line in file if line.strip()]
        self.tokenizer = Tokenizer.from_file(order["tokenizer"])
        self.bytes = sum(len(text.encode()) for text in self.texts)
        return {"bytes": self.bytes}

    def encode(self, _):
        ways = {
            "encode": lambda: [self.tokenizer.encode(text) for text in self.texts],
            "encode_batch_fast": lambda: self.tokenizer.encode_batch_fast(self.texts),
        }
        rates = {}
        for name, way in ways.items():
            started = time.monotonic()
            way()
            rates[name] = self.bytes / (time.monotonic() - started) / 1e6
        return {"mb_per_s": rates}

    def ids(self, order):
        with open(order["path"], encoding="utf-8", newline="") as file:
            found = self.tokenizer.encode(file.read()).ids
        return {"sha256": sha256_of(found), "count": len(found)}

    def learn(self, order):
        learned = Tokenizer(models.BPE())
        learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        learned.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=order["vocab_size"],
            min_frequency=0,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=order["special"],
        )
        started = time.monotonic()
        learned.train_from_iterator(self.texts, trainer, length=len(self.texts))
        seconds = time.monotonic() - started
        vocabulary = sorted(learned.get_vocab().items(), key=lambda item: item[1])
        text = json.dumps([name for name, _ in vocabulary])
        return {"seconds": seconds, "vocabulary_sha256": hashlib.sha256(text.encode()).hexdigest()}

    def rows(self, order):
        """What the two sides train on.

        documents.jsonl and documents.i32: texts joined and cut so that each has exactly "length"
        ids with its begin and end; padded.i32: rows of "padded_length" ids as MiniMind makes them,
        one text each, cut or padded. Returns the share of the padded rows that is not padding, of
        the whole file.
        """
        encoded = [found.ids for found in self.tokenizer.encode_batch(self.texts)]
        length, wanted = order["length"], order["documents"]
        chain, documents, cut = [], [], length - 2
        newline = self.tokenizer.encode("\n").ids
        for ids in encoded:
            chain += ids + newline
            if len(documents) == wanted:
                break
            while len(chain) >= cut and len(documents) < wanted:
                head, chain = chain[:cut], chain[cut:]
                text = self.tokenizer.decode(head, skip_special_tokens=False)
                # A cut inside a character, or where other merges apply, does not come back.
                if self.tokenizer.encode(text).ids == head:
                    documents.append((text, [BOS] + head + [EOS]))
        if len(documents) < wanted:
            raise RuntimeError(f"{len(documents)} documents of {length} ids, {wanted} are needed")
        with open(f"{order['out']}/documents.jsonl", "w", encoding="utf-8") as file:
            for text, _ in documents:
                print(json.dumps({"text": text}, ensure_ascii=False), file=file)
        numpy.array([ids for _, ids in documents], "<i4").tofile(f"{order['out']}/documents.i32")
        width = order["padded_length"]
        padded = [([BOS] + ids[: width - 2] + [EOS]) for ids in encoded]
        fill = sum(map(len, padded)) / (width * len(padded))
        # Rows of the whole file, not of its beginning alone.
        chosen = padded[:: max(1, len(padded) // order["padded_rows"])][: order["padded_rows"]]
        chosen = [ids + [PAD] * (width - len(ids)) for ids in chosen]
        numpy.array(chosen, "<i4").tofile(f"{order['out']}/padded.i32")
        return {"fill": fill}


if __name__ == "__main__":
    tokens = Tokens()
    serve({name: getattr(tokens, name) for name in ("load", "encode", "ids", "learn", "rows")})
