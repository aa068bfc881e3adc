from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from tfcourse.hub.spawners.lessons import FOLDER, copy_lessons, copy_to_home


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
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_a_new_learner_gets_all_lessons_and_may_edit_them(source, folder):
    copy_lessons(source, folder)
    names = ["00_a.ipynb", "01_b.ipynb", "images/a.png"]
    assert files(folder) == {name: f"course: {name}" for name in names}
    assert all((folder / name).stat().st_mode & 0o200 for name in names)


def test_what_is_there_stays_and_what_lacks_comes(source, folder, tmp_path):
    folder.mkdir(parents=True)
    (folder / "00_a.ipynb").write_text("mine")
    (folder / "images").mkdir()
    (folder / "images" / "a.png").symlink_to("gone")
    copy_lessons(source, folder)
    assert (folder / "00_a.ipynb").read_text() == "mine"
    assert (folder / "images" / "a.png").is_symlink()
    assert files(folder)["01_b.ipynb"] == "course: 01_b.ipynb"


def test_exercises_come_without_their_solutions(source, folder):
    for part in ["exercises", "solutions"]:
        (source / part).mkdir()
        (source / part / "01_b.ipynb").write_text(part)
    copy_lessons(source, folder)
    copied = files(folder)
    assert copied["exercises/01_b.ipynb"] == "exercises"
    assert not [name for name in copied if "solutions" in name]


def test_what_lessons_import_is_always_the_newest(source, folder):
    (source / "interactive" / "__pycache__").mkdir(parents=True)
    (source / "interactive" / "__pycache__" / "pad.pyc").write_text("compiled")
    module = source / "interactive" / "pad.py"
    module.write_text("old")
    copy_lessons(source, folder)
    module.write_text("new")
    (folder / "00_a.ipynb").write_text("mine")
    copy_lessons(source, folder)
    copied = files(folder)
    assert copied["interactive/pad.py"] == "new"
    assert copied["00_a.ipynb"] == "mine"
    assert not [name for name in copied if "pyc" in name or name.endswith(".new")]


def test_a_learner_does_not_get_digits_that_somebody_else_drew(source, folder):
    (source / "my_digits.json").write_text("{}")
    copy_lessons(source, folder)
    assert "my_digits.json" not in files(folder)


def test_a_file_that_appears_while_copying_stays(source, folder, monkeypatch):
    link = os.link

    def slow_link(aside, path):
        if not path.exists():
            path.write_text("mine")
        link(aside, path)

    monkeypatch.setattr(os, "link", slow_link)
    copy_lessons(source, folder)
    assert set(files(folder).values()) == {"mine"}


def test_a_killed_copy_leaves_no_half_notebook(source, folder, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", killed)
        with pytest.raises(KeyboardInterrupt):
            copy_lessons(source, folder)
    assert not [name for name in files(folder) if not name.startswith(".")]
    copy_lessons(source, folder)
    assert set(files(folder)) == {"00_a.ipynb", "01_b.ipynb", "images/a.png"}


def test_without_hard_links_it_copies_as_well(source, folder, monkeypatch):
    def unsupported(*_):
        raise PermissionError

    monkeypatch.setattr(os, "link", unsupported)
    copy_lessons(source, folder)
    assert len(files(folder)) == 3


def test_a_learner_who_cannot_get_lessons_can_start(source, folder):
    folder.parent.mkdir(parents=True)
    folder.write_text("a file in the folder's place")
    said = []
    spawner = SimpleNamespace(
        home_dir=str(folder.parent),
        user=SimpleNamespace(name="ada"),
        log=SimpleNamespace(error=lambda *words: said.append(words)),
    )
    copy_to_home(spawner, source)
    assert said
    assert folder.read_text() == "a file in the folder's place"
