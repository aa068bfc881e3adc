"""Grade an assignment on the hub, by running the course's grader for each submission."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from jupyterhub import orm
from sqlalchemy.orm import Session
from tornado.log import app_log

from tfcourse.hub import pools, settings
from tfcourse.hub.classroom import grades, submissions
from tfcourse.hub.state import ROOT
from tfcourse.hub.tables import Assignment, Submission

# The grader's options, which depend on how learners' servers run. None if this hub cannot grade.
options: list[str] | None = None

# The limit for a cell. It is higher than that of `make grade`, because learners' servers keep the
# hub's host busy.
SECONDS = 120
# Leave most of the host to the learners' servers.
TOGETHER = asyncio.Semaphore(max(1, (os.cpu_count() or 1) // 4))


class GraderError(Exception):
    """The grader failed. The message tells the instructor why."""


@dataclass
class Run:
    """Grading the submissions for an assignment."""

    total: int
    done: int = 0
    problem: str = ""
    task: asyncio.Task | None = None

    @property
    def is_active(self) -> bool:
        """Return whether submissions are being graded."""
        return bool(self.task and not self.task.done())


runs: dict[int, Run] = {}  # the last run for each assignment since the hub started


def waiting(db: Session, assignment: Assignment) -> list[int]:
    """Return the ids of the newest submissions that are not graded."""
    return [
        submission.id
        for result in grades.results(db, Submission.assignment_id == assignment.id).values()
        for lesson, submission in result.submissions.items()
        if lesson not in result.grades
    ]


def start(db: Session, assignment: Assignment, *, again: bool = False) -> None:
    """Start to grade the newest submissions, or only those without a grade.

    Do nothing if they are being graded.
    """
    if (run := runs.get(assignment.id)) and run.is_active:
        return
    if again:
        grades.forget(db, assignment)
    run = runs[assignment.id] = Run(len(ids := waiting(db, assignment)))
    run.task = asyncio.create_task(grade_all(db, run, ids))


def stop(assignment: Assignment) -> None:
    """Stop grading; keep the grades so far."""
    if (run := runs.get(assignment.id)) and run.task:
        run.task.cancel()


async def grade_all(db: Session, run: Run, ids: list[int]) -> None:
    """Grade submissions, several at a time, until the grader fails."""
    try:
        async with asyncio.TaskGroup() as group:
            for number in ids:
                group.create_task(grade(db, run, number))
    except* Exception as failed:
        app_log.exception("Grading stopped after %d of %d submissions", run.done, run.total)
        run.problem = str(failed.exceptions[0])


async def grade(db: Session, run: Run, number: int) -> None:
    """Grade a submission, unless the learner has handed in again in the meantime."""
    async with TOGETHER:
        if submission := db.get(Submission, number):
            user = db.get(orm.User, submission.user_id)
            path = grades.path_in_archive(user, submission.lesson, submission.digest)
            assignment_id = submission.assignment_id
            table = await run_grader(path, submission.content)
            if assignment := db.get(Assignment, assignment_id):
                grades.take(db, assignment, table)
        run.done += 1


async def run_grader(path: str, packed: bytes) -> bytes:
    """Return the grader's table for one notebook.

    Parameters
    ----------
    path
        The notebook's path in an archive of submissions.
    packed
        The notebook, compressed with zlib.
    """
    with tempfile.TemporaryDirectory(prefix="grading-") as folder:
        await pools.run(pools.SUBMISSIONS, unpack, Path(folder, path), packed)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tfcourse.grading", folder, f"--seconds={SECONDS}"),
            *(options or []),
            cwd=ROOT,
            env=settings.for_a_program(),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, complaint = await process.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)  # the grader then ends its container
            await process.wait()
            raise
        if process.returncode:
            lines = complaint.decode(errors="replace").strip().splitlines()
            raise GraderError(lines[-1] if lines else f"Exit code {process.returncode}")
        return Path(folder, "grades.csv").read_bytes()


def unpack(path: Path, packed: bytes) -> None:
    """Write a compressed notebook to a file."""
    path.parent.mkdir(parents=True)
    path.write_bytes(zlib.decompress(packed, bufsize=submissions.LARGEST))
