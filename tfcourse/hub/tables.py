"""The course's own tables in the hub's database.

JupyterHub creates them together with its own tables. Deleting a user also deletes the user's rows.
Texts that can contain any character have no limit here, because some PostgreSQL databases would
count their bytes.
"""

from __future__ import annotations

from jupyterhub.orm import Base
from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Integer,
    LargeBinary,
    Unicode,
    UnicodeText,
    UniqueConstraint,
)
from sqlalchemy.orm import deferred


def user_id(**options: bool) -> Column:
    """Return a column that refers to a user."""
    return Column(Integer, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, **options)


class Attempt(Base):
    """A learner's attempt at an exercise, with the verdict of the check."""

    __tablename__ = "course_attempts"
    __table_args__ = (UniqueConstraint("user_id", "key"),)

    id = Column(Integer, primary_key=True)
    user_id = user_id()
    # The check chooses the key, so that an attempt that is sent twice is stored only once.
    key = Column(Unicode(32), nullable=False)
    lesson = Column(Unicode(64), nullable=False)
    exercise = Column(Unicode(64), nullable=False)
    mistake = Column(UnicodeText, nullable=False)  # the check's message; "" if right
    kind = Column(UnicodeText, nullable=False)  # `mistake` without its numbers
    when = Column(DateTime, nullable=False)  # in UTC


class Private(Base):
    """A learner who does not share attempts with the class's instructors."""

    __tablename__ = "course_private"

    user_id = user_id(primary_key=True)


class Assignment(Base):
    """The lessons whose exercises a class must hand in, and the deadline."""

    __tablename__ = "course_assignments"

    id = Column(Integer, primary_key=True)
    title = Column(UnicodeText, nullable=False)
    lessons = Column(Unicode(2000), nullable=False)  # names, separated by spaces
    due = Column(DateTime, nullable=False)  # in UTC


class Returned(Base):
    """An assignment whose grades and comments learners can see."""

    __tablename__ = "course_returned"

    assignment_id = Column(Integer, ForeignKey(Assignment.id, ondelete="CASCADE"), primary_key=True)


class OnTime(Base):
    """An assignment for which a late notebook does not replace one that was on time."""

    __tablename__ = "course_on_time"

    assignment_id = Column(Integer, ForeignKey(Assignment.id, ondelete="CASCADE"), primary_key=True)


class Submission(Base):
    """A notebook that a learner has handed in for an assignment."""

    __tablename__ = "course_submissions"

    id = Column(Integer, primary_key=True)
    assignment_id = Column(
        Integer, ForeignKey(Assignment.id, ondelete="CASCADE"), nullable=False, index=True
    )
    user_id = user_id(index=True)
    lesson = Column(Unicode(64), nullable=False)
    when = Column(DateTime, nullable=False)  # in UTC, by the hub's clock
    size = Column(Integer, nullable=False)  # bytes, before compression
    stored = Column(Integer, nullable=False)  # bytes, compressed
    digest = Column(Unicode(64), nullable=False)  # the SHA-256 hash of the notebook
    comment = Column(UnicodeText, nullable=False, default="")  # the instructor's
    # Loaded only when needed, because a notebook can take up megabytes.
    content = deferred(Column(LargeBinary, nullable=False))  # compressed with zlib


class Grade(Base):
    """What the grader found out about an exercise in a submission."""

    __tablename__ = "course_grades"

    id = Column(Integer, primary_key=True)
    submission_id = Column(
        Integer, ForeignKey(Submission.id, ondelete="CASCADE"), nullable=False, index=True
    )
    exercise = Column(Unicode(64), nullable=False)  # "" if the notebook could not be graded
    right = Column(Boolean, nullable=False)
    says = Column(UnicodeText, nullable=False)


class PlatformAccount(Base):
    """Where to send a user's grades on the learning platform, according to the latest launch."""

    __tablename__ = "course_platform_accounts"

    user_id = user_id(primary_key=True)
    subject = Column(UnicodeText, nullable=False)  # the user's identifier on the platform
    lineitems = Column(UnicodeText, nullable=False)  # the URL of the course's grade columns


class PlatformColumn(Base):
    """An assignment's column in the learning platform's gradebook."""

    __tablename__ = "course_platform_columns"

    assignment_id = Column(Integer, ForeignKey(Assignment.id, ondelete="CASCADE"), primary_key=True)
    resource_id = Column(Unicode(32), nullable=False)  # by which the platform finds the column
