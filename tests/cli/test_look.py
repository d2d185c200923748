"""Looking at runs and tidying them: runs, show, compare, report, tag, note, rename, rm, db, export
of metrics. Two small runs are trained once and copied for each test."""
import csv
import io
import json
import os
import shutil
import subprocess
import tempfile

import harness

TINY = ["--layers", "1", "--heads", "2", "--kv-heads", "1", "--batch", "2", "--seq-len", "48",
        "--gen-tokens", "4", "--eval-rows", "4", "--eval-every", "5"]
COLUMNS = {"id", "name", "stage", "status", "tags", "parent_id", "parent_step", "sweep_id", "seed",
           "device", "dtype", "params_total", "params_trainable", "steps", "steps_planned",
           "tokens", "final_loss", "best_val_loss", "tokens_per_s", "created_at", "started_at",
           "ended_at", "duration_s", "error", "command", "host", "version", "git_commit", "notes"}


class LookTest(harness.CliTest):
    template = None

    def setUp(self):
        super().setUp()
        if LookTest.template is None:
            LookTest.template = tempfile.mkdtemp(prefix="mmrun-look-")
            self.train()
            shutil.copytree(self.dir, LookTest.template, dirs_exist_ok=True)
        else:
            shutil.copytree(LookTest.template, self.dir, dirs_exist_ok=True)

    @classmethod
    def tearDownClass(cls):
        if LookTest.template:
            shutil.rmtree(LookTest.template)
            LookTest.template = None

    def train(self):
        self.run_mmrun("data", "synth", "--out", "data", "--kind", "pretrain", "--rows", "200")
        self.run_mmrun("tokenizer", "train", "--data", "data/pretrain.jsonl", "--vocab", "320",
                       "-o", "tok")
        for name, hidden in (("narrow", 16), ("\u5bbd", 32)):
            self.run_mmrun("pretrain", "--data", "data/pretrain.jsonl", "--val",
                           "data/pretrain_val.jsonl", "--tokenizer", "tok", "--hidden", hidden,
                           "--steps", 10, "--name", name, *TINY)

    def runs(self, *args):
        return self.run_mmrun("runs", "--json", *args).json()


