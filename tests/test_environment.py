"""Check the set-up's messages, and that every installation method uses the same lock files."""

from __future__ import annotations

import fcntl
import re
import subprocess
import sys
from pathlib import Path

import environment
import pytest
import yaml

ROOT = environment.ROOT
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that the `environment` module treats as its clone."""
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(environment, "fingerprint", lambda: "wanted")
    return tmp_path


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Record the set-up's commands instead of running them; return the list of commands."""
    ran: list[list[str]] = []

    def note(command, **options):
        ran.append([str(word) for word in command])
        return 0

    monkeypatch.setattr(environment.subprocess, "call", note)
    monkeypatch.setattr(environment, "run", lambda *command, **options: note(command))
    monkeypatch.setattr(environment, "install_proxy", lambda: None)
    return ran


def test_an_environment_that_is_up_to_date_is_left_alone(clone, commands):
    (clone / ".venv").mkdir()
    (clone / ".venv" / "tfcourse-ready").write_text("wanted")
    environment.make()
    assert commands == []


@pytest.fixture
def replaced(clone) -> Path:
    """Return the stamp of an environment in which one package was replaced, and one removed."""
    packages = clone / ".venv" / "lib" / "python3.11" / "site-packages"
    for name in ["idna-3.4", "tfcourse-1", "another-1"]:
        (packages / f"{name}.dist-info").mkdir(parents=True)
    (clone / ".venv" / "tfcourse-begun").touch()
    ready = clone / ".venv" / "tfcourse-ready"
    ready.write_text("wanted\nidna-3.7\nnumpy-2.4\ntfcourse-1")
    return ready


def test_packages_that_were_replaced_are_installed_again(replaced, commands, capsys):
    environment.make()
    assert "\nidna-3.7, numpy-2.4\nInstalling them again.\n" in capsys.readouterr().out
    assert [command[1:3] for command in commands] == [["pip", "install"]] * 2
    assert (replaced.parent / "lib/python3.11/site-packages/another-1.dist-info").exists()


def test_additional_packages_do_no_harm(replaced, commands):
    replaced.write_text("wanted\nidna-3.4\ntfcourse-1")
    environment.make()
    assert commands == []


def test_a_repair_that_fails_is_a_warning(replaced, commands, monkeypatch, capsys):
    def fails(*command, **options):
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(environment, "run", fails)
    environment.make()
    assert "They could not be installed again" in capsys.readouterr().out


def test_packages_are_not_repaired_under_a_running_hub(replaced, commands, monkeypatch, capsys):
    monkeypatch.setattr(environment, "hub_is_running", lambda: True)
    environment.make()
    assert "stop JupyterHub" in capsys.readouterr().out
    assert commands == []


def test_a_set_up_that_was_killed_while_it_wrote_its_stamp_starts_afresh(clone, commands):
    (clone / ".venv").mkdir()
    (clone / ".venv" / "tfcourse-begun").touch()
    (clone / ".venv" / "tfcourse-ready").touch()
    environment.make()
    assert (clone / ".venv" / "tfcourse-ready").read_text() == "wanted"


def test_a_set_up_that_was_interrupted_starts_afresh(clone, commands, capsys):
    (clone / ".venv").mkdir()
    (clone / ".venv" / "tfcourse-begun").touch()
    (clone / ".venv" / "half-a-package").touch()
    environment.make()
    assert "did not finish" in capsys.readouterr().out
    assert not (clone / ".venv" / "half-a-package").exists()
    assert (clone / ".venv" / "tfcourse-ready").read_text() == "wanted"
    assert any("sync" in command for command in commands)


def test_a_foreign_environment_is_not_touched(clone, commands):
    (clone / ".venv").mkdir()
    (clone / ".venv" / "somebody-elses").touch()
    with pytest.raises(SystemExit, match="was not created by this project"):
        environment.make()
    assert (clone / ".venv" / "somebody-elses").exists()
    assert commands == []


def test_a_link_to_another_environment_is_not_touched(clone, commands, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "tfcourse-begun").touch()
    (clone / ".venv").symlink_to(other)
    with pytest.raises(SystemExit, match="was not created by this project"):
        environment.make()
    assert (other / "tfcourse-begun").exists()


