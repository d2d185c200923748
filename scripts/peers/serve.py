"""The other side of worker.py: a process that works when told to and sleeps in between.

One JSON object per line on stdin, {"do": NAME, ...}; one per line on stdout, which is what the
function of that name returned, or {"error": TEXT} if it raised.
"""

import json
import os
import sys
import traceback


def use_threads(torch):
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.set_num_interop_threads(1)


def serve(functions):
    # What a library prints must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = functions[order["do"]](order)
        except Exception as error:  # whatever a library raises is the caller's to report
            traceback.print_exc()
            text = (str(error).strip() or "no message").splitlines()[0]
            answer = {"error": f"{type(error).__name__}: {text}"}
        print(json.dumps(answer), file=answers, flush=True)
