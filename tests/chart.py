"""Run the Zero to JupyterHub hub as local processes, with our image's configuration.

The chart is not in any package registry, so CONFIG reproduces the parts of its jupyterhub_config.py
that our configuration depends on. We tested the chart's own jupyterhub_config.py manually; see
docs/kubernetes.md. `Cluster` answers the hub's Kubernetes API requests, but has no nodes.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import psutil
import yaml
from hubs import PASSWORD, ROOT, Site, free_ports, wait_until
from pods import chart, write_kubeconfig

from tfcourse.hub.operations import values
from tfcourse.hub.spawners.pods import VOLUMES

IMAGE = "registry.example.org/tensorflow-course/1.0"

# CONFIG performs the configuration steps in the same order as the chart, including those that
# follow the loading of jupyterhub_config.d.
CONFIG = """
import glob, os
from pathlib import Path
from tornado.httpclient import AsyncHTTPClient

AsyncHTTPClient.configure("tornado.curl_httpclient.CurlAsyncHTTPClient")
c.JupyterHub.spawner_class = "kubespawner.KubeSpawner"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.ConfigurableHTTPProxy.should_start = False
c.JupyterHub.cleanup_servers = False
c.JupyterHub.last_activity_interval = 60
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 0}}
c.JupyterHub.db_url = "sqlite:///jupyterhub.sqlite"
c.JupyterHub.concurrent_spawn_limit = 100
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub_port}"
c.JupyterHub.hub_connect_url = "http://127.0.0.1:{hub_port}"
c.JupyterHub.authenticator_class = "dummy"
c.JupyterHub.services = []
c.JupyterHub.load_roles = []
for section, traits in {config!r}.items():
    c[section].update(traits)
from tfcourse.hub.spawners import pods
pods.API, pods.ACCOUNT = {cluster!r}, Path({account!r})  # a pod has both at fixed locations
for path in sorted(glob.glob({folder!r} + "/*.py")):
    exec(compile(open(path).read(), path, "exec"))
{more}
"""

PROXY = """
import os
from tfcourse.hub.front.proxy import proxy_command
command = proxy_command()
os.execv(command[0], [*command, "--ip=127.0.0.1", "--port={port}", "--api-ip=127.0.0.1",
    "--api-port={api_port}", "--default-target=http://127.0.0.1:{hub_port}",
    "--error-target=http://127.0.0.1:{hub_port}/hub/error", "--keep-alive-timeout=150000"])
"""


class Cluster:
    """A stand-in for the Kubernetes API that lists and accepts volumes but rejects every pod."""

    QUOTA = "exceeded quota: course, requested: pods=1, used: pods=50, limited: pods=50"

    def __init__(self, folder: Path):
        self.claims: list[dict[str, Any]] = []
        self.account = folder / "account"
        self.account.mkdir()
        for name, text in {"token": "secret", "namespace": "course", "ca.crt": ""}.items():
            (self.account / name).write_text(text)
        handler = type("Handler", (Handler,), {"cluster": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Cluster:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add_home(self, name: str, claim: str = "claim") -> None:
        """Add a learner's volume with the labels and annotations that KubeSpawner sets."""
        labels = {"component": "singleuser-storage"}
        notes = {"hub.jupyter.org/username": name}
        self.claims.append({"name": claim, "labels": labels, "annotations": notes})