def test_packages_are_not_changed_under_a_running_hub(clone, commands):
    (clone / ".venv").mkdir()
    (clone / ".venv" / "tfcourse-begun").touch()
    (clone / ".venv" / "tfcourse-ready").write_text("of older packages")
    (clone / ".course" / "hub").mkdir(parents=True)
    with open(clone / ".course" / "hub" / "lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(SystemExit, match="JupyterHub is still using"):
            environment.make()
    assert (clone / ".venv" / "tfcourse-ready").exists()
    environment.make()
    assert (clone / ".venv" / "tfcourse-ready").read_text() == "wanted"


def test_a_folder_of_another_user_gets_a_sentence(clone, commands, monkeypatch):
    (clone / ".course").touch()  # this file blocks the set-up, as a folder owned by root would
    monkeypatch.setattr(sys, "argv", ["environment.py"])
    with pytest.raises(SystemExit, match="belong to another user"):
        environment.main()


def test_a_failing_step_leaves_no_environment_that_seems_ready(clone, commands, monkeypatch):
    def fail(*command, **options):
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(environment, "run", fail)
    monkeypatch.setattr(sys, "argv", ["environment.py"])
    with pytest.raises(SystemExit, match="Run the same make command again"):
        environment.main()
    assert not (clone / ".venv" / "tfcourse-ready").exists()


def test_a_full_disk_is_said_beforehand(clone, commands, monkeypatch):
    monkeypatch.setattr(environment, "DISK_SPACE", 2**60)
    with pytest.raises(SystemExit, match="needs about 4 GB"):
        environment.make()
    assert commands == []


def test_an_unsupported_python_without_another_gets_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"3\.11, 3\.12 or 3\.13.*\n.*3\.14"):
        environment.supported_python()


def test_an_unsupported_python_takes_another_on_path_that_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "version_info", (3, 10, 0, "final", 0))
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, body in {"python3.13": "exit 127", "python3.12": "exit 0"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    assert environment.supported_python() == "python3.12"


def test_a_second_set_up_waits_for_the_first(clone, capsys):
    hold = (
        "import pathlib, sys, time; sys.path.insert(0, 'tools'); import environment;"
        "environment.ROOT = pathlib.Path(sys.argv[1])\n"
        "with environment.exclusive_lock(): print('held', flush=True); time.sleep(2)"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", hold, str(clone)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert first.stdout.readline() == "held\n"
    with environment.exclusive_lock():
        assert first.poll() is not None or first.wait(timeout=1) == 0
    first.communicate()
    assert "waiting for it" in capsys.readouterr().out


def test_the_supported_pythons_are_those_of_the_package():
    (wanted,) = re.findall(r'requires-python = "(.*)"', (ROOT / "pyproject.toml").read_text())
    (*_, lowest), (highest, *_) = environment.PYTHONS, environment.PYTHONS
    assert wanted == f">={lowest[0]}.{lowest[1]},<{highest[0]}.{highest[1] + 1}"


def test_conda_and_binder_take_the_same_locks():
    *packages, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert pip["pip"] == [f"-r requirements/{name}" for name in environment.LOCKS]
    (python,) = (p.removeprefix("python=") for p in packages if p.startswith("python="))
    assert tuple(map(int, python.split("."))) in environment.PYTHONS


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_pins_every_package_with_hashes_and_names_no_registry(lock):
    text = lock.read_text()
    pins = re.findall(r"^[a-z0-9][\w.-]*(?:\[[\w,-]+\])?==\S+.*\\\n    --hash=sha256:", text, re.M)
    assert len(pins) == len(re.findall(r"^[a-z0-9]", text, re.M)) > 0
    assert "://" not in text
    assert "index-url" not in text


def test_the_locks_agree_on_every_version():
    versions: dict[str, set[str]] = {}
    for lock in LOCKS:
        found: dict[str, set[str]] = {}
        for name, version in re.findall(r"^([\w.-]+)(?:\[.*\])?==(\S+)", lock.read_text(), re.M):
            found.setdefault(name, set()).add(version)
        for name, here in found.items():
            assert versions.setdefault(name, here) == here, f"{name} in {lock.name}"


def test_the_proxys_lock_has_hashes_and_names_no_registry():
    text = (ROOT / "requirements" / "proxy" / "package-lock.json").read_text()
    assert text.count('"integrity": "sha512-') == text.count('"node_modules/')
    assert '"resolved"' not in text


def test_a_wheel_is_not_made_because_it_would_not_work(tmp_path):
    """The project works only as an editable install, like the one in this environment."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    run = subprocess.run(
        [*command, "--wheel-dir", tmp_path, "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert "tfcourse cannot be a wheel, because it runs from its clone" in run.stdout + run.stderr


def test_starting_jupyter_does_not_load_a_grammar():
    """jsonschema would load one to check URIs, which takes longer than the rest of the start."""
    program = "import jupyterhub.app, jupyter_server.serverapp, sys; print('lark' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program]) == b"False\n"
