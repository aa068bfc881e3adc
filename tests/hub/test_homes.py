"""Test learners' home directories on a class hub, and their migration from Docker volumes."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from hubs import IMAGE, PASSWORD, ClassHub, ClassLearner, run_cell, wait_until

from tfcourse.hub import settings
from tfcourse.hub.spawners import homes


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Return an empty folder for home directories, as on the hub's first start."""
    (tmp_path / "homes").mkdir()
    monkeypatch.setattr(homes, "MOUNT", tmp_path / "homes")
    monkeypatch.setattr(homes, "OLD", tmp_path / "old")
    monkeypatch.setattr(homes, "UID", os.geteuid())
    monkeypatch.setenv("COURSE_STATE", str(tmp_path))
    monkeypatch.setenv("COURSE_NAME", "course")
    return tmp_path / "homes"


@pytest.fixture
def prepared(folder) -> Path:
    """Prepare the folder in which a hub creates home directories; return the folder's path."""
    homes.prepare("/srv/course", "course")
    return folder


# --- The folder


def test_a_new_folder_is_prepared_once_and_known_again(prepared):
    assert homes.path_on_server() == "/srv/course"
    homes.make("ada")
    homes.prepare("/srv/course", "course")
    assert homes.names() == ["ada"]


def test_before_that_the_hub_says_what_to_do(folder):
    with pytest.raises(SystemExit, match="is not prepared: start the hub with `make up`"):
        homes.path_on_server()


def test_a_hub_does_not_serve_the_homes_of_another(prepared, monkeypatch):
    """If Compose starts the hub without `make up`, Compose might mount the wrong folder."""
    monkeypatch.setenv("COURSE_NAME", "another")
    with pytest.raises(SystemExit, match="holds the homes of the hub 'course', not 'another'"):
        homes.path_on_server()


def test_a_disk_of_its_own_has_a_folder_for_what_was_lost(folder):
    (folder / "lost+found").mkdir()
    homes.prepare("/srv/course", "course")
    assert homes.names() == []


def test_a_folder_with_something_else_in_it_is_left_alone(folder):
    (folder / "holidays").mkdir()
    with pytest.raises(SystemExit, match="/srv/course is not empty"):
        homes.prepare("/srv/course", "course")
    assert [path.name for path in folder.iterdir()] == ["holidays"]


def test_two_hubs_do_not_share_a_folder(prepared):
    with pytest.raises(SystemExit, match="holds the homes of the hub 'course'"):
        homes.prepare("/srv/course", "another")


def test_without_its_disk_the_hub_does_not_start_with_empty_homes(prepared, tmp_path, monkeypatch):
    """If the disk is not mounted, the hub finds only an empty mount point."""
    (tmp_path / "mount-point").mkdir()
    monkeypatch.setattr(homes, "MOUNT", tmp_path / "mount-point")
    with pytest.raises(
        SystemExit, match=r"were in /srv/course, but there are none .*\nIs its disk"
    ):
        homes.prepare("/srv/course", "course")


def test_homes_that_were_moved_are_found(prepared):
    homes.prepare("/mnt/large", "course")
    assert homes.path_on_server() == "/mnt/large"


RUINS = [b"", b"\0" * 60, b"[]", b"null", b"{}", b'{"hub": "course"', b"\xff", b"[" * 100_000]


@pytest.mark.parametrize("ruin", [None, *RUINS])
def test_a_lost_marker_is_the_learners_message_and_does_not_end_the_hub(prepared, ruin):
    (prepared / homes.MARKER).unlink()
    if ruin is not None:
        (prepared / homes.MARKER).write_bytes(ruin)
    assert homes.ready("ada").startswith("Your home cannot be used. Please tell your instructor:")


@pytest.mark.parametrize("ruin", RUINS)
def test_a_note_that_a_power_cut_has_damaged_is_written_again(prepared, ruin):
    (prepared / homes.MARKER).write_bytes(ruin)
    with pytest.raises(SystemExit, match="is not prepared: start the hub with `make up`"):
        homes.path_on_server()
    homes.prepare("/srv/course", "course")
    assert homes.path_on_server() == "/srv/course"


@pytest.mark.parametrize("ruin", RUINS)
def test_a_damaged_note_is_not_taken_for_ours(prepared, tmp_path, ruin):
    """If the marker file is damaged, the home directories might belong to another hub."""
    (prepared / homes.MARKER).write_bytes(ruin)
    for last in (b"", b"/srv/other", None):
        (tmp_path / "homes-path").unlink()
        if last is not None:
            (tmp_path / "homes-path").write_bytes(last)
        with pytest.raises(SystemExit, match="is damaged, and this hub has not kept homes") as end:
            homes.prepare("/srv/course", "course")
        assert (prepared / homes.MARKER).read_bytes() == ruin
        (tmp_path / "homes-path").touch()
    written = end.value.code.partition("echo '")[2].partition("'")[0]
    (prepared / homes.MARKER).write_text(written)
    homes.prepare("/srv/course", "course")


