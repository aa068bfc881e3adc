"""Measure how many learners a single hub can serve: `make bench-load`, on an idle machine.

The hub uses the configuration of Zero to JupyterHub and that of our image (see tests/chart.py). The
hub, its proxy, its database and an OpenID provider are real, and all run on this host. Simulated
learners log in one after another, start a server, work, reconnect once, and stop the server. The
learners' servers are simulated (see stand_in_servers.py), because two thousand real ones would need
far more memory than we have.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import random
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import docker
import psutil
import requests
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from chart import ChartHub, Cluster
from hubs import free_ports
from postgres import Postgres

# Replace the spawner in the hub's configuration.
CONFIG = """
import sys
sys.path.insert(0, {here!r})
from stand_in_servers import StandInSpawner

c.JupyterHub.spawner_class = StandInSpawner
c.JupyterHub.authenticate_prometheus = False
{more}
"""

# Seconds between the requests of an open tab. While a learner only read lesson 00, JupyterLab 4.6
# made 154 requests in three minutes.
TAB = 180 / 154
CELL = 30.0  # seconds between the cells that a learner runs

STEPS = ("log-in", "start", "WebSocket", "cell", "request of a tab", "reconnection", "stop")


def main() -> None:
    """Run all measurements, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--learners", type=int, nargs="+", default=[100, 500, 1000, 2000])
    databases = ["sqlite", "postgresql"]
    parser.add_argument("--database", nargs="+", choices=databases, default=databases)
    parser.add_argument("--within", type=float, default=600, help="seconds until all have arrived")
    parser.add_argument("--stay", type=float, default=60, help="seconds that all of them stay")
    parser.add_argument("--leave", type=float, default=120, help="seconds until all have left")
    parser.add_argument(
        "--tabs",
        type=float,
        default=400,
        help="the most requests per second from all tabs together; if there are too many tabs, "
        "each one asks less often, so that simulating them does not keep a small machine busy",
    )
    parser.add_argument("--set", nargs="*", default=[], help="lines for the hub's configuration")
    options = parser.parse_args()
    # The hub stops its idle culler with SIGINT. Shells make background processes ignore that
    # signal, so restore its handler.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    columns = {}
    for learners, database in itertools.product(options.learners, options.database):
        name = f"{learners}, {database}"
        say(f"{name} ...")
        with running(database, options.set) as site:
            load = Load(site, learners, options)
            asyncio.run(load.run())
            columns[name] = load.figures()
    print("\n| |", " | ".join(columns), "|\n|---|" + "---|" * len(columns))
    rows = dict.fromkeys(itertools.chain.from_iterable(columns.values()))
    for what in rows:
        print(f"| {what} | {' | '.join(column.get(what, '') for column in columns.values())} |")


def say(text: str) -> None:
    print(f"{time.strftime('%X')} {text}", file=sys.stderr, flush=True)


# --- The hub and its services


class LoadedHub(ChartHub):
    """A hub, an OpenID provider and stand-in servers, each running in its own process."""

    def __init__(self, folder: Path, cluster: Cluster, settings: list[str]):
        self.provider_port = free_ports()
        self.servers_port = self.provider_port + 1
        provider = f"http://127.0.0.1:{self.provider_port}"
        super().__init__(
            folder,
            cluster,
            CONFIG.format(here=str(Path(__file__).parent), more="\n".join(settings)),
            COURSE_ACCOUNTS="oauth",
            COURSE_OAUTH_ALLOWED="*",
            COURSE_OAUTH_NAME="sub",
            COURSE_OAUTH_CLIENT_ID="hub",
            COURSE_OAUTH_CLIENT_SECRET="of the provider here",
            COURSE_OAUTH_AUTHORIZE_URL=f"{provider}/oauth2/authorize",
            COURSE_OAUTH_TOKEN_URL=f"{provider}/oauth2/token",
            COURSE_OAUTH_USERINFO_URL=f"{provider}/userinfo",
            STAND_IN_PORT=str(self.servers_port),
        )
        self.processes["learners"] = psutil.Process()

    def start(self) -> None:
        """Start the stand-in servers, the OpenID provider, the proxy and the hub."""
        here = Path(__file__).parent
        self.launch("servers", str(here / "stand_in_servers.py"), str(self.servers_port))
        self.launch("provider", "-m", "oidc_provider_mock", "--port", str(self.provider_port))
        super().start()

    def restart_hub(self) -> float:
        """Restart the hub as a rollout does; return the downtime in seconds."""
        began = time.monotonic()
        self.processes["hub"].terminate()
        self.processes["hub"].wait(60)
        self.start_hub()
        return time.monotonic() - began


