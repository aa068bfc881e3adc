"""Break parts of a containerised hub while a class is working, and check what survives.

Some drills print how long learners had to wait before they could resume work. To see these times,
run `pytest tests/hub/test_drills.py -rP`.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import subprocess
from concurrent.futures import ThreadPoolExecutor

import docker
import pytest
import requests
from hubs import IMAGE, PASSWORD, ClassHub, ClassLearner, run_cell, wait_until

from tfcourse.hub.spawners.names import LABEL

CLASS = 20  # learners

START = "/hub/api/users/{name}/server"

NOTEBOOK = {
    "cells": [],
    "metadata": {},
    "nbformat": 4,
    "nbformat_minor": 5,
}


@pytest.fixture(scope="module")
def hub(new_hub) -> ClassHub:
    hub = new_hub()
    hub.up(COURSE_SIGNUP="open")
    hub.admit = hub.sign_up
    return hub


@pytest.fixture(scope="module")
def learners(hub) -> list[ClassLearner]:
    """Return a class of learners who are logged in but have no servers yet."""
    return [ClassLearner(hub, f"learner{number}") for number in range(CLASS)]


def save(learner: ClassLearner, text: str, name: str = "work.ipynb") -> requests.Response:
    """Save a notebook through the REST API, as JupyterLab does."""
    cell = {"id": "only", "cell_type": "markdown", "metadata": {}, "source": text}
    content = {"type": "notebook", "content": {**NOTEBOOK, "cells": [cell]}}
    return learner.api("PUT", f"/user/{{name}}/api/contents/{name}", json=content)


def saved(learner: ClassLearner, name: str = "work.ipynb") -> str:
    """Load a saved notebook as JupyterLab does; return the text of its first cell."""
    response = learner.api("GET", f"/user/{{name}}/api/contents/{name}")
    response.raise_for_status()
    return response.json()["content"]["cells"][0]["source"]


def test_a_class_starts_at_once_and_each_gets_a_server(hub, learners):
    with ThreadPoolExecutor(CLASS) as pool:
        seconds = sorted(pool.map(start, learners))
    print(f"{CLASS} at once: half after {seconds[CLASS // 2]:.0f} s, all after {seconds[-1]:.0f} s")
    for learner in learners[5:]:
        learner.stop_server()


def start(learner: ClassLearner) -> float:
    learner.api("POST", START).raise_for_status()
    return wait_until(lambda: (learner.server() or {}).get("ready"), "the server is ready", 300)


@pytest.fixture(scope="module")
def working(learners) -> list[ClassLearner]:
    """Return five learners with running servers."""
    for learner in learners[:5]:
        if not learner.server():
            learner.start_server()
    return learners[:5]


def test_five_learners_work_on_while_the_hub_is_killed(hub, working):
    kernels = [learner.start_kernel() for learner in working]
    for learner, kernel in zip(working, kernels, strict=True):
        run_cell(learner, kernel, f"x = {learner.name!r}")
        save(learner, "before").raise_for_status()
    before = [learner.container.id for learner in working]
    hub.container("hub").exec_run(["sh", "-c", "kill -9 -1"])
    # Without the hub, cells still run and notebooks can be saved, because the proxy still has the
    # routes to learners' servers.
    for learner, kernel in zip(working, kernels, strict=True):
        assert run_cell(learner, kernel, "print(x)") == f"{learner.name}\n"
        save(learner, "meanwhile").raise_for_status()
    seconds = wait_until(hub.answers, "the hub is back")
    print(f"hub killed: its pages were back after {seconds:.1f} s, and work was not interrupted")
    for learner, kernel in zip(working, kernels, strict=True):
        wait_until(lambda learner=learner: learner.server()["ready"], "the hub knows the server")
        assert run_cell(learner, kernel, "print(x)") == f"{learner.name}\n"
        assert saved(learner) == "meanwhile"
    assert [learner.container.id for learner in working] == before


def test_who_was_starting_when_the_hub_was_killed_gets_a_server(hub, learners):
    starting = learners[5:10]
    with ThreadPoolExecutor(len(starting)) as pool:
        list(pool.map(lambda learner: learner.api("POST", START).raise_for_status(), starting))
    # Some learners have a container that the hub has not recorded yet. Others have no container.
    wait_until(lambda: containers(hub, starting), "the first containers exist")
    hub.container("hub").exec_run(["sh", "-c", "kill -9 -1"])
    left = hub.engine.containers.create(  # as if the hub had died between two requests to Docker
        f"{IMAGE}:cpu", labels={LABEL: hub.name}, name=f"{hub.name}-{learners[10].name}"
    )
    wait_until(hub.answers, "the hub is back")
    with pytest.raises(docker.errors.NotFound):
        left.reload()
    for learner in starting:
        if not learner.server():
            learner.api("POST", START).raise_for_status()
    seconds = wait_until(
        lambda: all((learner.server() or {}).get("ready") for learner in starting),
        "all servers are ready",
    )
    print(f"hub killed during {len(starting)} starts: all ready {seconds:.1f} s after its return")
    for learner in starting:
        save(learner, "mine").raise_for_status()
        learner.stop_server()


def containers(hub: ClassHub, learners: list[ClassLearner]) -> list:
    return hub.servers(*(learner.name for learner in learners))


def test_a_container_that_is_deleted_by_hand_is_started_anew(hub, working):
    learner = working[0]
    save(learner, "kept").raise_for_status()
    learner.container.remove(force=True)
    gone = wait_until(lambda: not learner.server(), "the hub notices")
    learner.start_server()
    assert saved(learner) == "kept"
    print(f"container deleted: noticed after {gone:.1f} s")


def test_stop_and_start_at_once(working):
    """A learner who has read that a restart helps might restart the server several times."""
    learner = working[0]
    for _ in range(3):
        learner.api("DELETE", "/hub/api/users/{name}/server").raise_for_status()
        learner.wait_for_no_server()
        learner.start_server()


@pytest.mark.root
def test_a_full_disk_loses_nothing_that_was_saved(hub, working, request):
    learner = ClassLearner(hub, "full")
    # The learner's home directory is a 30 MB tmpfs.
    home = hub.homes / "homes" / "full"
    home.mkdir()
    # The hub's container does not see mounts made after it started. Instead, the container sees the
    # underlying folder, which must therefore belong to the learner.
    os.chown(home, 1000, 1000)
    options = "size=30m,uid=1000,gid=1000,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", home], check=True)
    request.addfinalizer(lambda: subprocess.run(["umount", "--lazy", home], check=False))
    learner.start_server()
    save(learner, "kept").raise_for_status()
    kernel = learner.start_kernel()
    fill = """
