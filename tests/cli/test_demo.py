"""mmrun demo from its empty folder to its report."""

# timeout: 400
import os

import harness


class TestDemo(harness.CliTest):
    def test_the_whole_story(self):
        answer = self.run_mmrun("demo", "--steps", "60", timeout=380)
        page = answer.out.strip()
        self.assertTrue(os.path.getsize(self.path(page)) > 20000)
        db = self.path("mmrun-demo/demo.db")
        self.assertEqual(
            self.query("SELECT status, count(*) FROM runs GROUP BY status", db=db),
            [("finished", 3)],
        )
        self.assertEqual(self.value("SELECT count(*) FROM events WHERE kind = 'resume'", db=db), 1)
        self.assertEqual(
            self.value("SELECT count(*) FROM metrics WHERE run_id = 1 AND name = 'loss'", db=db), 60
        )
        self.assert_db_sound(db)
        self.run_mmrun("demo", expect=2, err="has been here")


if __name__ == "__main__":
    harness.main()
