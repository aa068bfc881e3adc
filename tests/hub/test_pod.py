"""Use Podman to run a learner's pod that KubeSpawner renders from the chart's values.

These tests run without a cluster. `podman play kube` applies the pod's security context, limits and
command. Unlike a cluster, Podman does not create the pod's volumes, so the `volumes` fixture
creates them.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pods
import pytest
import requests
import yaml
from chart import site_values
from hubs import IMAGE, free_ports, wait_until
from kubespawner import KubeSpawner

from tfcourse.hub.settings import MIB
from tfcourse.hub.spawners.profiles import PROFILES
from tfcourse.hub.state import ROOT

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("cluster")]
cluster = pods.cluster  # a fixture

TOKEN = "of the learner"
# Podman settings that work with both cgroups v1 and cgroups v2.
SETTINGS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""

# This script reruns a lesson as tests/images/test_course.py does, but without access to the clone.
RERUN = """
set -e
cd /tmp/rerun
cp -r ~/tensorflow-course notebooks
PYTHONPATH=. python -m pytest -q notebooks/00_start_here.ipynb
"""


class Hub(BaseHTTPRequestHandler):
    """A stand-in for the hub, which servers query at start-up and to identify visitors."""

    def do_GET(self):
        ours = self.headers.get("Authorization") == f"token {TOKEN}"
        user = {"name": "ada.lovelace", "kind": "user", "admin": False, "groups": []}
        answer = {
            "/hub/api": (200, {"version": "5.5.0"}),  # the version in Zero to JupyterHub 4.4.0
            "/hub/api/user": (200, {**user, "scopes": ["access:servers!user=ada.lovelace"]})
            if ours
            else (404, {}),
        }
        status, content = answer.get(self.path.rstrip("/"), (404, {}))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def do_POST(self):  # a report of activity
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def podman() -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Return a function that runs Podman with temporary storage.

    Skip the test if Podman is missing or does not run as root.
    """
    if not shutil.which("podman"):
        pytest.skip("podman is not installed; on Debian, run `apt install podman catatonit`")
    if os.geteuid() != 0:
        pytest.skip("on some machines, only root's podman can limit a pod")
    # Podman requires a short path, but pytest's temporary paths can be long.
    folder = Path(tempfile.mkdtemp(prefix="pod-"))
    (folder / "containers.conf").write_text(SETTINGS)
    program = ["podman", "--root", str(folder / "root"), "--runroot", str(folder / "run")]

    def podman(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
        run = subprocess.run(
            [*program, *arguments],
            env={**os.environ, "CONTAINERS_CONF": str(folder / "containers.conf")},
            capture_output=True,
            text=True,
            check=False,
            **options,
        )
        assert run.returncode == 0, f"{arguments}: {run.stdout}{run.stderr}"
        return run

    yield podman
    podman("pod", "rm", "--force", "--all")
    podman("volume", "rm", "--force", "--all")
    podman("rmi", "--force", "--all")
    subprocess.run(["umount", str(folder / "root" / "overlay")], capture_output=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def learner_image(podman, image) -> str:
    """Copy the learners' image, extended with pytest, to Podman; return the image's base name."""
    name = image("test")
    save = subprocess.Popen(
        [os.environ.get("DOCKER", "docker"), "save", name], stdout=subprocess.PIPE
    )
    podman("load", stdin=save.stdout)
    assert save.wait() == 0
    return f"localhost/{IMAGE}"


@pytest.fixture
def hub() -> Iterator[int]:
    """Return the port of a stand-in for the hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def volumes(podman, tmp_path) -> Iterator[Callable[[dict], None]]:
    """Return a function that creates a pod's volumes, owned by the pod's group as on a cluster."""
    memory = tmp_path / "memory"
    memory.mkdir()

    def make(pod: dict) -> None:
        group = pod["spec"]["securityContext"]["fsGroup"]
        for volume in pod["spec"]["volumes"]:
            if "persistentVolumeClaim" in volume:
                name = volume["persistentVolumeClaim"]["claimName"]
                podman("volume", "create", name)
                mounted = podman("volume", "inspect", "--format={{.Mountpoint}}", name)
                path = Path(mounted.stdout.strip())
                (path / "lost+found").mkdir(mode=0o700)  # as on a newly formatted disk
                os.chown(path, 0, group)
                path.chmod(0o2775)
            else:
                size = volume.pop("emptyDir")["sizeLimit"].removesuffix("i").lower()
                options = f"size={size},mode=2777,gid={group}"
                mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(memory)]
                subprocess.run(mount, check=True)
                volume["hostPath"] = {"path": str(memory)}

    yield make
    podman("pod", "rm", "--force", "--all")
    subprocess.run(["umount", str(memory)], capture_output=True, check=False)


@pytest.fixture
def pod(podman, learner_image, hub, volumes, tmp_path) -> tuple[str, str]:
    """Run a pod; return its container's name and the server's URL."""
    port = free_ports()
    made = site_values(tmp_path)
    (profile,) = made["singleuser"]["profileList"]
    profile["kubespawner_override"]["image"] = learner_image.replace(IMAGE, f"{IMAGE}:test")

    async def render():
        api = f"http://127.0.0.1:{hub}/hub/api"
        spawner = pods.spawner(KubeSpawner, pods.chart(made), api, port=port)
        spawner.api_token = TOKEN
        # A real hub would get this prefix from its database.
        spawner.environment = {
            **spawner.environment,
            "JUPYTERHUB_SERVICE_PREFIX": "/user/ada.lovelace/",
        }
        await spawner.load_user_options()
        return await pods.manifests(spawner)

    manifest, _ = asyncio.run(render())
    volumes(manifest)
    # Remove the container's ports, which a cluster would not expose, but Podman would expose to
    # this machine's network.
    (container,) = manifest["spec"]["containers"]
    del container["ports"]
    path = tmp_path / "pod.yaml"
    path.write_text(yaml.safe_dump(manifest))
    podman("play", "kube", "--network", "host", str(path))
    name = f"{manifest['metadata']['name']}-{container['name']}"
    return name, f"http://127.0.0.1:{port}/user/ada.lovelace"


def test_a_rendered_pod_serves_a_learner_and_lesson_00_holds_in_it(pod, podman):
    container, url = pod

    def answers() -> bool:
        try:
            return requests.get(f"{url}/api", timeout=5).ok
        except requests.RequestException:
            return False

    try:
        wait_until(answers, "the server answers")
    except AssertionError as error:
        pytest.fail(f"{error}\n{podman('logs', container).stdout[-3000:]}")

    # Only the learner who owns the server can use it.
    headers = {"Authorization": f"token {TOKEN}"}
    assert requests.get(f"{url}/api/status", headers=headers, timeout=10).ok
    assert requests.get(f"{url}/api/status", timeout=10).status_code == 403

    def inside(command: str) -> str:
        return podman("exec", container, "sh", "-c", command).stdout

    # The image's entry point has copied the lessons and set TensorFlow to use two threads.
    assert "00_start_here.ipynb" in inside("ls ~/tensorflow-course")
    environment = inside("cat /proc/[0-9]*/environ | tr '\\0' '\\n'")
    assert "TF_NUM_INTRAOP_THREADS=2" in environment.splitlines()

    # The container runs under the pod's own security context.
    status = dict(
        line.split(":\t") for line in inside("cat /proc/self/status").splitlines() if ":\t" in line
    )
    assert status["Uid"].split() == ["1000"] * 4
    assert status["CapEff"] == status["CapBnd"] == "0" * 16
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert "serviceaccount" not in inside("mount")
    inspected = json.loads(podman("inspect", container).stdout)[0]["HostConfig"]
    assert inspected["Memory"] == PROFILES[0].memory
    assert inside("df --output=size --block-size=1 /dev/shm").split()[-1] == str(256 * MIB)

    # The chart's JupyterHub is slightly older than the one in the learner's image, but the two are
    # compatible.
    assert "could cause failure" not in podman("logs", container).stdout

    inside("mkdir /tmp/rerun")
    podman("cp", str(ROOT / "pyproject.toml"), f"{container}:/tmp/rerun")
    podman("cp", str(ROOT / "tfcourse"), f"{container}:/tmp/rerun")
    assert " passed" in inside(RERUN)
