"""The pytest plugin: nbval's files and cells, with our comparison. It patches nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbformat import NotebookNode
from nbval.plugin import IPyNbCell, IPyNbFile

from tfcourse.regression.compare import Difference, Phase, compare_text


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path, parent: pytest.Collector):
    """Put our file collector where nbval would put its own."""
    collectors = yield
    return [
        Lesson.from_parent(parent, path=file_path)
        if isinstance(collector, IPyNbFile)
        else collector
        for collector in collectors
    ]


class Lesson(IPyNbFile):
    """A notebook whose cells know whether anything was trained before them."""

    def setup(self) -> None:
        """Start the kernel with the environment that a learner's kernel has."""
        # ipykernel changes how it captures output where it sees this variable.
        os.environ.pop("PYTEST_CURRENT_TEST", None)
        super().setup()

    def collect(self) -> Iterator[IPyNbCell]:
        """Yield a `LessonCell` for each of nbval's items."""
        phase = Phase.UNTRAINED
        for item in super().collect():
            if trains(item.cell.source):
                phase = Phase.TRAINED
            yield LessonCell.from_parent(
                self,
                name=item.name,
                cell_num=item.cell_num,
                cell=item.cell,
                options=item.options,
                phase=phase,
            )


class LessonCell(IPyNbCell):
    """One cell: run by nbval, compared by us."""

    def __init__(self, *, phase: Phase, **options):
        super().__init__(**options)
        self.phase = phase
        self.differences: list[Difference] = []

    def compare_outputs(self, test: list, ref: list, skip_compare: tuple | None = None) -> bool:
        """Compare new outputs with stored ones, in order; tell nbval whether they agree."""
        self.differences = compare_outputs(ref, test, self.phase)
        self.comparison_traceback: list[str] = []  # nbval reads it; `repr_failure` says it better
        return not self.differences

    def repr_failure(self, excinfo: pytest.ExceptionInfo) -> str:
        """Name lesson and cell, then what differs; of other failures, what nbval says."""
        where = f"{self.path.name}, {self.name}, shown as [{self.cell.execution_count}]"
        if not self.differences:
            return f"{where}\n{super().repr_failure(excinfo)}"
        source = "\n".join(f"    {line}" for line in self.cell.source.splitlines())
        first, *others = map(str, self.differences)
        return "\n\n".join([f"{where}: {first}", *others, f"The cell is\n\n{source}"])


def trains(source: str) -> bool:
    """Tell whether a cell's source changes weights: it fits, or applies gradients by hand."""
    return any(call in source for call in (".fit(", ".train_on_batch(", ".apply_gradients("))


def compare_outputs(stored: list, computed: list, phase: Phase) -> list[Difference]:
    """Compare two lists of notebook outputs, in order.

    Streams, results and displays must come in the same order and with the same MIME types; their
    texts are compared by `compare_text`, pictures by being there (their numbers are printed).
    """
    old, new = merge_streams(stored), merge_streams(computed)
    if [describe(output) for output in old] != [describe(output) for output in new]:
        return [Difference("the outputs differ in kind", outline(old), outline(new))]
    differences = []
    for one, other in zip(old, new, strict=True):
        differences += compare_text(text_of(one), text_of(other), phase)
    return differences


def merge_streams(outputs: list) -> list[NotebookNode]:
    """Join neighbouring chunks of one stream: how the kernel cuts them is chance."""
    merged: list[NotebookNode] = []
    for output in outputs:
        if merged and output.output_type == "stream" and describe(merged[-1]) == describe(output):
            merged[-1] = NotebookNode(merged[-1], text=merged[-1].text + output.text)
        else:
            merged.append(output)
    return merged


def describe(output: NotebookNode) -> str:
    """Return what kind of output this is, such as `stdout` or `display_data: image/png`."""
    if output.output_type == "stream":
        return output.name
    if output.output_type == "error":
        return f"error: {output.ename}"
    return f"{output.output_type}: {', '.join(sorted(output.data))}"


def outline(outputs: list[NotebookNode]) -> str:
    """Return the kinds of all outputs and their texts, for a message."""
    return "; ".join(f"{describe(o)} {text_of(o).strip()[:200]!r}" for o in outputs) or "nothing"


def text_of(output: NotebookNode) -> str:
    """Return an output's text: a stream's, an error's message, or a result's plain-text form."""
    if output.output_type == "stream":
        return output.text
    if output.output_type == "error":
        return output.evalue
    return output.data.get("text/plain", "")
