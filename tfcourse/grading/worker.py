"""Run one submission in a kernel, in a separate process that `limits.run` starts.

The worker reads a job (one line of JSON) from stdin. For each exercise, it prints one line of JSON
with the verdict. This file must not import other modules of the grader, because containers do not
contain them; the job contains the source of the `kernel` module.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import json
import math
import os
import resource
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import psutil
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

OURS_SECONDS = 300  # seconds, enough to import TensorFlow on a busy host
PR_SET_DUMPABLE = 4  # linux/prctl.h
TIMEOUT = 20  # seconds to wait for a kernel to stop after an interrupt
FILE_SIZE = 200 * 2**20  # bytes per file
OUTPUT = 10  # MB per cell
LONGEST = 1000  # characters per verdict; a check's messages have about a hundred
# The files in which Linux counts the OOM kills in a container (cgroup v2 and v1).
KILLED = ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"]

# Run a function of kernel.py. This works even if the learner has assigned variables called `exec`
# or `globals`.
REQUEST = """
__import__("builtins").exec(
    <source>, {"theirs": __import__("builtins").globals(), "values": <values>}
)
"""


def main() -> None:
    """Read a job from stdin and run it."""
    withdraw()
    job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=end_with_the_grader, daemon=True).start()
    limit_resources(job["memory"], job.get("processes"))
    signal.signal(signal.SIGALRM, give_up)
    client = Client(
        nbformat.v4.new_notebook(),
        allow_errors=True,
        interrupt_on_timeout=True,
        kernel_name="python3",
        record_timing=False,
        shutdown_kernel="immediate",
        store_widget_state=False,
    )
    with client.setup_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        Submission(client, job).run()


def withdraw() -> None:
    """Protect this process's memory and stdout from other processes of the same account."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0)


def end_with_the_grader() -> None:
    """Kill this process and its descendants when the grader exits, even if the grader is killed."""
    os.read(sys.stdin.fileno(), 1)  # not `sys.stdin`: reading it would block Python's exit
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            process.kill()
    os._exit(1)


