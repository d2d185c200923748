"""A peer in a process of its own that stays, so that imports and compilation are paid for once."""

import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))

# glibc gives big blocks back to the system with every free and takes the page faults again on the
# next allocation; kept, PyTorch's eager step is up to a fifth faster. Ours allocates once.
KEEP_BLOCKS = {
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}


def say(text):
    print(f"bench_peers: {text}", file=sys.stderr, flush=True)


class PeerError(Exception):
    """The peer could not do what was asked; the message is its own."""


def clean_environment(**more):
    """Ours without what pins a library's kernels: it would falsify any comparison with it."""
    env = {**os.environ, **more}
    for name in ("OPENBLAS_CORETYPE", "MKL_DEBUG_CPU_TYPE", "BLIS_ARCH_TYPE"):
        env.pop(name, None)
    return env


class Worker:
    """with Worker(...) as peer: peer.ask("step", count=2)"""

    def __init__(self, python, script, log, threads, **environment):
        env = clean_environment(
            OMP_NUM_THREADS=str(threads),
            MKL_NUM_THREADS=str(threads),
            RAYON_NUM_THREADS=str(threads),
            TOKENIZERS_PARALLELISM="false" if threads == 1 else "true",
            HF_HUB_OFFLINE="1",
            **environment,
        )
        self.script = script
        self.peak_rss_bytes = None
        self.log = open(log, "a", encoding="utf-8")
        self.process = subprocess.Popen(
            [python, "-B", os.path.join(HERE, script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=env,
        )

    def ask(self, what, **order):
        try:
            self.process.stdin.write(json.dumps({"do": what, **order}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it died; the empty answer below says so
        line = self.process.stdout.readline()
        if not line:
            raise PeerError(f"{self.script} ended in {what!r}, see {self.log.name}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def close(self):
        """Ends the process; peak_rss_bytes is known then."""
        if self.process is None:
            return
        self.process.stdin.close()
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.process.stdout.close()
        self.log.close()
        self.peak_rss_bytes = usage.ru_maxrss * 1024
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
