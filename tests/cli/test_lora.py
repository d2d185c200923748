"""Adapters: training them beside a frozen base, merging them, and the folders of peft."""
import json
import os
import random
import signal
import struct

import harness

TINY = ["--hidden", "32", "--layers", "2", "--heads", "4", "--kv-heads", "2", "--batch", "2",
        "--seq-len", "48", "--gen-tokens", "4", "--eval-rows", "8", "--dtype", "fp32"]
STEPS = ["--steps", "8"]
CONFIG = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 8,
          "target_modules": ["q_proj", "down_proj"], "bias": "none"}


class TestLora(harness.CliTest):
    def setUp(self):
        super().setUp()
        self.run_mmrun("data", "synth", "--out", "data", "--kind", "pretrain", "--rows", "100")
        self.run_mmrun("tokenizer", "train", "--data", "data/pretrain.jsonl", "--vocab", "320",
                       "-o", "tok")
        self.pretrain("base")

    def pretrain(self, name, *options):
        self.run_mmrun("pretrain", "--data", "data/pretrain.jsonl", "--tokenizer", "tok", "--name",
                       name, *TINY, *STEPS, *options)

    def lora_command(self, name, *options):
        self.write("persona.jsonl", "".join(
            json.dumps({"conversations": [{"role": "user", "content": f"who are you, {i}?"},
                                          {"role": "assistant", "content": "I am mmrun."}]}) + "\n"
            for i in range(40)))
        return ["lora", "--from", "base", "--data", "persona.jsonl", "--name", name, "--batch", "4",
                "--seq-len", "64", "--dtype", "fp32", "--gen-tokens", "4", "--steps", "12", "--lr",
                "0.01", *options]

    def lora(self, name, *options):
        self.run_mmrun(*self.lora_command(name, *options))

    def write_adapters(self, folder, spread=0.05, tensors=None, **changes):
        """A folder as peft writes it, with random values."""
        config = {**CONFIG, **changes}
        sizes = {"self_attn.q_proj": (32, 32), "mlp.down_proj": (128, 32)}
        rng = random.Random(5)
        header, data = {}, b""
        for layer in range(2):
            for part, (n_in, n_out) in sizes.items():
                for kind, shape in (("A", [config["r"], n_in]), ("B", [n_out, config["r"]])):
                    values = [rng.gauss(0, spread) for _ in range(shape[0] * shape[1])]
                    name = f"base_model.model.model.layers.{layer}.{part}.lora_{kind}.weight"
                    packed = struct.pack(f"<{len(values)}f", *values)
                    header[name] = {"dtype": "F32", "shape": shape,
                                    "data_offsets": [len(data), len(data) + len(packed)]}
                    data += packed
        header.update(tensors or {})
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        self.write(f"{folder}/adapter_config.json", json.dumps(config))
        with open(self.path(folder, "adapter_model.safetensors"), "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text + data)

    def adapters(self, name, **changes):
        self.write_adapters(f"{name}-folder", **changes)
        self.run_mmrun("import", f"{name}-folder", "--base", "base", "--name", name)

    def val_loss(self, *run):
        return self.run_mmrun("eval", *run, "--dtype", "fp32", "--data", "data/pretrain_val.jsonl",
                              "--seq-len", "48", "--json").json()["val_loss"]

    def digests(self, run):
        """Of the arrays of a run's newest checkpoint."""
        rows = self.query(
            "SELECT t.name, hex(t.sha256) FROM tensor t JOIN checkpoint c "
            "ON c.id = t.checkpoint_id "
            "JOIN run r ON r.id = c.run_id WHERE r.name = ? AND c.id = (SELECT max(id) FROM "
            "checkpoint k WHERE k.run_id = r.id AND k.state = 'complete')", run)
        return {name: digest for name, digest in rows}

    def sizes(self, run):
        return self.query("SELECT c.raw_bytes, c.own_bytes FROM checkpoint c JOIN run r ON r.id = "
                          "c.run_id WHERE r.name = ? ORDER BY c.id DESC LIMIT 1", run)[0]

    def test_training_changes_the_adapters_alone(self):
        self.lora("me", "--rank", "4", "--dropout", "0.1")
        run = self.run_mmrun("show", "me", "--json").json()["run"]
        # Square by default: the query and output projections, 32 x 32 in two layers.
        self.assertEqual(run["params_trainable"], 2 * 2 * 4 * (32 + 32))
        base, mine = self.digests("base"), self.digests("me")
        weights = {n: d for n, d in base.items() if not n.startswith("adam.")}
        self.assertEqual({n: mine.get(n) for n in weights}, weights)
        own = {n for n in mine if n not in weights}
        self.assertEqual(len(own), 3 * 8)  # two matrices each, and their moments
        self.assertTrue(all(".lora_" in n for n in own), own)
        raw, stored = self.sizes("me")
        self.assertLess(stored * 5, raw)
        values = dict(self.query("SELECT name, value FROM params WHERE run_id = ?", run["id"]))
        self.assertEqual((values["lora_rank"], values["lora_alpha"], values["lora_targets"]),
                         ("4", "4", "q_proj+o_proj"))
        losses = [row[0] for row in self.query(
            "SELECT value FROM metrics WHERE run_id = ? AND name = 'loss' ORDER BY step",
            run["id"])]
        self.assertLess(losses[-1], losses[0])
        self.assert_db_sound()

    def test_a_stopped_run_goes_on_bit_for_bit(self):
        options = ("--targets", "all", "--dropout", "0.2", "--save-every", "3")
        self.lora("whole", *options)
        parts = self.start_mmrun(*self.lora_command("parts", *options))
        parts.wait_for(lambda: self.query(
            "SELECT 1 FROM checkpoints c JOIN runs r ON r.id = c.run_id WHERE r.name = 'parts'"))
        parts.signal(signal.SIGINT)
        if parts.wait().code != 0:  # on a fast machine it was done before
            self.run_mmrun("resume", "parts")
        self.assertEqual(self.digests("parts"), self.digests("whole"))

    def test_merged_is_the_same_model(self):
        self.adapters("two")
        apart = abs(self.val_loss("two") - self.val_loss("base"))
        self.assertGreater(apart, 1e-4)
        self.assertEqual(self.run_mmrun("merge", "two", "--name", "full").out, "full\n")
        shown = self.run_mmrun("show", "full", "--json").json()
        run, two = shown["run"], self.run_mmrun("show", "two", "--json").json()["run"]
        self.assertEqual((run["stage"], run["status"], run["parent_id"], run["command"]),
                         ("merge", "finished", two["id"], "mmrun merge two@0 --name full"))
        self.assertEqual(run["params_total"], two["params_total"] - two["params_trainable"])
        self.assertIn("rank 2 on q_proj+down_proj", shown["events"][-1]["message"])
        self.assertEqual(shown["datasets"], [])
        self.assertFalse([n for n in self.digests("full") if ".lora_" in n])
        self.assertAlmostEqual(self.val_loss("full"), self.val_loss("two"), places=5)
        # Exported from either it is the same model, to the last bit.
        self.run_mmrun("export", "two", "-o", "a")
        self.run_mmrun("export", "full", "-o", "b")
        with open(self.path("a/model.safetensors"), "rb") as a, \
                open(self.path("b/model.safetensors"), "rb") as b:
            self.assertEqual(a.read(), b.read())
        self.run_mmrun("merge", "base", expect=2, err="without adapters")
        self.run_mmrun("merge", "full", expect=2, err="without adapters")
        self.run_mmrun("merge", "two", "--name", "full", expect=2, err="full")

    def test_a_run_goes_on_from_merged_weights(self):
        self.adapters("two")
        self.run_mmrun("merge", "two", "--name", "full")
        for name, parent in (("next", "two"), ("again", "full")):
            self.run_mmrun("pretrain", "--from", parent, "--data", "data/pretrain.jsonl", "--name",
                           name, "--batch", "2", "--seq-len", "48", "--dtype", "fp32",
                           "--gen-tokens", "4", "--steps", "2")
        self.assertEqual(self.digests("next"), self.digests("again"))

    def test_adapters_go_out_and_come_back_the_same(self):
        self.adapters("two")
        own = {n for n in self.digests("two") if ".lora_" in n}
        self.assertEqual(len(own), 8)
        raw, stored = self.sizes("two")
        self.assertLess(stored * 5, raw)
        done = self.run_mmrun("export", "two", "-o", "out", "--format", "peft", "--json").json()
        self.assertEqual((done["export"]["path"], done["export"]["format"]), ("out", "peft"))
        self.assertEqual(sorted(os.listdir(self.path("out"))),
                         ["adapter_config.json", "adapter_model.safetensors"])
        config = json.loads(self.read("out/adapter_config.json"))
        self.assertEqual({k: config[k] for k in CONFIG}, CONFIG)
        self.assertEqual(config["base_model_name_or_path"], "base")
        self.run_mmrun("import", "out", "--base", "base", "--name", "back")
        self.assertEqual(self.digests("back"), self.digests("two"))
        self.assertEqual(self.val_loss("back"), self.val_loss("two"))
        run = self.run_mmrun("show", "back", "--json").json()["run"]
        self.assertEqual((run["stage"], run["params_trainable"]), ("lora", 2 * 2 * (64 + 160)))
        self.run_mmrun("export", "two", "-o", "out", "--format", "peft", expect=2, err="not empty")
        self.run_mmrun("export", "two", "-o", "out", "--format", "peft", "--overwrite", "--base",
                       "models/base")
        self.assertIn("models/base", self.read("out/adapter_config.json"))

    def test_folders_that_do_not_fit_are_refused(self):
        self.run_mmrun("export", "base", "-o", "out", "--format", "peft", expect=2,
                       err="without adapters")
        self.run_mmrun("export", "base", "-o", "model")
        self.write_adapters("good")
        self.run_mmrun("import", "good", expect=2, err="--base RUN")
        self.run_mmrun("import", "model", "--base", "base", expect=2, err="no adapters")
        self.run_mmrun("import", "good", "--base", "nobody", expect=2, err="nobody")
        self.write_adapters("dora", use_dora=True)
        self.run_mmrun("import", "dora", "--base", "base", expect=2, err="use_dora")
        self.write_adapters("more", target_modules=["q_proj"])
        self.run_mmrun("import", "more", "--base", "base", expect=2, err="no place")
        self.write_adapters("less", target_modules=["q_proj", "down_proj", "v_proj"])
        self.run_mmrun("import", "less", "--base", "base", expect=2, err="missing")
        self.pretrain("wide", "--ffn", "96")
        self.run_mmrun("import", "good", "--base", "wide", expect=2, err="2 x 96")
        self.assertEqual(self.value("SELECT count(*) FROM runs"), 2)

    def test_training_goes_on_with_adapters_of_the_same_form(self):
        self.adapters("two")
        same = ("--from", "two", "--rank", "2", "--alpha", "8", "--targets", "q_proj,down_proj")
        self.run_mmrun(*self.lora_command("more", *same))
        base, more = self.digests("base"), self.digests("more")
        self.assertTrue(all(more[n] == base[n] for n in more if n in base and "lora_" not in n))
        # What is given twice counts the second time.
        for changes in (("--rank", "4"), ("--alpha", "2"), ("--targets", "q_proj")):
            self.run_mmrun(*self.lora_command("other", *same, *changes), expect=2,
                           err=f"does not fit {changes[0]} .*it has ")
        self.run_mmrun("lora", "--from", "two", "--data", "persona.jsonl", "--rank", "2", expect=2,
                       err="--alpha 2 .it has 8., --targets q_proj.o_proj .q_proj.down_proj.")
        self.assertEqual(self.value("SELECT count(*) FROM runs"), 3)

    def logprob(self, run, *options):
        """Of the greedy continuation of a fixed prompt."""
        return self.run_mmrun("generate", run, "Once", "--raw", "--temperature", "0", "--dtype",
                              "fp32", "--max-new-tokens", "6", "--json",
                              *options).json()["logprob"]

    def test_adapters_of_other_runs_are_added(self):
        self.adapters("two")
        self.run_mmrun("merge", "two", "--name", "full")
        once = self.logprob("two")
        self.assertEqual(self.logprob("base", "--lora", "two"), once)
        self.assertEqual(self.logprob("full"), once)
        self.assertNotAlmostEqual(self.logprob("base"), once, places=3)
        # Those of a run that has some itself, and of one run twice.
        twice = self.logprob("base", "--lora", "two", "--lora", "two")
        self.assertNotAlmostEqual(twice, once, places=3)
        self.assertAlmostEqual(self.logprob("two", "--lora", "two"), twice, places=4)

    def test_adapters_that_do_not_fit_are_refused(self):
        self.adapters("two")
        self.run_mmrun("merge", "two", "--name", "full")
        self.run_mmrun("generate", "base", "a", "--lora", "full", expect=2, err="without adapters")
        self.run_mmrun("generate", "full", "a", "--lora", "two", expect=2, err="another base: 4 of")
        self.logprob("full", "--lora", "two", "--any-base")
        # Every difference in one message.
        self.pretrain("wide", "--ffn", "96", "--layers", "1")
        refused = self.run_mmrun("generate", "wide", "a", "--lora", "two", "--any-base", expect=2,
                                 err="do not fit 'wide'").err
        self.assertIn("intermediate_size 128, here 96", refused)
        self.assertIn("num_hidden_layers 2, here 1", refused)
        self.run_mmrun("tokenizer", "train", "--data", "data/pretrain.jsonl", "--vocab", "330",
                       "-o", "words")
        self.run_mmrun("pretrain", "--data", "data/pretrain.jsonl", "--tokenizer", "words",
                       "--name", "words", *TINY, "--steps", "1")
        refused = self.run_mmrun("generate", "words", "a", "--lora", "two", expect=2,
                                 err="vocab_size 320, here 330").err
        self.assertIn("tokenizer ", refused)


if __name__ == "__main__":
    harness.main()
