"""A new image's lessons reach a learner who has already worked with the old ones.

These tests run the images' script on this machine. A folder stands in for a learner's home, and a
bundle, made in the same way as in docker/Dockerfile, holds an image's lessons.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tfcourse.hub.state import ROOT

DOCKER = ROOT / "docker"


class Home:
    """A learner's home, and an image whose script updates the lessons in it."""

    def __init__(self, folder: Path):
        self.home = folder / "home"
        self.home.mkdir()
        self.image = folder / "image"
        self.lessons = self.home / "tensorflow-course"
        self.repository = self.home / ".local/share/tensorflow-course.git"

    def run(self, *command: str, check: bool = True, **environment: str) -> str:
        result = subprocess.run(
            command,
            cwd=self.home,
            env={
                "HOME": str(self.home),
                "PATH": f"{DOCKER}:{sys.prefix}/bin:{os.environ['PATH']}",
                "GIT_CONFIG_SYSTEM": str(DOCKER / "gitconfig"),
                "COURSE_LESSONS": f"{self.image}/lessons.bundle",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert result.returncode == 0 or not check, result.stdout
        return result.stdout

    def start(self, **lessons: str) -> None:
        """Start a server from an image with these lessons: NAME="text" becomes NAME.ipynb."""
        self.run("rm", "-rf", str(self.image))
        self.image.mkdir()
        (self.image / ".gitattributes").write_text("*.ipynb merge=keep-both\n")
        for name, text in lessons.items():
            (self.image / f"{name}.ipynb").write_text(text)
        git = ["git", "-C", str(self.image), "-c", "user.name=a", "-c", "user.email=a@b"]
        self.run(*git, "init", "--quiet", "--initial-branch=main")
        self.run(*git, "add", ".")
        self.run(*git, "-c", "commit.gpgsign=false", "commit", "--quiet", "--message", "Lessons")
        self.run(*git, "bundle", "create", "--quiet", f"{self.image}/lessons.bundle", "main")
        self.run("update-lessons")

    def found(self) -> dict[str, str]:
        """Return the lessons that the learner sees; `+` replaces an update's date in a name."""
        return {
            path.stem.partition("_updated_2")[0]
            + ("+" if "_updated_2" in path.stem else ""): path.read_text()
            for path in self.lessons.glob("*.ipynb")
        }

    def edit(self, **lessons: str) -> None:
        for name, text in lessons.items():
            (self.lessons / f"{name}.ipynb").write_text(text)


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path)
    home.start(a="a1", b="b1", c="c1\n" * 9)
    return home


@pytest.mark.parametrize(
    ("limit", "threads"), [("2.0", "2"), ("0.5", "1"), ("1.25", "2"), ("4", "4")]
)
def test_a_server_has_as_many_threads_as_processors(home, limit, threads):
    assert (
        home.run("start-course", "printenv", "OMP_NUM_THREADS", CPU_LIMIT=limit) == f"{threads}\n"
    )


def test_a_new_learner_gets_the_lessons(home):
    assert home.found() == {"a": "a1", "b": "b1", "c": "c1\n" * 9}


def test_a_new_image_brings_what_changed(home):
    home.start(a="a2", b="b1", d="d2")
    assert home.found() == {"a": "a2", "b": "b1", "d": "d2"}


def test_edits_are_kept_where_the_lesson_is_the_same(home):
    home.edit(a="mine")
    home.start(a="a1", b="b2", c="c1\n" * 9)
    assert home.found() == {"a": "mine", "b": "b2", "c": "c1\n" * 9}


def test_both_are_kept_where_learner_and_image_changed_a_lesson(home):
    # The changes are in different lines. Merging by line would make a notebook that no one wrote.
    home.edit(c="mine\n" + "c1\n" * 8)
    home.start(a="a1", b="b1", c="c1\n" * 8 + "c2\n")
    assert home.found() == {
        "a": "a1",
        "b": "b1",
        "c": "mine\n" + "c1\n" * 8,
        "c+": "c1\n" * 8 + "c2\n",
    }


def test_a_third_version_does_not_replace_what_was_put_beside(home):
    home.edit(a="mine")
    home.start(a="a2", b="b1")
    (beside,) = home.lessons.glob("a_updated_*.ipynb")
    beside.write_text("mine, too")
    home.start(a="a3", b="b1")
    texts = {path.read_text() for path in home.lessons.glob("a*.ipynb")}
    assert texts == {"mine", "mine, too", "a3"}


def test_a_deleted_lesson_comes_back_as_the_image_has_it(home):
    (home.lessons / "a.ipynb").unlink()
    home.run("update-lessons")
    assert home.found()["a"] == "a1"
    (home.lessons / "a.ipynb").unlink()
    home.start(a="a2", b="b1")
    assert home.found()["a"] == "a2"


def test_a_lesson_that_the_image_drops_stays_if_it_was_edited(home):
    home.edit(a="mine")
    home.start(c="c2")
    assert home.found() == {"a": "mine", "c": "c2"}
    home.start(c="c3")
    assert home.found() == {"a": "mine", "c": "c3"}


def test_a_learners_own_file_with_a_new_lessons_name_is_kept(home):
    home.edit(d="mine")
    home.start(a="a1", b="b1", d="d2")
    texts = {path.read_text() for path in home.lessons.glob("d*.ipynb")}
    assert texts == {"mine", "d2"}


def test_an_older_image_brings_its_lessons_back(home):
    home.start(a="a2", b="b1")
    home.start(a="a1", b="b1")
    assert home.found()["a"] == "a1"


def test_a_start_with_nothing_new_is_silent_and_leaves_all_alone(home):
    home.edit(a="mine")
    before = (home.lessons / ".git" / "index").stat().st_mtime_ns
    assert home.run("update-lessons") == ""
    assert home.found()["a"] == "mine"
    assert (home.lessons / ".git" / "index").stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["rm -rf .git", "rm .git/HEAD", "rm -rf .git/refs .git/objects"])