def limit_resources(memory: int, processes: int | None) -> None:
    """Limit the resources of this process and of each child; the grader limits their total."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if processes:
        hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        most = processes if hard == resource.RLIM_INFINITY else min(processes, hard)
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))


class Client(NotebookClient):
    """A client that terminates this process, and thereby the kernel, if a cell prints too much."""

    received = 0  # bytes, from this cell

    def execute_cell(self, cell: nbformat.NotebookNode, *others: object, **more: object):
        """Reset the output count, and run a cell."""
        self.received = 0
        return super().execute_cell(cell, *others, **more)

    def process_message(self, msg: dict, *others: object):
        """Process a message from the kernel; exit if the cell has printed too much."""
        self.received += len(json.dumps(msg["content"]))
        if self.received > OUTPUT * 10**6:
            tell(stopped=f"printed more than {OUTPUT} MB")
            os._exit(0)
        return super().process_message(msg, *others)


class Submission:
    """A running submission."""

    def __init__(self, client: NotebookClient, job: dict):
        self.client = client
        self.job = job
        self.identities: dict = {}
        self.slow: set[str] = set()  # exercises whose answer cell timed out
        self.remark = ""  # on an edited cell of ours
        self.raised: dict[str, str] = {}  # exercise -> the exception that its answer raised

    def run(self) -> None:
        """Run all steps; print the verdict of each check."""
        # This imports TensorFlow.
        found = self.request("remember(**values)", OURS_SECONDS, watched=self.job["watched"])
        if not found:
            return tell(stopped="its kernel could not be prepared")
        self.identities = found["identities"]
        for step in self.job["steps"]:
            kind, text, exercise = step["kind"], step["text"], step["exercise"]
            try:
                if kind == "check":
                    tell(exercise=exercise, **self.judge(exercise, text))
                    # The learner may try again below.
                    self.slow.discard(exercise)
                    self.raised.pop(exercise, None)
                elif kind == "ours":
                    self.ours(text, step["instead_of"])
                else:
                    self.answer(exercise, text)
            except DeadKernelError:
                held = f"held more than {self.job['memory'] / 2**30:.1f} GB of memory"
                ended = f"its kernel ended in the cell that begins with {beginning(text)!r}"
                return tell(stopped=held if ran_out_of_memory() else ended)

    def ours(self, source: str, original: str) -> None:
        """Run one of our cells, which the learner may have edited.

        If an edited cell raises an exception, run the original, and then the statements of the
        edited cell that work.
        """
        cell = self.execute(source, self.job["seconds"] if original else OURS_SECONDS)
        if not original or (cell and not raised(cell)):
            return
        error = raised(cell) if cell else None
        what = f"raised {error.ename}: {error.evalue}"[:200] if error else "took too long"
        self.remark = f"one of our cells, which was edited, {what}"
        self.execute(original, OURS_SECONDS)
        for statement in statements(source) if error else []:
            self.execute(statement, self.job["seconds"])

    def answer(self, exercise: str, source: str) -> None:
        """Run one of the learner's cells; record whether it was too slow, and any exception."""
        cell = self.execute(source, self.job["seconds"])
        if cell is None:
            self.slow.add(exercise)
        elif error := raised(cell):
            self.raised[exercise] = f"the answer raised {error.ename}: {error.evalue}"[:200]

    def judge(self, exercise: str, check: str) -> dict[str, object]:
        """Run a check; return its verdict, or the reason why there is no reliable verdict."""
        stopped = {"stopped": f"still running after {self.job['seconds']:g} s"}
        if exercise in self.slow:
            return stopped
        verdict = self.request("prepare(**values)", OURS_SECONDS, ours=self.job["ours"])
        if verdict and verdict["failed"]:
            return {"mistake": verdict["failed"][:LONGEST]}
        call = "judge(**values, theirs=theirs)"
        watched = self.job["watched"]
        verdict = verdict and self.request(call, check=check, watched=watched)
        if verdict == {}:
            return stopped
        if not verdict:
            return {"stopped": "its output does not reach the grader"}
        now, mistake = verdict["identities"], verdict["mistake"]
        if changed := sorted(name for name in now if now[name] != self.identities.get(name)):
            return {"tampered": f"the submission changed the grader's {', '.join(changed[:3])}"}
        if mistake:
            mistake = self.raised.get(exercise, mistake)[:LONGEST]
        return {"mistake": mistake, "remark": self.remark, "replaced": verdict["replaced"][:3]}

    def request(self, call: str, seconds: float = 0, **values: object) -> dict | None:
        """Run a function of kernel.py.

        Return what it publishes, {} if it was interrupted, or None if nothing arrived.
        """
        nonce = secrets.token_hex(16)  # a value that the learner's code cannot guess
        source = REQUEST.replace("<source>", repr(f"{self.job['kernel']}\n{call}"))
        source = source.replace("<values>", repr({"nonce": nonce, **values}))
        cell = self.execute(source, seconds or self.job["seconds"])
        if cell is None:
            return {}
        for output in cell.outputs:
            text = output.get("data", {}).get("text/plain", "")
            if text.startswith(nonce):
                return json.loads(text.removeprefix(nonce))
        return None

    def execute(self, source: str, seconds: float) -> nbformat.NotebookNode | None:
        """Run a cell; return it with its outputs, or None if it was interrupted.

        Raises
        ------
        DeadKernelError
            If the kernel has died.
        """
        cell = nbformat.v4.new_code_cell(source)
        self.client.nb.cells = [cell]  # discard earlier cells and their outputs
        self.client.timeout = math.ceil(seconds)
        signal.alarm(int(seconds + TIMEOUT))  # exit if the cell ignores the interrupt
        began = time.monotonic()
        self.client.execute_cell(cell, 0)
        signal.alarm(0)
        return cell if time.monotonic() - began < seconds else None


def beginning(source: str) -> str:
    """Return the beginning of a cell's source."""
    return source.strip().partition("\n")[0][:60]


def statements(source: str) -> list[str]:
    """Return a cell's statements; return an empty list if it is not valid."""
    try:
        tree = ast.parse(TransformerManager().transform_cell(source))
    except (SyntaxError, ValueError):
        return []
    return [ast.unparse(statement) for statement in tree.body]


def raised(cell: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """Return the first error among a cell's outputs, or None."""
    return next((each for each in cell.outputs if each.output_type == "error"), None)


def ran_out_of_memory() -> bool:
    """Return whether Linux's OOM killer has killed a process in this container."""
    for path in KILLED:
        with contextlib.suppress(OSError):
            counts = dict(line.split() for line in Path(path).read_text().splitlines())
            return counts.get("oom_kill", "0") != "0"
    return False


def give_up(*_: object) -> None:
    """Exit this process; `limits.run` then kills the kernel."""
    tell(stopped="still running after an interruption")
    os._exit(0)


def tell(**what: object) -> None:
    """Print one line of JSON for the grader."""
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
