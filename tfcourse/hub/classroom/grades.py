"""Give grades back: read the grader's table, add comments, and show both to the learner."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, field

from jupyterhub import orm
from sqlalchemy.orm import Session

from tfcourse import spreadsheet
from tfcourse.hub.classroom import course, submissions
from tfcourse.hub.tables import Assignment, Grade, Submission

LONGEST_COMMENT = 2000  # characters
LONGEST_MESSAGE = 1000  # characters

# The end of a notebook's path in an assignment's archive: learner, lesson, and the notebook's hash.
PATH = re.compile(r"([^/\\]+)[/\\]([^/\\]+)\.([0-9a-f]{8})\.ipynb$")
COLUMNS = {"submission", "lesson", "exercise", "right", "says"}


@dataclass
class Result:
    """A learner's grades for the newest notebook of each lesson."""

    user: orm.User
    submissions: dict[str, Submission] = field(default_factory=dict)  # keyed by lesson
    grades: dict[str, list[Grade]] = field(default_factory=dict)  # keyed by lesson

    def points(self, lesson: str) -> int | None:
        """Return the number of right answers in a lesson, or None if it was not graded."""
        grades = self.grades.get(lesson)
        return sum(grade.right for grade in grades) if grades else None

    def feedback(self, lesson: str, titles: dict[str, str]) -> list[str]:
        """Return the grades and the comment for a lesson, as lines for a terminal."""
        lines = []
        if (points := self.points(lesson)) is not None:
            lines.append(f"{points} of {len(titles)} right")
        for grade in self.grades.get(lesson, []):
            title = titles.get(grade.exercise, "The notebook could not be graded")
            lines.append(f"{title}: {'right' if grade.right else grade.says or 'not right'}")
        return [*lines, *self.submissions[lesson].comment.splitlines()]

    @property
    def total(self) -> int:
        """Return the number of right answers in all lessons."""
        return sum(grade.right for grades in self.grades.values() for grade in grades)


def path_in_archive(user: orm.User, lesson: str, digest: str) -> str:
    """Return the path of a submission in an archive, from which its grades find their way back."""
    return f"{submissions.folder_of(user)}/{lesson}.{digest[:8]}.ipynb"


def results(db: Session, assignment: Assignment, user: orm.User | None = None) -> dict[int, Result]:
    """Return everyone's results, or one learner's, keyed by the user's id."""
    users = {user.id: user} if user else {each.id: each for each in db.query(orm.User)}
    found: dict[int, Result] = {}
    theirs = db.query(Submission).filter_by(assignment_id=assignment.id)
    if user:
        theirs = theirs.filter_by(user_id=user.id)
    for submission in theirs.order_by(Submission.id):
        result = found.setdefault(submission.user_id, Result(users[submission.user_id]))
        result.submissions[submission.lesson] = submission
    lesson_of = {
        submission.id: (result, lesson)
        for result in found.values()
        for lesson, submission in result.submissions.items()
    }
    grades = db.query(Grade).join(Submission, Submission.id == Grade.submission_id)
    for grade in grades.filter(Submission.assignment_id == assignment.id).order_by(Grade.id):
        if grade.submission_id in lesson_of:
            result, lesson = lesson_of[grade.submission_id]
            result.grades.setdefault(lesson, []).append(grade)
    return dict(sorted(found.items(), key=lambda each: each[1].user.name))


def take(db: Session, assignment: Assignment, content: bytes) -> tuple[int, int]:
    """Store the grades in a table that `make grade` wrote.

    Return the number of notebooks that were graded, and of those in the table that no longer count
    or do not belong to this assignment.

    Raises
    ------
    RefusedError
        If the file is not such a table.
    """
    try:
        table = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        rows = list(table)
    except (UnicodeDecodeError, csv.Error):
        table, rows = None, []
    if not table or not set(table.fieldnames or []) >= COLUMNS:
        raise submissions.RefusedError(
            "This is not a table of `make grade`. Choose the file grades.csv."
        )
    known = {
        (submissions.folder_of(result.user), lesson, submission.digest[:8]): submission
        for result in results(db, assignment).values()
        for lesson, submission in result.submissions.items()
    }
    graded: dict[int, list[Grade]] = {}
    unknown = set()
    for row in rows:
        path = PATH.search(row["submission"] or "")
        submission = path and known.get(path.groups())
        if not submission:
            unknown.add(row["submission"])
            continue
        lesson, exercise = row["lesson"] or submission.lesson, row["exercise"] or ""
        if lesson != submission.lesson or exercise not in ["", *course.lessons()[lesson]]:
            continue  # the notebook also contains answers to another lesson
        says = (row["says"] or "")[:LONGEST_MESSAGE]
        grade = Grade(
            submission_id=submission.id, exercise=exercise, right=row["right"] == "1", says=says
        )
        graded.setdefault(submission.id, []).append(grade)
    for number, grades in graded.items():
        db.query(Grade).filter_by(submission_id=number).delete()
        db.add_all(grades)
    db.commit()
    return len(graded), len(unknown)


def as_csv(db: Session, assignment: Assignment) -> str:
    """Return the results as a CSV file, with a row for each learner."""
    lessons = assignment.lessons.split()
    file = io.StringIO(newline="")
    table = csv.writer(file)
    table.writerow(["username", *lessons, "total", "late", "comment"])
    for result in results(db, assignment).values():
        points = [result.points(lesson) for lesson in lessons]
        found = result.submissions.values()
        late = sum(each.when > assignment.due for each in found)
        comment = "\n".join(each.comment for each in found if each.comment)
        cells = ["" if each is None else each for each in points]
        texts = [spreadsheet.safe(comment)]
        table.writerow([spreadsheet.safe(result.user.name), *cells, result.total, late, *texts])
    return "\ufeff" + file.getvalue()  # the mark makes Excel read the file as UTF-8
