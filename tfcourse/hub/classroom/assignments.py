"""The pages for assignments, and the endpoints through which learners hand in notebooks."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import zipfile
import zlib
from collections import Counter
from datetime import UTC, datetime
from typing import Any, ClassVar

from jupyterhub import orm
from jupyterhub.apihandlers import APIHandler
from jupyterhub.handlers import BaseHandler
from jupyterhub.scopes import needs_scope
from jupyterhub.utils import utcnow
from sqlalchemy import ColumnElement
from tornado import web
from tornado.httputil import HTTPFile, parse_body_arguments
from tornado.iostream import StreamClosedError

from tfcourse.hub import pools
from tfcourse.hub.classroom import course, grades, grading, instructors, submissions
from tfcourse.hub.classroom.instructors import needs_instructor
from tfcourse.hub.limits import Limit
from tfcourse.hub.tables import Assignment, Submission

# A whole class may hand in just before a deadline. Limit the number of uploads in memory.
TOGETHER = asyncio.Semaphore(8)
DOWNLOADS = 4  # at a time, for each user
PART = 2**16  # bytes of a download that are in memory
UPLOAD_SECONDS = 15  # learners' servers are near


def handlers(app: Any) -> dict[str, type]:
    """Add the pages to the navigation bar; return the handlers, keyed by path."""
    app.template_vars["assignment_pages"] = True
    return {
        "/api/users/([^/]+)/assignments": AssignmentsAPIHandler,
        "/api/users/([^/]+)/assignments/([0-9]{1,9})/([^/]+)": SubmitHandler,
        "/assignments": AssignmentsHandler,
        "/assignments/([0-9]{1,9})": AssignmentHandler,
        "/assignments/([0-9]{1,9})/all.zip": ArchiveHandler,
        "/assignments/([0-9]{1,9})/grade": GradeHandler,
        "/assignments/([0-9]{1,9})/return": ReturnHandler,
        "/assignments/([0-9]{1,9})/grades": GradesHandler,
        "/assignments/([0-9]{1,9})/late": LateHandler,
        "/assignments/([0-9]{1,9})/grades.csv": TableHandler,
        "/assignments/([0-9]{1,9})/of/([^/]+)": ResultHandler,
        "/submissions/([0-9]{1,9})": DownloadHandler,
    }


def iso(when: datetime) -> str:
    """Return a time from the database in ISO format, with its offset."""
    return when.replace(tzinfo=UTC).isoformat(timespec="seconds")


# --- For learners' servers


class AssignmentsAPIHandler(APIHandler):
    """The endpoint that lists the assignments with a learner's submissions."""

    @needs_scope("users:activity")
    def get(self, user_name: str) -> None:
        """Send the list, with the earliest deadline first."""
        user = find_user(self, user_name)
        mine = grades.results(self.db, Submission.user_id == user.id)
        found = []
        for assignment in self.db.query(Assignment).order_by(Assignment.due):
            result = mine.get((assignment.id, user.id))
            found.append(
                {
                    "id": assignment.id,
                    "title": assignment.title,
                    "due": iso(assignment.due),
                    "late": assignment.due < utcnow(with_tz=False),
                    "lessons": {
                        lesson: handed_in(result, lesson, assignment)
                        for lesson in assignment.lessons.split()
                    },
                }
            )
        self.finish(json.dumps(found))


def find_user(handler: BaseHandler, name: str) -> orm.User:
    """Return the user with this name; raise HTTP 404 if there is none."""
    user = orm.User.find(handler.db, name)
    if not user:
        raise web.HTTPError(404)
    return user


def handed_in(
    result: grades.Result | None, lesson: str, assignment: Assignment
) -> dict[str, Any] | None:
    """Return a receipt with the grades, or None if nothing was handed in for a lesson."""
    if not result or lesson not in result.submissions:
        return None
    submission = result.submissions[lesson]
    verdicts = [f"{title}: {says}" for title, says in result.verdicts(lesson)]
    feedback = [*filter(None, [result.score(lesson)]), *verdicts]
    told = {"feedback": feedback, "comment": submission.comment} if result.is_returned else {}
    other = result.others.get(lesson)
    told["other"] = receipt(other, assignment) if other else None
    return {**receipt(submission, assignment), "feedback": [], **told}


