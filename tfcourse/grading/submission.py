"""Plan what to run for a submission: our cells, combined with the learner's answers.

This module does not run any submitted code, because submissions are untrusted.
"""

from __future__ import annotations

import ast
import builtins
import itertools
import json
import os
import re
import stat
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nbformat import NotebookNode

# The source of the functions that run in a submission's kernel.
KERNEL = Path(__file__).with_name("kernel.py").read_text(encoding="utf-8")

LARGEST = 10_000_000  # bytes, a thousand times the size of an exercise notebook with outputs
OF_LEARNERS = ("-answer", "-check")  # the other cells of code are ours
MOST_CELLS = 500  # an exercise notebook has about twenty cells
MOST_CODE = 1_000_000  # characters in the learner's cells
# The first bytes of files that learners submit by mistake -> the text for the table.
ITSELF = "ask for the notebook itself, which ends in .ipynb"
OTHERS = {
    b"PK\x03\x04": "a ZIP archive: unpack it",
    b"\x1f\x8b": "a compressed file: unpack it",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
    b"Rar!": "a RAR archive: unpack it",
    b"%PDF": f"a PDF file: {ITSELF}",
    b"<": f"a web page: {ITSELF}",
}


class NotGradableError(Exception):
    """Raised if a file cannot be graded as a submission."""


@dataclass
class Step:
    """A step of the plan: a cell for the worker to run.

    `kind` is "ours" (a cell of the exercise notebook), "theirs" (an answer, or a cell that the
    learner added) or "check" (judge the exercise). `text` is the source of the cell. `exercise` is
    empty for cells that the learner added. If the learner edited one of our cells, `text` is the
    edited source, and `instead_of` is ours.
    """

    kind: str
    text: str
    exercise: str = ""
    instead_of: str = ""


@dataclass
class Plan:
    """A submission's plan: the steps to run and the exercises to grade."""

    lesson: str
    steps: list[Step]
    exercises: list[str]
    remarks: dict[str, str]  # exercise -> a remark for the table, if the answer is wrong
    ours: str  # the source of our cells, which the checks need
    watched: list[str]  # the library functions that the checks need
    others: list[str] = field(default_factory=list)  # other lessons with answers in the notebook

    def as_job(self) -> dict:
        """Return the parts of the plan that the worker needs, as JSON-compatible data."""
        steps = [asdict(step) for step in self.steps]
        return {"steps": steps, "ours": self.ours, "watched": self.watched, "kernel": KERNEL}


def read(path: Path) -> NotebookNode:
    """Read a notebook from a regular file.

    Links are rejected because they could point to a classmate's notebook or to the solution. Pipes
    are rejected because reading them could block forever.

    Raises
    ------
    NotGradableError
        If the path is a link or not a regular file, or if the file is too large or not a notebook.
    """
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise NotGradableError("a link: ask for the notebook itself")
    if stat.S_ISDIR(status.st_mode):
        raise NotGradableError("a folder that cannot be read")
    if not stat.S_ISREG(status.st_mode):
        raise NotGradableError("a pipe, a socket or a device: ask for the notebook itself")
    if status.st_nlink > 1:
        raise NotGradableError(
            "a file with a second name (a hard link): find out whose it is, and put a copy here"
        )
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise NotGradableError(f"larger than {LARGEST // 1_000_000} MB")
    return parse(content)


def parse(content: bytes) -> NotebookNode:
    """Parse a notebook; return its cells with only the fields that `plan` needs.

    We do not use nbformat's reader, because its validation can take minutes for a malicious
    notebook, which can also contain metadata of unexpected types.

    Raises
    ------
    NotGradableError
        If the content is not a notebook or has too many cells.
    """
    try:
        notebook = json.loads(decoded(content))
    except (ValueError, RecursionError) as error:
        what = kind_of(content) if isinstance(error, ValueError) else ""
        raise NotGradableError(what or f"not a notebook: {str(error)[:100]}") from error
    if isinstance(notebook, dict) and "worksheets" in notebook:
        raise NotGradableError("an old notebook format: open and save it in JupyterLab")
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise NotGradableError("not a notebook: it has no list of cells")
    if len(cells) > MOST_CELLS:
        raise NotGradableError(f"has more than {MOST_CELLS} cells")
    return NotebookNode(cells=[parsed(cell, number) for number, cell in enumerate(cells, 1)])


def kind_of(content: bytes) -> str:
    """Say what a file is if it is not a notebook, and what to do; return "" if unknown."""
    start = content.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"PK") and b"word/" in content:
        return f"a Word document: {ITSELF}"
    for beginning, what in OTHERS.items():
        if start.startswith(beginning):
            return what
    if not content.strip(b"\0 \t\r\n"):
        return "empty: ask for it again"
    if re.search(rb"^\s*<{7} ", content, re.MULTILINE):
        return "contains an unresolved Git merge conflict: ask for it again"
    if start.startswith(b"{") and not content.rstrip(b"\0 \t\r\n").endswith(b"}"):
        return "incomplete, as after an interrupted download: ask for it again"
    if re.match(rb"(#|import |from |def |!|%)", start):
        return f"a Python script: {ITSELF}"
    return ""


