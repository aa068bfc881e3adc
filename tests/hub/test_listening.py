"""Test when the hub notices that a new server is ready."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys

import pytest
from hubs import free_ports
from jupyterhub.objects import Server
from jupyterhub.user import User

from tfcourse.hub.spawners import listening
from tfcourse.hub.state import ROOT


@pytest.fixture
def events(monkeypatch) -> list[object]:
    """Return a list that records each call of JupyterHub's own wait, with the time that is left."""
    events: list[object] = []

    async def wait_up(server, timeout, **options):
        events.append((round(timeout), options))

    monkeypatch.setattr(listening, "wait_up", wait_up)
    return events


def test_jupyterhub_asks_once_the_server_listens(events):
    port = free_ports()

    async def start() -> None:
        server = Server(ip="127.0.0.1", port=port, base_url="/user/ada/")
        waiting = asyncio.create_task(listening.wait_until_ready(server, 60, extra_path="api"))
        await asyncio.sleep(3 * listening.SHORTEST)
        events.append("listens")
        async with await asyncio.start_server(lambda reader, writer: writer.close(), port=port):
            await waiting

    asyncio.run(start())
    assert events == ["listens", (60, {"extra_path": "api"})]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_if_nothing_listens_jupyterhub_checks_once_at_the_end(events, host):
    server = Server(ip=host, port=free_ports())
    asyncio.run(listening.wait_until_ready(server, 1))
    assert events == [(0, {})]


def test_the_hub_waits_for_servers_in_this_way(monkeypatch):
    monkeypatch.setattr(Server, "wait_up", Server.wait_up)
    listening.configure()
    assert Server.wait_up is listening.wait_until_ready
    # wait_until_ready relies on how JupyterHub calls and defines wait_up.
    assert "server.wait_up(\n" in inspect.getsource(User._wait_up)
    assert [*inspect.signature(listening.wait_up).parameters][:2] == ["self", "timeout"]


# How `make hub` and `make up`, and the hub of the Kubernetes chart, load our configuration.
LOAD = {
    "hub": "runpy.run_path('jupyterhub_config.py', {'get_config': lambda: c})",
    "chart": "c.KubeSpawner.profile_list = []; pods.configure(c)",
}


@pytest.mark.parametrize("load", LOAD.values(), ids=LOAD)
def test_the_configuration_sets_this_and_the_compression(tmp_path, load):
    program = f"""
import runpy
from jupyterhub.objects import Server
from traitlets.config import Config
from tfcourse.hub.spawners import pods
c = Config()
c.JupyterHub.template_vars, c.JupyterHub.tornado_settings = {{}}, {{}}
{load}
print(Server.wait_up.__name__, *c.JupyterHub.tornado_settings["transforms"])
"""
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "COURSE_STATE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    compression = "<class 'tfcourse.hub.front.compression.HubCompression'>"
    assert run.stdout.strip() == f"wait_until_ready {compression}"