def receipt(submission: Submission, assignment: Assignment) -> dict[str, Any]:
    """Return what a learner should know about a submission."""
    return {
        "when": iso(submission.when),
        "late": submission.when > assignment.due,
        "size": submission.size,
        "digest": submission.digest,
    }


@web.stream_request_body
class SubmitHandler(APIHandler):
    """The endpoint that receives a notebook, compressed with zlib."""

    limit = Limit(30, seconds=10)  # for each learner
    uploading: ClassVar[set[str]] = set()  # the names of learners who are handing in now
    name = ""  # the learner's name, while it is in `uploading`
    has_turn = False
    is_busy = False  # while a thread checks the notebook

    async def prepare(self) -> None:
        """Identify the learner, then wait for a turn before reading the notebook."""
        await super().prepare()
        self.received = bytearray()
        self.arrived = utcnow(with_tz=False)  # waiting for a turn makes nobody late
        if not self.current_user:
            return
        if self.request.method != "PUT":
            raise web.HTTPError(405)
        if self.current_user.name in self.uploading:
            raise web.HTTPError(429, "Your previous upload is not finished. Try again in a minute.")
        self.name = self.current_user.name
        self.uploading.add(self.name)
        self.request.connection.set_max_body_size(submissions.LARGEST_UPLOAD)
        self.request.connection.set_body_timeout(UPLOAD_SECONDS)
        await TOGETHER.acquire()
        self.has_turn = True
        if self.request.connection.stream.closed():  # the learner's server did not wait
            self.end_turn()

    def data_received(self, chunk: bytes) -> None:
        """Collect the notebook."""
        self.received += chunk

    def on_finish(self) -> None:
        """Let the next upload begin. Tornado calls this method after every response."""
        self.end_turn()
        super().on_finish()

    def on_connection_close(self) -> None:
        """Let the next upload begin, unless we are still busy with the notebook."""
        if not self.is_busy:
            self.end_turn()
        super().on_connection_close()

    def end_turn(self) -> None:
        """Let the learner's next upload begin, and anyone's."""
        self.uploading.discard(self.name)
        self.name = ""
        if self.has_turn:
            self.has_turn = False
            TOGETHER.release()

    @needs_scope("users:activity")
    async def put(self, user_name: str, number: str, lesson: str) -> None:
        """Store the notebook; send a receipt."""
        self.find(user_name, number, lesson)
        if wait := self.limit.wait(user_name):
            raise web.HTTPError(429, f"You have handed in too often. Try again in {wait} seconds.")
        self.limit.count(user_name)
        self.is_busy = True
        try:
            work = pools.run(pools.SUBMISSIONS, submissions.checked, bytes(self.received))
            upload = await work
            # In the meantime, the assignment may have been deleted.
            user, assignment = self.find(user_name, number, lesson)
            submission = submissions.store(self.db, assignment, user, lesson, upload, self.arrived)
        except submissions.RefusedError as error:
            raise web.HTTPError(400, str(error)) from None
        finally:
            self.is_busy = False
            self.end_turn()
        self.set_status(201)
        self.finish(json.dumps(receipt(submission, assignment)))

    def find(self, user_name: str, number: str, lesson: str) -> tuple[orm.User, Assignment]:
        """Return the learner and the assignment; raise HTTP 404 if there are none."""
        user = find_user(self, user_name)
        assignment = self.db.get(Assignment, int(number))
        if not assignment or lesson not in assignment.lessons.split():
            raise web.HTTPError(404, "This assignment does not exist. It may have been deleted.")
        return user, assignment


# --- The pages


class AssignmentsHandler(BaseHandler):
    """The page that lists assignments, and where instructors create them."""

    @web.authenticated
    async def get(self) -> None:
        """Show the page."""
        await self.show()

    async def show(self, problem: str = "", **entered: Any) -> None:
        """Show the page. After a refused form, include the problem and the entered values."""
        user = self.current_user.orm_user
        assignments = self.db.query(Assignment).order_by(Assignment.due.desc()).all()
        found = grades.results(self.db, Submission.user_id == user.id)
        nothing = grades.Result(user)
        mine = {each.id: found.get((each.id, user.id), nothing) for each in assignments}
        html = await self.render_template(
            "assignments.html",
            assignments=assignments,
            mine=mine,
            lessons=course.names(),
            now=utcnow(with_tz=False),
            iso=iso,
            problem=problem,
            entered=entered,
        )
        self.finish(html)

    @needs_instructor
    async def post(self) -> None:
        """Create an assignment."""
        title = self.get_body_argument("title", "")
        lessons = self.get_body_arguments("lesson")
        due = self.get_body_argument("due_utc", "") or self.get_body_argument("due", "")
        try:
            submissions.create(self.db, title, lessons, due)
        except submissions.RefusedError as error:
            self.set_status(400)
            due = self.get_body_argument("due", "")
            await self.show(str(error), title=title, lessons=lessons, due=due)
            return
        self.redirect(self.hub.base_url + "assignments")


