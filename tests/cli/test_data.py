"""Data and tokenizers by hand: data synth, check, show; tokenizer train, encode, decode, show."""
import json
import os
import re

import harness

SHARED = os.path.join(os.environ.get("MMRUN_SOURCE", "."), "..", "shared", "data")
CHAT = [{"role": "user", "content": "1+1=?"}, {"role": "assistant", "content": "2"}]


class TestSynth(harness.CliTest):
    def test_writes_every_kind_with_held_out_rows(self):
        paths = self.run_mmrun("data", "synth", "--rows", "100").out.split()
        self.assertEqual(paths, [f"./dataset/{kind}{end}.jsonl"
                                 for kind in ("pretrain", "sft", "preference", "rl",
                                              "arithmetic", "persona")
                                 for end in ("", "_val")])
        for path in paths:
            rows = [json.loads(line) for line in self.read(path).splitlines()]
            self.assertEqual(len(rows), 5 if "_val" in path else 100)
        self.run_mmrun("data", "check", *paths)

    def test_same_seed_same_bytes(self):
        for out, seed in (("a", 1), ("b", 1), ("c", 2)):
            told = self.run_mmrun("data", "synth", "--out", out, "--kind", "sft", "--rows", "50",
                                  "--seed", seed, "--json").json()
            self.assertEqual(told["files"], [f"{out}/sft.jsonl", f"{out}/sft_val.jsonl"])
        self.assertEqual(self.read("a/sft.jsonl"), self.read("b/sft.jsonl"))
        self.assertNotEqual(self.read("a/sft.jsonl"), self.read("c/sft.jsonl"))


class TestCheck(harness.CliTest):
    def test_good_rows(self):
        self.write("a.jsonl", "".join(json.dumps({"text": text}) + "\n"
                                      for text in ("one", "two two", "one", "\u4e09")))
        answer = self.run_mmrun("data", "check", "a.jsonl",
                                out=r"(?s)usable.*schema +text.*rows +4")
        self.assertRegex(answer.out, r"duplicates +1: line 3 = line 1")
        told = self.run_mmrun("data", "check", "a.jsonl", "--json").json()["files"][0]
        self.assertEqual((told["usable"], told["rows"], told["bad_rows"], told["duplicates"]),
                         (True, 4, 0, 1))
        self.assertEqual(told["bytes"],
                         {"total": 16, "min": 3, "p50": 3, "p90": 7, "p99": 7, "max": 7})
        self.assertIsNone(told["tokens"])

    def test_bad_rows_are_named_by_line(self):
        good = json.dumps({"text": "fine"}) + "\n"
        self.write("b.jsonl", good + "{\"text\": \n" + good + json.dumps({"txt": "?"}) + "\n" +
                   json.dumps({"text": ""}) + "\n" + good)
        answer = self.run_mmrun("data", "check", "b.jsonl", expect=2, out="not usable",
                                err="b.jsonl")
        for line in (2, 4, 5):
            self.assertRegex(answer.out, rf"(?m)^    line {line}: ")
        answer = self.run_mmrun("data", "check", "b.jsonl", "--json", expect=2)
        told, error = answer.json_lines()
        self.assertEqual([bad["line"] for bad in told["files"][0]["first_bad"]], [2, 4, 5])
        self.assertEqual(sum(told["files"][0]["bad_by_reason"].values()), 3)
        self.assertEqual(error["error"]["exit_code"], 2)

    def test_hopeless_files(self):
        self.write("empty.jsonl", "")
        self.write("numbers.jsonl", "1\n2\n")
        self.write("bytes.jsonl", b"\xff\xfe\x00\x01" * 10)
        for name in ("empty.jsonl", "numbers.jsonl", "bytes.jsonl", "missing.jsonl"):
            with self.subTest(name=name):
                answer = self.run_mmrun("data", "check", name, expect=None, err=re.escape(name))
                self.assertIn(answer.code, (1, 2))
        # One bad file does not hide the others.
        self.write("fine.jsonl", json.dumps({"text": "fine"}) + "\n")
        self.run_mmrun("data", "check", "empty.jsonl", "fine.jsonl", expect=2,
                       out=r"fine\.jsonl  usable")

    def test_the_shared_files_are_usable(self):
        if not os.path.isdir(SHARED):
            self.skipTest("no shared data beside the project")
        for name, schema in (("pretrain_poetry.jsonl", "text"), ("sft_zh.jsonl", "conversations"),
                             ("dpo_zh.jsonl", "preference"), ("rlaif.jsonl", "conversations"),
                             ("lora_identity.jsonl", "conversations")):
            with self.subTest(name=name):
                told = self.run_mmrun("data", "check", os.path.join(SHARED, name), "--tokenizer",
                                      os.path.join(SHARED, "minimind-tokenizer"), "--json").json()
                found = told["files"][0]
                self.assertEqual((found["format"], found["usable"]), (schema, True))
                self.assertGreater(found["tokens"]["total"], 0)