@contextlib.contextmanager
def running(database: str, settings: list[str]) -> Iterator[LoadedHub]:
    """Run a hub, and remove it afterwards; keep its logs only if an error occurs."""
    folder = Path(tempfile.mkdtemp(prefix="course-load-"))
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(folder))
        if database == "postgresql":
            server = Postgres(docker.from_env())
            stack.callback(server.remove)
            server.start()
            address = server.url.replace("postgresql:", "postgresql+psycopg2:")
            settings = [*settings, f"c.JupyterHub.db_url = {address!r}"]
        hub = LoadedHub(folder, cluster, settings)
        if database == "postgresql":
            hub.processes["database"] = server.process()
        stack.callback(hub.stop)
        hub.start()
        yield hub
    shutil.rmtree(folder)


class Meter:
    """Sample the CPU time and memory of processes every few seconds."""

    def __init__(self, processes: dict[str, psutil.Process]):
        self.processes = processes
        self.samples: dict[str, list[tuple[float, float, int]]] = defaultdict(list)

    async def run(self) -> None:
        """Take samples until cancelled."""
        while True:
            for name, process in self.processes.items():
                with contextlib.suppress(psutil.NoSuchProcess):
                    # Include child processes: PostgreSQL has a child process for each connection,
                    # and the hub has one for each service.
                    family = [process] if name == "learners" else [process, *process.children(True)]
                    times = [member.cpu_times() for member in family]
                    spent = sum(time.user + time.system for time in times)
                    memory = sum(member.memory_info().rss for member in family)
                    self.samples[name].append((time.monotonic(), spent, memory))
            await asyncio.sleep(5)

    def processors(self, name: str, since: float, until: float) -> tuple[float, float]:
        """Return a process's average CPU use, in processors, and the maximum over 30 seconds."""
        samples = [(when, spent) for when, spent, _ in self.samples[name] if since <= when <= until]
        if not samples:  # there are no samples from this period
            return math.nan, math.nan
        rates = [
            (later[1] - sooner[1]) / (later[0] - sooner[0])
            for sooner, later in zip(samples, samples[6:], strict=False)
        ]
        (first, nothing), (last, all_of_it) = samples[0], samples[-1]
        whole = (all_of_it - nothing) / max(last - first, 1)
        return whole, max(rates, default=whole)

    def memory(self, name: str) -> float:
        """Return the peak memory use of a process in MiB."""
        return max(memory for _, _, memory in self.samples[name]) / 2**20


# --- Learners


