"""Bad input and bad places: a clear error that names file, line or option, nothing lost."""

# timeout: 240
import contextlib
import os
import shutil
import sqlite3

import harness

TINY = [
    "--hidden",
    "16",
    "--layers",
    "1",
    "--heads",
    "2",
    "--kv-heads",
    "1",
    "--batch",
    "2",
    "--seq-len",
    "32",
    "--steps",
    "6",
    "--eval-rows",
    "4",
    "--gen-tokens",
    "4",
    "--threads",
    "1",
]


class FaultTest(harness.CliTest):
    def setUp(self):
        super().setUp()
        self.run_mmrun("data", "synth", "--out", "data", "--kind", "pretrain", "--rows", "60")
        self.run_mmrun(
            "tokenizer", "train", "--data", "data/pretrain.jsonl", "--vocab", "320", "-o", "tok"
        )

    def pretrain(self, *more, data="data/pretrain.jsonl", tokenizer="tok", **how):
        return self.run_mmrun(
            "pretrain", "--data", data, "--tokenizer", tokenizer, *TINY, *more, **how
        )


class TestBadInput(FaultTest):
    def assert_no_run(self):
        self.assertFalse(os.path.exists(self.db) and self.query("SELECT 1 FROM runs"))

    def test_a_bad_json_line_is_named(self):
        lines = self.read("data/pretrain.jsonl").splitlines()
        lines[6] = '{"text": "no end'
        self.write("bad.jsonl", "\n".join(lines) + "\n")
        self.pretrain(data="bad.jsonl", expect=2, err=r"bad\.jsonl.*line 7")
        self.assert_no_run()
        self.pretrain("--on-bad-row", "skip", data="bad.jsonl", expect=0)

    def test_invalid_utf8_is_named(self):
        self.write("bad.jsonl", b'{"text": "good"}\n{"text": "b\xff\xfed"}\n{"text": "good too"}\n')
        self.pretrain(data="bad.jsonl", expect=2, err=r"bad\.jsonl.*line 2")
        self.write("bad.txt", b"fine\n\xc3\x28 is not\n")
        self.pretrain(data="bad.txt", expect=2, err=r"bad\.txt")
        self.assert_no_run()

    def test_an_empty_file_is_named(self):
        self.write("empty.jsonl", "")
        self.pretrain(data="empty.jsonl", expect=2, err=r"empty\.jsonl.*empty")
        self.assert_no_run()

    def test_a_missing_file_is_named(self):
        self.pretrain(data="nowhere.jsonl", expect=2, err=r"nowhere\.jsonl")
        self.pretrain(tokenizer="nowhere", expect=2, err="nowhere")
        self.assert_no_run()

    def test_a_wrong_tokenizer_is_named(self):
        self.write("wrong/tokenizer.json", '{"model": {"type": "Unigram", "vocab": []}}')
        self.pretrain(tokenizer="wrong", expect=2, err=r"tokenizer\.json.*")
        self.write("broken/tokenizer.json", self.read("tok/tokenizer.json")[:1000])
        self.pretrain(tokenizer="broken", expect=2, err=r"broken/tokenizer\.json")
        self.assert_no_run()

    def test_impossible_shapes_name_the_option(self):
        self.pretrain(
            "--heads",
            "7",
            "--hidden",
            "512",
            expect=2,
            err=r"--heads.*7.*512|--heads 7|--hidden 512",
        )
        self.pretrain("--kv-heads", "3", "--heads", "4", expect=2, err=r"--kv-heads")
        self.pretrain("--lr", "fast", expect=2, err=r"--lr.*fast")
        self.pretrain("--steps", "0", expect=2, err=r"--steps")
        self.pretrain("--warmup", "100", expect=2, err=r"--warmup")
        self.pretrain("--lr", "1e-3,1e-4", expect=2, err=r"mmrun sweep")
        self.pretrain("--learning-rat", "1e-3", expect=2, err=r"learning-rate|--lr")
        self.assert_no_run()

    def test_unsupported_things_say_so(self):
        self.pretrain("--device", "cuda", expect=2, err="--device cuda")
        self.pretrain("--dtype", "fp16", expect=2, err=r"--dtype.*fp32,bf16.*fp16")
        self.pretrain(expect=2, err=r"MMRUN_ISA=sse9.*avx2", env={"MMRUN_ISA": "sse9"})

    def test_a_name_is_taken_once(self):
        self.pretrain("--name", "mine")
        self.pretrain("--name", "mine", expect=2, err="mine")
        self.assertEqual(self.value("SELECT count(*) FROM runs"), 1)


