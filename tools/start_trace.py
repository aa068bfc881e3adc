"""Record and draw how the time of a server's start is spent (for tools/bench_hub.py)."""

from __future__ import annotations

import contextlib
import itertools
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import docker
import matplotlib.pyplot as plt
import psutil

SECONDS = "trace: seconds "
CPU = "trace: CPU-seconds "
# The parts of each kind of bar, and their labels.
PARTS = {
    SECONDS: {
        "until the container runs": "hub and Docker",
        "until its server program runs": "lessons and checks",
        "until the server listens": "imports and start",
        "until the hub notices": "hub notices",
    },
    CPU: {
        "of the hub and the proxy": "hub and proxy",
        "of Docker and Linux": "Docker, Linux",
        "of lessons and checks": "lessons, checks",
        "of the server's imports": "imports",
        "of the rest of the server": "rest of the server",
    },
}
# A program that imports what a server needs, and prints the CPU-seconds that this took.
IMPORTS = "{load}; import jupyterlab.labapp, resource; print(sum(resource.getrusage(0)[:2]))"


class Watch(threading.Thread):
    """Watch the next container whose name has the given prefix, from its start until `stop`."""

    def __init__(self, engine: docker.DockerClient, prefix: str):
        super().__init__(daemon=True)
        self.engine, self.prefix = engine, prefix
        self.events = engine.events(filters={"type": "container", "event": "start"}, decode=True)
        self.stop = threading.Event()
        # The times at which the container started, its server program started, and the server
        # listened.
        self.runs = self.program = self.listens = 0.0
        self.checks = self.all = 0.0  # CPU-seconds until the server program ran, and in total

    def run(self) -> None:
        """Record the times and the CPU-seconds."""
        for event in self.events:
            if event["Actor"]["Attributes"]["name"].startswith(self.prefix):
                self.runs = event["timeNano"] / 1e9
                break
        about = self.engine.api.inspect_container(event["id"])
        (network,) = about["NetworkSettings"]["Networks"].values()
        init = psutil.Process(about["State"]["Pid"])
        while not (self.stop.is_set() and self.listens):
            time.sleep(0.01)
            with contextlib.suppress(psutil.Error):
                for process in init.children():
                    self.all = total(process.cpu_times())
                    if not self.program and "singleuser" in " ".join(process.cmdline()[:3]):
                        self.program, self.checks = time.time(), self.all
            if not self.listens:
                with contextlib.suppress(OSError):
                    socket.create_connection((network["IPAddress"], 8888), 0.05).close()
                    self.listens = time.time()


def total(times) -> float:
    """Return the CPU-seconds of a process and of its children that have ended."""
    return times.user + times.system + times.children_user + times.children_system


def cpu_of(processes: Iterable[psutil.Process]) -> float:
    """Return the CPU-seconds of processes and all of their children."""
    whole = {each for root in processes for each in [root, *root.children(recursive=True)]}
    return sum(total(each.cpu_times()) for each in whole)


def trace(
    engine: docker.DockerClient,
    prefix: str,
    start: Callable[[], float | None],
    busy: Callable[[], float],
    hub: Iterable[psutil.Process],
) -> dict[str, list[float]]:
    """Start a server, and return the parts of its start, in seconds and in CPU-seconds.

    `busy` returns the host's CPU-seconds, minus its idle load and what this script uses. `hub`
    contains the processes of the hub and its proxy.
    """
    watch = Watch(engine, prefix)
    watch.start()
    began, used, of_hub = time.time(), busy(), cpu_of(hub)
    assert start() is not None, "the server did not start"
    ready = time.time()
    watch.stop.set()
    watch.join(10)
    used, of_hub = busy() - used, cpu_of(hub) - of_hub
    times = [began, watch.runs, watch.program, watch.listens, max(ready, watch.listens)]
    assert all(times), "the start could not be observed"
    seconds = [after - before for before, after in itertools.pairwise(times)]
    rest = max(0, used - of_hub - watch.all)
    cpu = [of_hub, rest, watch.checks, watch.all - watch.checks]
    found = dict(zip(PARTS[SECONDS], seconds, strict=True))
    parts = dict(zip(PARTS[CPU], [*cpu[:3], 0, cpu[3]], strict=True))
    return {SECONDS + what: [x] for what, x in found.items()} | {
        CPU + what: [x] for what, x in parts.items()
    }


def split_imports(found: dict[str, list[float]], imports: float) -> None:
    """Split the CPU-seconds of the server's imports off from the rest."""
    of_imports, rest = (
        f"{CPU}of the {part}" for part in ("server's imports", "rest of the server")
    )
    found[of_imports] = [imports]
    found[rest] = [max(0, found[rest][0] - imports)]


def draw(results: dict[str, list[dict[str, list[float]]]], path: str) -> None:
    """Draw the medians of all rounds as an SVG file."""
    plt.rcParams |= {"svg.hashsalt": "start", "svg.fonttype": "none", "font.size": 9}
    titles = {
        SECONDS: "Seconds from the click to a server that answers",
        CPU: "Processor seconds of the whole host",
    }
    figure, axes = plt.subplots(2, 1, figsize=(8, 4), layout="constrained")
    for axis, (kind, parts) in zip(axes, PARTS.items(), strict=True):
        medians = [
            [statistics.median(each[kind + part][0] for each in rounds) for part in parts]
            for rounds in results.values()
        ]
        widest = max(map(sum, medians))
        for row, widths in enumerate(medians):
            left = 0.0
            for number, (width, label) in enumerate(zip(widths, parts.values(), strict=True)):
                axis.barh(row, width, left=left, color=f"C{number}", label="" if row else label)
                if width > widest / 25:
                    middle = (left + width / 2, row)
                    axis.annotate(f"{width:.2f}", middle, ha="center", va="center", color="white")
                left += width
            end = {"xytext": (4, 0), "textcoords": "offset points"}
            axis.annotate(f"{left:.2f}", (left, row), va="center", weight="bold", **end)
        axis.set(yticks=range(len(results)), yticklabels=list(results))
        axis.set_title(titles[kind], loc="left")
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(
            ncols=len(parts), loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False
        )
    figure.savefig(path, metadata={"Date": None})
    # Remove the trailing spaces that Matplotlib writes.
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    Path(path).write_text("".join(f"{line.rstrip()}\n" for line in lines), encoding="utf-8")