def decoded(content: bytes) -> str:
    """Decode a notebook as UTF-8, UTF-16 or UTF-32, or otherwise as Windows-1252."""
    try:
        return content.decode(json.detect_encoding(content), "surrogatepass")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def parsed(cell: object, number: int) -> NotebookNode:
    """Return a cell's type, its source, its id, and any id in its metadata."""
    cell = cell if isinstance(cell, dict) else {}
    source = cell.get("source")
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        raise NotGradableError(f"not a notebook: cell {number} has no text")
    # Replace lone surrogates, as browsers do, because messages to a kernel cannot contain them.
    source = source.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    source = source.replace("\r\n", "\n")
    metadata = cell.get("metadata")
    return NotebookNode(
        cell_type=cell.get("cell_type"),
        source=source,
        id=cell.get("id"),
        metadata={"id": metadata.get("id") if isinstance(metadata, dict) else None},
    )


def plan(submission: NotebookNode, exercises: dict[str, NotebookNode]) -> Plan:
    """Return the plan for a submission.

    All code cells run in the submission's order, including cells that the learner added or edited.
    If a submission lacks some of our cells, the plan adds them where they belong. The checks are
    always ours, and use only our cells.

    Parameters
    ----------
    submission
        The learner's notebook, as `read` or `parse` returns it.
    exercises
        The learners' version of each exercise notebook, by lesson name. It includes the checks but
        not the solutions, because a submission could read them.

    Raises
    ------
    NotGradableError
        If the notebook is not based on any of the exercises, or contains too much code.
    """
    called = [called_checks(cell) for cell in submission.cells]
    cells = with_ids(submission.cells, called, exercises)
    found = {cell.id for cell in cells}.union(*called)
    lesson = max(exercises, key=lambda name: len(found & answers(exercises[name])))
    exercise = exercises[lesson]
    if not found & answers(exercise):
        raise NotGradableError(
            "has no answer to any of our exercises (judging by the cells' ids or the checks)"
        )
    ours = {cell.id: cell.source for cell in exercise.cells if cell.cell_type == "code"}
    names = [id_.removesuffix("-answer") for id_ in ours if id_.endswith("-answer")]
    code = [(cell, ids) for cell, ids in zip(cells, called, strict=True) if is_code(cell)]
    judged = moments(code, names)
    placed: list[tuple[str | None, list[Step]]] = []  # (the cell's id, its steps)
    for number, (cell, _) in enumerate(code):
        checks = [Step("check", ours[f"{name}-check"], name) for name in judged.get(number, [])]
        placed.append((cell.id, [*steps_of(cell, ours), *checks]))
    add_missing(placed, ours, {name for each in judged.values() for name in each})
    steps = list(itertools.chain(*(each for _, each in placed)))
    theirs = [step.text for step in steps if step.kind == "theirs" or step.instead_of]
    if sum(map(len, theirs)) > MOST_CODE:
        raise NotGradableError(f"has more than {MOST_CODE:,} characters of code")
    source = "\n\n".join(text for id_, text in ours.items() if not id_.endswith(OF_LEARNERS))
    return Plan(
        lesson,
        steps,
        names,
        remarks_on([cell for cell, _ in code], ours, names),
        source,
        watched(f"{source}\n\n{KERNEL}"),
        [name for name, other in exercises.items() if (found & answers(other)) - answers(exercise)],
    )


def is_code(cell: NotebookNode) -> bool:
    """Return whether a cell runs. In a malicious file, a cell's type can be anything."""
    return cell.cell_type not in ("markdown", "raw")


def is_edited(cell: NotebookNode, ours: dict[str, str]) -> bool:
    """Return whether a cell is one of ours, and its source differs from ours."""
    return cell.id in ours and cell.source.strip() != ours[cell.id].strip()


def steps_of(cell: NotebookNode, ours: dict[str, str]) -> list[Step]:
    """Return the steps for one of a submission's code cells, without checks of ours."""
    name, _, role = (cell.id or "").rpartition("-")
    if cell.id not in ours:
        return [Step("theirs", cell.source)]
    if role == "answer":
        return [Step("theirs", cell.source, name)]
    edited = is_edited(cell, ours)
    if role == "check":
        return [Step("theirs", cell.source)] if edited else []
    return [Step("ours", cell.source, name, ours[cell.id] if edited else "")]


