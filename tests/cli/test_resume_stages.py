"""Every stage, killed at random moments and resumed: the same run, bit for bit.

As test_resume.py does for pretraining; here each run has a parent, and some a teacher or a
reference. The seed of the kill times is printed: MMRUN_KILL_SEED=123 replays them.
"""

# timeout: 300
import os
import random
import signal
import struct
import time

import harness

KILLS = 4  # of each stage
STEPS = 60
SHAPE = ["--hidden", 32, "--layers", 2, "--heads", 2, "--kv-heads", 1]
QUICK = ["--threads", 1, "--dtype", "fp32", "--gen-tokens", 4, "--prompt", "What is 1 + 2?",
         "--seq-len", 96, "--eval-rows", 6]
LOOP = ["--batch", 3, "--accum", 2, "--steps", STEPS, "--eval-every", 12, "--save-every", 5,
        "--lr", "1e-3", "--warmup", 3]
STAGES = {
    "sft": ["--dropout", 0.1, "--mask", "last-answer"],
    "lora": ["--rank", 3, "--alpha", 6, "--dropout", 0.1, "--targets", "all"],
    "dpo": ["--beta", 0.3],
    "dpo-lora": ["--rank", 2, "--loss", "ipo", "--logp", "mean"],
    "distill": ["--teacher", "big", "--dropout", 0.1],
}


def bits(value):
    return None if value is None else struct.pack("<d", value)


class TestResumeStages(harness.CliTest):
    def setUp(self):
        super().setUp()
        for kind in ("pretrain", "sft", "preference"):
            self.run_mmrun("data", "synth", "--out", "data", "--kind", kind, "--rows", 80)
        self.run_mmrun("tokenizer", "train", "--data", "data/sft.jsonl", "--vocab", 600, "-o",
                       "tok")
        for name, shape in (("base", SHAPE), ("big", [*SHAPE, "--hidden", 48])):
            self.run_mmrun("--db", "parents.db", "pretrain", "--data", "data/pretrain.jsonl",
                           "--tokenizer", "tok", *shape, *QUICK, "--batch", 4, "--steps", 20,
                           "--name", name)

    def new_db(self, name):
        self.run_mmrun("--db", "parents.db", "db", "backup", name)
        return name

    def train(self, db, variant, *more):
        stage = variant.split("-")[0]
        kind = "preference" if stage == "dpo" else "sft"
        return ["--db", db, stage, "--data", f"data/{kind}.jsonl", "--val",
                f"data/{kind}_val.jsonl", "--from", "base", *QUICK, *LOOP, *STAGES[variant],
                "--name", "run", *more]

    def result(self, db):
        """Everything that must not depend on how often the run was broken off."""
        run = "(SELECT id FROM runs WHERE name = 'run')"
        curves = self.query(
            f"SELECT name, step, value FROM metrics WHERE run_id = {run} AND name NOT IN "
            "('tokens_per_s', 'step_ms', 'mem_bytes') ORDER BY name, step", db=self.path(db))
        answers = self.query("SELECT step, prompt_idx, prompt, text, tokens, finish_reason "
                             f"FROM generations WHERE run_id = {run} ORDER BY step, prompt_idx",
                             db=self.path(db))
        final = self.query(f"SELECT step, sha256 FROM checkpoints WHERE run_id = {run} "
                           "ORDER BY step DESC LIMIT 1", db=self.path(db))
        return [(name, step, bits(value)) for name, step, value in curves], answers, final

    def assert_same(self, db, oracle):
        mine, theirs = self.result(db), self.result(oracle)
        for part, (a, b) in enumerate(zip(mine, theirs)):
            self.assertEqual(a, b, f"part {part} of {db} differs from {oracle}")
        self.assertEqual(sum(name == "loss" for name, _, _ in mine[0]), STEPS)
        self.assert_db_sound(self.path(db))

    def status(self, db):
        rows = self.query("SELECT status FROM runs WHERE name = 'run'", db=self.path(db))
        return rows[0][0] if rows else None

    def test_kills_change_no_bit_of_any_stage(self):
        seed = int(os.environ.get("MMRUN_KILL_SEED", random.SystemRandom().randrange(1 << 32)))
        print(f"kill seed {seed}", flush=True)
        draw = random.Random(seed)
        for variant in STAGES:
            with self.subTest(variant=variant):
                whole = self.run_mmrun(*self.train(self.new_db(f"{variant}.db"), variant))
                db = self.new_db(f"{variant}-killed.db")
                kills = self.kill_and_resume(db, variant, whole.seconds, draw)
                print(f"{variant}: {kills} kills in {whole.seconds:.2f} s", flush=True)
                self.assert_same(db, f"{variant}.db")

    def kill_and_resume(self, db, variant, seconds, draw):
        command = self.train(db, variant)
        for kills in range(KILLS):
            running = self.start_mmrun(*command)
            # Start-up, the pass of the reference, steps, evaluations and saves are all hit.
            time.sleep(draw.uniform(0, seconds * 0.6))
            if running.process.poll() is not None:
                running.wait(expect=0)
                return kills
            running.kill()
            # Killed before the run was on record: the same command starts it.
            command = ["--db", db, "resume", "run"] if self.status(db) else command
            if self.status(db) == "finished":
                return kills
        self.run_mmrun(*command)
        return KILLS

    def stop(self, db, variant, *more):
        """Stops the run by a signal behind its first point."""
        running = self.start_mmrun(*self.train(db, variant, *more))
        running.wait_for(lambda: self.status(db) == "running" and self.query(
            "SELECT 1 FROM metrics m JOIN runs r ON r.id = m.run_id WHERE r.name = 'run' LIMIT 1",
            db=self.path(db)))
        running.signal(signal.SIGINT)
        running.wait(expect=3)

    def test_a_run_whose_parent_is_gone_goes_on_as_far_as_it_can(self):
        endless = ["--steps", 4000, "--eval-every", 0, "--save-every", 0]
        for variant, needs in (("sft", None), ("lora", None), ("dpo", "base"), ("distill", "big")):
            with self.subTest(variant=variant):
                db = self.new_db(f"{variant}.db")
                self.stop(db, variant, *endless)
                self.run_mmrun("--db", db, "rm", "base", "big", "--force")
                if needs:
                    self.run_mmrun("--db", db, "resume", "run", expect=2,
                                   err="is gone|was removed|there is no run")
                    continue
                running = self.start_mmrun("--db", db, "resume", "run")
                running.wait_for_text("resumed at step")
                running.signal(signal.SIGINT)
                running.wait(expect=3)

    def test_what_is_said_of_a_stopped_run_is_what_the_database_holds(self):
        """A stop in the reference pass comes before there is any checkpoint."""
        db = self.new_db("early.db")
        for name in ("a", "b", "c"):
            running = self.start_mmrun(*self.train(db, "dpo", "--steps", 4000), "--name", name,
                                       "--seq-len", 512)
            running.wait_for(lambda name=name: self.query(
                "SELECT 1 FROM runs WHERE name = ? AND status = 'running'", name,
                db=self.path(db)))
            running.signal(signal.SIGINT)
            err = running.wait(expect=3).err
            held = self.query("SELECT count(*) FROM checkpoints c JOIN runs r ON r.id = c.run_id "
                              "WHERE r.name = ?", name, db=self.path(db))[0][0]
            said = "with a valid checkpoint" if held else "before its first checkpoint"
            self.assertIn(said, err)


if __name__ == "__main__":
    harness.main()
