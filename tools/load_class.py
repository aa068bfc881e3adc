"""Measure what a class's attempts at exercises cost the hub: `make bench-class`.

The script starts a hub like that of `make hub`. Simulated learners send attempts as their servers
would, and retry if the hub does not respond. An instructor keeps the *Class* page open. Halfway
through, the script restarts the hub. At the end, it compares the attempts that each learner sent
with those that the hub has stored.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import random
import re
import secrets
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from hubs import Hub, free_ports, post

from tfcourse.hub.classroom import course

RETRY = 5  # seconds, as in course_attempts.py
ADMIN = "teacher"


class Learner:
    """A simulated learner, who fails each exercise up to five times and then solves it."""

    def __init__(self, name: str, token: str):
        self.name = name
        self.headers = {"Authorization": f"token {token}"}
        self.left = [
            (lesson, exercise, mistake)
            for lesson, exercises in course.lessons().items()
            for exercise in exercises
            for mistake in [*(f"You get {n}." for n in range(random.randrange(6))), ""]
        ]
        self.sent = 0

    async def work(
        self, session: aiohttp.ClientSession, every: float, until: float, took: list[float]
    ) -> None:
        """Send attempts until the time `until`; append the seconds that each took to `took`."""
        await asyncio.sleep(random.uniform(0, every))
        while time.monotonic() < until and self.left:
            lesson, exercise, mistake = self.left.pop(0)
            attempt = {"lesson": lesson, "exercise": exercise, "mistake": mistake}
            attempt["key"] = secrets.token_hex(8)
            while not await self.send(session, attempt, took):
                await asyncio.sleep(RETRY)
            self.sent += 1
            await asyncio.sleep(random.uniform(0.5, 1.5) * every)

    async def send(self, session: aiohttp.ClientSession, attempt: dict, took: list[float]) -> bool:
        """Send an attempt; return whether the hub has stored it."""
        began = time.monotonic()
        url = f"/hub/api/users/{self.name}/attempts"
        try:
            async with session.post(url, json=[attempt], headers=self.headers) as response:
                await response.read()
        except aiohttp.ClientError:
            return False
        took.append(time.monotonic() - began)
        return response.ok


def main() -> None:
    """Start a hub, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--learners", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--every", type=float, default=20, help="seconds between two attempts")
    options = parser.parse_args()
    hub = Hub(Path(tempfile.mkdtemp(prefix="course-load-")), free_ports())
    said = hub.start(COURSE_ADMIN=ADMIN)
    password = re.search(rf"Admin +{ADMIN}, password (\S+)", said)[1]
    try:
        asyncio.run(measure(hub, password, options))
    finally:
        hub.stop()


async def measure(hub: Hub, password: str, options: argparse.Namespace) -> None:
    """Let the learners work, restart the hub halfway through, and print the results."""
    teacher = hub.login(ADMIN, password).session
    learners = register(hub, teacher, options.learners)
    began = time.monotonic()
    until = began + 60 * options.minutes
    took: list[float] = []
    spent = -processor_seconds(hub)
    updates = asyncio.create_task(watch(hub, teacher, until))
    async with aiohttp.ClientSession(hub.url) as session:
        work = asyncio.gather(
            *(each.work(session, options.every, until, took) for each in learners)
        )
        await asyncio.sleep(30 * options.minutes)
        spent += processor_seconds(hub)
        down = time.monotonic()
        await asyncio.to_thread(hub.stop)
        await asyncio.to_thread(hub.start, COURSE_ADMIN=ADMIN)
        down = time.monotonic() - down
        spent -= processor_seconds(hub)
        await work
    spent += processor_seconds(hub)
    seconds = time.monotonic() - began - down
    stored = {}
    for row in table(hub, teacher):
        count = int(row["mistakes"]) + int(row["right"])
        stored[row["learner"]] = stored.get(row["learner"], 0) + count
    wrong = [each.name for each in learners if stored.get(each.name, 0) != each.sent]
    opened = time.monotonic()
    size = len((await asyncio.to_thread(teacher.get, f"{hub.url}/hub/class")).content)
    opened = time.monotonic() - opened
    percentiles = statistics.quantiles(took, n=100)
    p50, p95, p99 = (percentiles[n - 1] for n in (50, 95, 99))
    sent = sum(each.sent for each in learners)
    print(f"{len(learners)} learners sent {sent} attempts in {seconds:.0f} s.")
    print(f"Sending an attempt took {p50:.3f} s (median; p95 {p95:.3f} s, p99 {p99:.3f} s).")
    updated = await updates
    print(f"The hub used {spent / seconds:.1%} of a processor, and sent {updated} updates.")
    print(f"The Class page loaded in {opened:.2f} s ({size / 1e6:.2f} MB).")
    print(f"Restarting the hub took {down:.1f} s.")
    print(f"Learners with missing or duplicate attempts: {len(wrong)}.")


def register(hub: Hub, teacher, count: int) -> list[Learner]:
    """Create the learners, and a token for each."""
    names = [f"learner-{number:03}" for number in range(count)]
    post(teacher, f"{hub.url}/hub/api/users", json={"usernames": names}).raise_for_status()
    found = []
    for name in names:
        tokens = f"{hub.url}/hub/api/users/{name}/tokens"
        found.append(Learner(name, post(teacher, tokens, json={}).json()["token"]))
    return found


def processor_seconds(hub: Hub) -> float:
    """Return the processor time that the hub, without its proxy, has used so far."""
    times = psutil.Process(hub.process.pid).cpu_times()
    return times.user + times.system


async def watch(hub: Hub, teacher, until: float) -> int:
    """Keep the *Class* page open; return the number of updates."""
    updates = 0
    cookies = "; ".join(f"{name}={value}" for name, value in teacher.cookies.items())
    while time.monotonic() < until:
        try:
            async with (
                aiohttp.ClientSession(headers={"Cookie": cookies}, read_bufsize=2**22) as session,
                session.get(f"{hub.url}/hub/class/live", timeout=None) as response,
            ):
                async for line in response.content:
                    updates += line.startswith(b"data:")
                    if time.monotonic() > until:
                        break
        except (aiohttp.ClientError, ValueError):
            await asyncio.sleep(3)
    return updates


def table(hub: Hub, teacher) -> list[dict[str, str]]:
    """Return the rows of the class's CSV file."""
    response = teacher.get(f"{hub.url}/hub/class/table.csv", timeout=60)
    response.raise_for_status()
    return list(csv.DictReader(io.StringIO(response.content.decode("utf-8-sig"))))


if __name__ == "__main__":
    main()
