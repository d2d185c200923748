"""mmrun demo from its empty folder to its report."""

# timeout: 400
import os

import harness


class TestDemo(harness.CliTest):
    def test_the_whole_story(self):
        answer = self.run_mmrun("demo", "--steps", "20", timeout=380)
        page = answer.out.splitlines()[-1]
        self.assertTrue(os.path.getsize(self.path(page)) > 20000)
        db = self.path("mmrun-demo/demo.db")
        self.assertEqual(
            self.query("SELECT status, count(*) FROM runs GROUP BY status", db=db),
            [("finished", 6)],
        )
        self.check_stages(db)
        self.check_scores(answer.out, db)
        self.assertEqual(self.value("SELECT count(*) FROM events WHERE kind = 'resume'", db=db), 1)
        self.assertEqual(
            self.value("SELECT count(*) FROM metrics WHERE run_id = 1 AND name = 'loss'", db=db), 20
        )
        self.assert_db_sound(db)
        self.run_mmrun("demo", expect=2, err="has been here")

    def check_stages(self, db):
        """Every stage is a run of its own with its parent on record."""
        self.assertEqual(
            self.query("SELECT r.name, r.stage, p.name FROM runs r"
                       " JOIN runs p ON p.id = r.parent_id ORDER BY r.id", db=db),
            [("demo-sft", "sft", "demo"), ("demo-persona", "lora", "demo-sft"),
             ("demo-dpo", "dpo", "demo-sft")],
        )

    def check_scores(self, out, db):
        """The table says what is recorded, and what is recorded are shares with their intervals."""
        rows = self.query(
            "SELECT runs.name, metric, value, low, high, n, correct FROM results"
            " JOIN runs ON runs.id = run_id WHERE correct IS NOT NULL"
            " AND NOT (metric = 'language_match' AND task LIKE 'persona%')"
            " ORDER BY run_id, metric", db=db)
        metrics = ["contains_match", "language_match", "number_match", "preference_accuracy/alone"]
        self.assertEqual([row[1] for row in rows],
                         3 * metrics + metrics[:3] + ["preference_accuracy"] + metrics[3:])
        for name, metric, value, low, high, n, correct in rows:
            self.assertEqual(value, correct / n)
            self.assertTrue(0 <= low <= value <= high <= 1)
            if metric in metrics:
                line = next(line for line in out.splitlines() if line.split()[:1] == [name])
                self.assertIn(f"{100 * value:.0f} %", line)
                self.assertIn(f"{100 * low:.0f}-{100 * high:.0f}", line)
        # The answers that were marked are there to be read; a right one holds what was expected.
        answers = self.query("SELECT text, expected, is_correct FROM generations"
                             " WHERE task IS NOT NULL", db=db)
        self.assertEqual(len(answers), 4 * (200 + 60))
        for text, expected, is_correct in answers:
            if is_correct:
                self.assertIn(expected, text)
        # A name is taught beside sums that were taught before.
        self.assertEqual(
            [path.split("/data/")[1] for path, in self.query(
                "SELECT d.path FROM run_datasets u JOIN runs r ON r.id = u.run_id"
                " JOIN datasets d ON d.id = u.dataset_id"
                " WHERE r.name = 'demo-persona' AND u.role = 'train' ORDER BY d.id", db=db)],
            ["persona.jsonl", "again/arithmetic.jsonl"])


if __name__ == "__main__":
    harness.main()
