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

# The limits for a cell and for a notebook. The former is higher than that of `make grade`, because
# learners' servers keep the hub's host busy.
SECONDS = 120
TOTAL_SECONDS = 600
KILL_SECONDS = 30  # for the grader to end its container
# Graders run in the hub's own container, whose memory is limited.
TOGETHER = asyncio.Semaphore(min(4, max(1, (os.cpu_count() or 1) // 4)))
# How the grader's last message begins if it cannot grade any notebook.
NO_ENGINE = ("--docker:", "Docker failed:")


class GraderError(Exception):
    """The grader cannot grade any notebook. The message says why."""


class NotebookError(Exception):
    """The grader could not grade one notebook. The message says why."""


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


def start(db: Session, assignment: Assignment, *, again: bool = False) -> None:
    """Start grading the submissions that count and have no grade, or with `again`, all that count.

    Do nothing if grading is already running.
    """
    if (run := runs.get(assignment.id)) and run.is_active:
        return
    found = grades.results(db, Submission.assignment_id == assignment.id).values()
    ids = [
        submission.id
        for result in found
        for lesson, submission in result.submissions.items()
        if again or lesson not in result.grades
    ]
    run = runs[assignment.id] = Run(len(ids))
    run.task = asyncio.create_task(grade_all(db, run, ids))


def stop(assignment: Assignment) -> None:
    """Stop grading; keep the grades so far."""
    if (run := runs.pop(assignment.id, None)) and run.task:
        run.task.cancel()


async def grade_all(db: Session, run: Run, ids: list[int]) -> None:
    """Grade submissions, several at a time. Stop if the grader fails."""
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
            table, why = b"", "the grader found no exercises in it"
            try:
                table = await run_grader(path, submission.content)
            except NotebookError as error:
                why = str(error)
            # In the meantime, the submission or the assignment may have been deleted.
            if submission := db.get(Submission, number):
                assignment = db.get(Assignment, submission.assignment_id)
                this = Submission.id == number
                if not table or not any(grades.take(db, assignment, table, this)[:1]):
                    grades.refuse(db, submission, why)
        run.done += 1


async def run_grader(path: str, packed: bytes) -> bytes:
    """Return the grader's table for one notebook.

    Parameters
    ----------
    path
        The notebook's path in an archive of submissions.
    packed
        The notebook, compressed with zlib.

    Raises
    ------
    GraderError
        If no notebook can be graded.
    NotebookError
        If this one cannot be graded.
    """
    with tempfile.TemporaryDirectory(prefix="grading-") as scratch:
        folder, table = Path(scratch, "submissions"), Path(scratch, "grades.csv")
        await pools.run(pools.SUBMISSIONS, unpack, folder / path, packed)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tfcourse.grading", folder, f"--table={table}"),
            *(f"--seconds={SECONDS}", *(options or [])),
            cwd=ROOT,
            env=settings.for_a_program(),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                _, complaint = await process.communicate()
        except TimeoutError:
            await end(process)
            limit = TOTAL_SECONDS // 60
            raise NotebookError(f"grading took more than {limit} minutes") from None
        except asyncio.CancelledError:
            await end(process)
            raise
        if process.returncode:
            last = (complaint.decode(errors="replace").strip().splitlines() or [""])[-1]
            if last.startswith(NO_ENGINE):
                raise GraderError(last)
            app_log.error("The grader failed for %s: %s", path, last)
            raise NotebookError("the grader failed")
        return table.read_bytes()


async def end(process: asyncio.subprocess.Process) -> None:
    """Interrupt the grader, which then ends its container; kill it if it does not react."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    try:
        await asyncio.wait_for(process.wait(), KILL_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


def unpack(path: Path, packed: bytes) -> None:
    """Write a compressed notebook to a file."""
    path.parent.mkdir(parents=True)
    path.write_bytes(zlib.decompress(packed, bufsize=submissions.LARGEST))
