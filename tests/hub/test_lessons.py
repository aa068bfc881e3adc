"""Test that learners receive the lessons despite races, killed processes and errors.

tests/images/test_update_lessons.py tests updates and faults in a learner's folder.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tfcourse.hub.spawners import lessons, processes
from tfcourse.hub.spawners.lessons import FOLDER, bring


@pytest.fixture
def source(tmp_path):
    source = tmp_path / "notebooks"
    for name in ["00_a.ipynb", "01_b.ipynb", "images/a.png", ".ipynb_checkpoints/00_a.ipynb"]:
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"course: {name}")
        path.chmod(0o444)
    return source


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "home" / FOLDER


def files(folder):
    """Return a dictionary that maps each visible file's relative path to the file's text."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    return {str(path.relative_to(folder)): path.read_text() for path in found}


def test_a_new_learner_gets_all_lessons_and_may_edit_them(source, folder):
    assert bring(source, folder) == []
    names = ["00_a.ipynb", "01_b.ipynb", "images/a.png"]
    assert files(folder) == {name: f"course: {name}" for name in names}
    assert all((folder / name).stat().st_mode & 0o200 for name in names)


def test_exercises_come_without_their_solutions(source, folder):
    for part in ["exercises", "solutions"]:
        (source / part).mkdir()
        (source / part / "01_b.ipynb").write_text(part)
    bring(source, folder)
    copied = files(folder)
    assert copied["exercises/01_b.ipynb"] == "exercises"
    assert not [name for name in copied if "solutions" in name]


@pytest.mark.parametrize("name", ["my_digits.json", "interactive/__pycache__/pad.pyc"])
def test_a_learner_does_not_get_what_was_made_here(source, folder, name):
    (source / name).parent.mkdir(parents=True, exist_ok=True)
    (source / name).write_text("made")
    bring(source, folder)
    assert len(files(folder)) == 3


def test_a_file_that_appears_while_copying_stays(source, folder, monkeypatch):
    link = os.link

    def slow_link(part, path):
        if path.suffix:
            path.write_text("mine")
        link(part, path)

    monkeypatch.setattr(os, "link", slow_link)
    bring(source, folder)
    assert set(files(folder).values()) == {"mine"}


def test_without_hard_links_it_copies_as_well(source, folder, monkeypatch):
    def unsupported(*_):
        raise PermissionError

    monkeypatch.setattr(os, "link", unsupported)
    assert bring(source, folder) == []
    assert len(files(folder)) == 3


def killable(change, calls, killed_at):
    def changed(*arguments, **options):
        if next(calls) == killed_at:
            raise KeyboardInterrupt
        return change(*arguments, **options)

    return changed


@pytest.mark.parametrize("killed_at", range(1, 25))
def test_a_run_that_is_killed_loses_nothing_and_the_next_one_goes_on(
    source, folder, monkeypatch, killed_at
):
    """Kill an update at each file operation, including those on removed and conflicting files."""
    module = source / "interactive" / "pad.py"
    module.parent.mkdir()
    module.write_text("old")
    bring(source, folder)
    (folder / "00_a.ipynb").write_text("mine")
    (folder / "interactive" / "pad.py").write_text("my own")
    for name in ("00_a.ipynb", "01_b.ipynb", "interactive/pad.py", "02_c.ipynb"):
        (source / name).unlink(missing_ok=True)
        (source / name).write_text("new")
    (source / "images" / "a.png").unlink()

    calls = itertools.count(1)
    killed = False
    with monkeypatch.context() as patch:
        for owner, names in ((os, ["open", "link"]), (Path, ["replace", "rename", "unlink"])):
            for name in names:
                patch.setattr(owner, name, killable(getattr(owner, name), calls, killed_at))
        try:
            bring(source, folder)
        except KeyboardInterrupt:
            killed = True
    assert {"mine", "my own"} <= set(files(folder).values())
    assert "new" in files(folder).values() or killed_at < 10
    assert bring(source, folder) == []
    found = files(folder)
    assert found["00_a.ipynb"] == "mine"
    assert {found[n] for n in ("01_b.ipynb", "02_c.ipynb", "interactive/pad.py")} == {"new"}
    assert sorted(found.values()) == ["mine", "my own", *["new"] * 4]
    assert not list(folder.rglob("*.part"))
    assert killed or killed_at > 15  # the values of `killed_at` cover the whole update


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "the disk is full. Delete files that you do not need, then restart"),
        (errno.EDQUOT, "the disk is full. Delete files that you do not need, then restart"),
        (errno.EACCES, f"run `chmod -R u+rwX ~/{FOLDER}`, then restart your server"),
        (errno.EROFS, "Read-only file system. Restart your server; if this happens again, tell"),
        (errno.EIO, "Input/output error. Restart your server; if this happens again, tell"),
    ],
)
def test_a_file_that_cannot_be_written_is_named_and_the_others_come(
    source, folder, monkeypatch, number, sentence
):
    really_open, calls = os.open, itertools.count(1)

    def refuse(path, *arguments, **options):
        if next(calls) == 2:  # 01_b.ipynb
            raise OSError(number, os.strerror(number), str(path))
        return really_open(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    (said,) = bring(source, folder)
    assert said.startswith("Your lessons are not up to date: ")
    assert sentence in said
    assert said.endswith("This concerns 01_b.ipynb.")
    assert set(files(folder)) == {"00_a.ipynb", "images/a.png"}
    monkeypatch.undo()
    assert bring(source, folder) == []
    assert len(files(folder)) == 3


def test_files_of_another_user_are_for_the_instructor(source, folder, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    folder.mkdir(parents=True)
    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "mkdir", refuse)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    (said,) = bring(source, folder)
    assert "files belong to somebody else. Tell your instructor" in said
    assert said.endswith("This concerns 00_a.ipynb, 01_b.ipynb and 2 more.")


# --- On a hub that `make hub` starts


def start(source: Path, folder: Path) -> SimpleNamespace:
    """Run the hub's pre-spawn hook, which copies the lessons; return the spawner."""
    spawner = SimpleNamespace(
        home_dir=str(folder.parent),
        user=SimpleNamespace(name="ada"),
        environment={"KERAS_HOME": "/data"},
        log=SimpleNamespace(error=lambda *_: None),
    )
    asyncio.run(processes.bring_lessons(spawner, source))
    return spawner


def test_a_learner_who_cannot_get_lessons_can_start_and_is_told(source, folder):
    folder.parent.mkdir(parents=True)
    folder.write_text("a file in the folder's place")
    environment = start(source, folder).environment
    assert environment["KERAS_HOME"] == "/data"
    (said,) = json.loads(environment["COURSE_NOTICES"])
    assert "Rename it, then restart your server. This concerns tensorflow-course." in said
    assert folder.read_text() == "a file in the folder's place"
    folder.unlink()
    assert start(source, folder).environment["COURSE_NOTICES"] == "[]"


def test_a_disk_that_does_not_answer_does_not_stop_the_hub(source, folder, monkeypatch):
    monkeypatch.setattr(processes, "LESSONS_LIMIT", 0.1)
    monkeypatch.setattr(lessons, "bring", lambda *_: time.sleep(1))
    (said,) = json.loads(start(source, folder).environment["COURSE_NOTICES"])
    assert "took more than 0.1 seconds" in said