class TestShow(harness.CliTest):
    def setUp(self):
        super().setUp()
        self.write("chat.jsonl", json.dumps({"conversations": CHAT}) + "\n")
        self.write("text.jsonl", "".join(json.dumps({"text": f"row {i} of text"}) + "\n"
                                         for i in range(10)))
        self.write("pair.jsonl", json.dumps({"chosen": CHAT, "rejected": CHAT[:1] + [
            {"role": "assistant", "content": "3"}]}) + "\n")
        self.run_mmrun("tokenizer", "train", "--data", "text.jsonl", "--vocab", "300", "-o", "tok")

    def test_text(self):
        text = self.run_mmrun("data", "show", "text.jsonl", "--rows", "2").out
        self.assertEqual(text, "line 1\nrow 0 of text\n\nline 2\nrow 1 of text\n\n")

    def test_the_mask_is_visible(self):
        text = self.run_mmrun("data", "show", "chat.jsonl", "--tokenizer", "tok").out
        # Learned: the answer and the end of its turn. Not learned: the question.
        self.assertRegex(text, r"(?s)1\+1=\?.*\[\[.*2<\|im_end\|>\n?\]\]")
        self.assertNotRegex(text, r"\[\[[^\]]*1\+1")
        told = self.run_mmrun("data", "show", "chat.jsonl", "-t", "tok", "--json").json()
        sample = told["samples"][0]
        self.assertEqual(len(sample["chat_tokens"]["ids"]), len(sample["chat_tokens"]["learned"]))
        self.assertIn("1+1=?", sample["chat"])
        self.assertIn(1, sample["chat_tokens"]["learned"])
        self.assertIn(0, sample["chat_tokens"]["learned"])

    def test_pairs_show_both_sides(self):
        text = self.run_mmrun("data", "show", "pair.jsonl").out
        self.assertRegex(text, r"(?s)\(chosen\).*2<\|im_end\|>.*\(rejected\).*3<\|im_end\|>")

    def test_nothing_in_a_row_steers_the_terminal(self):
        self.write("bad.jsonl", json.dumps({"text": "\x1b]0;title\x07\u202e"}) + "\n")
        self.assertIn(r"\x1b]0;title\x07\u{202e}", self.run_mmrun("data", "show", "bad.jsonl").out)


class TestTokenizer(harness.CliTest):
    def setUp(self):
        super().setUp()
        self.run_mmrun("data", "synth", "--out", "data", "--kind", "pretrain", "--rows", "200")
        told = self.run_mmrun("tokenizer", "train", "--data", "data/pretrain.jsonl",
                              "data/pretrain_val.jsonl", "--vocab", "400", "-o", "tok", "--json")
        self.made = told.json()["tokenizer"]

    def test_train_says_what_it_made(self):
        self.assertEqual((self.made["path"], self.made["vocab_size"]), ("tok", 400))
        self.assertEqual(sorted(os.listdir(self.path("tok"))),
                         ["tokenizer.json", "tokenizer_config.json"])
        self.run_mmrun("tokenizer", "train", "--data", "data/pretrain.jsonl",
                       "data/pretrain_val.jsonl", "--vocab", "400", "-o", "again")
        self.assertEqual(self.read("tok/tokenizer.json"), self.read("again/tokenizer.json"))
        self.run_mmrun("tokenizer", "train", expect=2, err="needs --data")
        self.run_mmrun("tokenizer", "train", "--data", "data/pretrain.jsonl", "--vocab", "200",
                       expect=2, err="--vocab must be between 292")

    def test_decode_is_the_inverse_of_encode(self):
        for text in ("Once upon a time",
                     "\u4ece\u524d\u6709\u4e00\u53ea\u732b\u3002 \U0001f600\n\ttab", "x" * 3000):
            ids = self.run_mmrun("tokenizer", "encode", "-", "-t", "tok", stdin=text).out
            self.assertRegex(ids, r"^\d+( \d+)*\n$")
            back = self.run_mmrun("tokenizer", "decode", "-", "-t", "tok", stdin=ids).out
            self.assertEqual(back, text)
        self.assertEqual(self.run_mmrun("tokenizer", "decode", "36", "37", "38", "-t", "tok").out,
                         self.run_mmrun("tokenizer", "decode", "[36, 37, 38]", "-t", "tok").out)

    def test_added_tokens_can_be_switched_off(self):
        encode = ("tokenizer", "encode", "<|im_end|>", "-t", "tok")
        special = self.run_mmrun(*encode, "--json").json()
        plain = self.run_mmrun(*encode, "--plain", "--json").json()
        self.assertEqual(special["count"], 1)
        self.assertGreater(plain["count"], 1)
        self.run_mmrun(*encode, "--pieces", out=r"^\d+ '<\|im_end\|>'\n$")

    def test_mistakes(self):
        self.run_mmrun("tokenizer", "encode", "x", expect=2, err="which tokenizer")
        self.run_mmrun("tokenizer", "encode", "x", "-t", "nowhere", expect=2, err="nowhere")
        self.run_mmrun("tokenizer", "decode", "12x", "-t", "tok", expect=2, err="12x")
        self.run_mmrun("tokenizer", "decode", "99999", "-t", "tok", expect=2, err="99999")

    def test_show(self):
        text = self.run_mmrun("tokenizer", "show", "-t", "tok",
                              "--data", "data/pretrain_val.jsonl").out
        self.assertRegex(text, r"(?m)^vocabulary +400$")
        self.assertRegex(text, r"(?m)^end of text +'<\|im_end\|>' \(2\)$")
        self.assertRegex(text, r"(?m)^bytes per token +\d\.\d{3}$")
        told = self.run_mmrun("tokenizer", "show", "-t", "tok", "--json").json()["tokenizer"]
        self.assertEqual((told["hash"], told["vocab_size"]), (self.made["hash"], 400))

    def test_the_golden_ids_of_the_shared_tokenizer(self):
        folder = os.path.join(SHARED, "minimind-tokenizer")
        if not os.path.isdir(folder):
            self.skipTest("no shared data beside the project")
        told = self.run_mmrun("tokenizer", "show", "-t", folder, "--json").json()["tokenizer"]
        self.assertEqual((told["vocab_size"], told["bos_id"], told["eos_id"]), (6400, 1, 2))


if __name__ == "__main__":
    harness.main()
