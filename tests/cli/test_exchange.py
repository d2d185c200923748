"""Models out and in: export to a Hugging Face folder, import of one, and that both are the same
model."""
import json
import os
import shutil

import harness

TINY = ["--hidden", "32", "--layers", "2", "--heads", "4", "--kv-heads", "2", "--batch", "2",
        "--seq-len", "48", "--gen-tokens", "4", "--eval-rows", "8", "--steps", "8"]


class TestExchange(harness.CliTest):
    def setUp(self):
        super().setUp()
        self.run_mmrun("data", "synth", "--out", "data", "--kind", "pretrain", "--rows", "100")
        self.run_mmrun("tokenizer", "train", "--data", "data/pretrain.jsonl", "--vocab", "320",
                       "-o", "tok")
        self.run_mmrun("pretrain", "--data", "data/pretrain.jsonl", "--tokenizer", "tok", "--name",
                       "one", *TINY)

    def val_loss(self, run):
        # An imported model does not know the length of the rows it was trained on.
        # Both in one precision: an imported model does not know that of its training either.
        return self.run_mmrun("eval", run, "--dtype", "fp32", "--data", "data/pretrain_val.jsonl",
                              "--seq-len", "48", "--json").json()["val_loss"]

    def test_a_model_goes_out_and_comes_back_the_same(self):
        self.assertEqual(self.run_mmrun("export", "one", "-o", "model").out, "model\n")
        for name in ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                     "tokenizer_config.json", "chat_template.jinja", "README.md", "mmrun_run.json"):
            self.assertTrue(os.path.getsize(self.path("model", name)) > 0, name)
        config = json.loads(self.read("model/config.json"))
        self.assertEqual(config["architectures"], ["Qwen3ForCausalLM"])
        provenance = json.loads(self.read("model/mmrun_run.json"))
        self.assertEqual((provenance["run"]["name"], provenance["step"]), ("one", 8))
        self.assertNotIn("host", provenance["run"])
        self.assertEqual(self.run_mmrun("import", "model", "--name", "two").out, "two\n")
        two = self.run_mmrun("show", "two", "--json").json()
        self.assertEqual((two["run"]["stage"], two["run"]["status"]), ("import", "finished"))
        self.assertEqual([(c["kind"], c["step"]) for c in two["checkpoints"]], [("weights", 0)])
        origins = {p["origin"] for p in two["params"]}
        self.assertEqual(origins, {"import"})
        self.assertEqual(two["run"]["params_total"],
                         self.value("SELECT params_total FROM runs WHERE name = 'one'"))
        self.assertAlmostEqual(self.val_loss("one"), self.val_loss("two"), places=9)
        self.run_mmrun("export", "two", "-o", "again")
        with open(self.path("model/model.safetensors"), "rb") as a, \
                open(self.path("again/model.safetensors"), "rb") as b:
            self.assertEqual(a.read(), b.read())
        self.assertEqual(self.read("model/tokenizer.json"), self.read("again/tokenizer.json"))

    def test_a_full_folder_is_left_alone(self):
        self.write("model/mine.txt", "precious")
        self.run_mmrun("export", "one", "-o", "model", expect=2, err="model")
        self.assertEqual(os.listdir(self.path("model")), ["mine.txt"])
        self.run_mmrun("export", "one", "-o", "model", "--overwrite")
        self.assertEqual(self.read("model/mine.txt"), "precious")

    def test_a_folder_that_is_no_model(self):
        runs = len(self.run_mmrun("runs", "--json").json())
        self.run_mmrun("import", "nowhere", expect=None, err="nowhere")
        self.write("bad/config.json", "{")
        self.run_mmrun("import", "bad", expect=2, err="bad/config.json")
        self.run_mmrun("export", "one", "-o", "model")
        # Without its tokenizer, and with one that fits no more.
        os.remove(self.path("model/tokenizer.json"))
        self.run_mmrun("import", "model", expect=2, err="--tokenizer")
        self.run_mmrun("tokenizer", "train", "--data", "data/pretrain.jsonl", "--vocab", "330",
                       "-o", "large")
        self.run_mmrun("import", "model", "--tokenizer", "large", expect=2, err="330 tokens")
        self.assertEqual(len(self.run_mmrun("runs", "--json").json()), runs)
        self.run_mmrun("import", "model", "--tokenizer", "tok", "--name", "three")
        self.assertAlmostEqual(self.val_loss("one"), self.val_loss("three"), places=9)

    def test_steps_of_a_run(self):
        self.run_mmrun("export", "one@8", "-o", "a")
        self.run_mmrun("export", "one@7000", "-o", "b", expect=2, err="7000")
        self.assertFalse(os.path.exists(self.path("b")))
        shutil.rmtree(self.path("a"))


if __name__ == "__main__":
    harness.main()