def test_edits_survive_the_loss_of_the_folders_repository(home, damage):
    home.edit(a="mine")
    home.run("sh", "-c", f"cd tensorflow-course && {damage}")
    home.start(a="a1", b="b2", c="c1\n" * 9)
    # Without the repository, the script cannot tell that only the first lesson was edited.
    kept = {"a": "mine", "a+": "a1", "b": "b1", "b+": "b2", "c": "c1\n" * 9}
    assert home.found() == kept
    home.start(a="a1", b="b2", c="c3")
    assert home.found() == {**kept, "c": "c3"}


@pytest.mark.parametrize("damage", ["rm -rf ~/.local", "rm ~/.local/share/*.git/HEAD"])
def test_edits_survive_the_loss_of_the_updates_repository(home, damage):
    home.edit(a="mine")
    home.run("sh", "-c", damage)
    home.start(a="a1", b="b2", c="c1\n" * 9)
    kept = {"a": "mine", "a+": "a1", "b": "b1", "b+": "b2", "c": "c1\n" * 9}
    assert home.found() == kept


def test_a_learners_own_commits_and_repositories_are_left_alone(home):
    git = ["git", "-c", "user.name=me", "-c", "user.email=me@home"]
    home.run(*git, "-C", "tensorflow-course", "commit", "--allow-empty", "-m", "my own")
    home.run("git", "init", "--quiet", "--initial-branch=main", ".")
    home.run(*git, "commit", "--allow-empty", "-m", "my home")
    home.run("sh", "-c", "rm ~/.local/share/*.git/HEAD")
    home.start(a="a2", b="b1")
    (kept,) = home.lessons.glob(".git-damaged-*")
    assert "my own" in home.run("git", f"--git-dir={kept}", "log", "--all", "--format=%s")
    assert home.run("git", "log", "--all", "--format=%s") == "my home\n"


def test_a_server_killed_while_git_worked_does_no_harm(home):
    (home.lessons / ".git" / "index.lock").touch()
    home.start(a="a2", b="b1")
    assert home.found()["a"] == "a2"


def test_the_learners_settings_for_git_are_not_used(home):
    (home.home / ".gitconfig").write_text("[commit]\n gpgsign = true\n[core]\n hooksPath = nope\n")
    home.edit(b="mine")
    home.start(a="a2", b="b1")
    assert home.found()["a"] == "a2"


@pytest.mark.parametrize("failure", ["no lessons", "no space"])
def test_a_failure_is_logged_and_the_server_starts(home, failure):
    if failure == "no lessons":
        home.image.rename(home.home / "elsewhere")
    else:
        # Simulate a full file system: gitpuller fails with the message that git prints there.
        (home.lessons / "a.ipynb").unlink()
        stand_in(home, "gitpuller", "echo No space left on device; exit 1")
    path = f"{home.home}:{DOCKER}:{sys.prefix}/bin:{os.environ['PATH']}"
    said = home.run("start-course", "echo", "the server", PATH=path)
    assert "The lessons were not brought up to date:" in said
    assert said.endswith("the server\n")
    assert home.lessons.exists()


def stand_in(home: Home, program: str, script: str) -> None:
    (home.home / program).write_text(f"#!/bin/sh\n{script}\n")
    (home.home / program).chmod(0o755)


@pytest.mark.parametrize("end", ["exit 1", "kill -9 $PPID; exit"], ids=["no space", "killed"])
def test_a_first_start_that_is_cut_short_is_made_good_by_the_next(home, end):
    """Git leaves empty files and no index if it fails or is killed."""
    home.run("rm", "-rf", str(home.lessons))
    script = f"""
case "$*" in
    clone*) for last; do :; done
            mkdir -p "$last/.git" && : >"$last/a.ipynb"
            {end} ;;
    *) exec {shutil.which("git")} "$@" ;;
esac"""
    stand_in(home, "git", script)
    path = f"{home.home}:{DOCKER}:{sys.prefix}/bin:{os.environ['PATH']}"
    said = home.run("start-course", "echo", "the server", PATH=path)
    assert said.endswith("the server\n")
    assert not home.lessons.exists()
    (home.home / "git").unlink()
    home.run("update-lessons")
    assert home.found() == {"a": "a1", "b": "b1", "c": "c1\n" * 9}
    assert not list(home.home.glob("*.part"))


def test_a_folder_without_an_index_gets_its_lessons_back(home):
    """Older versions left such a folder if a server was killed during its first start."""
    (home.lessons / ".git" / "index").unlink()
    (home.lessons / "b.ipynb").unlink()
    home.edit(a="mine")
    home.run("update-lessons")
    assert home.found() == {"a": "mine", "a+": "a1", "b": "b1", "c": "c1\n" * 9}