class Handler(BaseHTTPRequestHandler):
    """Handle the hub's requests to the Kubernetes API."""

    cluster: ClassVar[Cluster]

    def do_GET(self) -> None:
        """List the requested objects."""
        parts, asked = urlsplit(self.path), parse_qs(urlsplit(self.path).query)
        found = []
        if parts.path.endswith("/persistentvolumeclaims"):
            assert parts.path == "/api/v1/namespaces/course/persistentvolumeclaims"
            assert self.headers["Authorization"] == "Bearer secret"
            found = [{"metadata": claim} for claim in self.cluster.claims if selects(asked, claim)]
        elif asked.get("labelSelector") == ["component=proxy"]:
            found = [{"status": {"podIP": "127.0.0.1"}}, {"status": {"phase": "Pending"}}]
        elif "watch" in asked:
            time.sleep(1)  # this stand-in has no events to report
            return self.answer(200, None)
        return self.answer(200, {"items": found, "metadata": {"resourceVersion": "1"}})

    def do_POST(self) -> None:
        """Accept volumes and reject pods."""
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.split("?")[0].endswith("/pods"):
            self.answer(403, {"kind": "Status", "message": self.cluster.QUOTA})
        else:
            self.answer(201, content)

    def do_DELETE(self) -> None:
        """Report that the object does not exist."""
        self.answer(404, {"kind": "Status", "message": "not found"})

    def answer(self, status: int, content: Any) -> None:
        """Send the answer."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if content is not None:
            self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def selects(asked: dict[str, list[str]], claim: dict[str, Any]) -> bool:
    """Return whether the request's selector matches the volume."""
    if fields := asked.get("fieldSelector"):
        return fields == [f"metadata.name={claim['name']}"]
    (labels,) = asked["labelSelector"]
    assert labels.startswith(VOLUMES)
    return claim["labels"].get("component") == "singleuser-storage"


class ChartHub(Site):
    """Run a hub and a proxy as local processes; the chart would run each in its own pod."""

    password = PASSWORD

    def __init__(self, folder: Path, cluster: Cluster, more: str = "", **settings: str):
        super().__init__(free_ports())
        self.folder = folder
        clean = {k: v for k, v in os.environ.items() if not k.startswith("COURSE_")}
        self.environment = clean | {
            "COURSE_STATE": str(folder),
            "CONFIGPROXY_AUTH_TOKEN": "of-the-proxy",
            "PYTHONPATH": str(ROOT),
            "KUBECONFIG": str(folder / "kubeconfig"),
            **settings,
        }
        write_kubeconfig(folder / "kubeconfig", cluster.url)
        self.ports = {"port": self.port, "hub_port": self.port + 1, "api_port": self.port + 2}
        config = chart(site_values(folder))
        config.KubeSpawner.namespace = "course"
        text = CONFIG.format(
            **self.ports,
            config=plain(config),
            cluster=cluster.url,
            account=str(cluster.account),
            folder=str(ROOT / "kubernetes" / "jupyterhub_config.d"),
            more=more,
        )
        (folder / "config.py").write_text(text)
        self.processes: dict[str, psutil.Process] = {}

    def admit(self, name: str) -> None:
        """Sign up a new learner. This requires COURSE_SIGNUP=open."""
        assert "You can log in" in self.sign_up(name)

    def launch(self, what: str, *command: str) -> None:
        """Start a process that writes to its own log file."""
        with open(self.folder / f"{what}.log", "a") as log:
            self.processes[what] = psutil.Popen(
                [sys.executable, *command],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    def start(self) -> None:
        """Start the proxy and the hub, then wait until the hub responds."""
        self.launch("proxy", "-c", PROXY.format(**self.ports))
        self.start_hub()

    def start_hub(self) -> None:
        """Start only the hub, then wait until it responds."""
        self.launch("hub", "-m", "jupyterhub", "--config", "config.py", "--upgrade-db")
        wait_until(self.answers, f"the hub answers; see {self.folder}/hub.log", 300)

    def stop(self) -> None:
        """Stop the processes that this object started."""
        for process in reversed(self.processes.values()):
            if isinstance(process, psutil.Popen):
                process.terminate()
                process.wait(60)


def site_values(folder: Path) -> dict[str, Any]:
    """Return the chart's values for a site whose hub runs our image."""
    site = yaml.safe_load((values.CHART_FOLDER / "site.example.yaml").read_text())
    site["ingress"]["ingressClassName"] = "traefik"
    site["course"]["hub"] = True
    del site["hub"]["config"]
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(site))
    return values.make("class", IMAGE, path)


def plain(tree: Any) -> Any:
    """Return a configuration as plain nested dictionaries."""
    return {key: plain(value) for key, value in tree.items()} if isinstance(tree, dict) else tree
