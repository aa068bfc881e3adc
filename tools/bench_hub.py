"""Measure the cost of starting servers on a class hub: `make bench-hub`, as root, on an idle
machine.

The script compares two hubs, which take turns starting servers from the same image:

stock    JupyterHub, its proxy and DockerSpawner, unchanged. The package that our image removes is
         put back. Of our settings, only those of JupyterLab's pages apply. The hub runs on the
         host, and its servers have no limits.
course   our hub, as `make up` starts it: hub and proxy in containers, and servers with limits

CPU-seconds are measured for the whole host (Docker, hub, proxy and servers), minus its idle load.
Each hub first starts one server that is not measured, so that no measured start has to read the
image from the disk. With `--picture`, the script also draws how the time of a start is spent.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import docker
import psutil
import start_trace
from docker.models.containers import Container

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from hubs import (
    IMAGE,
    ROOT,
    ClassHub,
    ClassLearner,
    Learner,
    Site,
    free_ports,
    run_cell,
    wait_until,
)

from tfcourse.hub.front.proxy import proxy_command

LOCK = ROOT / "requirements" / "course.txt"

# Only the settings that JupyterHub's and DockerSpawner's documentation requires.
STOCK = """
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = "http://{gateway}:{hub_port}"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.ConfigurableHTTPProxy.command = {proxy!r}
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.default_url = "/hub/home"  # do not start a server right after log-in
c.JupyterHub.spawner_class = "docker"
c.DockerSpawner.image = "{image}"
c.DockerSpawner.prefix = "{name}"
c.DockerSpawner.use_internal_ip = True
c.DockerSpawner.remove = True
c.DockerSpawner.volumes = {volumes!r}
c.DockerSpawner.cmd = {command!r}
c.DockerSpawner.extra_create_kwargs = {{"entrypoint": ["tini", "--"]}}
# On a slow machine, a hub would give up after 30 seconds if many learners start at once.
c.Spawner.http_timeout = 120
"""


class StockHub(Site):
    """A hub on this host, configured as JupyterHub's documentation describes."""

    password = "any"
    landing = "/hub/home"

    # What `jupyterhub-singleuser` runs before docker/Dockerfile replaces it.
    command = ("/opt/course/bin/python", "-m", "jupyterhub.singleuser")

    def __init__(self, engine: docker.DockerClient):
        super().__init__(free_ports())
        self.engine, self.name = engine, f"course-bench-{self.port}"
        self.folder = tempfile.mkdtemp()
        # Restore a module that docker/Dockerfile removes, and hide our settings for servers.
        (pinned,) = re.findall(r"^rfc3987-syntax==\S+", LOCK.read_text(), re.M)
        folder = f"{self.folder}/packages"
        install = [f"{sys.prefix}/bin/uv", "pip", "install", "--quiet", "--no-deps", pinned]
        subprocess.run([*install, "--python", sys.executable, "--target", folder], check=True)
        module = Path(folder, "rfc3987_syntax")
        module.chmod(0o777)  # so that the first server can store the compiled module
        settings = Path(self.folder, "settings.py")
        settings.touch()
        where = "import sysconfig; print(sysconfig.get_path('purelib'))"
        packages = engine.containers.run(f"{IMAGE}:cpu", ["python", "-c", where], remove=True)
        volumes = {
            f"{self.name}-{{username}}": "/home/jovyan",
            str(module): f"{packages.decode().strip()}/rfc3987_syntax",
            str(settings): "/opt/course/etc/jupyter/jupyter_server_config.py",
        }
        # Ask the system, because the engine does not list this address until it is restarted.
        bridge = next(
            each.address
            for each in psutil.net_if_addrs()["docker0"]
            if each.family == socket.AF_INET
        )
        settings = STOCK.format(
            port=self.port,
            hub_port=self.port + 1,
            api_port=self.port + 2,
            gateway=bridge,
            # Leave out our additions to the proxy.
            proxy=[word for word in proxy_command() if not word.startswith("--import")],
            image=f"{IMAGE}:cpu",
            name=self.name,
            command=list(self.command),
            volumes=volumes,
        )
        Path(self.folder, "jupyterhub_config.py").write_text(settings)

    def up(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("COURSE_")}
        with open(Path(self.folder, "log"), "w") as log:
            self.process = subprocess.Popen(
                [f"{sys.prefix}/bin/jupyterhub"],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env={**environment, "DOCKER_HOST": "unix:///var/run/docker.sock"},
            )
        wait_until(self.answers, f"the hub answers; its log is {self.folder}/log")

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.session())
        return False

    def servers(self, learner: str, **which: bool) -> list[Container]:
        """Return the containers of a learner's servers, as `ClassHub.servers` does."""
        return self.engine.containers.list(filters={"name": f"{self.name}-{learner}"}, **which)

    def remove(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        for container in self.engine.containers.list(all=True, filters={"name": self.name}):
            container.remove(force=True)
        for volume in self.engine.volumes.list(filters={"name": self.name}):
            volume.remove()
        shutil.rmtree(self.folder)


def main() -> None:
    """Measure both hubs, and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds for each hub (default: 3)")
    parser.add_argument("--together", type=int, nargs="*", default=[1, 5, 10, 20])
    parser.add_argument("--only", nargs="*", help="only these hubs: stock, course")
    parser.add_argument("--picture", help="the SVG file to draw, for example start.svg")
    options = parser.parse_args()
    engine = docker.from_env(timeout=600)
    hubs = {
        "stock": partial(StockHub, engine),
        "course": lambda: ClassHub(engine, free_ports()),
    }
    hubs = {name: make for name, make in hubs.items() if not options.only or name in options.only}
    build()
    kinds = [kind for kind in ("cpu", "gpu", "hub") if engine.images.list(f"{IMAGE}:{kind}")]
    print("\n| image | GB |\n|---|---|")
    for kind in kinds:
        print(f"| {kind} | {engine.images.get(f'{IMAGE}:{kind}').attrs['Size'] / 1e9:.2f} |")
    results = {name: [] for name in hubs}
    for number, name, make in in_turn(hubs, options.rounds):
        print(f"round {number}, {name} ...", file=sys.stderr)
        with running(make) as hub:
            results[name].append(measure(hub, options.together))
    report(results)
    if options.picture:
        start_trace.draw(results, options.picture)


def build() -> None:
    """Build the images that the hubs use."""
    subprocess.run(["make", "images", "KINDS=cpu hub", f"IMAGE={IMAGE}"], cwd=ROOT, check=True)


def in_turn(
    hubs: dict[str, Callable[[], Site]], rounds: int
) -> Iterator[tuple[int, str, Callable[[], Site]]]:
    """Yield each hub in each round, reversing the order every other round."""
    for number in range(1, rounds + 1):
        for name, make in [*hubs.items()][:: 1 if number % 2 else -1]:
            yield number, name, make


@contextlib.contextmanager
def running(make: Callable[[], Site]) -> Iterator[Site]:
    """Start a hub; at the end, remove it with its containers and volumes."""
    hub = make()
    try:
        hub.up()
        yield hub
    finally:
        hub.remove()


def measure(hub: Site, together: list[int]) -> dict[str, list[float]]:
    """Measure one hub; return a dictionary of the results."""
    learners = [ClassLearner(hub, f"learner{i}") for i in range(max(together))]
    found = {}
    seconds_until_ready(learners[0])  # to fill the host's caches
    end(hub, learners[:1])
    for count in together:
        found |= start(learners[:count])
        if count == 1:
            found |= {f"1: {what}": figures for what, figures in use(learners[0]).items()}
        end(hub, learners[:count])
    return found | traced(hub, learners[0])


def end(hub: Site, learners: list[ClassLearner]) -> None:
    """Stop the servers, and wait until their containers are gone."""
    with ThreadPoolExecutor(len(learners)) as pool:
        list(pool.map(Learner.stop_server, learners))
    wait_until(lambda: not present(hub), "the containers are gone")


def traced(hub: Site, learner: ClassLearner) -> dict[str, list[float]]:
    """Return the parts of one start, in seconds and in CPU-seconds."""
    usual, began = idle_load(), time.monotonic()
    if isinstance(hub, ClassHub):
        ids = [hub.container(each).attrs["State"]["Pid"] for each in ("hub", "proxy")]
        load = "import runpy; runpy.run_path('/opt/course/bin/jupyterhub-singleuser')['load']()"
    else:
        ids, load = [hub.process.pid], "import jupyterhub.singleuser"
    found = start_trace.trace(
        hub.engine,
        hub.name,
        lambda: seconds_until_ready(learner),
        # Exclude this script, which is busier than usual because it observes the start.
        lambda: busy() - time.process_time() - usual * (time.monotonic() - began),
        [psutil.Process(number) for number in ids],
    )
    program = start_trace.IMPORTS.format(load=load)
    figures = [float(learner.run("python", "-s", "-c", program)) for _ in range(3)]
    start_trace.split_imports(found, statistics.median(figures))
    end(hub, [learner])
    return found


def present(hub: Site) -> list:
    image = f"{IMAGE}:cpu"
    found = hub.engine.containers.list(all=True, filters={"name": hub.name}, ignore_removed=True)
    return [container for container in found if image in container.image.tags]


def start(learners: list[Learner]) -> dict[str, list[float]]:
    """Start servers concurrently; return each start's seconds and CPU-seconds, and the failures."""
    usual = idle_load()
    began, used = time.monotonic(), busy()
    with ThreadPoolExecutor(len(learners)) as pool:
        seconds = list(pool.map(seconds_until_ready, learners))
    passed, used = time.monotonic() - began, busy() - used
    count = len(learners)
    ready = [s for s in seconds if s is not None]
    return {
        f"{count}: seconds until ready": ready,
        f"{count}: failures": [count - len(ready)],
        f"{count}: CPU-seconds each": [(used - usual * passed) / count],
    }


def seconds_until_ready(learner: Learner) -> float | None:
    """Start a server as the hub's page does; return the seconds it took, or None on failure."""
    began = time.monotonic()
    with contextlib.suppress(OSError):
        learner.api("POST", "/hub/api/users/{name}/server")
        events = learner.api("GET", "/hub/api/users/{name}/server/progress", stream=True)
        for line in events.iter_lines():
            event = json.loads(line.removeprefix(b"data:")) if line.startswith(b"data:") else {}
            if event.get("ready"):
                return time.monotonic() - began
            if event.get("failed"):
                break
    return None


def use(learner: ClassLearner) -> dict[str, list[float]]:
    """Return a server's memory use, idle and with a model, and TensorFlow's import time."""
    idle = memory(learner)
    began = time.monotonic()
    kernel = learner.start_kernel()
    run_cell(learner, kernel, "import tensorflow")
    first = time.monotonic() - began
    run_cell(learner, kernel, "import keras; keras.datasets.mnist.load_data()")
    run_cell(learner, kernel, "keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten()])")
    return {
        "seconds to import tensorflow": [first],
        "MiB idle": [idle],
        "MiB with a model": [memory(learner)],
    }


def memory(learner: ClassLearner) -> float:
    """Return the memory use of a learner's container in MiB, excluding reclaimable cache."""
    figures = learner.container.stats(stream=False)["memory_stats"]
    cache = figures["stats"].get("total_inactive_file", figures["stats"].get("inactive_file", 0))
    return (figures["usage"] - cache) / 2**20


def busy() -> float:
    """Return the CPU-seconds that the host has used since it booted."""
    spent = psutil.cpu_times()
    return spent.user + spent.nice + spent.system + spent.irq + spent.softirq


def idle_load(seconds: float = 10) -> float:
    """Return the host's idle load (while no server is starting), in CPU-seconds per second."""
    used = busy()
    time.sleep(seconds)
    return (busy() - used) / seconds


def report(results: dict[str, list[dict[str, list[float]]]]) -> None:
    """Print a table in which each row summarises one measurement over all rounds."""
    print(f"\n{os.cpu_count()} cores; median, or p50/p90 of seconds until ready\n")
    print("| |", " | ".join(results), "|\n|---|" + "---|" * len(results))
    for what in next(iter(results.values()))[0]:
        cells = []
        for rounds in results.values():
            figures = sorted(figure for found in rounds for figure in found[what])
            text = f"{statistics.median(figures):.2f}" if figures else "none"
            if "ready" in what and len(figures) > 10:
                text += f"/{statistics.quantiles(figures, n=10, method='inclusive')[-1]:.2f}"
            if "failures" in what:
                text = f"{sum(figures)}"
            cells.append(text)
        print(f"| {what} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
