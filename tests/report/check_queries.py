"""The questions of docs/formats.md, asked with plain SQLite: each must answer something."""

import argparse
import os
import pathlib
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile


def ask(path, query):
    """Rows of the query; also through the sqlite3 shell where there is one."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        rows = connection.execute(query).fetchall()
    shell = shutil.which("sqlite3")
    if shell:
        done = subprocess.run([shell, "-readonly", path, query], capture_output=True, text=True,
                              check=False)
        if done.returncode != 0 or done.stderr:
            raise sqlite3.Error(f"the shell says: {done.stderr}")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--render", required=True, help="the program report_render")
    parser.add_argument("--docs", required=True, help="docs/formats.md")
    arguments = parser.parse_args()
    text = pathlib.Path(arguments.docs).read_text(encoding="utf-8")
    queries = re.findall(r"^```sql\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    faults = [] if len(queries) >= 8 else [f"only {len(queries)} queries found"]
    with tempfile.TemporaryDirectory() as name:
        folder = os.path.join(name, "stages")
        subprocess.run([arguments.render, "stages", folder], check=True,
                       stdout=subprocess.DEVNULL)
        answers = []
        for query in queries:
            try:
                answers.append(ask(os.path.join(folder, "runs.db"), query))
            except sqlite3.Error as error:
                answers.append([])
                faults.append(f"{error}\n{query}")
            if not answers[-1]:
                faults.append(f"answers nothing:\n{query}")
    # The chain from the first run to the one asked for, and the whole tree below it.
    if not faults:
        if [row[:2] for row in answers[0]] != [("pretrain", "base"), ("sft", "chat"),
                                               ("lora", "persona")]:
            faults.append(f"the chain is {answers[0]}")
        if [row[0].strip() for row in answers[1]] != [
                "pretrain base", "sft chat", "lora persona", "dpo polite", "dpo polite-long",
                "distill small"]:
            faults.append(f"the tree is {answers[1]}")
    for fault in faults:
        print(fault)
    print(f"{len(queries)} questions, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
