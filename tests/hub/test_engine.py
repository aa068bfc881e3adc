"""Restart the Docker engine while a learner is working.

This drill stops every container on the host, so it runs only on request and must run alone. As
root, run `pytest tests/hub/test_engine.py --restart-engine`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import docker
import psutil
import pytest
import requests
from hubs import ROOT, ClassLearner, wait_until


@pytest.fixture(autouse=True)
def asked_for(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--restart-engine"):
        pytest.skip("this restarts the Docker engine; run it alone, with --restart-engine")


def restart(engine: docker.DockerClient) -> None:
    """Restart the engine with systemd if the host uses systemd, otherwise with .ci/docker."""
    if shutil.which("systemctl") and Path("/run/systemd/system").exists():
        subprocess.run(["systemctl", "restart", "docker"], check=True)
    else:
        process = psutil.Process(int(Path("/var/run/docker.pid").read_text()))
        process.send_signal(signal.SIGTERM)
        process.wait(120)
        program = {"DOCKER": shutil.which("docker"), **os.environ}
        subprocess.run([ROOT / ".ci" / "docker"], env=program, check=True)
    wait_until(engine.ping, "the engine answers")


def test_the_hub_comes_back_with_the_engine_and_saved_work_is_there(new_hub, engine):
    hub = new_hub()
    hub.up()
    learner = ClassLearner(hub, "ada")
    learner.start_server()
    learner.run("sh", "-c", "echo saved > ~/saved")

    restart(engine)

    def answers() -> bool:
        try:
            return learner.session.get(f"{hub.url}/hub/home", timeout=5).ok
        except requests.RequestException:
            return False

    seconds = wait_until(answers, "the hub is back")
    assert learner.session.get(f"{hub.url}/hub/home", timeout=30).url.endswith("/hub/home")
    wait_until(lambda: not learner.server(), "the hub knows that the server is gone")
    learner.start_server()
    assert learner.run("cat", "/home/jovyan/saved") == "saved\n"
    print(f"engine restarted: the hub is back after {seconds:.1f} s, still logged in")
