"""Killed at random moments and resumed: the same run, bit for bit.

The oracle is an unbroken run of the same seed. The seed of the kill times is printed, so that a
failure can be replayed: MMRUN_KILL_SEED=123.
"""

# timeout: 420
import os
import random
import signal
import struct
import time

import harness

KILLS = 10  # of each number type
# Small enough for a step of a few milliseconds, with every part in play: two layers, dropout,
# accumulation, warm-up, several epochs, evaluations with answers, checkpoints that are pruned.
OPTIONS = [
    "--preset",
    "v3",
    "--hidden",
    "32",
    "--layers",
    "2",
    "--heads",
    "2",
    "--kv-heads",
    "1",
    "--batch",
    "2",
    "--accum",
    "2",
    "--seq-len",
    "64",
    "--steps",
    "240",
    "--lr",
    "3e-3",
    "--warmup",
    "5",
    "--dropout",
    "0.1",
    "--eval-every",
    "24",
    "--save-every",
    "12",
    "--eval-rows",
    "8",
    "--gen-tokens",
    "6",
    "--threads",
    "1",
    "--prompt",
    "Once upon a time",
    "--prompt",
    "从前",
]


def bits(value):
    return None if value is None else struct.pack("<d", value)


class TestResume(harness.CliTest):
    def setUp(self):
        super().setUp()
        self.run_mmrun("data", "synth", "--out", "data", "--kind", "pretrain", "--rows", "120")
        self.run_mmrun(
            "tokenizer", "train", "--data", "data/pretrain.jsonl", "--vocab", "400", "-o", "tok"
        )
        self.inputs = [
            "--data",
            "data/pretrain.jsonl",
            "--val",
            "data/pretrain_val.jsonl",
            "--tokenizer",
            "tok",
        ]

    def train(self, db, *more):
        return ["--db", db, "pretrain", *self.inputs, *OPTIONS, "--name", "run", *more]

    def curves(self, db):
        """Everything that must not depend on how often the run was broken off."""
        rows = self.query(
            "SELECT name, step, value FROM metrics WHERE name NOT IN "
            "('tokens_per_s', 'step_ms', 'mem_bytes') ORDER BY name, step",
            db=self.path(db),
        )
        return [(name, step, bits(value)) for name, step, value in rows]

    def answers(self, db):
        return self.query(
            "SELECT step, prompt_idx, prompt, text, tokens, finish_reason FROM generations "
            "ORDER BY step, prompt_idx",
            db=self.path(db),
        )

    def assert_same(self, db, oracle):
        self.assertEqual(self.curves(db), self.curves(oracle))
        self.assertEqual(self.answers(db), self.answers(oracle))
        sha = "SELECT step, sha256 FROM checkpoints WHERE is_final ORDER BY step"
        self.assertEqual(self.query(sha, db=self.path(db)), self.query(sha, db=self.path(oracle)))
        self.assertEqual(
            self.query("SELECT count(*) FROM metrics WHERE name = 'loss'", db=self.path(db)),
            [(240,)],
        )
        self.assert_db_sound(self.path(db))

    def test_twenty_kills_change_no_bit(self):
        seed = int(os.environ.get("MMRUN_KILL_SEED", random.SystemRandom().randrange(1 << 32)))
        print(f"kill seed {seed}", flush=True)
        draw = random.Random(seed)
        for dtype in ("fp32", "bf16"):
            with self.subTest(dtype=dtype):
                self.kill_many(dtype, draw)

    def kill_many(self, dtype, draw):
        whole = self.run_mmrun(*self.train(f"{dtype}.db", "--dtype", dtype))
        kills = 0
        resumed_from = []
        # A run that ends before all kills are spent is compared, and the next one takes the rest.
        for round_number in range(KILLS):
            db = f"{dtype}-{round_number}.db"
            command = self.train(db, "--dtype", dtype)
            kills += self.kill_and_resume(
                db, command, KILLS - kills, lambda: draw.uniform(0, whole.seconds / 5), resumed_from
            )
            self.assert_same(db, f"{dtype}.db")
            run = self.query("SELECT status, dtype FROM runs", db=self.path(db))
            self.assertEqual(run, [("finished", dtype)])
            if kills == KILLS:
                break
        print(f"{dtype}: {kills} kills, resumed from steps {resumed_from}", flush=True)
        self.assertEqual(kills, KILLS)
        self.assertTrue(any(resumed_from), "no kill hit a run that had a checkpoint")

    def kill_and_resume(self, db, command, most, wait, resumed_from):
        """Trains to the end through at most so many kills; returns how many there were."""
        for kills in range(most):
            running = self.start_mmrun(*command)
            # From the first instants on: start-up, steps, evaluations and saves are all hit.
            time.sleep(wait())
            if running.process.poll() is not None:
                running.wait(expect=0)
                return kills
            running.kill()
            listed = self.run_mmrun("--db", db, "runs", "--json", expect=None)
            if listed.code != 0 or not listed.json():
                continue  # Killed before the run was on record: the same command starts it.
            # The stored state may lag behind; what mmrun says may not. Reading repairs nothing.
            status = listed.json()[0]["status"]
            if status == "finished":  # The kill hit a process that had nothing left to do.
                return kills
            self.assertIn(status, ("killed", "queued"))
            resumed_from.append(
                self.value("SELECT coalesce(max(step), 0) FROM checkpoints", db=self.path(db))
            )
            command = ["--db", db, "resume", "run"]
        self.run_mmrun(*command)
        return most

    def test_a_database_that_was_just_being_made_is_made_again(self):
        self.write("begun.db", "")
        self.run_mmrun(*self.train("begun.db", "--steps", "8"))
        status = self.value("SELECT status FROM runs", db=self.path("begun.db"))
        self.assertEqual(status, "finished")

    def test_a_signal_stops_with_a_checkpoint_and_names_the_way_on(self):
        self.run_mmrun(*self.train("whole.db"))
        running = self.start_mmrun(*self.train("stopped.db"))
        running.wait_for(lambda: self.has_point("stopped.db"))
        running.signal(signal.SIGINT)
        answer = running.wait(expect=3)
        self.assertRegex(answer.err, r"mmrun --db stopped\.db resume run")
        self.assertEqual(
            self.value("SELECT status FROM runs", db=self.path("stopped.db")), "stopped"
        )
        last = self.value("SELECT max(step) FROM metrics", db=self.path("stopped.db"))
        self.assertEqual(
            self.value("SELECT max(step) FROM checkpoints", db=self.path("stopped.db")), last
        )
        self.run_mmrun("--db", "stopped.db", "resume", "run")
        self.assert_same("stopped.db", "whole.db")

    def has_point(self, db):
        try:
            return self.value("SELECT count(*) FROM metrics", db=self.path(db)) > 0
        except Exception:  # not there yet
            return False

    def test_the_number_of_threads_changes_no_bit(self):
        for dtype in ("fp32", "bf16"):
            self.run_mmrun(*self.train(f"{dtype}.db", "--dtype", dtype))
            self.run_mmrun(*self.train(f"{dtype}-3.db", "--dtype", dtype, "--threads", "3"))
            self.assert_same(f"{dtype}-3.db", f"{dtype}.db")

    def test_a_finished_run_is_not_resumed(self):
        self.run_mmrun(*self.train("whole.db", "--steps", "8"))
        self.run_mmrun("--db", "whole.db", "resume", "run", expect=2, err="is finished")

    def test_changed_data_are_refused(self):
        running = self.start_mmrun(*self.train("changed.db"))
        running.wait_for(lambda: self.has_point("changed.db"))
        running.kill()
        with open(self.path("data/pretrain.jsonl"), "a", encoding="utf-8") as file:
            file.write('{"text": "one more"}\n')
        self.run_mmrun(
            "--db", "changed.db", "resume", "run", expect=2, err="has changed since the run started"
        )

    def test_a_live_run_is_not_resumed_by_a_second_process(self):
        running = self.start_mmrun(*self.train("live.db", "--steps", "100000"))
        running.wait_for(lambda: self.has_point("live.db"))
        self.run_mmrun("--db", "live.db", "resume", "run", expect=1, err=str(running.process.pid))
        self.assertEqual(self.value("SELECT status FROM runs", db=self.path("live.db")), "running")
        running.kill()


if __name__ == "__main__":
    harness.main()
