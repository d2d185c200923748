"""--dtype: what is recorded, what it computes, and that bf16 learns what fp32 learns.

The comparison of the two types is over a small model. Over a larger one and other text, by hand:

    MMRUN_DTYPE_FLAGS="--hidden 256 --layers 4 --batch 8 --seq-len 512 --lr 1e-3" \\
    MMRUN_DTYPE_DATA=text.jsonl MMRUN=build/mmrun python3 tests/cli/test_dtype.py TestAgreement
"""

# timeout: 300
import os
import statistics

import harness

TINY = ["--hidden", "16", "--layers", "1", "--heads", "2", "--kv-heads", "1", "--seq-len", "32",
        "--batch", "2", "--threads", "1", "--gen-tokens", "0"]
SMALL = ("--hidden 128 --layers 2 --heads 4 --kv-heads 2 --batch 4 --seq-len 128 --lr 2e-3 "
         "--threads 1")
LEAST = {"MMRUN_ISA": "generic"}  # the build that every processor runs


class DtypeTest(harness.CliTest):
    def setUp(self):
        super().setUp()
        self.run_mmrun("data", "synth", "--out", "data", "--kind", "pretrain", "--rows", "400")
        self.run_mmrun("tokenizer", "train", "--data", "data/pretrain.jsonl", "--vocab", "1000",
                       "-o", "tok")

    def pretrain(self, name, *more, data="data/pretrain.jsonl", **how):
        return self.run_mmrun("pretrain", "--data", data, "--tokenizer", "tok", "--name", name,
                              *more, **how)

    def losses(self, run):
        return [value for value, in self.query(
            "SELECT m.value FROM metrics m JOIN runs r ON r.id = m.run_id "
            "WHERE r.name = ? AND m.name = 'loss' ORDER BY step", run)]

    def dtype_of(self, run):
        return self.query("SELECT r.dtype, p.value, p.is_default FROM runs r JOIN params p "
                          "ON p.run_id = r.id AND p.name = 'dtype' WHERE r.name = ?", run)[0]

    def isa_of(self, run):
        return self.run_mmrun("show", run, "--json").json()["environment"]["isa"]


class TestRecord(DtypeTest):
    def test_the_default_is_what_the_processor_does_best(self):
        best = self.run_mmrun("doctor", "--json").json()["doctor"]["machine"]
        self.pretrain("auto", *TINY, "--steps", "2", err=f"{best['dtype']} on ")
        self.assertEqual(self.dtype_of("auto"), (best["dtype"], best["dtype"], 1))
        self.assertEqual(self.isa_of("auto"), best["isa"][best["dtype"]])
        self.pretrain("least", *TINY, "--steps", "2", env=LEAST, err="fp32 on generic")
        self.assertEqual(self.dtype_of("least"), ("fp32", "fp32", 1))

    def test_bf16_works_without_instructions_for_it(self):
        self.pretrain("least", *TINY, "--steps", "30", "--dtype", "bfloat16", env=LEAST,
                      err="bf16 on generic(.|\n)*--dtype fp32")
        self.assertEqual(self.dtype_of("least"), ("bf16", "bf16", 0))
        self.pretrain("full", *TINY, "--steps", "30", "--dtype", "fp32", env=LEAST)
        least, full = self.losses("least"), self.losses("full")
        self.assertNotEqual(least, full)
        self.assertLess(max(abs(a - b) for a, b in zip(least, full)), 0.02)

    def test_a_resume_keeps_the_type_and_tells_of_other_kernels(self):
        isa = self.run_mmrun("doctor", "--json").json()["doctor"]["machine"]["isa"]["bf16"]
        running = self.start_mmrun("pretrain", "--data", "data/pretrain.jsonl", "--tokenizer",
                                   "tok", *TINY, "--dtype", "bf16", "--steps", "4000",
                                   "--save-every", "5", "--name", "run")
        running.wait_for(self.has_checkpoint)
        running.kill()
        # Started where fp32 would be the choice: the record decides.
        again = self.start_mmrun("resume", "run", env=LEAST)
        again.wait_for_text("resumed at step")
        again.kill()
        self.assertEqual(self.dtype_of("run")[:2], ("bf16", "bf16"))
        self.assertEqual(self.isa_of("run"), "generic")
        events = self.query("SELECT level, message FROM events WHERE kind = 'isa'")
        if isa == "generic":
            self.assertEqual(events, [])
            return
        self.assertEqual([level for level, _ in events], ["warn"])
        self.assertIn(isa, events[0][1])
        self.assertRegex(again.answer().err, f"{isa} kernels.*generic")

    def has_checkpoint(self):
        try:
            return self.value("SELECT count(*) FROM checkpoints") > 0
        except Exception:  # not there yet
            return False

    def test_a_sweep_over_both(self):
        self.run_mmrun("sweep", "--data", "data/pretrain.jsonl", "--tokenizer", "tok", *TINY,
                       "--steps", "3", "--dtype", "fp32,bf16", "--name", "types")
        rows = self.query("SELECT name, dtype, status FROM runs ORDER BY id")
        self.assertEqual(rows, [("types/dtype=fp32", "fp32", "finished"),
                                ("types/dtype=bf16", "bf16", "finished")])
        self.assertNotEqual(self.losses("types/dtype=fp32"), self.losses("types/dtype=bf16"))

    def test_checkpoints_are_full_precision(self):
        for dtype in ("fp32", "bf16"):
            self.pretrain(dtype, *TINY, "--steps", "2", "--dtype", dtype)
            sizes = self.query("SELECT raw_bytes FROM checkpoints c JOIN runs r ON r.id = c.run_id "
                               "WHERE r.name = ?", dtype)
            params = self.value("SELECT params_total FROM runs WHERE name = ?", dtype)
            # Weights and two moments of four bytes.
            self.assertEqual({size for size, in sizes}, {params * 3 * 4})


class TestAgreement(DtypeTest):
    def test_the_two_types_learn_the_same(self):
        flags = os.environ.get("MMRUN_DTYPE_FLAGS", SMALL).split()
        data = os.path.abspath(os.environ.get("MMRUN_DTYPE_DATA", self.path("data/pretrain.jsonl")))
        last = {}
        for dtype in ("fp32", "bf16"):
            self.pretrain(dtype, *flags, "--dtype", dtype, "--steps", "300", "--gen-tokens", "0",
                          data=data, timeout=None)
            losses = self.losses(dtype)
            self.assertEqual(len(losses), 300)
            self.assertLess(statistics.mean(losses[-50:]), 0.8 * losses[0])
            last[dtype] = statistics.mean(losses[-50:])
        print(f"mean of the last 50 losses: {last}", flush=True)
        self.assertNotEqual(last["fp32"], last["bf16"])
        self.assertAlmostEqual(last["fp32"], last["bf16"], delta=0.01)


if __name__ == "__main__":
    harness.main()
