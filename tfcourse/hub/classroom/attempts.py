"""Store learners' attempts at exercises, and summarise them.

A learner's server sends the attempts (course_attempts.py). A learner could forge them, so they
prove nothing. Grading runs the checks again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jupyterhub import orm
from jupyterhub.utils import utcnow
from sqlalchemy import case, func
from sqlalchemy.orm import Session

from tfcourse.hub.classroom import course
from tfcourse.hub.tables import Attempt, Private

LONGEST = 300  # characters of a check's message
KEY = re.compile(r"[0-9a-f]{1,32}")
NUMBER = re.compile(r"[-\u2212]?\d[\d.,]*(e[-+]?\d+)?")
# The number of mistakes to keep for each learner. Few learners make two hundred in a term.
KEPT = 400
TOGETHER = 200  # attempts; a server sends at most half as many at a time
LONG_AGO = timedelta(days=7)  # the age at which an attempt that arrives even later is recorded
TRIES = 5  # a learner is stuck after this many failed attempts at an exercise

version = 0  # changes whenever an attempt is stored or deleted


@dataclass
class Status:
    """A learner's attempts at one exercise."""

    right: bool
    tries: int  # failed attempts
    last: datetime  # in UTC

    @property
    def is_stuck(self) -> bool:
        """Return whether the learner needs help."""
        return not self.right and self.tries >= TRIES


def store(db: Session, user: orm.User, sent: Any) -> int:
    """Store a learner's new attempts; return how many there were.

    Once an attempt is right, ignore later attempts at that exercise: they are experiments. Store
    nothing if the learner does not share attempts.

    Parameters
    ----------
    db
        The hub's database session.
    user
        The learner.
    sent
        A list of dictionaries with the keys `key`, `lesson` (the notebook's name), `exercise`,
        `mistake` (None or "" if the answer is right) and `ago` (the attempt's age in seconds).

    Raises
    ------
    ValueError
        If `sent` is not such a list. Attempts at unknown exercises are ignored instead, because
        learners may have their own notebooks.
    """
    found = [attempt for each in sent if (attempt := read(each))] if is_list(sent) else None
    if found is None:
        raise ValueError(f"the request must be a list of at most {TOGETHER} attempts")
    if is_private(db, user):
        return 0
    known = {key for (key,) in db.query(Attempt.key).filter_by(user_id=user.id)}
    right = {key for key, each in statuses(db, user).get(user.id, {}).items() if each.right}
    new = 0
    for attempt in found:
        exercise = attempt.lesson, attempt.exercise
        if attempt.key not in known and exercise not in right:
            attempt.user_id = user.id
            db.add(attempt)
            known.add(attempt.key)
            new += 1
            if not attempt.mistake:
                right.add(exercise)
    if new:
        prune(db, user)
        db.commit()
        has_changed()
    return new


def is_list(sent: Any) -> bool:
    """Return whether `sent` is a list of dictionaries."""
    return (
        isinstance(sent, list)
        and len(sent) <= TOGETHER
        and all(isinstance(each, dict) for each in sent)
    )


def read(sent: dict[str, Any]) -> Attempt | None:
    """Return the attempt that a server describes; None if the course has no such exercise.

    Raises
    ------
    ValueError
        If a value is missing or invalid.
    """
    key, notebook, exercise = (sent.get(name) for name in ("key", "lesson", "exercise"))
    mistake, ago = sent.get("mistake") or "", sent.get("ago", 0)
    texts = key, notebook, exercise, mistake
    if not all(isinstance(text, str) for text in texts) or not KEY.fullmatch(key):
        raise ValueError("an attempt must have a key, a lesson, an exercise and a mistake")
    if isinstance(ago, bool) or not isinstance(ago, int | float) or not 0 <= ago < float("inf"):
        raise ValueError("an attempt's age must be a number of seconds")
    lesson = course.lesson_of(notebook)
    if lesson is None or not course.has(lesson, exercise):
        return None
    mistake = plain(mistake)
    return Attempt(
        key=key,
        lesson=lesson,
        exercise=exercise,
        mistake=mistake,
        kind=NUMBER.sub("…", mistake)[:LONGEST],
        when=utcnow(with_tz=False) - min(LONG_AGO, timedelta(seconds=min(ago, 10**6))),
    )


