"""scripts/tidy finds what it promises, and nothing in a tree that obeys."""
import os
import subprocess
import sys
import tempfile
import unittest

TIDY = os.path.join(os.path.dirname(__file__), "..", "..", "scripts", "tidy")
C = "/* Purpose. */\n"
LONG_BODY = "    step();\n" * 80

# path, text, what must be reported ("" = nothing)
ROWS = [
    ("core/nn/a.c", C + '#include "core/base/mem.h"\n', ""),
    ("core/nn/a.c", C + '#include "core/text/chat.h"\n', "core/nn may not include core/text"),
    ("core/base/a.c", C + '#include "store/store.h"\n', "core/base may not include store"),
    ("report/a.c", C + '#include "core/nn/model.h"\n', "report may not include core/nn"),
    ("core/data/a.h", C + '#include "core/nn/batch.h"\n', ""),
    ("core/data/a.h", C + '#include "core/nn/model.h"\n', "core/data may not include core/nn"),
    ("runner/a.c", C + '#include "store/store.h"\n#include "core/nn/model.h"\n', ""),
    ("store/a.c", C + '#include "a.h"\n', "not named from the top"),
    ("runner/a.c", C + "#include <sqlite3.h>\n", "only store uses SQLite"),
    ("store/CMakeLists.txt", "mm_library(mm_store mm_base PkgConfig::SQLITE)\n", ""),
    ("store/CMakeLists.txt", "mm_library(mm_store mm_nn mm_base)\n", "mm_store may not link mm_nn"),
    ("runner/a.c", C + 'const char *q = "SELECT a FROM b";\n', "sql: only store"),
    ("runner/a.c", C + 'const char *q = "\\n  INSERT OR REPLACE INTO b";\n', ""),
    ("runner/a.c", C + 'const char *q = " INSERT OR REPLACE INTO b";\n', "sql: only store"),
    ("store/a.c", C + 'const char *q = "SELECT a FROM b";\n', ""),
    ("runner/a.c", C + 'const char *h = "Select a run";\n', ""),
    ("runner/a.c", C + 'const char *h = "<table class=x>";\n', "html: only report"),
    ("core/text/a.c", C + 'const char *h = "</div>";\n', "html: only report"),
    ("core/text/a.c", C + 'const char *h = "<think>", *s = "<s>", *p = "<path>";\n', "html"),
    ("core/text/a.c", C + 'const char *h = "<|im_start|>", *s = "a < b > c";\n', ""),
    ("report/a.c", C + 'const char *h = "<table>";\n', ""),
    ("core/nn/a.c", C + "void f(void) { cudaMalloc(0, 0); }\n", "cuda"),
    ("core/nn/a.cu", C, "cuda"),
    ("core/cuda/a.cu", C + "void f(void) { k<<<1, 1>>>(); }\n", ""),
    ("core/nn/a.c", C + "void f(void) { free(p); }\n", "banned: free()"),
    ("core/nn/a.c", C + "void f(void) { mm_free(p); a->free(p); a.free(p); }\n", ""),
    ("core/nn/a.c", C + "// free(p) and malloc(3)\nconst char *s = \"free(p)\";\n", ""),
    ("core/base/mem.c", C + "void f(void) { free(p); }\n", ""),
    ("tests/nn/a.c", C + "void f(void) { free(p); }\n", ""),
    ("tests/nn/a.c", C + "void f(void) { strcpy(a, b); }\n", "banned: strcpy()"),
    ("runner/a.c", C + "void f(void) { exit(1); }\n", "banned: exit()"),
    ("runner/main.c", C + "int main(void) { exit(1); }\n", ""),
    ("store/a.c", C + "void f(void) { abort(); }\n", "banned: abort()"),
    ("runner/a.c", C + 'void f(void) { system("ls"); }\n', "banned: system()"),
    ("store/a.c", C + 'void f(void) { fprintf(stderr, "x"); }\n', "print: fprintf()"),
    ("runner/a.c", C + 'void f(void) { fprintf(stderr, "x"); }\n', ""),
    ("store/a.c", C + "void f(void) { snprintf(a, 1, b); }\n", ""),
    ("store/a.c", C + "void f(void)\n{\n    if (p == NULL) g();\n}\n", "compare"),
    ("store/a.c", C + "void f(void)\n{\n    if (q && p != NULL) g();\n}\n", "compare"),
    ("store/a.c", C + "bool f(void)\n{\n    return p != NULL;\n}\n", ""),
    ("store/a.c", C + "void f(void)\n{\n    MM_ASSERT(p != NULL);\n    g(p != NULL);\n}\n", ""),
    ("store/a.c", C + "void f(void)\n{\n    if ((p = g())) h();\n}\n", "condition"),
    ("store/a.c", C + "void f(void)\n{\n    if (p == g()) h();\n}\n", ""),
    ("store/a.c", C + "void f(void)\n{\n    goto out;\n}\n", "goto: the only label is done"),
    ("store/a.c", C + "void f(void)\n{\n    goto done;\n}\n", ""),
    ("store/a.c", C + "void f(void)\n{\n    int first = 1, second;\n}\n", "declare: one on a line"),
    ("store/a.c", C + "void f(void)\n{\n    int m, n;\n    g(m, n);\n}\n", ""),
    ("store/a.h", C + "mm_status mm_a_b(int a);\n", "nodiscard: MM_NODISCARD is missing"),
    ("store/a.c", C + "#include <math.h>\n\nint a;\n", "include: <math.h> is not used"),
    ("store/a.c", C + "#include <math.h>\n\ndouble a = NAN;\n", ""),
    ("schemas/a.sql", "-- Purpose.\nCREATE TABLE a (b ANY);\n", "sql: table a is not STRICT"),
    ("schemas/a.sql", "-- Purpose.\nCREATE TABLE a (b ANY -- ;\n) STRICT;\n", ""),
    ("scripts/a", "#!/bin/sh\n# Purpose.\necho\n", "shell: no set -eu"),
    ("store/a.c", "#include <stdio.h>\n" + C * 5, "does not open with a comment"),
    ("scripts/a.py", "#!/usr/bin/env python3\nimport os\n\n\n\n", "does not open with a comment"),
    ("scripts/a.py", '#!/usr/bin/env python3\n"""Purpose."""\nimport os\n\n\n', ""),
    ("scripts/a", "#!/bin/sh\n# Purpose.\nset -eu\n\n\n", ""),
    ("store/a.c", C + "int a; \n", "blanks at the end"),
    ("store/a.c", C + "int a;\r\n", "blanks at the end"),
    ("store/a.c", C + "\tint a;\n", "tab"),
    ("store/a.c", C + "int a;", "no newline at the end"),
    ("scripts/a.py", '"""' + "x" * 120 + '"""\n', "126 columns"),
    ("store/a.c", C + "// TO" + "DO: later\n", "todo"),
    ("store/a.c", C + "// TO" + "DO(#12): later\n", ""),
    ("store/a.c", C + "int f(int a,\n      int b)\n{\n" + LONG_BODY + "}\n",
     "size: store/a.c:f has 84 lines"),
    ("store/a.c", C + "int f(void)\n{\n" + LONG_BODY[:600] + "}\n", ""),
    ("store/a.c", C + "int a;\n" * 800, "size: store/a.c has 801 lines"),
    ("store/a.c", "/* Generated by scripts/make_x.py. */\n" + "int a;\n" * 800, ""),
    ("tests/store/CMakeLists.txt", "mm_test(a SOURCES a.c)\n", "a test without a label"),
    ("tests/store/CMakeLists.txt", "mm_test(a LABEL unit SOURCES a.c)\n", ""),
    ("tests/store/CMakeLists.txt", "add_test(NAME a COMMAND b)\n", "a has no label"),
    ("tests/store/CMakeLists.txt", "add_test(NAME a COMMAND b)\n"
     "set_tests_properties(a PROPERTIES LABELS cli)\n", ""),
    ("docs/a.md", "# A\n\n[b](b.md)\n", "link: docs/b.md does not exist"),
    ("docs/a.md", "# A\n\n[a](a.md#x) [c](https://example.org/x)\n", ""),
    ("tests/data/bad.jsonl", "broken \t \n", ""),
]