class AssignmentHandler(BaseHandler):
    """The page that shows instructors an assignment's submissions."""

    def assignment(self, number: str) -> Assignment:
        """Return an assignment; raise HTTP 404 if there is none."""
        found = self.db.get(Assignment, int(number))
        if not found:
            raise web.HTTPError(404, "This assignment does not exist. It may have been deleted.")
        return found

    @needs_instructor
    async def get(self, number: str) -> None:
        """Show the page."""
        await self.show(self.assignment(number))

    async def show(self, assignment: Assignment, problem: str = "", told: str = "") -> None:
        """Show the page, with a problem or a message about a form."""
        found = grades.results(self.db, Submission.assignment_id == assignment.id)
        results = {user_id: result for (_, user_id), result in found.items()}
        learners = [
            user
            for user in self.db.query(orm.User).order_by(orm.User.name)
            if not instructors.is_instructor(user) or user.id in results
        ]
        html = await self.render_template(
            "assignment.html",
            assignment=assignment,
            lessons=assignment.lessons.split(),
            learners=learners,
            now=utcnow(with_tz=False),
            iso=iso,
            results=results,
            most=grades.most(assignment),
            can_grade=grading.options is not None,
            run=grading.runs.get(assignment.id),
            ungraded=sum(len(r.submissions.keys() - r.grades.keys()) for r in results.values()),
            is_returned=grades.is_returned(self.db, assignment),
            prefers_on_time=grades.prefers_on_time(self.db, assignment),
            can_choose=any(
                (other.when > assignment.due) != (result.submissions[lesson].when > assignment.due)
                for result in results.values()
                for lesson, other in result.others.items()
            ),
            problem=problem,
            told=told,
        )
        self.finish(html)

    @needs_instructor
    async def post(self, number: str) -> None:
        """Change the deadline, or delete the assignment and its submissions."""
        assignment = self.assignment(number)
        if self.get_body_argument("delete", ""):
            if self.get_body_argument("title", "").strip() != assignment.title:
                self.set_status(400)
                await self.show(assignment, "To delete the assignment, enter its title.")
                return
            grading.stop(assignment)
            self.db.delete(assignment)
            self.db.commit()
            self.redirect(self.hub.base_url + "assignments")
            return
        due = self.get_body_argument("due_utc", "") or self.get_body_argument("due", "")
        try:
            assignment.due = submissions.future(due)
        except submissions.RefusedError as error:
            self.set_status(400)
            await self.show(assignment, str(error))
            return
        self.db.commit()
        self.redirect(self.hub.base_url + f"assignments/{assignment.id}")


class ArchiveHandler(AssignmentHandler):
    """An archive of the submissions that count, for `make grade`."""

    @needs_instructor
    async def get(self, number: str) -> None:
        """Send the archive, one notebook at a time."""
        assignment = self.assignment(number)
        users = {user.id: user for user in self.db.query(orm.User)}
        name = submissions.file_name(assignment.title)
        self.set_header("Content-Type", "application/zip")
        self.set_header("Content-Disposition", f'attachment; filename="{ascii_name(name)}.zip"')
        stream = Unread()
        with contextlib.suppress(StreamClosedError), zipfile.ZipFile(stream, "w") as archive:
            # Learners may hand in again during the download, so keep only the IDs.
            ids = {key: each.id for key, each in self.counted(assignment).items()}
            for (user_id, lesson), this in sorted(ids.items()):
                submission = self.db.get(Submission, this)
                if not submission:  # replaced by a newer one, or deleted
                    found = self.counted(assignment, Submission.user_id == user_id)
                    submission = found.get((user_id, lesson))
                if not submission:
                    continue
                path = grades.path_in_archive(users[user_id], lesson, submission.digest)
                info = zipfile.ZipInfo(f"{name}/{path}", submission.when.timetuple()[:6])
                info.compress_type = zipfile.ZIP_DEFLATED
                content = zlib.decompress(submission.content)
                self.db.expire(submission, ["content"])
                archive.writestr(info, content, compresslevel=1)
                self.write(stream.take())
                await self.flush()
        self.finish(stream.take())

    def counted(
        self, assignment: Assignment, *which: ColumnElement[bool]
    ) -> dict[tuple[int, str], Submission]:
        """Return the submissions that count, keyed by the user's id and the lesson."""
        found = grades.results(self.db, Submission.assignment_id == assignment.id, *which)
        return {
            (user_id, lesson): submission
            for (_, user_id), result in found.items()
            for lesson, submission in result.submissions.items()
        }

    async def post(self, number: str) -> None:
        """Refuse, because nothing can be posted to an archive."""
        raise web.HTTPError(405)