def add_missing(
    placed: list[tuple[str | None, list[Step]]], ours: dict[str, str], judged: set[str]
) -> None:
    """Insert any of our cells that a submission lacks, each after our preceding cell.

    `judged` contains the exercises with checks that are placed already.
    """
    before = ""  # the id of the preceding cell
    for id_, source in ours.items():
        name, _, role = id_.rpartition("-")
        present = [each for each, _ in placed]
        if id_ not in present:
            if role == "answer" or (role == "check" and name in judged):
                continue
            step = Step("check" if role == "check" else "ours", source, name)
            after = len(present) - present[::-1].index(before) if before else 0
            placed.insert(after, (id_, [step]))
        before = id_


def remarks_on(cells: list[NotebookNode], ours: dict[str, str], names: list[str]) -> dict[str, str]:
    """Return a remark on each exercise whose answer is missing or whose check was edited."""
    edited = {cell.id for cell in cells if is_edited(cell, ours)}
    remarks = {}
    for name in names:
        if f"{name}-answer" not in {cell.id for cell in cells}:
            remarks[name] = "the answer cell is missing, or is not a code cell"
        elif edited & {f"{name}-find", f"{name}-check"}:
            remarks[name] = "its check was edited, or is from another version; ours was used"
    return remarks


def moments(code: list[tuple[NotebookNode, list[str]]], names: list[str]) -> dict[int, list[str]]:
    """Return the exercises to judge after each code cell, keyed by its number.

    An exercise is judged after the cell of its check and, if the learner calls the check elsewhere,
    after the last such call, too. `code` contains each cell with the ids of the answers that it
    checks.
    """
    judged: dict[int, list[str]] = {}
    for name in names:
        own = [number for number, (cell, _) in enumerate(code) if cell.id == f"{name}-check"]
        calls = [number for number, (_, ids) in enumerate(code) if f"{name}-answer" in ids]
        for number in {*own[-1:], *calls[-1:]}:
            judged.setdefault(number, []).append(name)
    return judged


def with_ids(
    cells: list[NotebookNode], called: list[list[str]], exercises: dict[str, NotebookNode]
) -> list[NotebookNode]:
    """Return a learner's cells; restore the ids of our cells if the file lacks them.

    When Colab saves a notebook in a format before 4.5, it stores the ids in the metadata; other
    tools omit the ids, or make their own. JupyterLab gives a cell that was cut and pasted a new id.
    An answer without an id is the last code cell before its check, and any other cell of ours is
    identified by its source. All remaining cells get the id None.
    """
    known = {cell.id for exercise in exercises.values() for cell in exercise.cells}
    cells = [
        NotebookNode(cell_type=cell.cell_type, source=cell.source, id=known_id(cell, known))
        for cell in cells
    ]
    found = {cell.id for cell in cells}
    exercise = max(exercises.values(), key=lambda e: len(answers(e) & found.union(*called)))
    ours = {cell.source.strip(): cell.id for cell in exercise.cells if cell.id not in found}
    missing = answers(exercise) - found
    answer = None  # the learner's latest code cell, unless one of our cells follows it
    for cell, checked in zip(cells, called, strict=True):
        cell.id = cell.id or ours.get(cell.source.strip())
        for id_ in missing.intersection(checked):
            check = f"{id_.removesuffix('answer')}check"
            cell.id = cell.id or (check if check not in found else None)
            if answer:
                answer.id = id_
                missing.remove(id_)
        if cell.id or cell.cell_type == "code":
            answer = None if cell.id else cell
    return cells


def known_id(cell: NotebookNode, known: set[str]) -> str | None:
    """Return a cell's id, or the id in its metadata, if it is one of ours."""
    for each in (cell.get("id"), cell.metadata.get("id")):
        # In a malicious file, an id can have any type, even an unhashable one.
        if isinstance(each, str) and each in known:
            return each
    return None


def called_checks(cell: NotebookNode) -> list[str]:
    """Return the ids of the answers that a cell checks."""
    if not is_code(cell):
        return []
    code = re.sub(r"#.*", "", cell.source)
    calls = dict.fromkeys(re.findall(r"\bcheck_(\w+)\(", code))
    own = set(re.findall(r"def check_(\w+)\(", cell.source))
    return [f"{name}-answer" for name in calls if name not in own]


def answers(exercise: NotebookNode) -> set[str]:
    """Return the ids of an exercise notebook's answer cells."""
    return {cell.id for cell in exercise.cells if cell.id.endswith("-answer")}


def watched(source: str) -> list[str]:
    """Return the library functions and built-in functions that a source uses, as dotted names."""
    names = {"ipykernel.zmqshell.ZMQDisplayPublisher.publish"}  # receives the verdicts
    modules = {}  # the name in the source -> the module
    tree = list(ast.walk(ast.parse(source)))
    for node in tree:
        if isinstance(node, ast.Import):
            modules |= {each.asname or each.name: each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            names |= {f"{node.module}.{each.name}" for each in node.names}
    for node in tree:
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id in modules and parts:
            names.add(".".join([modules[node.id], *reversed(parts)]))
        elif isinstance(node, ast.Name) and hasattr(builtins, node.id):
            names.add(f"builtins.{node.id}")
    return sorted(names)