class TestBadPlaces(FaultTest):
    def change(self, *statement):
        """Writes behind mmrun's back."""
        with contextlib.closing(sqlite3.connect(self.db)) as connection, connection:
            return connection.execute(*statement).fetchone()

    def flip(self, tensor):
        """One byte in a stored chunk of this tensor."""
        key, data = self.change(
            "SELECT c.id, c.data FROM chunk c JOIN tensor_chunk t ON t.chunk_id = c.id "
            "JOIN tensor n ON n.checkpoint_id = t.checkpoint_id AND n.idx = t.idx "
            "WHERE n.name = ? ORDER BY n.checkpoint_id DESC",
            (tensor,),
        )
        broken = bytearray(data)
        broken[len(broken) // 2] ^= 0x10
        self.change("UPDATE chunk SET data = ? WHERE id = ?", (bytes(broken), key))

    def bytes_of(self, path):
        with open(path, "rb") as file:
            return file.read()

    def test_a_flipped_byte_in_a_checkpoint_is_found(self):
        self.pretrain("--name", "one")
        self.flip("model.embed_tokens.weight")
        answer = self.run_mmrun("export", "one", "-o", "out", expect=4)
        self.assertRegex(answer.err, r"one|step|model\.")
        self.run_mmrun("db", "check", expect=4)

    def test_resume_falls_back_to_an_intact_checkpoint(self):
        self.pretrain("--name", "whole", "--steps", "40", "--save-every", "10")
        command = [
            "pretrain",
            "--data",
            "data/pretrain.jsonl",
            "--tokenizer",
            "tok",
            *TINY,
            "--steps",
            "40",
            "--save-every",
            "10",
            "--name",
            "one",
        ]
        running = self.start_mmrun(*command, "--steps", "100000")
        running.wait_for(
            lambda: self.value(
                "SELECT count(*) FROM checkpoints c JOIN runs r ON r.id = c.run_id "
                "WHERE r.name = 'one'"
            )
            >= 2
        )
        running.kill()
        self.run_mmrun("runs")
        self.flip("model.embed_tokens.weight")
        running = self.start_mmrun("resume", "one")
        running.wait_for_text("one before|damaged|incomplete")
        running.kill()

    def test_a_changed_data_position_is_not_trusted(self):
        self.pretrain("--name", "one")
        details = self.value("SELECT details FROM checkpoints ORDER BY step DESC LIMIT 1")
        self.assertIn('"micro_batch":', details)
        self.change(
            "UPDATE checkpoint "
            "SET details = replace(details, '\"micro_batch\":', '\"micro_batch\":9')"
        )
        self.run_mmrun("generate", "one", "a", expect=4, err="run 1 at step 6.*manifest")

    def test_a_truncated_database_is_refused(self):
        self.pretrain("--name", "one")
        size = os.path.getsize(self.db)
        with open(self.db, "r+b") as file:
            file.truncate(size // 2)
        answer = self.run_mmrun("db", "check", expect=None)
        self.assertIn(answer.code, (1, 2, 4))
        self.assertRegex(answer.err, r"mmrun\.db|damaged|malformed|corrupt")

    def test_something_else_is_not_a_database(self):
        self.write("mmrun.db", "just text, no database at all\n" * 100)
        self.run_mmrun("runs", expect=2, err=r"mmrun\.db")
        self.assertTrue(self.read("mmrun.db").startswith("just text"))
        os.remove(self.db)
        self.change("CREATE TABLE mine (x)")
        self.run_mmrun("runs", expect=2, err=r"mmrun\.db")
        self.pretrain(expect=2, err=r"mmrun\.db")
        self.assertEqual(self.query("SELECT name FROM sqlite_master"), [("mine",)])

    def test_a_newer_schema_is_refused(self):
        self.pretrain("--name", "one")
        self.change("PRAGMA user_version = 9999")
        before = self.bytes_of(self.db)
        self.run_mmrun("runs", expect=2, err=r"9999")
        self.pretrain(expect=2, err=r"newer")
        self.assertEqual(self.bytes_of(self.db), before)

    def test_a_full_disk_loses_nothing(self):
        disk = self.make_small_disk("disk", 3000)
        db = os.path.join(disk, "small.db")
        answer = self.run_mmrun(
            "--db",
            db,
            "pretrain",
            "--data",
            "data/pretrain.jsonl",
            "--tokenizer",
            "tok",
            *TINY,
            "--hidden",
            "64",
            "--steps",
            "4000",
            "--save-every",
            "5",
            "--keep",
            "1000000",
            expect=6,
            err=r"space|disk"
        )
        self.assertIn("small.db", answer.err)
        self.assert_db_sound(db)
        kept = self.query("SELECT step FROM checkpoints ORDER BY step", db=db)
        # With room again the run goes on from what it has.
        roomy = self.path("roomy.db")
        shutil.copy(db, roomy)
        for tail in ("-wal",):
            if os.path.exists(db + tail):
                shutil.copy(db + tail, roomy + tail)
        self.run_mmrun("--db", roomy, "db", "check")
        self.run_mmrun("--db", roomy, "runs")
        self.assertEqual(self.query("SELECT step FROM checkpoints ORDER BY step", db=roomy), kept)

    def test_a_read_only_folder_is_named(self):
        self.pretrain("--name", "one")
        os.makedirs(self.path("closed"))
        shutil.copy(self.db, self.path("closed/mmrun.db"))
        self.make_read_only(self.path("closed"))
        answer = self.run_mmrun(
            "--db",
            "closed/new.db",
            "pretrain",
            "--data",
            "data/pretrain.jsonl",
            "--tokenizer",
            "tok",
            *TINY,
            expect=None,
            err=r"closed"
        )
        self.assertIn(answer.code, (1, 2))
        # Reading still works: a report can be made of a file on a read-only disk.
        self.run_mmrun("--db", "closed/mmrun.db", "runs", out="one")
        self.run_mmrun("--db", "closed/mmrun.db", "report", "--all", "-o", "page.html")

    def test_a_database_from_nowhere_is_not_made_by_looking(self):
        self.run_mmrun("--db", "none.db", "runs", expect=2, err=r"none\.db")
        self.assertFalse(os.path.exists(self.path("none.db")))


if __name__ == "__main__":
    harness.main()