def test_an_empty_note_of_where_homes_were_is_a_sentence(prepared, tmp_path, monkeypatch):
    (tmp_path / "homes-path").write_bytes(b"")
    homes.prepare("/srv/course", "course")
    assert (tmp_path / "homes-path").read_text() == "/srv/course"
    (tmp_path / "homes-path").write_bytes(b"")
    (prepared / homes.MARKER).unlink()
    with pytest.raises(SystemExit, match="homes were in another folder, but there are none"):
        homes.prepare("/srv/course", "course")


def test_a_new_home_is_for_its_learner_alone(prepared):
    homes.make("ada")
    home = prepared / "homes" / "ada"
    assert home.stat().st_mode & 0o777 == 0o700
    assert {".bashrc", "shared"} <= {path.name for path in home.iterdir()}
    (home / "work").write_text("mine")
    homes.make("ada")
    assert (home / "work").read_text() == "mine"


def test_a_home_that_its_learner_can_use_is_ready(prepared):
    assert homes.ready("ada") is None
    home = prepared / "homes" / "ada"
    home.chmod(0o500)  # learners can remove their own write permission
    assert homes.ready("ada") is None
    assert home.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("flag", [0, os.ST_RDONLY])
def test_a_home_that_cannot_be_written_to_gets_a_sentence(prepared, monkeypatch, flag):
    homes.make("ada")
    monkeypatch.setattr(homes, "UID", 1000)
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=flag))
    said = homes.ready("ada")
    assert said.startswith("Your home cannot be used. Please tell your instructor: ")
    assert ("`chown -R 1000:1000 /srv/course/homes/ada`" in said) == (not flag)
    assert ("the disk with /srv/course/homes/ada is read-only" in said) == bool(flag)


def test_a_home_that_is_no_folder_gets_a_sentence(prepared):
    (prepared / "homes" / "ada").symlink_to("nowhere")
    assert "/srv/course/homes/ada: Not a directory" in homes.ready("ada")
    (prepared / "homes" / "bob").write_text("a file")
    assert "/srv/course/homes/bob: Not a directory" in homes.ready("bob")


def test_a_home_that_was_not_complete_is_made_anew(prepared, monkeypatch):
    monkeypatch.setattr(Path, "rename", lambda *_: 1 / 0)  # as if the hub were killed here
    with pytest.raises(ZeroDivisionError):
        homes.make("ada")
    assert homes.names() == []
    monkeypatch.undo()
    monkeypatch.setattr(homes, "MOUNT", prepared)
    homes.make("ada")
    assert homes.names() == ["ada"]
    assert len([*(prepared / "homes").iterdir()]) == 1


@pytest.mark.parametrize("value", ["homes", "/a b", "/a:b", "/{user}", "/a,b", "/srv/x/"])
def test_a_path_that_docker_would_misread_gets_a_sentence(monkeypatch, value):
    monkeypatch.setenv("COURSE_HOMES", value)
    with pytest.raises(SystemExit, match=r"COURSE_HOMES is .* has to be an absolute path"):
        settings.homes()


# --- Migration from Docker volumes


@pytest.fixture
def old(folder) -> Path:
    """Return the folder of a Docker volume that contains a learner's work."""
    old = folder.parent / "old"
    old.mkdir(mode=0o755)
    (old / "work.ipynb").write_text("mine")
    (old / "link").symlink_to("work.ipynb")
    os.link(old / "work.ipynb", old / "same")
    os.mkfifo(old / "pipe")
    return old


def test_a_volume_is_taken_over(prepared, old):
    homes.take("home-ada", "of 2026")
    home = prepared / "homes" / "ada"
    assert {path.name for path in home.iterdir()} == {"work.ipynb", "link", "same", "pipe"}
    assert home.stat().st_mode == old.stat().st_mode
    assert (home / "same").stat().st_nlink == 2
    assert (home / "link").readlink() == Path("work.ipynb")
    homes.take("shared", "of 2026")
    assert (prepared / "shared" / "work.ipynb").read_text() == "mine"