class Load:
    """A group of simulated learners, and the measurements taken while they work."""

    def __init__(self, hub: LoadedHub, learners: int, options: argparse.Namespace):
        self.hub, self.learners, self.options = hub, learners, options
        self.pause = max(TAB, learners / options.tabs)
        self.seconds: dict[str, list[float]] = {step: [] for step in STEPS}
        self.failures: Counter[str] = Counter()
        self.told_to_wait = 0
        self.meter = Meter(hub.processes)

    async def run(self) -> None:
        """Simulate all learners' visits, and restart the hub halfway."""
        self.began = time.monotonic()
        # Reuse connections to the proxy, as an ingress controller does.
        self.connector = aiohttp.TCPConnector(limit=0)
        self.over = asyncio.Event()
        watching = [asyncio.create_task(self.meter.run()), asyncio.create_task(self.tell())]
        learners = [Learner(self, number) for number in range(self.learners)]
        tasks = [asyncio.create_task(learner.run()) for learner in learners]
        await asyncio.sleep(self.options.within)
        self.logged_in = time.monotonic()
        self.at_the_hub = await asyncio.to_thread(hub_metrics, self.hub.url)
        await asyncio.gather(*(learner.settled.wait() for learner in learners))
        self.all_in = time.monotonic()
        await asyncio.sleep(self.options.stay / 2)
        self.restarted = time.monotonic()
        say("restarting the hub ...")
        self.restart = await asyncio.to_thread(self.hub.restart_hub)
        await asyncio.sleep(self.options.stay / 2)
        self.over.set()
        await asyncio.gather(*tasks)
        for task in watching:
            task.cancel()
        await self.connector.close()

    async def tell(self) -> None:
        """Report progress every minute."""
        while True:
            await asyncio.sleep(60)
            done = ", ".join(f"{len(self.seconds[step])} {step}s" for step in ("log-in", "start"))
            say(f"{done}, {self.failures.total()} failures")

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure the duration of a step; if the step fails, count the failure instead."""
        began = time.monotonic()
        try:
            yield
        # aiohttp raises a TypeError if it receives an unexpected type of message, such as CLOSE.
        except (aiohttp.ClientError, TimeoutError, TypeError, FailedError) as error:
            what = re.sub(r"learner\d+", "NAME", f"{type(error).__name__}: {error}")
            self.failures[f"{name}: {what}"] += 1
            raise FailedError from error
        self.seconds[name].append(time.monotonic() - began)

    def figures(self) -> dict[str, str]:
        """Return a dictionary of the measurements, formatted as text."""
        found = {}
        for step, seconds in self.seconds.items():
            cuts = (
                statistics.quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else []
            )
            some = " / ".join(f"{cuts[percent - 1]:.2f}" for percent in (50, 95, 99) if cuts)
            found[f"seconds of a {step}: p50 / p95 / p99"] = some or "none"
        at_the_hub, late = self.at_the_hub
        found["requests a second at the hub, while learners arrive"] = (
            f"{at_the_hub / self.options.within:.0f}"
        )
        found["requests a second of all tabs, once all are in"] = (
            f"{self.learners / self.pause:.0f}"
        )
        found["how often the hub stalled for half a second"] = f"{late:.0f}"
        meter = self.meter
        for name in ("hub", "proxy", "database", "provider", "servers", "learners"):
            if name in meter.samples:
                mean, most = meter.processors(name, self.began, self.logged_in)
                after, _ = meter.processors(name, self.all_in, self.restarted)
                found[
                    f"processors of the {name}: while they arrive / busiest half minute / later"
                ] = f"{mean:.2f} / {most:.2f} / {after:.2f}"
                found[f"MiB of the {name}"] = f"{meter.memory(name):.0f}"
        found["seconds without the hub at a restart"] = f"{self.restart:.1f}"
        found["told to wait before a start"] = str(self.told_to_wait)
        found["failed log-ins"] = str(self.learners - len(self.seconds["log-in"]))
        failures = "; ".join(f"{count} of {what}" for what, count in self.failures.items())
        return found | {"failures": failures or "none"}


def hub_metrics(url: str) -> tuple[float, float]:
    """Return the number of requests to the hub and how often its event loop stalled."""
    text = requests.get(f"{url}/hub/metrics", timeout=60).text
    samples: Counter[tuple[str, str | None]] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples[sample.name, sample.labels.get("le")] += sample.value
    loop = "jupyterhub_event_loop_interval_seconds"
    count = samples["jupyterhub_request_duration_seconds_count", None]
    return count, samples[f"{loop}_count", None] - samples[f"{loop}_bucket", "0.5"]


class FailedError(Exception):
    """Raised if a simulated learner fails at a step, such as logging in."""


class Learner:
    """A simulated learner, whose requests are those of a browser."""

    def __init__(self, load: Load, number: int):
        self.load, self.url, self.name = load, load.hub.url, f"learner{number}"
        self.server = f"{self.url}/user/{self.name}"
        self.chance = random.Random(number)
        self.parts: set[str] = set()  # cached scripts, styles and images
        self.settled = asyncio.Event()  # set once the server is ready or has failed

    async def run(self) -> None:
        """Log in, start a server, work, reconnect once, and stop the server."""
        load = self.load
        await asyncio.sleep(self.chance.uniform(0, load.options.within))
        async with aiohttp.ClientSession(
            connector=load.connector,
            connector_owner=False,
            cookie_jar=aiohttp.CookieJar(unsafe=True),  # allow cookies from an IP address
            headers={"Sec-Fetch-Mode": "navigate"},
            timeout=aiohttp.ClientTimeout(total=120),
        ) as self.session:
            with contextlib.suppress(FailedError):
                try:
                    await self.log_in()
                    await self.start_server()
                finally:
                    self.settled.set()
                left = load.began + load.options.within - time.monotonic()
                await self.work(self.chance.uniform(0, max(0, left)))
                with load.step("reconnection"):
                    await self.page("GET", f"{self.server}/lab")
                await self.work(math.inf)
                await self.stop()

    async def log_in(self) -> None:
        """Open the hub, log in through the OpenID provider, and load the environment picker."""
        with self.load.step("log-in"):
            await self.page("GET", f"{self.url}/hub/")
            async with self.session.get(
                f"{self.url}/hub/oauth_login", allow_redirects=False
            ) as reply:
                provider = reply.headers["Location"]
            await self.page("POST", provider, data={"sub": self.name}, ends="/hub/spawn")

    async def start_server(self) -> None:
        """Start a server from the environment picker, and wait until JupyterLab has loaded."""
        with self.load.step("start"):
            form = {"params": {"_xsrf": self.xsrf()}, "data": {"profile": "tensorflow-cpu"}}
            while wait := await self.page("POST", f"{self.url}/hub/spawn", **form):
                self.load.told_to_wait += 1
                await asyncio.sleep(wait)
            await self.wait_for_server()
            await self.page("GET", f"{self.server}/lab", ends="/lab")

    async def wait_for_server(self) -> None:
        """Follow the hub's progress events until the server is ready."""
        progress = f"{self.url}/hub/api/users/{self.name}/server/progress"
        async with self.session.get(progress, params={"_xsrf": self.xsrf()}) as events:
            async for line in events.content:
                event = json.loads(line[5:]) if line.startswith(b"data:") else {}
                if event.get("ready"):
                    return
                if event.get("failed"):
                    break
        raise FailedError("the server did not start")

    async def work(self, seconds: float) -> None:
        """Simulate work in a notebook for the given number of seconds, or until the class ends."""
        load, end = self.load, time.monotonic() + seconds
        address = f"{self.server}/api/kernels/{self.name}/channels"
        with load.step("WebSocket"):
            socket = await self.session.ws_connect(address)
        async with socket:
            for number in itertools.count():
                with contextlib.suppress(FailedError), load.step("request of a tab"):
                    await self.fetch(f"{self.server}/api/sessions")
                if number % math.ceil(CELL / load.pause) == 0:
                    with load.step("cell"):
                        await socket.send_str("x" * 500)
                        for _ in range(5):
                            await socket.receive_str(timeout=60)
                left = min(end - time.monotonic(), load.pause)
                if load.over.is_set() or left < 0:
                    return
                # Receive and answer the server's pings; any other message is an error.
                with contextlib.suppress(TimeoutError):
                    await socket.receive(timeout=left)
                    with load.step("WebSocket"):
                        raise FailedError("it was closed")

    async def stop(self) -> None:
        """Stop the server as the button on the hub's home page does."""
        await asyncio.sleep(self.chance.uniform(0, self.load.options.leave))
        server = f"{self.url}/hub/api/users/{self.name}/server"
        with self.load.step("stop"):
            async with self.session.delete(server, params={"_xsrf": self.xsrf()}) as reply:
                check(reply)

    async def page(self, method: str, url: str, ends: str = "", **content: Any) -> int:
        """Load a page, and any of its scripts, styles and images that are not cached yet.

        Return how many seconds the hub asks the client to wait before a retry, or 0.
        """
        async with self.session.request(method, url, **content) as reply:
            text = await reply.text()
        if reply.status == 429:
            return int(reply.headers["Retry-After"])
        check(reply)
        if not reply.url.path.endswith(ends):
            raise FailedError(f"{url} led to {reply.url}")
        parts = set(re.findall(r'(?:src|href)="(/hub/(?:static/[^"]*|logo))"', text)) - self.parts
        self.parts |= parts
        await asyncio.gather(*(self.fetch(self.url + part) for part in parts))
        return 0

    async def fetch(self, url: str) -> None:
        """Load a URL, and discard the content."""
        async with self.session.get(url) as reply:
            await reply.read()
        check(reply)

    def xsrf(self) -> str:
        """Return the XSRF token, which the hub requires in forms and API requests."""
        return self.session.cookie_jar.filter_cookies(URL(f"{self.url}/hub/"))["_xsrf"].value


def check(reply: aiohttp.ClientResponse) -> None:
    """Raise FailedError if the response is an HTTP error."""
    if reply.status >= 400:
        raise FailedError(f"HTTP {reply.status} from {reply.url.path}")


if __name__ == "__main__":
    main()