def tidy(files):
    with tempfile.TemporaryDirectory(prefix="mmrun-tidy-") as root:
        for path, text in files.items():
            full = os.path.join(root, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8", newline="") as file:
                file.write(text)
        done = subprocess.run([sys.executable, "-B", TIDY, root], capture_output=True, text=True,
                              check=False)
    if done.stderr:
        raise AssertionError(done.stderr)
    found = [line for line in done.stdout.splitlines() if line.count(": ") >= 2]
    return done.returncode, found


class TestRules(unittest.TestCase):
    def test_table(self):
        for row, (path, text, expected) in enumerate(ROWS):
            with self.subTest(row=row, path=path, text=text[-60:]):
                code, found = tidy({path: text})
                self.assertEqual(code, 1 if expected else 0, found)
                if expected:
                    self.assertIn(expected, "\n".join(found))

    def test_functions_that_nobody_calls(self):
        header = C + "void mm_a_b(int a);\n"
        own = {"store/a.h": header, "store/a.c": C + "void mm_a_b(int a) { mm_a_b(a); }\n"}
        for more, expected in (
                ({}, "dead: mm_a_b is used in no file but its own"),
                ({"store/b.c": C + "// mm_a_b\n"}, "dead: mm_a_b"),
                ({"store/b.c": C + "void f(void) { mm_a_b(1); }\n"}, None),
                ({"tests/store/b.c": C + "void f(void) { mm_a_b(1); }\n"}, None)):
            with self.subTest(more=more):
                code, found = tidy({**own, **more})
                self.assertEqual(code, 1 if expected else 0, found)
                if expected:
                    self.assertIn(expected, "\n".join(found))

    def test_waivers_only_shrink(self):
        body = C + "int f(void)\n{\n" + LONG_BODY + "}\n"  # 83 lines
        for waiver, expected in (
                ("store/a.c:f 83", None),
                ("store/a.c:f 83  # a table of cases", None),
                ("store/a.c:f 82", "has 83 lines, at most 82"),
                ("store/a.c:f 90", "shrank to 83: lower the number"),
                ("store/a.c:f 83\nstore/a.c:g 90", "store/a.c:g no longer needs one"),
                ("store/a.c:f", "expected: PATH[:FUNCTION] LINES")):
            with self.subTest(waiver=waiver):
                code, found = tidy({"store/a.c": body, "scripts/tidy.waivers": waiver + "\n"})
                self.assertEqual(code, 1 if expected else 0, found)
                if expected:
                    self.assertIn(expected, "\n".join(found))


if __name__ == "__main__":
    unittest.main(verbosity=2)