@pytest.mark.parametrize("name", ["home-ada", "shared"])
@pytest.mark.parametrize("killed_at", [1, 2, 3, 4])
def test_a_take_over_that_is_killed_loses_nothing(prepared, old, monkeypatch, killed_at, name):
    """Kill the migration before each call to `Path.rename` or `Path.rmdir`.

    The target folder `shared` already exists before the migration, but is empty.
    """
    target = prepared / {"home-ada": "homes/ada", "shared": "shared"}[name]
    calls = itertools.count(1)

    def killable(change):
        def changed(*paths: Path) -> None:
            if next(calls) == killed_at:
                raise KeyboardInterrupt
            change(*paths)

        return changed

    finished = False
    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(Path, "rename", killable(Path.rename))
        patch.setattr(Path, "rmdir", killable(Path.rmdir))
        homes.take(name, "of 2026")
        finished = True
    assert (target / "work.ipynb").exists() == finished
    if finished:  # simulate a partly deleted volume
        (old / "work.ipynb").unlink()
    homes.take(name, "of 2026")
    assert (target / "work.ipynb").read_text() == "mine"
    assert not [path for path in target.parent.iterdir() if path.name.endswith(".part")]


def test_a_take_over_waits_for_one_that_still_copies(prepared, old):
    """If the migration command is killed, its container keeps running."""
    with open(prepared / homes.MARKER) as note, ThreadPoolExecutor(1) as pool:
        fcntl.flock(note, fcntl.LOCK_EX)
        second = pool.submit(homes.take, "home-ada", "of 2026")
        with pytest.raises(TimeoutError):
            second.result(timeout=0.5)
        assert homes.names() == []
        fcntl.flock(note, fcntl.LOCK_UN)
        second.result(timeout=30)
    assert homes.names() == ["ada"]


def test_a_copy_for_which_there_is_no_room_leaves_the_volume(prepared, old, monkeypatch):
    def full(command: list, **_: object) -> None:
        (prepared / "homes" / ".ada.part").mkdir()
        raise subprocess.CalledProcessError(1, command)

    with monkeypatch.context() as patch:
        patch.setattr(homes.subprocess, "run", full)
        with pytest.raises(SystemExit, match=r"The copy is not complete\. The volume is unchanged"):
            homes.take("home-ada", "of 2026")
    assert homes.names() == []
    homes.take("home-ada", "of 2026")
    assert homes.names() == ["ada"]


def test_a_home_of_other_origin_is_not_replaced(prepared, old):
    homes.make("ada")
    with pytest.raises(SystemExit, match="has a volume, and there is already a folder homes/ada"):
        homes.take("home-ada", "of 2026")
    assert (old / "work.ipynb").exists()
    homes.take("home-bob", "of 2025")
    with pytest.raises(SystemExit, match="Nothing was changed"):
        homes.take("home-bob", "of 2026")  # this volume might come from an old backup


# --- With Docker


@pytest.fixture(scope="module")
def hub(new_hub) -> ClassHub:
    """Return a hub whose home directories are in Docker volumes, as in earlier versions."""
    hub = new_hub()
    hub.up()
    ada = ClassLearner(hub, "ada")
    ada.start_server()
    ada.run("sh", "-c", "echo saved >~/saved")
    ada.stop_server()
    hub.ada = ada
    hub.make("down")
    for name, path in (("home-ada", "homes/ada"), ("shared", "shared")):
        bring = (
            f"cp -a /new/{path}/. /old/ && chown --reference=/new/{path} /old && rm -r /new/{path}"
        )
        hub.engine.containers.run(
            f"{IMAGE}:hub",
            ["sh", "-c", bring],
            user="root",
            volumes=[f"{hub.name}-{name}:/old", f"{hub.homes}:/new"],
            remove=True,
        )
    remove = ["sh", "-c", "rm -r /new/* /state/homes-path"]
    volumes = [f"{hub.homes}:/new", f"{hub.name}_state:/state"]
    hub.engine.containers.run(f"{IMAGE}:hub", remove, user="root", volumes=volumes, remove=True)
    return hub


def old_volumes(hub: ClassHub) -> list[str]:
    found = hub.engine.volumes.list(filters={"name": f"{hub.name}-"})
    return sorted(volume.name.removeprefix(f"{hub.name}-") for volume in found)


def test_make_up_upgrades_a_hub_people_work_and_sessions(hub):
    assert old_volumes(hub) == ["home-ada", "shared"]
    # A learner's server is still using one of the volumes.
    label = {"tensorflow-course.hub": hub.name}
    mount = [f"{hub.name}-home-ada:/home/jovyan"]
    server = hub.engine.containers.run(
        f"{IMAGE}:hub", ["sleep", "600"], labels=label, volumes=mount, detach=True
    )
    with pytest.raises(
        AssertionError, match=rf"must be stopped for that.*docker stop {server.name}"
    ):
        hub.up()
    assert old_volumes(hub) == ["home-ada", "shared"]
    server.remove(force=True)

    said = hub.up()
    assert "1 of 2: home-ada\n2 of 2: shared\n" in said
    assert old_volumes(hub) == []
    ada = hub.ada
    assert ada.session.get(f"{hub.url}/hub/home", timeout=30).url.endswith("/hub/home")
    assert hub.login("ada", PASSWORD).url == f"{hub.url}/hub/spawn"
    ada.start_server()
    assert ada.run("cat", "/home/jovyan/saved") == "saved\n"
    ada.run("touch", "/home/jovyan/new")
    ada.stop_server()
    # The migration happens only once.
    assert "Docker volumes" not in hub.up()


