"""Create assignments, and store the notebooks that learners hand in."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime

from jupyterhub import orm
from jupyterhub.utils import utcnow
from sqlalchemy import func
from sqlalchemy.orm import Session

from tfcourse.hub.classroom import course
from tfcourse.hub.tables import Assignment, Submission

LARGEST = 10_000_000  # bytes; the grader does not run larger notebooks
LARGEST_UPLOAD = 8 * 2**20  # bytes, compressed

# All of a learner's submissions, compressed. The hub's database must not fill the disk.
QUOTA = 64 * 2**20  # bytes
MOST_VALUES = 500_000  # in a notebook's JSON; ours have a few thousand

LONGEST_TITLE = 100  # characters
MOST_ASSIGNMENTS = 200


class RefusedError(Exception):
    """A refused request. The message tells its sender why."""


def create(db: Session, title: str, lessons: list[str], due: str) -> Assignment:
    """Create an assignment.

    Parameters
    ----------
    db
        The hub's database session.
    title
        The title that learners see.
    lessons
        The names of the lessons whose exercises learners must hand in.
    due
        The deadline in ISO format; in UTC if it has no offset.
    """
    title = " ".join(title.split())
    if not title or len(title) > LONGEST_TITLE or not title.isprintable():
        raise RefusedError(f"Enter a title of at most {LONGEST_TITLE} characters.")
    known = [lesson for lesson in course.lessons() if lesson in lessons]
    if not known or len(known) != len(set(lessons)):
        raise RefusedError("Choose at least one lesson.")
    if db.query(Assignment).count() >= MOST_ASSIGNMENTS:
        raise RefusedError(f"There are already {MOST_ASSIGNMENTS} assignments. Delete old ones.")
    assignment = Assignment(title=title, lessons=" ".join(known), due=future(due))
    db.add(assignment)
    db.commit()
    return assignment


def future(text: str) -> datetime:
    """Return a time as the database stores it, in UTC without an offset; refuse a past time."""
    try:
        when = datetime.fromisoformat(text)
        when = (when.astimezone(UTC) if when.tzinfo else when).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise RefusedError("Enter the date and time of the deadline.") from None
    if when <= utcnow(with_tz=False):
        raise RefusedError("That time has passed. Enter a later one.")
    return when


@dataclass
class Upload:
    """A notebook that a learner's server has sent."""

    packed: bytes  # compressed with zlib
    size: int  # bytes, before compression
    digest: str  # the SHA-256 hash of the notebook


def checked(packed: bytes) -> Upload:
    """Return a description of a compressed notebook; refuse anything else."""
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(packed, LARGEST + 1)
    except zlib.error:
        raise RefusedError("The upload is damaged.") from None
    if len(content) > LARGEST:
        raise RefusedError(f"The notebook is larger than {LARGEST // 10**6} MB.")
    if not unpacker.eof or unpacker.unused_data:
        raise RefusedError("The upload is not complete.")
    # Parsing millions of small values would take much memory, and stop the hub for a while.
    if sum(map(content.count, (b"[", b"{", b",", b":"))) > MOST_VALUES:
        raise RefusedError("The notebook is too complex. Clear the outputs of its cells.")
    try:
        cells = json.loads(content)["cells"]
    except (ValueError, LookupError, TypeError, RecursionError):
        cells = None
    if not isinstance(cells, list):
        raise RefusedError("The file is not a notebook in Jupyter's current format.")
    return Upload(packed, len(content), hashlib.sha256(content).hexdigest())


def store(
    db: Session,
    assignment: Assignment,
    user: orm.User,
    lesson: str,
    upload: Upload,
    when: datetime | None = None,
) -> Submission:
    """Store a notebook, and delete the learner's earlier submissions that no longer count.

    The instructor's comment is copied from the previous submission. If the new one is late, the
    last submission that was on time is also kept, and the instructor decides which one counts.
    `when` is the time at which the learner began to hand in, by default the current time.
    """
    (used,) = db.query(func.sum(Submission.stored)).filter_by(user_id=user.id).one()
    if (used or 0) + len(upload.packed) > QUOTA:
        raise RefusedError(
            f"All of your submissions together would take up more than {QUOTA // 2**20} MB. Clear "
            "the outputs of the notebook's cells."
        )
    theirs = db.query(Submission).filter_by(
        assignment_id=assignment.id, user_id=user.id, lesson=lesson
    )
    earlier = theirs.order_by(Submission.id).all()
    submission = Submission(
        assignment_id=assignment.id,
        user_id=user.id,
        lesson=lesson,
        comment=earlier[-1].comment if earlier else "",
        when=when or utcnow(with_tz=False),
        size=upload.size,
        stored=len(upload.packed),
        digest=upload.digest,
        content=upload.packed,
    )
    db.add(submission)
    on_time = [each for each in earlier if each.when <= assignment.due]
    keep = on_time[-1:] if submission.when > assignment.due else []
    for each in earlier:
        if each not in keep:
            db.delete(each)
    db.commit()
    return submission


def folder_of(user: orm.User) -> str:
    """Return the name of a learner's folder in an archive.

    Windows drops dots at the end of a folder's name.
    """
    return user.name if user.name[-1].isalnum() else f"{user.name}~{user.id}"


def file_name(text: str) -> str:
    """Return the text as a name for a file or a folder in an archive."""
    return re.sub(r"[^\w.@+~-]+", "-", text).strip("-.") or "untitled"
