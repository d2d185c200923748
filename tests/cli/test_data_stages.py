"""What the stages learn from: masks, stages and cuts of `data show`, counts of `data check`."""
import json

import harness


def chat(*messages):
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[role], "content": content} for role, content in messages]


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


class StagesTest(harness.CliTest):
    def setUp(self):
        super().setUp()
        self.write("text.jsonl", lines(*({"text": f"row {i} of text"} for i in range(10))))
        self.run_mmrun("tokenizer", "train", "--data", "text.jsonl", "--vocab", "300", "-o", "tok")
        messages = chat(("s", "Short."), ("u", "1+1=?"), ("a", "2"), ("u", "2+2=?"), ("a", "4"))
        self.write("chat.jsonl", lines({"messages": messages}))
        self.write("pair.jsonl", lines({"prompt": "1+1=?", "chosen": "2", "rejected": "3"}))

    def learned(self, *options):
        """The marked parts of the first sample."""
        out = self.run_mmrun("data", "show", "chat.jsonl", "-t", "tok", *options).out
        return [part.split("]]")[0].replace("<think>\n\n</think>\n\n", "")
                for part in out.split("[[")[1:]]

    def test_masks(self):
        two, four = "2<|im_end|>\n", "4<|im_end|>\n"
        self.assertEqual(self.learned(), [two, four])
        self.assertEqual(self.learned("--mask", "all-answers"), [two, four])
        self.assertEqual(self.learned("--mask", "last-answer"), [four])
        self.assertEqual(self.learned("--mask", "with-system"), ["Short.<|im_end|>\n", two, four])
        for options in (("--mask", "all"), ("--stage", "pretrain")):
            whole = self.learned(*options)
            self.assertEqual(len(whole), 1)
            self.assertTrue(whole[0].startswith("<|im_start|>system"))
        told = self.run_mmrun("data", "show", "chat.jsonl", "-t", "tok", "--mask", "last-answer",
                              "--json").json()
        self.assertEqual(told["mask"], "last-answer")
        self.run_mmrun("data", "show", "chat.jsonl", "--mask", "answers", expect=2,
                       err="all-answers")

    def test_the_think_block_and_the_cut(self):
        plain = self.run_mmrun("data", "show", "chat.jsonl", "-t", "tok", "--json").json()
        bare = self.run_mmrun("data", "show", "chat.jsonl", "-t", "tok", "--drop-think",
                              "--json").json()
        cut = self.run_mmrun("data", "show", "chat.jsonl", "-t", "tok", "--seq-len", "20",
                             "--json").json()
        ids = [told["samples"][0]["chat_tokens"]["ids"] for told in (plain, bare, cut)]
        self.assertEqual(len(ids[0]) - len(ids[1]), 12)  # two blocks of six tokens
        self.assertEqual(ids[2], ids[0][:20])
        self.assertEqual(len(cut["samples"][0]["chat_tokens"]["learned"]), 20)

    def test_a_stage_refuses_what_it_cannot_learn_from(self):
        self.run_mmrun("data", "show", "pair.jsonl", "--stage", "dpo")
        self.run_mmrun("data", "show", "pair.jsonl", "--stage", "sft", expect=2,
                       err=r"pair\.jsonl:1: a preference row.*dpo")
        self.run_mmrun("data", "show", "chat.jsonl", "--stage", "dpo", expect=2,
                       err=r"chat\.jsonl:1: a row without chosen and rejected")

    def test_check_counts_what_teaches_nothing(self):
        self.write("mixed.jsonl", lines({"messages": chat(("u", "q"), ("a", "a"))},
                                        {"messages": chat(("u", "no answer"))},
                                        {"messages": chat(("u", "long " * 50), ("a", "a"))},
                                        {"messages": chat(("u", "q"), ("a", "long " * 50))}))
        told = self.run_mmrun("data", "check", "mixed.jsonl", "-t", "tok", "--seq-len", "60",
                              "--json").json()["files"][0]
        self.assertEqual((told["rows"], told["rows_over_seq_len"], told["rows_without_label"]),
                         (4, 2, 2))
        self.run_mmrun("data", "check", "mixed.jsonl", "-t", "tok", "--seq-len", "60",
                       out="2 rows have nothing to learn within them")
        told = self.run_mmrun("data", "check", "mixed.jsonl", "-t", "tok", "--seq-len", "60",
                              "--mask", "all", "--json").json()["files"][0]
        self.assertEqual(told["rows_without_label"], 0)
        told = self.run_mmrun("data", "check", "mixed.jsonl", "--json").json()["files"][0]
        self.assertIsNone(told["rows_without_label"])

    def test_check_counts_equal_pairs(self):
        self.write("equal.jsonl", lines({"prompt": "q", "chosen": "a", "rejected": "b"},
                                        {"prompt": "q", "chosen": "a", "rejected": "a"},
                                        {"prompt": "q", "chosen": "c", "rejected": "c"}))
        told = self.run_mmrun("data", "check", "equal.jsonl", "--json").json()["files"][0]
        self.assertEqual((told["rows"], told["equal_pairs"], told["duplicates"]), (3, 2, 0))
        self.run_mmrun("data", "check", "equal.jsonl", out="equal pairs 2")


if __name__ == "__main__":
    harness.main()