class GradeHandler(AssignmentHandler):
    """The progress of grading on the hub, and the form that starts and stops it."""

    @needs_instructor
    async def get(self, number: str) -> None:
        """Send the progress, which the assignment's page shows."""
        run = grading.runs.get(self.assignment(number).id) or grading.Run(0)
        self.finish({"done": run.done, "total": run.total, "active": run.is_active})

    @needs_instructor
    async def post(self, number: str) -> None:
        """Start or stop grading."""
        assignment = self.assignment(number)
        if grading.options is None:
            raise web.HTTPError(404, "This hub cannot grade. Grade on your own computer.")
        if self.get_body_argument("stop", ""):
            grading.stop(assignment)
        else:
            grading.start(self.db, assignment, again=bool(self.get_body_argument("again", "")))
        self.redirect(self.hub.base_url + f"assignments/{assignment.id}#grade")


class FormHandler(AssignmentHandler):
    """A form on an assignment's page that has an address of its own."""

    @needs_instructor
    async def get(self, number: str) -> None:
        """Redirect to the assignment, for example after a log-in."""
        self.redirect(self.hub.base_url + f"assignments/{int(number)}")


class ReturnHandler(FormHandler):
    """The form that shows grades and comments to learners, or hides them."""

    @needs_instructor
    async def post(self, number: str) -> None:
        """Show or hide the grades and comments."""
        assignment = self.assignment(number)
        visible = not self.get_body_argument("hide", "")
        grades.give_back(self.db, assignment, visible=visible)
        self.redirect(self.hub.base_url + f"assignments/{assignment.id}#give-back")


class LateHandler(FormHandler):
    """The form that decides which of a learner's two notebooks counts."""

    @needs_instructor
    async def post(self, number: str) -> None:
        """Count the notebooks that were on time, or the late ones."""
        assignment = self.assignment(number)
        preferred = self.get_body_argument("counts", "") == "on time"
        grades.prefer_on_time(self.db, assignment, preferred=preferred)
        self.redirect(self.hub.base_url + f"assignments/{assignment.id}")


@web.stream_request_body
class GradesHandler(FormHandler):
    """The form that takes the grader's table, which can be larger than other forms.

    The XSRF token is in the form's URL, because the form is read only after the token was checked.
    """

    async def prepare(self) -> None:
        """Identify the instructor before reading the table."""
        await super().prepare()
        self.received = bytearray()
        if self.current_user and instructors.is_instructor(self.current_user):
            self.request.connection.set_max_body_size(grades.LARGEST)

    def data_received(self, chunk: bytes) -> None:
        """Collect the form."""
        self.received += chunk

    @needs_instructor
    async def post(self, number: str) -> None:
        """Store the grades."""
        assignment = self.assignment(number)
        files: dict[str, list[HTTPFile]] = {}
        kind = self.request.headers.get("Content-Type", "")
        parse_body_arguments(kind, bytes(self.received), {}, files)
        table = files["table"][0]["body"] if "table" in files else b""
        try:
            graded, unknown = grades.take(self.db, assignment, table)
        except submissions.RefusedError as error:
            self.set_status(400)
            await self.show(assignment, str(error))
            return
        told = f"Notebooks with new grades: {graded}." if graded else ""
        problem = unknown and (
            f"Notebooks in the table that were ignored: {unknown}. They do not count for this "
            "assignment, perhaps because learners have handed in again. Download the submissions "
            "again, and grade them."
        )
        await self.show(assignment, problem or "", told)