def test_a_learner_whose_home_belongs_to_another_is_told_what_to_do(hub):
    """After a copy without `-a` or a restore as root, home directories belong to root."""
    hub.up()
    bob = ClassLearner(hub, "bob")
    bob.start_server()
    bob.stop_server()
    home = f"{hub.homes}/homes/bob"

    def give(owner: str) -> None:
        command, folder = ["chown", "-R", owner, home], f"{hub.homes}:{hub.homes}"
        options = {"user": "root", "volumes": [folder], "remove": True}
        hub.engine.containers.run(f"{IMAGE}:hub", command, **options)

    give("0:0")
    response = bob.api("POST", "/hub/api/users/{name}/server")
    if response.ok:  # it is still starting
        wait_until(lambda: not bob.server(), "the start has failed")
        response = bob.api("POST", "/hub/api/users/{name}/server")
    assert f"`chown -R 1000:1000 {home}`" in response.json()["message"]
    give("1000:1000")
    bob.start_server()
    bob.stop_server()


def test_a_server_starts_although_its_learners_home_would_end_it(hub):
    """Repeat tests/images/test_broken_homes.py on a hub, with many faults at once."""
    hub.up()
    carol = ClassLearner(hub, "carol")
    carol.start_server()
    carol.run("sh", "-ec", """
mkdir -p ~/.jupyter ~/.local/lib/python3.13/site-packages ~/.ipython/profile_default/startup
echo 'raise SystemExit' >~/.jupyter/jupyter_server_config.py
echo 'raise SystemExit' >~/.local/lib/python3.13/site-packages/usercustomize.py
echo 'import os; os._exit(1)' >~/.ipython/profile_default/startup/mine.py
rm ~/tensorflow-course/05_loss.ipynb; ln -s nowhere ~/tensorflow-course/05_loss.ipynb
for name in random json tornado; do echo 'raise SystemExit' >~/$name.py; done
""")  # fmt: skip
    carol.stop_server()
    carol.start_server()
    page = carol.session.get(f"{hub.url}/user/carol/lab", timeout=60).text
    (settings,) = re.findall(r'<script id="jupyter-config-data".*?>(.*?)</script>', page, re.S)
    told = " ".join(json.loads(settings)["courseNotices"])
    for name in ("~/.jupyter", "~/.local/lib", "~/.ipython", "05_loss.ipynb"):
        assert name in told
    beside = {"path": "tensorflow-course"}  # random.py in the home directory would break the kernel
    kernel = carol.api("POST", "/user/{name}/api/kernels", json=beside).json()["id"]
    assert run_cell(carol, kernel, "print(6 * 7)") == "42\n"
    carol.stop_server()


def test_a_hub_that_is_started_without_make_up_says_so(new_hub):
    """If Compose starts the hub without `make up`, Docker creates an empty homes folder."""
    other = new_hub()
    run = other.engine.containers.run(
        f"{IMAGE}:hub",
        environment={"COURSE_SPAWNER": "docker", "COURSE_NAME": other.name},
        volumes=[f"{other.homes}:/srv/homes", "/var/run/docker.sock:/var/run/docker.sock"],
        group_add=[os.stat("/var/run/docker.sock").st_gid],
        detach=True,
    )
    try:
        assert run.wait(timeout=60)["StatusCode"] == 1
        assert "start the hub with `make up`" in run.logs().decode()
    finally:
        run.remove(force=True)


def test_a_take_over_that_is_killed_goes_on(hub):
    """Kill the migration while it copies a large home directory."""
    hub.make("down")
    large = f"{hub.name}-home-large"
    fill = "for i in $(seq 2000); do head -c 100000 /dev/urandom >/old/$i; done; chown -R 1000 /old"
    hub.engine.containers.run(
        f"{IMAGE}:hub", ["sh", "-c", fill], user="root", volumes=[f"{large}:/old"], remove=True
    )
    with hub.begin("up") as process:
        for line in process.stdout:
            if "1 of 1: home-large" in line:
                break
        part = hub.homes / "homes" / ".large.part"
        wait_until(lambda: part.exists(), "the copy has begun")
        os.killpg(process.pid, signal.SIGKILL)
    # The signal killed `make up`, but not the migration's container, which is still copying. The
    # next migration waits until that container has finished.
    assert "home-large" in old_volumes(hub)
    hub.up()
    assert old_volumes(hub) == []
    assert len([*(hub.homes / "homes" / "large").iterdir()]) == 2000
    note = json.loads((hub.homes / homes.MARKER).read_text())
    assert note == {"hub": hub.name, "path": str(hub.homes)}
