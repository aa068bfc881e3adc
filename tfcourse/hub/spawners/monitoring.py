"""Metrics for the containerised hub, and the configuration of Prometheus and Grafana.

JupyterHub provides its own metrics at /hub/metrics. This module adds metrics for each learner's
memory and processor time, for the GPUs, and for the host.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from string import Template
from typing import Any

import docker
import psutil
from docker.models.containers import Container
from jupyterhub.app import JupyterHub
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tfcourse.hub import settings
from tfcourse.hub.spawners import gpus, homes
from tfcourse.hub.spawners.names import USER
from tfcourse.hub.state import ROOT, password, state_folder

SOURCE = ROOT / "docker" / "monitoring"

INTERVAL = 15  # seconds; Prometheus queries at the same interval (prometheus.yml)
TOGETHER = 32  # the maximum number of servers measured at the same time


def configure(c: Any, hub: Path, name: str, gateway: str, gpu_ids: Iterable[str]) -> None:
    """Allow Prometheus to query the hub, and Grafana to show the metrics to administrators."""
    _, hub_port, proxy_port = settings.ports()
    prometheus_port, grafana_port = proxy_port + 1, proxy_port + 2
    tokens = {
        "prometheus_token": password(hub / "prometheus-token", length=32),
        "grafana_secret": password(hub / "grafana-secret", length=32),
    }
    write(
        Path(settings.MONITORING()),
        hub=f"{gateway}:{hub_port}",
        prometheus_port=prometheus_port,
        grafana_port=grafana_port,
        **tokens,
    )
    Metrics(name, gpu_ids).start()
    c.JupyterHub.services.extend(
        [
            {"name": "prometheus", "api_token": tokens["prometheus_token"]},
            {
                "name": "grafana",
                "url": f"http://127.0.0.1:{grafana_port}",
                "api_token": tokens["grafana_secret"],
                "oauth_redirect_uri": "/services/grafana/login/generic_oauth",
                "oauth_no_confirm": True,
            },
        ]
    )
    c.JupyterHub.load_roles.append(
        {"name": "prometheus", "scopes": ["read:metrics"], "services": ["prometheus"]}
    )


class Metrics(Collector):
    """Metrics that JupyterHub itself does not provide.

    A separate thread collects these metrics, so that the hub does not wait for Docker.
    """

    def __init__(self, hub: str, gpu_ids: Iterable[str]):
        self.hub, self.gpu_ids = hub, list(gpu_ids)
        self.measured: list[Metric] = []

    def start(self) -> None:
        """Start measuring."""
        REGISTRY.register(self)
        threading.Thread(target=self.measure_for_ever, daemon=True).start()

    def measure_for_ever(self) -> None:
        """Measure repeatedly; if Docker does not respond, report no metrics instead of old ones."""
        client = docker.from_env(max_pool_size=TOGETHER)
        while True:
            try:
                taken = len(self.gpu_ids) - len(gpus.free(self.gpu_ids))
                self.measured = [
                    *servers(client, self.hub),
                    gauge("course_gpus", "GPUs for learners", len(self.gpu_ids)),
                    gauge("course_gpus_taken", "GPUs in use by learners", taken),
                    *machine(),
                ]
            except Exception:  # continue measuring after any error
                JupyterHub.instance().log.exception("The servers' metrics could not be collected.")
                self.measured = []
            time.sleep(INTERVAL)

    def describe(self) -> list[Metric]:
        """Return an empty list, so that registration collects no metrics before the hub exists."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the latest measurements and the number of servers that are starting."""
        yield from self.measured
        hub = JupyterHub.instance()
        starting = hub.users.count_active_users()["spawn_pending"]
        yield gauge("course_servers_starting", "Servers that are being started", starting)
        most = hub.concurrent_spawn_limit
        yield gauge("course_servers_starting_limit", "Servers that may be started at once", most)


def servers(client: docker.DockerClient, hub: str) -> list[Metric]:
    """Return metrics for the memory and processor time of each learner's server."""
    names = ["learner"]
    memory = GaugeMetricFamily("course_server_memory_bytes", "Memory in use", labels=names)
    limit = GaugeMetricFamily("course_server_memory_limit_bytes", "Memory limit", labels=names)
    cpu = CounterMetricFamily("course_server_cpu_seconds", "Processor time used", labels=names)
    # Only learners' servers are connected to the network that is named after the hub.
    running = client.containers.list(filters={"network": hub}, ignore_removed=True)
    with ThreadPoolExecutor(TOGETHER) as pool:
        for container, stats in zip(running, pool.map(stats_of, running), strict=True):
            if not stats["memory_stats"]:
                continue  # the learner's server has just stopped
            # An earlier version of the course named containers after their learners.
            learner = [container.labels.get(USER) or container.name]
            # Subtract cached files that the kernel can drop, as `docker stats` does.
            details = stats["memory_stats"]["stats"]
            files = details.get("inactive_file", details.get("total_inactive_file", 0))
            memory.add_metric(learner, stats["memory_stats"]["usage"] - files)
            limit.add_metric(learner, stats["memory_stats"]["limit"])
            cpu.add_metric(learner, stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9)
    return [memory, limit, cpu]


def stats_of(container: Container) -> dict[str, Any]:
    """Return Docker's statistics for a container, which can take a second."""
    try:
        return container.stats(stream=False, one_shot=True)
    except docker.errors.NotFound:
        return {"memory_stats": {}}


def machine() -> list[Metric]:
    """Return metrics for the host's memory, processors and disks, as visible in a container."""
    memory, times = psutil.virtual_memory(), psutil.cpu_times()
    busy = CounterMetricFamily("course_machine_cpu_seconds", "Processor time used")
    busy.add_metric([], sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)
    return [
        gauge("course_machine_memory_bytes", "Memory", memory.total),
        gauge("course_machine_memory_available_bytes", "Memory left", memory.available),
        gauge("course_machine_cpus", "Processors", psutil.cpu_count()),
        busy,
        *disks(accounts=state_folder(), homes=homes.MOUNT),
    ]


def disks(**folders: Path) -> list[Metric]:
    """Return metrics for the size and the free space of the disk that contains each folder."""
    size = GaugeMetricFamily("course_disk_bytes", "Size of a disk", labels=["holds"])
    free = GaugeMetricFamily("course_disk_free_bytes", "Free space on a disk", labels=["holds"])
    for name, folder in folders.items():
        usage = psutil.disk_usage(str(folder))
        size.add_metric([name], usage.total)
        free.add_metric([name], usage.free)
    return [size, free]


def gauge(name: str, documentation: str, value: float) -> Metric:
    """Return a metric that has a single value."""
    return GaugeMetricFamily(name, documentation, value=value)


def write(folder: Path, **values: Any) -> None:
    """Copy docker/monitoring to the folder that Prometheus and Grafana read.

    Replace each `${name}` in a file with the value of that name.
    """
    for path in filter(Path.is_file, SOURCE.rglob("*")):
        copy = folder / path.relative_to(SOURCE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(Template(path.read_text()).safe_substitute(values))
