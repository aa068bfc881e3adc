"""Test how a new image's lessons update a home directory that contains older lessons.

These tests run the images' commands without containers. One folder serves as a learner's home
directory, and another contains an image's lessons.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tfcourse.hub.spawners.lessons import RECORD
from tfcourse.hub.state import ROOT


class Home:
    """A learner's home directory, and the lessons and commands of an image."""

    def __init__(self, folder: Path):
        self.home = folder / "home"
        self.home.mkdir()
        self.image = folder / "image"
        self.commands = folder / "commands"
        self.commands.mkdir()
        self.command("update-lessons", ROOT / "tfcourse/hub/spawners/lessons.py", self.image)
        self.command("start-course", ROOT / "docker/start-course")
        self.lessons = self.home / "tensorflow-course"
        self.repository = self.home / ".local/share/tensorflow-course.git"

    def command(self, name: str, path: Path, *given: Path) -> None:
        """Create one of the image's commands, modified to run with this environment's Python."""
        words = " ".join(map(str, (path, *given)))
        script = f'#!/bin/sh\nexec {sys.executable} -I -S {words} "$@"\n'
        (self.commands / name).write_text(script)
        (self.commands / name).chmod(0o755)

    def run(self, *command: str, check: bool = True, **environment: str) -> str:
        result = subprocess.run(
            command,
            cwd=self.home,
            env={
                "HOME": str(self.home),
                "PATH": f"{self.commands}:{os.environ['PATH']}",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert result.returncode == 0 or not check, result.stdout
        return result.stdout

    def shell(self, script: str) -> None:
        """Run a shell script in the lessons folder."""
        self.run("sh", "-ec", f"cd ~/tensorflow-course\n{script}")

    def start(self, **lessons: str) -> str:
        """Update the home directory from an image with these lessons; return the learner's notices.

        NAME="text" becomes NAME.ipynb.
        """
        self.new_image(**lessons)
        return self.run("update-lessons")

    def new_image(self, **lessons: str) -> None:
        self.run("rm", "-rf", str(self.image))
        self.image.mkdir()
        for name, text in lessons.items():
            (self.image / f"{name}.ipynb").write_text(text)

    def found(self) -> dict[str, str]:
        """Return the lessons' texts by name; a trailing `+` marks the updated copy of a lesson."""
        return {
            path.stem.partition("_updated_2")[0]
            + ("+" if "_updated_2" in path.stem else ""): path.read_text()
            for path in self.lessons.glob("*.ipynb")
            if path.is_file()
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
    # The changes are in different lines; merging them would create a notebook that no one wrote.
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
    before = {path: path.stat().st_mtime_ns for path in home.lessons.rglob("*")}
    assert home.run("update-lessons") == ""
    assert home.found()["a"] == "mine"
    assert {path: path.stat().st_mtime_ns for path in home.lessons.rglob("*")} == before


def test_an_image_without_lessons_takes_none_away(home):
    assert "not up to date" in home.start()
    assert home.found() == {"a": "a1", "b": "b1", "c": "c1\n" * 9}


# --- Files and folders that block an update


@pytest.mark.parametrize(
    "script",
    [
        "mkdir a.ipynb",
        "mkfifo a.ipynb",
        "ln -s nowhere a.ipynb",
        "echo far >~/far; ln -s ../far a.ipynb",
        "ln -s a.ipynb a.ipynb",
    ],
)
def test_what_has_a_lessons_name_stays_and_the_learner_is_told(home, script):
    home.shell(f"rm a.ipynb; {script}")
    before = os.lstat(home.lessons / "a.ipynb")
    said = home.start(a="a2", b="b2", c="c2")
    assert "something else has a lesson's name. Rename it, then restart your server." in said
    assert "This concerns a.ipynb." in said
    assert os.path.samestat(os.lstat(home.lessons / "a.ipynb"), before)
    assert not (home.home / "far").exists() or (home.home / "far").read_text() == "far\n"
    assert {"b": "b2", "c": "c2"}.items() <= home.found().items()
    home.shell("mv a.ipynb away")
    assert home.run("update-lessons") == ""
    assert home.found()["a"] == "a2"


@pytest.mark.parametrize("script", ["touch more", "ln -s ~/far more", "ln -s nowhere more"])
def test_nothing_is_written_outside_the_folder(home, script):
    home.shell(f"mkdir ~/far; {script}")
    home.new_image(a="a2", b="b2")
    (home.image / "more").mkdir()
    for name in "xyz":
        (home.image / "more" / f"{name}.ipynb").write_text("new")
    said = home.run("update-lessons")
    assert said.count("This concerns more.") == 1
    assert home.found() == {"a": "a2", "b": "b2"}
    assert not list((home.home / "far").iterdir())


@pytest.mark.parametrize(
    "script",
    ["touch", "ln -s nowhere", "ln -s .", "ln -s ../image", "ln -s tensorflow-course"],
)
def test_what_has_the_folders_name_stays_and_the_learner_is_told(home, script):
    home.run("rm", "-r", str(home.lessons))
    home.run("sh", "-c", f"{script} tensorflow-course")
    said = home.start(a="a2")
    assert "This concerns tensorflow-course." in said
    assert not list(home.home.glob("*.ipynb"))
    assert [path.name for path in home.image.iterdir()] == ["a.ipynb"]


def test_a_learner_may_move_the_folder_within_the_home_and_link_to_it(home):
    home.run("sh", "-c", "mkdir work && mv tensorflow-course work/ && ln -s work/tensorflow-course")
    assert home.start(a="a2", b="b1") == ""
    assert home.found()["a"] == "a2"
    assert home.lessons.is_symlink()


def test_a_folder_with_the_name_of_what_is_being_written_is_named(home):
    home.shell("mkdir .lessons.part")
    assert "This concerns tensorflow-course/.lessons.part." in home.start(a="a2")


def test_a_file_that_cannot_be_written_to_is_replaced_if_it_is_as_it_was_brought(home):
    home.shell("chmod 444 a.ipynb")
    assert home.start(a="a2", b="b1") == ""
    assert home.found()["a"] == "a2"


def test_what_a_killed_run_has_left_is_no_obstacle(home):
    home.shell("rm b.ipynb; echo half >.lessons.part")
    assert home.start(a="a2", b="b2") == ""
    assert home.found() == {"a": "a2", "b": "b2"}
    assert not list(home.lessons.glob(".*.part"))


def test_modules_are_always_the_newest_and_the_learners_own_is_kept(home):
    home.new_image(a="a1")
    module = home.image / "interactive" / "pad.py"
    module.parent.mkdir()
    module.write_text("old")
    home.run("update-lessons")
    mine = home.lessons / "interactive" / "pad.py"
    mine.write_text("mine")
    home.run("update-lessons")
    assert mine.read_text() == "mine"
    module.write_text("new")
    assert home.run("update-lessons") == ""
    assert mine.read_text() == "new"
    (kept,) = mine.parent.glob("pad_yours_*.py")
    assert kept.read_text() == "mine"


# --- The record of installed lessons


@pytest.mark.parametrize(
    "damage",
    [
        f"rm {RECORD}",
        f": >{RECORD}",
        f"echo nonsense >{RECORD}",
        f"sed -i 's/^/ /' {RECORD}",
        f"sed -i 's/ .*//' {RECORD}",
        f"printf '\\377' >{RECORD}",
        f"rm {RECORD}; ln -s nowhere {RECORD}",
        f"rm {RECORD}; mkfifo {RECORD}",
        f"head -c 1000000 /dev/urandom >{RECORD}",
    ],
)
def test_edits_survive_the_loss_of_the_note(home, damage):
    home.edit(a="mine")
    home.shell(damage)
    assert home.start(a="a1", b="b2", c="c1\n" * 9) == ""
    # Without the record, the command cannot know that only the first lesson was edited.
    kept = {"a": "mine", "a+": "a1", "b": "b1", "b+": "b2", "c": "c1\n" * 9}
    assert home.found() == kept
    assert home.start(a="a1", b="b2", c="c3") == ""
    assert home.found() == {**kept, "c": "c3"}


def test_a_note_that_cannot_be_written_is_named_and_nothing_is_brought_twice(home):
    home.edit(a="mine")
    home.shell(f"rm {RECORD}; mkdir {RECORD}")
    for _ in range(2):
        assert f"This concerns {RECORD}." in home.start(a="a2", b="b1", c="c1\n" * 9)
        assert home.found() == {"a": "mine", "a+": "a2", "b": "b1", "c": "c1\n" * 9}


@pytest.mark.parametrize("name", ["../far", "/far", "more/../../far", ".", "", "x\0"])
def test_a_note_removes_nothing_outside_the_folder(home, name):
    (home.home / "far").write_text("a1")
    brought = (home.lessons / RECORD).read_text().split()[0]
    path = str(home.home / "far") if name == "/far" else name
    (home.lessons / RECORD).write_text(f"{brought} {path}\n")
    assert home.start(a="a1", b="b1", c="c1\n" * 9) == ""
    assert (home.home / "far").read_text() == "a1"


# --- Home directories from earlier versions, which used a Git repository as the record


@pytest.fixture
def old(tmp_path) -> Home:
    """Return a home directory from an earlier version, in which one lesson has been edited."""
    home = Home(tmp_path)
    home.new_image(a="a1", b="b1", c="c1")
    (home.image / ".gitattributes").write_text("*.ipynb merge=keep-both\n")
    home.run("sh", "-ec", f"cd {home.image}" + """
git="git -c user.name=a -c user.email=a@b -c commit.gpgsign=false -c init.defaultBranch=main"
$git init --quiet && $git add . && $git commit --quiet --message Lessons
mkdir -p ~/.local/share && $git clone --quiet --bare . ~/.local/share/tensorflow-course.git
$git clone --quiet ~/.local/share/tensorflow-course.git ~/tensorflow-course
""")  # fmt: skip
    home.edit(b="mine")
    return home


RUN = "sh -c 'touch ~/ran; sleep 1000'"
IN_THE_FOLDER = [
    "true",
    "touch .git/index.lock .git/HEAD.lock .git/config.lock .git/refs/heads/main.lock",
    ": >.git/index",
    "rm .git/index",
    "rm .git/HEAD",
    "rm -r .git/objects; mkdir .git/objects",
    "rm -r .git",
    "rm -r .git; touch .git",
    "rm -r .git; ln -s nowhere .git",
    "echo nonsense >.git/config",
    "git remote set-url origin https://example.org/x.git",
    "git remote remove origin",
    "git checkout --quiet -b mine",
    "git checkout --quiet --detach",
    "echo 0 >.git/MERGE_HEAD",
    "mkdir .git/rebase-merge",
    "git config core.worktree /nowhere",
    "git config core.sparseCheckout true; echo nothing >.git/info/sparse-checkout",
    f'git config core.fsmonitor "{RUN}"',
    f"git config filter.x.smudge \"{RUN}\"; echo '* filter=x' >.git/info/attributes",
    f'git config gpg.program "{RUN}"; git config commit.gpgSign true',
    f"for hook in post-merge post-checkout reference-transaction; do "
    f'printf "#!/bin/sh\\n{RUN}\\n" >.git/hooks/$hook; chmod +x .git/hooks/$hook; done',
    f'git config --global core.fsmonitor "{RUN}"; git config --global core.hooksPath nope',
    "mkfifo .git/pipe; git config include.path pipe",
]


@pytest.mark.parametrize("damage", IN_THE_FOLDER)
def test_an_old_home_is_taken_over_whatever_its_repository_is_like(old, damage):
    old.shell(damage)
    began = time.monotonic()
    assert old.start(a="a2", b="b2", d="d2") == ""
    assert old.found() == {"a": "a2", "b": "mine", "b+": "b2", "d": "d2"}
    assert time.monotonic() < began + 5
    assert not (old.lessons / ".gitattributes").exists()  # the old image installed this file
    assert not (old.home / "ran").exists()
    assert old.start(a="a3", b="b2", d="d2") == ""
    assert old.found()["a"] == "a3"


@pytest.mark.parametrize(
    "damage",
    [
        "rm -r *",
        "rm HEAD",
        "rm HEAD; mkfifo HEAD",
        "rm -r objects; mkdir objects",
        "echo '[' >config",
        "mkfifo pipe; git config include.path pipe",
        "rm -f refs/heads/main packed-refs; mkfifo refs/heads/main",
        "rm -f packed-refs; echo nonsense >refs/heads/main",
        "rm -r objects; mkdir objects; git config extensions.partialClone x; "
        "git config core.repositoryFormatVersion 1; git config remote.x.promisor true; "
        'git config remote.x.url "ext::touch $HOME/ran"; git config protocol.ext.allow always',
        "cd ..; rm -r tensorflow-course.git; touch tensorflow-course.git",
    ],
)
def test_edits_in_an_old_home_survive_the_loss_of_its_note(old, damage):
    old.run("sh", "-ec", f"cd {old.repository}; {damage}")
    began = time.monotonic()
    assert old.start(a="a1", b="b2", c="c2") == ""
    # Without the record, the command cannot know that only the second lesson was edited.
    assert old.found() == {"a": "a1", "b": "mine", "b+": "b2", "c": "c1", "c+": "c2"}
    assert time.monotonic() < began + 15
    assert not (old.home / "ran").exists()


def test_a_learners_own_commits_and_repositories_are_left_alone(old):
    git = ["git", "-c", "user.name=me", "-c", "user.email=me@home"]
    old.run(*git, "-C", "tensorflow-course", "commit", "--allow-empty", "-m", "my own")
    old.run("git", "init", "--quiet", "--initial-branch=main", ".")
    old.run(*git, "commit", "--allow-empty", "-m", "my home")
    old.start(a="a2", b="b1")
    assert "my own" in old.run("git", "-C", "tensorflow-course", "log", "--format=%s")
    assert old.run("git", "log", "--all", "--format=%s") == "my home\n"


# --- Starting a server


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exec sleep 1000", "the update was stopped after 1 seconds"),
        ("exit 3", "exit status 3"),
        ("kill -9 $$", "died with <Signals.SIGKILL"),
    ],
)
def test_whatever_happens_to_the_update_the_server_starts_and_tells(home, script, reason):
    (home.commands / "update-lessons").write_text(f"#!/bin/sh\n{script}\n")
    text = (ROOT / "docker" / "start-course").read_text()
    (home.commands / "impatient").write_text(
        text.replace("LESSONS_LIMIT = 20", "LESSONS_LIMIT = 1")
    )
    home.command("start-course", home.commands / "impatient")
    told = home.run("start-course", "printenv", "COURSE_NOTICES")
    assert "Your lessons are not up to date: " in told
    assert reason in told
    assert "tell your instructor" in told


def test_a_learner_whose_lessons_are_up_to_date_is_told_nothing(home):
    assert home.run("start-course", "sh", "-c", "echo $COURSE_NOTICES") == "\n"
