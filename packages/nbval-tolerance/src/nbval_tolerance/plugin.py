"""The pytest plugin: nbval's files and cells, with our comparison. It patches nothing."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from queue import Empty

import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionComplete
from nbformat import NotebookNode
from nbval.cover import setup_coverage, teardown_coverage
from nbval.kernel import CURRENT_ENV_KERNEL_NAME
from nbval.plugin import IPyNbCell, IPyNbFile, NbCellError

from nbval_tolerance.compare import ANSI, Comparison, Phase, Rules
from nbval_tolerance.controls import rules_of
from nbval_tolerance.kernel import KernelDiedError, LessonKernel, cores
from nbval_tolerance.outputs import compare_outputs
from nbval_tolerance.source import phases
from nbval_tolerance.report import Report
from nbval_tolerance.stored import problems

# nbval waits 5 s for the next output of a cell that has ended; a busy machine may need more.
OUTPUT_TIMEOUT = 30  # seconds


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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Never split a notebook over workers: its cells share one kernel."""
    nbval = config.option.nbval or config.option.nbval_lax
    if not nbval or config.option.dist in ("each", "loadfile", "loadscope"):
        return None  # these keep a file together, too
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False  # keep the order of `pytest_collection_modifyitems`
    return LoadFileScheduling(config, log)


@pytest.hookimpl(optionalhook=True, wrapper=True)
def pytest_xdist_auto_num_workers(config: pytest.Config):
    """One worker more than cores: a kernel waits at times (the course took 166 s, not 181 s)."""
    count = yield
    nbval = config.option.nbval or config.option.nbval_lax
    return count + 1 if nbval and "PYTEST_XDIST_AUTO_NUM_WORKERS" not in os.environ else count


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give workers the notebooks that train most first, so that they end at the same time."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: -getattr(item.parent, "trainings", -1))


