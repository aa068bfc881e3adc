"""Store the grader's tables, and give grades and comments back to learners."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, field

from jupyterhub import orm
from sqlalchemy import ColumnElement, and_
from sqlalchemy.orm import Session

from tfcourse import spreadsheet
from tfcourse.hub.classroom import course, submissions
from tfcourse.hub.tables import Assignment, Grade, OnTime, Returned, Submission

LARGEST = 4 * 2**20  # bytes; the table of 300 learners and ten lessons has about 1 MB
LONGEST_COMMENT = 2000  # characters
LONGEST_MESSAGE = 1000  # characters

# The end of a notebook's path in an assignment's archive: learner, lesson, and the notebook's hash.
PATH = re.compile(r"([^/\\]+)[/\\]([^/\\]+)\.([0-9a-f]{8})\.ipynb$")
OTHER_LESSON = "it contains only exercises of another lesson"
COLUMNS = {"submission", "lesson", "exercise", "right", "says"}


@dataclass
class Result:
    """A learner's grades for the notebook that counts in each lesson."""

    user: orm.User
    is_returned: bool = False  # whether the learner can see the grades and comments
    # These are keyed by lesson. `others` are second notebooks, which do not count.
    submissions: dict[str, Submission] = field(default_factory=dict)
    others: dict[str, Submission] = field(default_factory=dict)
    grades: dict[str, list[Grade]] = field(default_factory=dict)

    def points(self, lesson: str) -> int | None:
        """Return the number of right answers in a lesson, or None if it was not graded."""
        grades = self.grades.get(lesson)
        return sum(grade.right for grade in grades) if grades else None

    def verdicts(self, lesson: str) -> list[tuple[str, str]]:
        """Return the title of each graded exercise in a lesson, and what the grader says."""
        titles = course.titles(lesson)
        return [
            (
                titles.get(grade.exercise, "The notebook could not be graded"),
                "right" if grade.right else grade.says or "not right",
            )
            for grade in self.grades.get(lesson, [])
        ]

    def score(self, lesson: str) -> str:
        """Return the points for a lesson in words, or "" if it was not graded."""
        points = self.points(lesson)
        return "" if points is None else f"{points} of {len(course.titles(lesson))} right"

    @property
    def total(self) -> int | None:
        """Return the number of right answers in all lessons, or None if a notebook has no grade."""
        if self.submissions.keys() - self.grades.keys():
            return None
        return sum(grade.right for grades in self.grades.values() for grade in grades)

    @property
    def comment(self) -> str:
        """Return the instructor's comments on all lessons."""
        return "\n".join(each.comment for each in self.submissions.values() if each.comment)


def most(assignment: Assignment) -> int:
    """Return the number of exercises in an assignment."""
    return sum(len(course.titles(lesson)) for lesson in assignment.lessons.split())


def path_in_archive(user: orm.User, lesson: str, digest: str) -> str:
    """Return the path of a submission in an archive, from which its grades find their way back."""
    return f"{submissions.folder_of(user)}/{lesson}.{digest[:8]}.ipynb"


def results(db: Session, *which: ColumnElement[bool]) -> dict[tuple[int, int], Result]:
    """Return learners' results, keyed by the ids of the assignment and the user, sorted by name.

    `which` are conditions, such as `Submission.user_id == 3`.
    """
    handed_in = (
        db.query(Submission, orm.User)
        .join(orm.User, orm.User.id == Submission.user_id)
        .join(Assignment, Assignment.id == Submission.assignment_id)
        .outerjoin(OnTime, OnTime.assignment_id == Assignment.id)
    )
    is_preferred = and_(OnTime.assignment_id.is_not(None), Submission.when <= Assignment.due)
    in_order = handed_in.filter(*which).order_by(orm.User.name, is_preferred, Submission.id)
    returned = {number for (number,) in db.query(Returned.assignment_id)}
    found: dict[tuple[int, int], Result] = {}
    for submission, user in in_order:
        number, lesson = submission.assignment_id, submission.lesson
        result = found.setdefault((number, user.id), Result(user, number in returned))
        if lesson in result.submissions:
            result.others[lesson] = result.submissions[lesson]
        result.submissions[lesson] = submission
    counted = {
        submission.id: result
        for result in found.values()
        for submission in result.submissions.values()
    }
    graded = db.query(Grade, Submission).join(Submission, Submission.id == Grade.submission_id)
    for grade, submission in graded.filter(*which).order_by(Grade.id):
        if submission.id in counted:
            counted[submission.id].grades.setdefault(submission.lesson, []).append(grade)
    return found


