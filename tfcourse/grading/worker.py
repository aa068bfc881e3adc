"""Run one submission in a kernel, in a separate process that `limits.run` starts.

The worker reads a job (one line of JSON) from stdin. For each exercise, it prints one line of JSON
with the verdict. This file must not import other modules of the grader, because containers do not
contain them.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
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

# The four cells below run in the kernel. They run our code again in a separate namespace, so that
# it still works if the learner has reassigned the name of a check or of a built-in function.
PREPARE = """
import builtins as _builtins
# Nobody reads what our checks print here, and printing half a character would hang the kernel.
_ours = {"__builtins__": {**_builtins.__dict__, "print": lambda *_: None}}
_verdict = "The check did not finish."
exec(<ours>, _ours)
"""
CHECK = """
try:
    exec(<check>, globals() | {<name>: _ours[<name>]})
    _verdict = _ours[<name>].mistake
except Exception as _error:
    _verdict = f"The check could not be run: {type(_error).__name__}: {_error}"
"""
TELL = "print(<nonce> + __import__('json').dumps({'mistake': _verdict}))"
# Print the ids of the objects to which the watched names and Python's built-in names refer.
IDENTITIES = """
def _identities(names, watched):
    import builtins, json
    found = {f"builtins.{name}": id(value) for name, value in vars(builtins).items()}
    del found["builtins.input"]  # the kernel itself replaces it for each cell
    for name in [*watched, "json.dumps"]:
        first, *others = name.split(".")
        value = json if first == "json" else names.get(first)
        for other in others:
            owner, value = value, getattr(value, other, None)
            if value is not getattr(owner, other, None):  # a method: a new object each time
                value = owner
                break
        found[name] = id(value)
    return json.dumps(found)
print(<nonce> + _identities(globals(), <watched>))
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
        self.raised: dict[str, str] = {}  # exercise -> the exception that its answer raised

    def run(self) -> None:
        """Run all steps; print the verdict of each check."""
        for step in self.job["steps"]:
            kind, text, exercise = step["kind"], step["text"], step["exercise"]
            try:
                if kind == "baseline":
                    self.identities = self.ask(IDENTITIES, watched=self.job["watched"])
                elif kind == "check":
                    tell(exercise=exercise, **self.judge(exercise, text))
                elif kind == "ours":
                    self.execute(text, OURS_SECONDS)
                else:
                    self.answer(exercise, text)
            except DeadKernelError:
                held = f"held more than {self.job['memory'] / 2**30:.1f} GB of memory"
                return tell(stopped=held if ran_out_of_memory() else "its kernel ended")

    def answer(self, exercise: str, source: str) -> None:
        """Run one of the learner's cells; record whether it was too slow, and any exception."""
        cell = self.execute(source, self.job["seconds"])
        if cell is None:
            self.slow.add(exercise)
        for output in cell.outputs if cell else []:
            if output.output_type == "error":
                self.raised[exercise] = f"the answer raised {output.ename}: {output.evalue}"[:200]

    def judge(self, exercise: str, check: str) -> dict[str, object]:
        """Run a check; return its verdict, or the reason why there is no reliable verdict."""
        seconds, name = self.job["seconds"], check.partition("(")[0]
        in_time = exercise not in self.slow and (
            self.execute(fill(PREPARE, ours=self.job["ours"]), OURS_SECONDS)
            and self.execute(fill(CHECK, check=check, name=name), seconds)
        )
        if not in_time:
            return {"stopped": f"still running after {seconds:g} s"}
        verdict = self.ask(TELL)
        now = self.ask(IDENTITIES, watched=self.job["watched"])
        if verdict is None or now is None:
            return {"stopped": "its output does not reach the grader"}
        if changed := sorted(name for name in now if now[name] != self.identities.get(name)):
            return {"tampered": f"the submission replaced {', '.join(changed[:3])}"}
        if verdict["mistake"]:
            verdict["mistake"] = self.raised.get(exercise, str(verdict["mistake"]))[:LONGEST]
        return verdict

    def ask(self, source: str, **values: object) -> dict | None:
        """Run a cell that prints a JSON object; return the object, or None if it is missing."""
        nonce = secrets.token_hex(16)  # a value that the learner's code cannot guess
        cell = self.execute(fill(source, nonce=nonce, **values), self.job["seconds"])
        printed = "".join(output.get("text", "") for output in cell.outputs) if cell else ""
        try:
            return json.loads(printed.partition(nonce)[2].splitlines()[0])
        except (ValueError, IndexError):
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
        self.client.timeout = seconds
        signal.alarm(int(seconds + TIMEOUT))  # exit if the cell ignores the interrupt
        began = time.monotonic()
        self.client.execute_cell(cell, 0)
        signal.alarm(0)
        return cell if time.monotonic() - began < seconds else None


def ran_out_of_memory() -> bool:
    """Return whether the kernel's OOM killer has killed a process in this container."""
    for path in KILLED:
        with contextlib.suppress(OSError):
            counts = dict(line.split() for line in Path(path).read_text().splitlines())
            return counts.get("oom_kill", "0") != "0"
    return False


def give_up(*_: object) -> None:
    """Exit this process; `limits.run` then kills the kernel."""
    tell(stopped="still running after an interruption")
    os._exit(0)


def fill(source: str, **values: object) -> str:
    """Replace the `<name>` placeholders in a cell's source with values, as Python literals."""
    for name, value in values.items():
        source = source.replace(f"<{name}>", repr(value))
    return source


def tell(**what: object) -> None:
    """Print one line of JSON for the grader."""
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