class TestRuns(LookTest):
    def test_table(self):
        answer = self.run_mmrun("runs")
        self.assertEqual(answer.err, "")
        lines = answer.out.splitlines()
        self.assertRegex(lines[0], r"^ID  NAME +STAGE +STATUS +STEP +LOSS +VAL +PARAMS +TOK/S")
        self.assertRegex(lines[1], r"^ 1  narrow  pretrain  finished  10/10  +\d\.\d{3}  +\d")
        # The name of one character is two columns wide: the stage begins one character earlier.
        self.assertEqual(lines[1].index("pretrain"), lines[2].index("pretrain") + 1)

    def test_json(self):
        runs = self.runs()
        self.assertEqual([run["name"] for run in runs], ["narrow", "\u5bbd"])
        for run in runs:
            self.assertEqual(set(run), COLUMNS)
            self.assertEqual((run["status"], run["steps"], run["seed"]), ("finished", 10, 42))
            self.assertRegex(run["created_at"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertEqual(runs[0]["best_val_loss"],
                         self.value("SELECT best_val_loss FROM runs WHERE id = 1"))

    def test_filters(self):
        self.run_mmrun("tag", "narrow", "keep")
        for arguments, expected in ((["--tag", "keep"], ["narrow"]), (["--tag", "none"], []),
                                    (["--status", "killed"], []),
                                    (["--stage", "pretrain", "--limit", "1"], ["\u5bbd"]),
                                    (["--stage", "sft"], [])):
            with self.subTest(arguments=arguments):
                self.assertEqual([run["name"] for run in self.runs(*arguments)], expected)
        self.run_mmrun("runs", "--status", "kiled", expect=2, err="did you mean killed")
        self.run_mmrun("runs", "--sweep", "last", expect=2)
        self.assertEqual(self.run_mmrun("runs", "--names").out, "narrow\n\u5bbd\n")

    def test_a_reader_that_goes_away_is_no_error(self):
        for arguments in (["runs"], ["export", "narrow", "--format", "csv"], ["help", "pretrain"]):
            read_end, write_end = os.pipe()
            os.close(read_end)
            done = subprocess.run([self.program, *arguments], stdout=write_end, cwd=self.dir,
                                  env=self.env, stderr=subprocess.PIPE, check=False, timeout=30)
            os.close(write_end)
            self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_closed_streams_do_not_reach_the_database(self):
        before = self.read_bytes("mmrun.db")
        for closing in (">&-", "2>&-", "<&-", "<&- >&- 2>&-"):
            done = subprocess.run(["/bin/sh", "-c", f'exec "$0" runs {closing}', self.program],
                                  cwd=self.dir, env=self.env, capture_output=True, check=False,
                                  timeout=30)
            self.assertEqual(done.returncode, 1 if ">&-" in closing.replace("2>&-", "") else 0,
                             (closing, done))
        self.assertEqual(self.read_bytes("mmrun.db"), before)

    def read_bytes(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def test_errors_as_json(self):
        answer = self.run_mmrun("--json", "show", "nobody", expect=2, err="nobody")
        error = answer.json()["error"]
        self.assertEqual(set(error), {"status", "message", "hint", "exit_code"})
        self.assertEqual(error["exit_code"], 2)
        self.assertIn("nobody", error["message"])
        error = self.run_mmrun("show", "--jsn", "--json", expect=2).json()["error"]
        self.assertIn("--json", error["message"])
        error = self.run_mmrun("--db", "none.db", "runs", "--json", expect=2).json()["error"]
        self.assertIn("mmrun demo", error["hint"])


class TestShow(LookTest):
    def test_sections(self):
        text = self.run_mmrun("show", "narrow").out
        for pattern in ("(?m)^narrow  run 1", "(?m)^Hyperparameters$",
                        r"(?m)^  hidden_size +16 +command line$",
                        "(?m)^Metrics$", r"(?m)^  val_loss +\d", "(?m)^Checkpoints$", "@best",
                        "@final", "(?m)^Data$", r"(?m)^  train +.*pretrain\.jsonl",
                        "(?m)^Samples$", "(?m)^Environment$", r"reproduce: mmrun pretrain --data"):
            self.assertRegex(text, pattern)
        self.assertNotIn("continue:", text)
        self.assertNotIn("beta1", text)
        self.run_mmrun("show", "narrow", "--all", out=r"(?m)^  beta1 +0\.9 +default$")

    def test_config_alone(self):
        text = self.run_mmrun("show", "last", "--config").out
        self.assertRegex(text, r"hidden_size +32 +command line")
        self.assertRegex(text, r"beta1 +0\.9 +default")
        self.assertNotIn("Metrics", text)
        params = self.run_mmrun("show", "last", "--config", "--json").json()
        self.assertEqual(set(params), {"params"})

    def test_json(self):
        record = self.run_mmrun("show", "1", "--json").json()
        self.assertEqual(set(record), {"run", "params", "metrics", "checkpoints", "datasets",
                                       "generations", "results", "lineage", "attempts", "events",
                                       "environment"})
        params = {p["name"]: p for p in record["params"]}
        self.assertEqual(params["hidden_size"], {"name": "hidden_size", "value": "16",
                                                 "is_default": False, "origin": "command line"})
        loss = next(m for m in record["metrics"] if m["name"] == "loss")
        self.assertEqual((loss["n"], loss["last_step"]), (10, 10))
        self.assertEqual(loss["min"], self.value(
            "SELECT min(value) FROM metrics WHERE run_id = 1 AND name = 'loss'"))
        self.assertTrue(record["checkpoints"][-1]["is_final"])
        self.assertEqual(len(record["datasets"][0]["sha256"]), 64)
        self.assertEqual(record["attempts"][0]["ended"], "finished")
        self.assertEqual(len(record["generations"]),
                         self.value("SELECT count(*) FROM generations WHERE run_id = 1"))

    def test_a_checkpoint_is_no_run(self):
        self.run_mmrun("show", "narrow@best", expect=2, err="not one of its checkpoints")


class TestCompare(LookTest):
    def test_names_the_differences_and_the_best(self):
        text = self.run_mmrun("compare", "narrow", "\u5bbd").out
        self.assertRegex(text, r"(?m)^hidden_size +16 +32$")
        self.assertNotRegex(text, "(?m)^beta1")
        best = self.value("SELECT name FROM runs ORDER BY best_val_loss LIMIT 1")
        self.assertIn(f"* {best} has the lowest validation loss", text)
        answer = self.run_mmrun("compare", "1", "2", "--json").json()
        self.assertEqual(answer["params"]["hidden_size"], ["16", "32"])
        self.assertNotIn("beta1", answer["params"])
        self.assertEqual((answer["metric"], answer["runs"][answer["best"] - 1]["name"]),
                         ("val_loss", best))

    def test_other_held_out_text_has_no_winner(self):
        self.run_mmrun("pretrain", "--data", "data/pretrain.jsonl", "--val", "data/pretrain.jsonl",
                       "--tokenizer", "tok", "--hidden", "16", "--steps", "3", "--name", "other",
                       *TINY)
        self.run_mmrun("compare", "narrow", "other",
                       out="No best run can be named: they were scored on different text")
        self.assertIsNone(self.run_mmrun("compare", "narrow", "other", "--json").json()["best"])

    def test_another_tokenizer_is_compared_by_bits_per_byte(self):
        self.run_mmrun("tokenizer", "train", "--data", "data/pretrain.jsonl", "--vocab", "400",
                       "-o", "tok2")
        self.run_mmrun("pretrain", "--data", "data/pretrain.jsonl", "--val",
                       "data/pretrain_val.jsonl", "--tokenizer", "tok2", "--hidden", "16",
                       "--steps", "10", "--name", "other", *TINY)
        self.run_mmrun("compare", "narrow", "other",
                       out=r"\* \w+ has the lowest bits\s+per byte")

    def test_many_runs_are_lines(self):
        names = ["1", "2", "1", "2", "1", "2", "1"]
        lines = self.run_mmrun("compare", *names).out.splitlines()
        self.assertRegex(lines[0], "^RUN .*hidden_size")
        self.assertEqual(len([line for line in lines if line.startswith("narrow")]), 4)


class TestTidy(LookTest):
    def test_tag_note_rename(self):
        self.run_mmrun("tag", "narrow", "good", "kept")
        self.assertEqual(self.runs()[0]["tags"], ["good", "kept"])
        self.run_mmrun("tag", "narrow", "good", "--remove")
        self.assertEqual(self.runs()[0]["tags"], ["kept"])
        self.run_mmrun("note", "narrow", "the first\nof all \x1b[31m")
        shown = self.run_mmrun("show", "narrow").out
        self.assertIn("the first", shown)
        self.assertNotIn("\x1b", shown)
        self.run_mmrun("rename", "narrow", "slim")
        self.assertEqual(self.runs()[0]["name"], "slim")
        self.run_mmrun("rename", "slim", "\u5bbd", expect=2, err="\u5bbd")
        self.run_mmrun("rename", "slim", "7", expect=2)

    def test_rm(self):
        self.run_mmrun("rm", "narrow", "nobody", expect=2, err="nobody")
        self.run_mmrun("rm", "narrow", "--dry-run", err="would delete narrow")
        self.assertEqual(len(self.runs()), 2)
        self.run_mmrun("pretrain", "--data", "data/pretrain.jsonl", "--from", "narrow", "--steps",
                       "2", "--name", "child", "--batch", "2", "--seq-len", "48", "--gen-tokens",
                       "2")
        self.run_mmrun("rm", "narrow", expect=2, err="child.*nothing was deleted")
        self.run_mmrun("rm", "narrow", "child", err="deleted narrow")
        self.assertEqual([run["name"] for run in self.runs()], ["\u5bbd"])
        self.run_mmrun("db", "check", out="intact")
        self.assert_db_sound()

    def test_db(self):
        info = self.run_mmrun("db", "info", "--json").json()["db"]
        self.assertEqual((info["runs"], info["points"]),
                         (2, self.value("SELECT count(*) FROM metrics")))
        self.run_mmrun("db", "info", out=r"(?m)^runs +2$")
        self.assertEqual(self.run_mmrun("db", "check", "--json").json()["check"]["findings"], [])
        self.assertEqual(self.run_mmrun("db", "backup", "copy.db").out, "copy.db\n")
        copied = self.run_mmrun("--db", "copy.db", "runs", "--json").json()
        self.assertEqual([run["name"] for run in copied], ["narrow", "\u5bbd"])
        self.run_mmrun("db", "backup", "copy.db", expect=2, err="copy.db")

    def test_report(self):
        self.assertEqual(self.run_mmrun("report").out, "report.html\n")
        page = self.read("report.html")
        self.assertIn("narrow", page)
        self.assertIn("\u5bbd", page)
        told = self.run_mmrun("report", "narrow", "-o", "one.html", "--json").json()["report"]
        self.assertEqual((told["path"], told["runs"], told["bytes"]),
                         ("one.html", 1, os.path.getsize(self.path("one.html"))))
        self.run_mmrun("report", "narrow", "--all", expect=2, err="not several")


class TestDoctor(harness.CliTest):
    def checks(self, *args, expect):
        answer = self.run_mmrun(*args, "doctor", "--json", expect=expect)
        told = answer.json_lines()[0]["doctor"]
        bad = {c["name"]: c["fix"] for c in told["checks"] if c["verdict"] == "problem"}
        self.assertEqual(told["problems"], len(bad))
        return bad

    def test_problems_are_named_with_what_helps(self):
        self.assertEqual(self.checks(expect=0), {})
        self.assertIn("mkdir -p", self.checks("--db", "not/there.db", expect=1)["free"])
        self.write("other.db", "no database\n")
        self.assertIn("db backup", self.checks("--db", "other.db", expect=1)["file"])
        self.assertEqual(self.read("other.db"), "no database\n")


class TestExportOfMetrics(LookTest):
    def rows(self, run, names=None):
        return [(r, s, n, v) for r, s, n, v in self.query(
            "SELECT r.name, step, m.name, value FROM metrics m JOIN runs r ON r.id = m.run_id "
            "WHERE r.name = ?", run) if names is None or n in names]

    def test_csv(self):
        text = self.run_mmrun("export", "\u5bbd", "--format", "csv").out
        rows = list(csv.DictReader(io.StringIO(text)))
        found = [(r["run"], int(r["step"]), r["name"], float(r["value"])) for r in rows]
        self.assertEqual(sorted(found), sorted(self.rows("\u5bbd")))
        self.assertRegex(rows[0]["time"], r"^\d{4}-.*Z$")

    def test_jsonl_into_a_file(self):
        answer = self.run_mmrun("export", "narrow", "--format", "jsonl", "--metric", "loss",
                                "--metric", "lr", "-o", "out.jsonl")
        self.assertEqual(answer.out, "out.jsonl\n")
        rows = [json.loads(line) for line in self.read("out.jsonl").splitlines()]
        self.assertEqual(sorted((r["run"], r["step"], r["name"], r["value"]) for r in rows),
                         sorted(self.rows("narrow", {"loss", "lr"})))

    def test_gguf_is_not_there(self):
        self.run_mmrun("export", "narrow", "--format", "gguf", "-o", "x", expect=2,
                       err="not there yet")
        self.run_mmrun("export", "narrow", expect=2, err="-o DIR")


if __name__ == "__main__":
    harness.main()
