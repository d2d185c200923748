"""The family of a run, as `show` and the report give it: real runs of every stage."""
import json
import re

import harness

TINY = ["--hidden", 32, "--layers", 1, "--heads", 2, "--kv-heads", 1]
QUICK = ["--threads", 1, "--gen-tokens", 4, "--seq-len", 128, "--eval-rows", 8, "--steps", 3]


def chat(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


class ShowLineageTest(harness.CliTest):
    def setUp(self):
        super().setUp()
        questions = [f"What is {i} and {i}?" for i in range(24)]
        self.rows("text.jsonl", [{"text": q} for q in questions])
        self.rows("chat.jsonl", [{"conversations": chat(q, "That is easy.")} for q in questions])
        self.rows("pair.jsonl", [{"chosen": chat(q, "That is easy."), "rejected": chat(q, "No!")}
                                 for q in questions])
        self.run_mmrun("pretrain", "--data", "text.jsonl", "--vocab", 300, *TINY, *QUICK,
                       "--batch", 2, "--name", "base")
        self.stage("sft", "chat", "base", "chat.jsonl")
        self.stage("lora", "persona", "chat", "chat.jsonl", "--rank", 4)
        self.stage("dpo", "polite", "chat", "pair.jsonl")
        self.stage("distill", "small", "base", "chat.jsonl", "--teacher", "chat")

    def rows(self, name, rows):
        return self.write(name, "".join(json.dumps(row) + "\n" for row in rows))

    def stage(self, stage, name, parent, data, *more):
        self.run_mmrun(stage, "--data", data, "--from", parent, "--name", name, "--batch", 4,
                       *QUICK, *more)

    def lineage(self, run):
        return json.loads(self.run_mmrun("show", run, "--json").out)["lineage"]

    def test_the_chain_with_its_hashes(self):
        family = self.lineage("persona")
        self.assertEqual([(r["stage"], r["name"], r["depth"]) for r in family],
                         [("pretrain", "base", 0), ("sft", "chat", 1), ("lora", "persona", 2)])
        base, chat_run, persona = family
        self.assertEqual([r["is_this"] for r in family], [False, False, True])
        # Each starts from the checkpoint that its parent ended with.
        self.assertEqual(chat_run["from_sha256"], base["sha256"])
        self.assertEqual(persona["from_sha256"], chat_run["sha256"])
        self.assertEqual({len(r["sha256"]) for r in family}, {64})
        self.assertEqual(len({r["tokenizer"] for r in family}), 1)
        files = self.query("SELECT d.sha256 FROM run_datasets u JOIN datasets d "
                           "ON d.id = u.dataset_id WHERE u.run_id = 3")
        self.assertEqual({d["sha256"] for d in persona["datasets"]}, {row[0] for row in files})
        for run in family:
            self.assertEqual(run["val_loss"], self.value(
                f"SELECT best_val_loss FROM runs WHERE id = {run['id']}"))

    def test_descendants_and_teachers(self):
        names = [(r["name"], r["depth"]) for r in self.lineage("base")]
        self.assertEqual(names, [("base", 0), ("chat", 1), ("persona", 2), ("polite", 2),
                                 ("small", 1)])
        small = self.lineage("small")
        taught = [r for r in small if r["name"] == "small"][0]
        teacher = [r for r in small if r["id"] == taught["teacher_id"]][0]
        self.assertEqual((teacher["name"], taught["teacher_step"]), ("chat", 3))

    def test_the_tree(self):
        text = self.run_mmrun("show", "chat").out
        tree = text[text.index("Lineage"):text.index("Origin")]
        lines = [line for line in tree.splitlines() if "(run" in line]
        self.assertEqual([re.sub(r"[|`-]", " ", line).split()[1] for line in lines],
                         ["base", "chat", "persona", "polite"])
        self.assertIn("|- lora persona", tree)
        self.assertIn("`- dpo polite", tree)
        self.assertIn("preference loss", tree)
        self.assertRegex(tree, r"train pair\.jsonl [0-9a-f]{8}")
        self.assertRegex(tree, r"tokenizer [0-9a-f]{8}")
        self.assertNotIn("Lineage", self.run_mmrun("show", "chat", "--config").out)

    def test_adapters_own_little_and_survive_their_parent(self):
        own, stored = self.query("SELECT own_bytes, stored_bytes FROM checkpoints "
                                 "WHERE run_id = 3 ORDER BY step DESC LIMIT 1")[0]
        self.assertLess(own, stored / 2)
        self.run_mmrun("rm", "chat", "--force")
        self.assertEqual([r["name"] for r in self.lineage("persona")], ["persona"])
        self.run_mmrun("show", "persona", out="started from step 3 of a run that was removed")
        self.run_mmrun("db", "check")
        self.run_mmrun("eval", "persona", "--data", "chat.jsonl", "--limit", 4)
        # The bytes of the base that it refers to are its own now.
        self.assertGreater(self.value("SELECT sum(own_bytes) FROM checkpoints WHERE run_id = 3"),
                           own)

    def test_the_report_draws_it(self):
        self.run_mmrun("report", "base", "chat", "persona", "polite", "small", "-o", "r.html")
        page = self.read("r.html")
        for text in ("<strong>persona</strong>", "Adapters", "Preference loss", "ln 2",
                     "taught by <bdi>chat</bdi> at step 3", "Distance to the teacher"):
            self.assertIn(text, page)


if __name__ == "__main__":
    harness.main()
