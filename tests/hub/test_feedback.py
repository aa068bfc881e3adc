"""Test the files in which learners find feedback beside their notebooks."""

from __future__ import annotations

import json
import os
import sys

import pytest
from classroom import give_back, opened, submit, with_teacher
from hubs import ROOT, Learner, post, wait_until

# A learner's server imports the modules in this folder.
sys.path.append(str(ROOT / "tfcourse" / "prefix" / "share" / "tensorflow-course"))

import course_feedback
import course_hand_in


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return a learner's home with the exercises of lesson 05."""
    monkeypatch.setenv("HOME", str(tmp_path))
    exercises = tmp_path / "tensorflow-course" / "exercises"
    exercises.mkdir(parents=True)
    (exercises / "05_loss.ipynb").touch()
    return tmp_path


@pytest.fixture
def file(home):
    """Return the path of the feedback file beside those exercises."""
    return home / "tensorflow-course" / "exercises" / "05_loss.feedback.md"


def given(**receipt) -> list[dict]:
    """Return the class's assignments, with the feedback on one notebook."""
    found = {
        "when": "2026-12-01T09:30:00+00:00",
        "late": False,
        "size": 1000,
        "digest": "0" * 64,
        "feedback": ["1 of 2 right", "1. Predict: right", "2. Compute: Divide by the batch size."],
        "comment": "",
        **receipt,
    }
    due = "2026-12-08T12:00:00+00:00"
    lessons = {"05_loss": found, "06_compile_and_fit": None}
    return [{"id": 1, "title": "Week 3", "due": due, "late": False, "lessons": lessons}]


def test_the_file_says_what_the_grader_and_the_instructor_say(file):
    course_feedback.write(told := given(comment="Well done.\nSee me."))
    assert file.read_text().splitlines() == [
        r"# Feedback on 05\_loss.ipynb",
        "",
        "## Week 3",
        "",
        "This is about the notebook that you handed in on 1 December at 09:30 UTC.",
        "",
        "**1 of 2 right**",
        "",
        r"- 1\. Predict: right",
        r"- 2\. Compute: Divide by the batch size.",
        "",
        "Your instructor wrote:",
        "",
        "> Well done.  ",
        "> See me.  ",
        "",
        "You can improve the notebook, and hand it in again until 8 December at 12:00 UTC.",
    ]
    assert told[0]["lessons"]["05_loss"]["file"] == str(file)


def test_nothing_is_written_before_there_is_feedback(file):
    course_feedback.write(given(feedback=[]))
    assert not file.exists()


def test_a_comment_is_enough(file):
    course_feedback.write(given(feedback=[], comment="Late, but good."))
    assert "Late, but good." in file.read_text()


def test_a_file_that_has_not_changed_is_not_written_again(file):
    course_feedback.write(given())
    os.utime(file, (1, 1))
    course_feedback.write(given())
    assert file.stat().st_mtime == 1
    course_feedback.write(given(comment="Better."))
    assert "Better." in file.read_text()


def test_grades_of_an_earlier_notebook_do_not_stay(file):
    """The learner has handed in again, and the comment on the earlier notebook stays."""
    course_feedback.write(given(comment="Well done."))
    course_feedback.write(given(feedback=[], comment="Well done."))
    assert "of 2 right" not in file.read_text()
    assert "It has not been graded." in file.read_text()
    assert "Well done." in file.read_text()


def test_after_the_deadline_nobody_is_asked_to_hand_in_again(file):
    told = given(late=True)
    told[0]["late"] = True
    course_feedback.write(told)
    assert "09:30 UTC, after the deadline." in file.read_text()
    assert "again" not in file.read_text()


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("<script>alert(1)</script>", r"\<script\>alert(1)\</script\>"),
        ("a * b * c, x_1, `y`, [z](u)", r"a \* b \* c, x\_1, `y`, \[z\](u)"),
        ("`<b>` and one ` only", r"`<b>` and one \` only"),
        ("$x$ ~~no~~ a|b &lt; \\n", r"\$x\$ \~\~no\~\~ a\|b \&lt; \\n"),
        ("- no list", r"\- no list"),
        ("12. no list", r"12\. no list"),
        ("# no heading", r"\# no heading"),
        ("===", r"\==="),
        ("one\n\n# two", "one # two"),
        ("Übung 3.5: gut!", "Übung 3.5: gut!"),
    ],
)
def test_a_text_is_shown_as_it_is(words, shown):
    assert course_feedback.plain(words) == shown