class Lesson(IPyNbFile):
    """A notebook: its stored state, then its cells, which share one kernel."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield the check of the stored state, and a `LessonCell` for each of nbval's items."""
        items = list(super().collect())
        self.report = Report(self.path, self.config)
        # What the cells say now is put together by nbclient, as it is when a notebook is executed.
        self.computed = copy.deepcopy(self.nb)
        self.recorder = NotebookClient(self.computed, record_timing=False)
        self.waiting = []  # the cells that the kernel has not run
        self.stopped = ""  # why it cannot run them
        self.recording = (NotebookNode(outputs=[]), 0)
        self.trainings = phases(self.nb).count(Phase.FIT)
        yield StoredState.from_parent(self, name="stored state")
        for item, rules in zip(items, rules_of(self.nb), strict=True):
            cell = LessonCell.from_parent(
                self,
                name=item.name,
                cell_num=item.cell_num,
                cell=item.cell,
                options=item.options,
                rules=rules,
            )
            self.waiting.append(cell)
            yield cell

    def setup(self) -> None:
        """Start no kernel yet: the stored state needs none."""

    def start_kernel(self) -> None:
        """Start the kernel, unless it runs; with its share of the cores beside other workers."""
        if self.kernel is not None:
            return
        option = self.config.option
        name = self.nb.metadata.get("kernelspec", {}).get("name", "python")
        if option.nbval_current_env:
            name = CURRENT_ENV_KERNEL_NAME
        workers = getattr(self.config, "workerinput", {}).get("workercount")
        self.kernel = LessonKernel(
            option.nbval_kernel_name or name,
            cwd=str(self.path.parent),
            startup_timeout=option.nbval_kernel_startup_timeout,
            threads=max(cores() // workers, 1) if workers else None,
        )
        self.setup_sanitize_files()
        if getattr(option, "cov_source", None):
            setup_coverage(self.config, self.kernel, self.path)

    def get_kernel_message(self, timeout: float | None = None, stream: str = "iopub") -> dict:
        """Return the kernel's next message to nbval, after noting what it does to the outputs."""
        while True:
            message = super().get_kernel_message(timeout, stream)
            if message["parent_header"].get("msg_id") != self.kernel.request:
                return message
            try:
                self.recorder.process_message(message, *self.recording)
            except CellExecutionComplete:
                return message
            if message["msg_type"] not in ("clear_output", "update_display_data"):
                return message  # of these two nbval knows nothing

    def record(self, number: int) -> NotebookNode:
        """From now on, take the kernel's messages as outputs of code cell `number` (from 0)."""
        places = [i for i, cell in enumerate(self.computed.cells) if cell.cell_type == "code"]
        cell = self.computed.cells[places[number]]
        cell.outputs = []
        self.recorder.clear_before_next_output = False  # a `clear_output(wait=True)` left over
        self.recording = (cell, places[number])
        return cell

    def teardown(self) -> None:
        """Stop the kernel, and write down what was found."""
        if self.kernel is not None:
            if self.kernel.is_alive() and getattr(self.config.option, "cov_source", None):
                teardown_coverage(self.config, self.kernel)
            self.kernel.stop()
        code = [cell for cell in self.computed.cells if cell.cell_type == "code"]
        for count, cell in enumerate(code, start=1):
            cell.execution_count = count  # nbval's requests are not counted
        self.report.write(self.computed)


class StoredStateError(Exception):
    """What is stored in a notebook is not what one run of it, top to bottom, would leave."""


class StoredState(pytest.Item):
    """Is what the notebook holds the result of one run, top to bottom? Needs no kernel."""

    def runtest(self) -> None:
        """Look for everything that is wrong."""
        found = problems(self.parent.nb)
        if found:
            raise StoredStateError("\n".join(found))

    def repr_failure(self, excinfo: pytest.ExceptionInfo) -> str:
        """Name the lesson and all that is wrong."""
        if not isinstance(excinfo.value, StoredStateError):
            return super().repr_failure(excinfo)
        return f"{self.path.name}: {excinfo.value}"

    def reportinfo(self):
        """Say where: the notebook."""
        return self.path, 0, f"{self.path.name}::{self.name}"


class EarlierCellError(Exception):
    """A cell that has to run before the one that was asked for cannot be run."""


class LessonCell(IPyNbCell):
    """One cell: run by nbval, compared by us."""

    def __init__(self, *, rules: Rules, **options):
        super().__init__(**options)
        self.rules = rules
        self.stored = copy.deepcopy(self.cell.outputs)  # nbval merges streams in place
        self.result: Comparison | None = None
        self.output_timeout = OUTPUT_TIMEOUT

    def setup(self) -> None:
        """Skip what cannot be run any more; the kernel starts with the first cell's test."""
        if self.parent.stopped:
            pytest.skip(self.parent.stopped)

    @property
    def limit(self) -> float:
        """For how many seconds the cell may run."""
        return self.rules.seconds or self.config.option.nbval_cell_timeout

    def runtest(self) -> None:
        """Have nbval run the cell; if it cannot, stop the lesson there."""
        lesson = self.parent
        option = self.config.option
        before, option.nbval_cell_timeout = option.nbval_cell_timeout, self.limit
        try:
            lesson.start_kernel()
            self.catch_up()
            lesson.record(self.cell_num)
            super().runtest()
            if lesson.timed_out:  # the cell has caught its interruption
                raise TimeoutError
        except Exception as error:
            compared = self.result is not None or (
                isinstance(error, NbCellError) and not self.error
            )
            if lesson.timed_out or not compared:
                lesson.stopped = f"not run, because {self.name} of this notebook failed"
            lesson.report.failed = True
            raise
        finally:
            option.nbval_cell_timeout = before

    def catch_up(self) -> None:
        """Run the cells before this one that were not selected: their names are needed.

        Raises
        ------
        EarlierCellError
            If one of them raises, does not end, or kills the kernel.
        """
        waiting = self.parent.waiting
        while self in waiting:
            cell = waiting.pop(0)
            if cell is not self and not cell.options["skip"]:
                try:
                    self.run_before(cell)
                except Empty:
                    self.parent.kernel.interrupt()
                    raise EarlierCellError(
                        f"{cell.name} still ran after {cell.limit:g} s"
                    ) from None
                except KernelDiedError as died:
                    raise EarlierCellError(f"{cell.name} ended the kernel. {died}") from None
                if self.error and not cell.options["check_exception"]:
                    what = f"{self.error.ename}: {self.error.evalue}"
                    raise EarlierCellError(f"{cell.name} raised {what}")

    def run_before(self, cell: LessonCell) -> None:
        """Run another cell, uncompared."""
        lesson = self.parent
        lesson.record(cell.cell_num)
        request = lesson.kernel.execute_cell_input(cell.cell.source, allow_stdin=False)
        lesson.kernel.await_reply(request, cell.limit)
        idle = False
        while not idle:
            message = lesson.get_kernel_message(self.output_timeout)
            ours = message["parent_header"].get("msg_id") == request
            idle = ours and message["content"].get("execution_state") == "idle"

    @property
    def error(self) -> NotebookNode | None:
        """The exception that the cell has raised, as an output."""
        outputs = self.parent.recording[0].outputs
        return next((output for output in outputs if output.output_type == "error"), None)

    def compare_outputs(self, test: list, ref: list, skip_compare: tuple | None = None) -> bool:
        """Compare new outputs with stored ones; tell nbval whether they agree.

        nbval's own lists have lost what `clear_output` did, and the order of streams.
        """
        self.result = compare_outputs(self.stored, self.parent.recording[0].outputs, self.rules)
        self.pictures = self.parent.report.add(self, self.result)
        self.comparison_traceback: list[str] = []  # nbval reads it; `repr_failure` says it better
        return not self.result.differences

    def repr_failure(self, excinfo: pytest.ExceptionInfo) -> str:
        """Name the lesson and the cell, then say what is wrong, then show its source."""
        first, *others = self.explain(excinfo)
        count = self.cell.execution_count
        first = f"{self.path.name}, {self.name}, shown as [{count}]: {first}"
        source = "\n".join(f"    {line}" for line in self.cell.source.splitlines())
        return "\n\n".join([first, *others, f"The cell is\n\n{source}"])

    def explain(self, excinfo: pytest.ExceptionInfo) -> list[str]:
        """Return what is wrong, in paragraphs of which the first says most."""
        if self.parent.timed_out:
            return [f"still running after {self.limit:g} s, and interrupted"]
        if isinstance(excinfo.value, KernelDiedError):
            return [f"the kernel died. {excinfo.value}"]
        if self.result is not None and self.result.differences:
            shown = [f"stored, computed, difference: {path}" for path in self.pictures]
            return [*map(str, self.result.differences), *shown]
        if isinstance(excinfo.value, NbCellError) and self.error:
            traceback = ANSI.sub("", "\n".join(self.error.traceback))
            return [f"raised {self.error.ename}: {self.error.evalue}", traceback]
        return [f"could not be run: {excinfo.value or type(excinfo.value).__name__}"]