try:
    with open("filling", "wb") as file:
        while True:
            file.write(bytes(2**20))
            file.flush()
except OSError as error:
    print(error.strerror)
"""
    assert run_cell(learner, kernel, fill) == "No space left on device\n"
    refused = save(learner, "lost " * 10_000)
    assert refused.status_code == 500
    assert re.search("full|No space left", refused.json()["message"])
    assert saved(learner) == "kept"
    save(working[1], "mine").raise_for_status()  # Other learners are not affected.
    # The server must start even if the disk is full, because the learner needs it to delete files.
    learner.stop_server()
    learner.start_server()
    assert saved(learner) == "kept"
    learner.api("DELETE", "/user/{name}/api/contents/filling").raise_for_status()
    save(learner, "kept, too").raise_for_status()
    assert saved(learner) == "kept, too"


@pytest.mark.parametrize("killed", [("hub", "proxy"), ("hub",)], ids=" ".join)
def test_a_power_cut_that_leaves_empty_files_is_survived(hub, killed):
    """The hub and the proxy switch to a new token, and nobody can log in with an empty password."""
    learner = ClassLearner(hub, f"cut{len(killed)}")
    learner.start_server()
    save(learner, "kept").raise_for_status()
    services = [hub.container(name) for name in killed]
    for service in services:
        service.kill()
    files = ("*/proxy-token", "*/hub/cookie_secret", "*/hub/first-*", "*/hub/container-names")
    empty = f"cd /srv && truncate --size 0 {' '.join(files)}"
    volumes = [f"{hub.name}_state:/srv/state", f"{hub.name}_secrets:/srv/secrets"]
    hub.engine.containers.run(f"{IMAGE}:hub", ["sh", "-c", empty], volumes=volumes, remove=True)
    for service in services:
        service.start()
    wait_until(hub.answers, "the hub is back")
    assert "Everyone has to log in again" in hub.log("hub")
    assert "Invalid username" in hub.login("instructor", " ").text
    assert hub.login("instructor", hub.admin_password).url.endswith("/hub/spawn")
    assert hub.login(learner.name, PASSWORD).url.startswith(f"{hub.url}/user/{learner.name}/lab")
    assert saved(learner) == "kept"
    learner.stop_server()


def test_endless_output_hurts_nobody(working):
    """A cell prints ten gigabytes, or as much as it can in half a minute."""
    loud, other = working[2], working[3]
    kernel = loud.start_kernel()
    flood = """