class TableHandler(AssignmentHandler):
    """The grades as a CSV file, for a learning platform or a spreadsheet."""

    @needs_instructor
    async def get(self, number: str) -> None:
        """Send the file."""
        assignment = self.assignment(number)
        name = ascii_name(submissions.file_name(assignment.title))
        self.set_header("Content-Type", "text/csv; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="{name}.csv"')
        self.finish(grades.as_csv(self.db, assignment))

    post = ArchiveHandler.post


class ResultHandler(AssignmentHandler):
    """The page on which an instructor reads a learner's grades, and comments on them."""

    @needs_instructor
    async def get(self, number: str, name: str) -> None:
        """Show the page."""
        assignment = self.assignment(number)
        result = self.result(assignment, name)
        html = await self.render_template(
            "result.html",
            assignment=assignment,
            result=result,
            iso=iso,
            longest=grades.LONGEST_COMMENT,
        )
        self.finish(html)

    def result(self, assignment: Assignment, name: str) -> grades.Result:
        """Return a learner's result; raise HTTP 404 if the learner has handed in nothing."""
        user = find_user(self, name)
        this = Submission.assignment_id == assignment.id, Submission.user_id == user.id
        result = grades.results(self.db, *this).get((assignment.id, user.id))
        if not result:
            raise web.HTTPError(404, f"{name} has not handed in anything for this assignment.")
        return result

    @needs_instructor
    async def post(self, number: str, name: str) -> None:
        """Store the comments."""
        assignment = self.assignment(number)
        result = self.result(assignment, name)
        for lesson, submission in result.submissions.items():
            comment = self.get_body_argument(f"comment-{lesson}", submission.comment)
            submission.comment = comment.replace("\0", "")[: grades.LONGEST_COMMENT]
            if other := result.others.get(lesson):  # the comment stays if it counts later
                other.comment = submission.comment
        self.db.commit()
        self.redirect(self.hub.base_url + f"assignments/{assignment.id}")


def ascii_name(name: str) -> str:
    """Return a file name that needs no quoting in a header."""
    return name.encode("ascii", "replace").decode().replace("?", "_")


class Unread(io.RawIOBase):
    """A stream that buffers what is written to it until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = bytearray()

    def writable(self) -> bool:
        """Return True, which `zipfile` requires."""
        return True

    def write(self, data: Any) -> int:
        """Buffer the data."""
        self.kept += data
        return len(data)

    def take(self) -> bytes:
        """Return what has been written since the last call."""
        taken = bytes(self.kept)
        self.kept.clear()
        return taken


class DownloadHandler(BaseHandler):
    """A submission, for its learner and for instructors."""

    downloading: ClassVar[Counter[str]] = Counter()  # for each user, the number of downloads
    name = ""  # the user's, while this download counts

    @web.authenticated
    async def get(self, number: str) -> None:
        """Send the notebook."""
        submission = self.db.get(Submission, int(number))
        mine = submission and submission.user_id == self.current_user.orm_user.id
        if not submission or not (mine or instructors.is_instructor(self.current_user)):
            raise web.HTTPError(404, "This submission does not exist.")
        name = self.current_user.name
        if self.downloading[name] >= DOWNLOADS:
            raise web.HTTPError(429, "You have too many open downloads. Try again in a minute.")
        self.downloading[name] += 1
        self.name = name
        self.set_header("Content-Type", "application/x-ipynb+json")
        learner = "" if mine else f"{self.db.get(orm.User, submission.user_id).name}-"
        file = ascii_name(submissions.file_name(f"{learner}{submission.lesson}"))
        # Browsers must not show the file, because a notebook can contain scripts.
        self.set_header("Content-Disposition", f'attachment; filename="{file}.ipynb"')
        # Send parts, and only a few downloads at a time, because some clients never read the rest.
        unpacker, packed = zlib.decompressobj(), submission.content
        with contextlib.suppress(StreamClosedError):
            while part := unpacker.decompress(packed, PART):
                packed = unpacker.unconsumed_tail
                self.write(part)
                await self.flush()
        self.finish()

    def on_connection_close(self) -> None:
        """Let the next download begin, because the browser has gone."""
        self.end()
        super().on_connection_close()

    def on_finish(self) -> None:
        """Let the next download begin."""
        self.end()
        super().on_finish()

    def end(self) -> None:
        """Stop counting this download."""
        if self.name:
            self.downloading[self.name] -= 1
            self.name = ""
