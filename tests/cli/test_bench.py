"""`mmrun bench`: the shape of what it prints, and what holds on any machine; never speed."""
import os

import harness

TINY = ["--hidden", "32", "--layers", "2", "--heads", "2", "--kv-heads", "1", "--threads", "1"]
STEP = [*TINY, "--batch", "2", "--seq-len", "64", "--rounds", "2"]


class TestBench(harness.CliTest):
    def bench(self, *args, **how):
        return self.run_mmrun("bench", *args, "--json", "--quiet", **how).json()

    def assert_rates(self, probe, *names):
        for name in names:
            self.assertGreater(probe[name], 0, name)

    def assert_nothing_left(self, *kept):
        self.assertEqual(sorted(os.listdir(self.dir)), sorted(kept))

    def test_training(self):
        for dtype in ("fp32", "bf16"):
            with self.subTest(dtype=dtype):
                told = self.bench("train", *STEP, "--dtype", dtype,
                                  env={"TMPDIR": self.dir})
                self.assertEqual((told["dtype"], told["threads"]), (dtype, 1))
                self.assert_rates(told["probe"], "fp32_gflops", "bf16_gflops", "read_gbs")
                train = told["train"]
                self.assertEqual(len(train["seconds"]), 2)
                self.assertTrue(0 < train["tokens"] <= 2 * 64)
                self.assert_rates(train, "tokens_per_s", "flops_per_token", "gflops",
                                  "share_of_peak", "memory_bytes", "peak_rss_bytes")
                # A model that has seen two steps knows about as much as the uniform guess.
                self.assertTrue(5 < train["loss"] < 12, train["loss"])
                self.check_ops(train)
        self.assert_nothing_left()

    def check_ops(self, train):
        ops = train["ops"]
        self.assertEqual({op["direction"] for op in ops}, {"forward", "backward", "update"})
        names = {op["op"] for op in ops}
        self.assertLessEqual({"head", "qkv", "gate_up", "heads", "embed", "adamw"}, names)
        self.assertAlmostEqual(sum(op["share"] for op in ops), 1, delta=0.2)
        self.assertEqual(sorted((op["seconds"] for op in ops), reverse=True),
                         [op["seconds"] for op in ops])
        for op in ops:
            self.assertIn(op["bound"], ("compute", "memory"))
            self.assertGreater(op["ceiling_share"], 0, op)
            layers = op["op"] in ("qkv", "gate_up", "heads") and op["direction"] != "update"
            if layers:
                self.assertEqual(op["calls"], 2, op)
                self.assertGreater(op["gflops"], 0, op)

    def test_own_data_and_a_table_for_people(self):
        self.run_mmrun("data", "synth", "--out", "data", "--kind", "pretrain", "--rows", "60")
        self.run_mmrun("tokenizer", "train", "--data", "data/pretrain.jsonl", "--vocab", "400",
                       "-o", "tok")
        answer = self.run_mmrun("bench", "train", *STEP, "--data", "data/pretrain.jsonl",
                                "--tokenizer", "tok", err="warm up")
        for word in ("tokens/s", "GFLOP/s", "qkv +linear +backward", "Next bottleneck: "):
            self.assertRegex(answer.out, word)
        told = self.bench("tokenizer", "--data", "data/pretrain.jsonl", "--tokenizer", "tok")
        found = told["tokenizer"]
        self.assertTrue(found["tokens"] < found["bytes"] < os.path.getsize(
            self.path("data/pretrain.jsonl")))
        self.assertEqual((found["texts"], found["vocab_size"]), (60, 400))
        self.assert_rates(found, "encode_mb_per_s", "train_s")
        self.assertFalse(os.path.exists(self.db))

    def test_generation(self):
        for dtype in ("fp32", "bf16"):
            with self.subTest(dtype=dtype):
                told = self.bench("generate", *TINY, "--rows", "3", "--prompt-tokens", "5",
                                  "--new-tokens", "7", "--rounds", "2", "--dtype", dtype)
                found = told["generate"]
                self.assertEqual([found[k] for k in ("rows", "prompt_tokens", "new_tokens")],
                                 [3, 5, 7])
                self.assertEqual(len(found["seconds"]), 2)
                self.assert_rates(found, "prefill_tokens_per_s", "decode_tokens_per_s")
        self.assert_nothing_left()

    def test_all_of_it(self):
        told = self.bench(*STEP)
        self.assertLessEqual({"isa", "dtype", "threads", "probe", "train", "generate"}, set(told))

    def test_wrong_usage(self):
        self.run_mmrun("bench", "trian", expect=2, err="did you mean `mmrun bench train`")
        self.run_mmrun("bench", "tokenizer", expect=2, err="--data FILE")
        self.run_mmrun("bench", "train", "--rounds", "0", expect=2, err="--rounds")
        self.run_mmrun("bench", "train", "--hidden", "64,96", expect=2, err="one value")
        self.run_mmrun("bench", "train", "--data", "not-there", expect=2, err="not-there")
        self.run_mmrun("bench", "generate", "--new-tokens", "1", expect=2, err="--new-tokens")
        self.run_mmrun("bench", "train", "--device", "cuda", expect=2, err="--device cuda")


if __name__ == "__main__":
    harness.main()