import sys, time
line = "x" * 1_000_000
began, printed = time.monotonic(), 0
while printed < 10_000 and time.monotonic() - began < 30:
    sys.stdout.write(line)
    sys.stdout.flush()
    printed += 1
"""
    said = run_cell(loud, kernel, flood)
    assert "IOPub data rate exceeded" in said
    assert len(said) < 200e6
    assert loud.api("GET", "/user/{name}/api/status").ok
    assert run_cell(loud, kernel, "print(printed > 0)") == "True\n"
    assert other.api("GET", "/user/{name}/api/status").ok


def test_a_new_image_brings_new_lessons_and_keeps_edits(new_hub, engine):
    name = f"course-drill-{secrets.token_hex(4)}"
    for kind in ("cpu", "hub"):
        engine.images.get(f"{IMAGE}:{kind}").tag(name, kind)
    try:
        hub = new_hub()
        hub.up(COURSE_SIGNUP="open", COURSE_IMAGE=name)
        hub.admit = hub.sign_up
        learner = ClassLearner(hub, "ada")
        learner.start_server()
        folder = "tensorflow-course"
        save(learner, "my notes", f"{folder}/05_loss.ipynb").raise_for_status()
        save(learner, "my own", f"{folder}/own.ipynb").raise_for_status()
        upgrade(engine, name)
        assert "Second edition" not in learner.run("cat", f"{folder}/06_compile_and_fit.ipynb")
        learner.stop_server()
        learner.start_server()
        assert saved(learner, f"{folder}/05_loss.ipynb") == "my notes"
        assert saved(learner, f"{folder}/own.ipynb") == "my own"
        assert "Second edition" in learner.run("cat", f"{folder}/06_compile_and_fit.ipynb")
        assert "Second edition" in learner.run("sh", "-c", f"cat {folder}/05_loss_updated_*.ipynb")
    finally:
        hub.remove()
        for kind in ("cpu", "hub"):  # remove the tags, not the images themselves
            engine.images.remove(f"{name}:{kind}", force=True)


def upgrade(engine: docker.DockerClient, name: str) -> None:
    """Replace the current image with one that contains changed lessons."""
    change = r"""sed -i '0,/"source": \[/s//"source": [\n    "Second edition.\\n",/'"""
    dockerfile = f"""
FROM {name}:cpu
USER root
RUN cd /opt/course/share/lessons && {change} 05_loss.ipynb 06_compile_and_fit.ipynb
USER jovyan
"""
    engine.images.build(fileobj=io.BytesIO(dockerfile.encode()), tag=f"{name}:cpu", rm=True)