def take(
    db: Session, assignment: Assignment, content: bytes, *which: ColumnElement[bool]
) -> tuple[int, int]:
    """Store the grades in a table that `make grade` wrote.

    Return the number of notebooks that were graded, and of those in the table that no longer count
    or do not belong to this assignment. `which` limits the submissions, as in `results`.

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
        for result in results(db, Submission.assignment_id == assignment.id, *which).values()
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
        found = graded.setdefault(submission.id, [])
        lesson, exercise = row["lesson"] or submission.lesson, row["exercise"] or ""
        if lesson != submission.lesson or exercise not in ["", *course.titles(lesson)]:
            continue  # the notebook also contains answers to another lesson
        says = (row["says"] or "")[:LONGEST_MESSAGE]
        grade = Grade(
            submission_id=submission.id, exercise=exercise, right=row["right"] == "1", says=says
        )
        found.append(grade)
    for number, found in graded.items():
        db.query(Grade).filter_by(submission_id=number).delete()
        db.add_all(found or [ungradable(number, OTHER_LESSON)])
    db.commit()
    return len(graded), len(unknown)


def refuse(db: Session, submission: Submission, why: str) -> None:
    """Store that a notebook could not be graded."""
    db.query(Grade).filter_by(submission_id=submission.id).delete()
    db.add(ungradable(submission.id, why))
    db.commit()


def ungradable(number: int, why: str) -> Grade:
    """Return the entry that says why a submission could not be graded."""
    return Grade(submission_id=number, exercise="", right=False, says=why)


def give_back(db: Session, assignment: Assignment, *, visible: bool) -> None:
    """Show an assignment's grades and comments to its learners, or hide them again."""
    mark(db, assignment, Returned, visible)


def is_returned(db: Session, assignment: Assignment) -> bool:
    """Return whether learners can see an assignment's grades and comments."""
    return db.get(Returned, assignment.id) is not None


def prefer_on_time(db: Session, assignment: Assignment, *, preferred: bool) -> None:
    """Choose which notebook counts: the last one that was on time, or the last one of all."""
    mark(db, assignment, OnTime, preferred)


def prefers_on_time(db: Session, assignment: Assignment) -> bool:
    """Return whether the last notebook that was on time counts, even if a late one has arrived."""
    return db.get(OnTime, assignment.id) is not None


def mark(db: Session, assignment: Assignment, table: type, marked: bool) -> None:
    """Add an assignment to a table of assignments, or remove it."""
    db.query(table).filter_by(assignment_id=assignment.id).delete()
    if marked:
        db.add(table(assignment_id=assignment.id))
    db.commit()


def as_csv(db: Session, assignment: Assignment) -> str:
    """Return the results as a CSV file, with a row for each learner."""
    lessons = assignment.lessons.split()
    file = io.StringIO(newline="")
    table = csv.writer(file)
    table.writerow(["username", *lessons, "total", "late", "comment"])
    for result in results(db, Submission.assignment_id == assignment.id).values():
        found = result.submissions.values()
        points = [result.points(lesson) for lesson in lessons]
        late = sum(each.when > assignment.due for each in found)
        name, comment = map(spreadsheet.safe, (result.user.name, result.comment))
        table.writerow([name, *points, result.total, late, comment])  # None is an empty cell
    return "\ufeff" + file.getvalue()  # the mark makes Excel read the file as UTF-8