def plain(text: str) -> str:
    """Return the text without unprintable characters, shortened if it is long."""
    text = "".join(c if c.isprintable() or c == "\n" else " " for c in text.strip())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def prune(db: Session, user: orm.User) -> None:
    """Delete a learner's oldest mistakes if there are too many."""
    db.flush()
    mistakes = db.query(Attempt.id).filter(Attempt.user_id == user.id, Attempt.mistake != "")
    too_many = mistakes.order_by(Attempt.id.desc()).offset(KEPT)
    if old := [number for (number,) in too_many]:
        db.query(Attempt).filter(Attempt.id.in_(old)).delete()


def has_changed() -> None:
    """Make open pages update."""
    global version
    version += 1


def is_private(db: Session, user: orm.User) -> bool:
    """Return whether a learner does not share attempts."""
    return db.get(Private, user.id) is not None


def set_private(db: Session, user: orm.User, private: bool) -> None:
    """Stop storing a learner's attempts and delete the stored ones, or start storing again."""
    db.query(Private).filter_by(user_id=user.id).delete()
    if private:
        db.add(Private(user_id=user.id))
        db.query(Attempt).filter_by(user_id=user.id).delete()
    db.commit()
    has_changed()


# --- Summaries


def statuses(db: Session, user: orm.User | None = None) -> dict[int, dict[tuple[str, str], Status]]:
    """Return the status of all learners, or of one, in each exercise, keyed by the user's ID."""
    right = case((Attempt.mistake == "", 1), else_=0)
    columns = Attempt.user_id, Attempt.lesson, Attempt.exercise
    rows = db.query(*columns, func.count(), func.sum(right), func.max(Attempt.when))
    if user:
        rows = rows.filter(Attempt.user_id == user.id)
    found: dict[int, dict[tuple[str, str], Status]] = {}
    for owner, lesson, exercise, count, rights, last in rows.group_by(*columns):
        if course.has(lesson, exercise):
            status = Status(bool(rights), count - rights, last)
            found.setdefault(owner, {})[lesson, exercise] = status
    return found


def last_mistakes(db: Session, users: Iterable[int]) -> dict[tuple[int, str, str], str]:
    """Return each learner's last mistake in each exercise."""
    columns = Attempt.user_id, Attempt.lesson, Attempt.exercise
    latest_first = Attempt.when.desc(), Attempt.id.desc()
    place = func.row_number().over(partition_by=columns, order_by=latest_first).label("place")
    mistakes = db.query(*columns, Attempt.mistake, place).filter(
        Attempt.mistake != "", Attempt.user_id.in_(list(users))
    )
    found = mistakes.subquery()
    return {tuple(key): mistake for *key, mistake, _ in db.query(found).filter(found.c.place == 1)}


def frequent_mistakes(
    db: Session, users: Iterable[int], since: datetime, most: int = 5
) -> list[tuple[int, str, str, str]]:
    """Return the most frequent mistakes, ranked by the number of learners who made them.

    Mistakes that differ only in their numbers count as one. Each row contains the number of
    learners, the lesson, the exercise, and one of these mistakes.
    """
    learners = func.count(Attempt.user_id.distinct())
    kind = Attempt.lesson, Attempt.exercise, Attempt.kind
    rows = (
        db.query(learners, Attempt.lesson, Attempt.exercise, func.max(Attempt.mistake))
        .filter(Attempt.mistake != "", Attempt.when >= since, Attempt.user_id.in_(list(users)))
        .group_by(*kind)
        .order_by(learners.desc(), *kind)
    )
    return [tuple(row) for row in rows if course.has(row[1], row[2])][:most]