def test_what_the_learner_has_added_is_kept(file):
    course_feedback.write(given())
    file.chmod(0o644)
    file.write_text(file.read_text() + "\nAsk about this.\n")
    course_feedback.write(given(comment="New."))
    assert "Ask about this." in file.read_text()
    assert "New." not in file.read_text()


@pytest.mark.parametrize(
    "make",
    [
        lambda file: file.write_text("# My own notes\n"),
        lambda file: file.mkdir(),
        lambda file: file.symlink_to(file.parent / "05_loss.ipynb"),
        lambda file: file.symlink_to(file.parent / "nowhere"),
        lambda file: file.symlink_to("/proc/version"),  # which is read-only
    ],
    ids=["notes", "folder", "link", "broken-link", "read-only"],
)
def test_what_the_learner_made_is_left_alone(file, make):
    make(file)
    before = sorted((path, path.lstat().st_mtime_ns) for path in file.parent.iterdir())
    course_feedback.write(told := given())
    assert sorted((path, path.lstat().st_mtime_ns) for path in file.parent.iterdir()) == before
    assert "file" not in told[0]["lessons"]["05_loss"]


def test_a_full_disk_leaves_no_half_file(file, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    course_feedback.write(given())
    assert [path.name for path in file.parent.iterdir()] == ["05_loss.ipynb"]


def test_a_missing_folder_harms_nothing(home, file):
    (file.parent / "05_loss.ipynb").unlink()
    file.parent.rmdir()
    course_feedback.write(given())
    assert not file.parent.exists()


def test_feedback_is_beside_the_notebook_that_was_handed_in(home, file):
    copy = home / "mine" / "05_loss-Copy1.ipynb"
    copy.parent.mkdir()
    copy.touch()
    course_hand_in.remember({"id": 1}, "05_loss", copy)
    course_feedback.write(given())
    assert (home / "mine" / "05_loss-Copy1.feedback.md").exists()
    assert not file.exists()
    copy.unlink()  # the learner has deleted the copy
    course_feedback.write(given(comment="More."))
    assert file.exists()


@pytest.mark.parametrize("memory", ["", "[]", '{"1/05_loss": 3}', '{"1/05_loss": "a\\u0000"}'])
def test_if_the_memory_is_damaged_the_usual_folder_counts(home, file, memory):
    path = course_hand_in.MEMORY.expanduser()
    path.parent.mkdir(parents=True)
    path.write_text(memory)
    course_feedback.write(given())
    assert file.exists()
    course_hand_in.remember({"id": 2}, "05_loss", file)
    assert json.loads(path.read_text())["2/05_loss"] == str(file)


def test_two_assignments_share_a_file_with_the_latest_first(file):
    first, second = given(), given(comment="Now the second.")
    second[0] |= {"id": 2, "title": "Week 4"}
    course_feedback.write([*first, *second])
    content = file.read_text()
    assert content.index("## Week 4") < content.index("## Week 3")


def test_feedback_arrives_while_the_learners_server_runs(make_hub):
    """The learner does nothing."""
    hub = with_teacher(make_hub())
    number = opened(hub, hub.teacher, "Week 3", "05_loss")
    ada = Learner(hub, "ada")
    submit(ada, number)
    page = f"{hub.url}/hub/assignments/{number}/of/ada"
    post(hub.teacher, page, data={"comment-05_loss": "Well done."}).raise_for_status()
    give_back(hub, number)
    ada.start_server()
    file = hub.state / "homes" / "ada" / "tensorflow-course" / "exercises" / "05_loss.feedback.md"
    wait_until(file.exists, "the feedback is there")
    assert "Well done." in file.read_text()
    ada.stop_server()
