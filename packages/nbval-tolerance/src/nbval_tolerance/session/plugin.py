"""Run nbval's test items with nbclient and compare outputs with tolerances."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbformat import NotebookNode
from nbval.cover import setup_coverage, teardown_coverage
from nbval.plugin import IPyNbCell, IPyNbFile

from nbval_tolerance.compare import ANSI, Comparison, Difference, Phase, Rules
from nbval_tolerance.config import ConfigError
from nbval_tolerance.controls import (
    KEY,
    SKIPPED,
    ControlError,
    check_keys,
    expressions,
    marks,
    notes,
    rules_of,
)
from nbval_tolerance.notebooks import NotebookError, read
from nbval_tolerance.outputs import compare_outputs, compare_values
from nbval_tolerance.run import (
    KernelDiedError,
    NoKernelError,
    ProbeError,
    Runner,
    cores,
)
from nbval_tolerance.session.advice import advice, kinds_of
from nbval_tolerance.session.options import check, output_timeout, settings
from nbval_tolerance.session.report import Report
from nbval_tolerance.source import Draw, phases, unseeded, uses
from nbval_tolerance.stored import problems

MANY = 10  # if one cell has more differences, only the first few are shown
FIRST = 6


def pytest_configure(config: pytest.Config) -> None:
    """Report invalid options before any test runs."""
    check(config)


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path, parent: pytest.Collector):
    """Replace nbval's file collector with the one in this module."""
    collectors = yield
    passed_by = is_passing(file_path) and not parent.session.isinitpath(file_path)
    return [
        Notebook.from_parent(parent, path=file_path)
        if isinstance(collector, IPyNbFile)
        else collector
        for collector in collectors
        if not (passed_by and isinstance(collector, IPyNbFile))
    ]


def is_passing(path: Path) -> bool:
    """Return whether a file is a temporary copy or a checkpoint that Jupyter creates on saving."""
    return path.name.startswith(".") or ".ipynb_checkpoints" in path.parts


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Never split a notebook between workers, because its cells share one kernel."""
    if config.option.dist in ("each", "loadfile", "loadscope"):
        return None  # these modes never split a file
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False  # keep the order of `pytest_collection_modifyitems`
    return LoadFileScheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run notebooks with more training first, so that workers finish at about the same time."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: -getattr(item.parent, "trainings", -1))


class Notebook(IPyNbFile):
    """Collects a notebook's test items: one for the stored state, and one for each code cell."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield the stored-state test, then a `Cell` for each of nbval's items."""
        try:
            read(self.path)
            self.settings = settings(self.path, self.config)
        except NotebookError as error:
            raise self.CollectError(f"{self.path.name}: {error}") from None
        except ConfigError as error:
            raise self.CollectError(str(error)) from None
        items = list(super().collect())
        self.setup_sanitize_files()
        self.report = Report(self.path, self.config)
        self.computed = copy.deepcopy(self.nb)
        self.places = [i for i, cell in enumerate(self.nb.cells) if cell.cell_type == "code"]
        self.waiting: list[Cell] = []  # The cells that the kernel has not run yet.
        self.stopped = ""  # Why the kernel cannot run any more cells.
        self.trainings = phases(self.nb, self.settings).count(Phase.FIT)
        option = self.config.option
        workers = getattr(self.config, "workerinput", {}).get("workercount")
        # nbval's placeholder for this environment's kernel is not the name of an installed kernel.
        here = "python3" if option.nbval_current_env else ""
        self.kernel = Runner(
            self.computed,
            self.path.parent,
            kernel_name=option.nbval_kernel_name or here,
            cell_timeout=option.nbval_cell_timeout,
            startup_timeout=option.nbval_kernel_startup_timeout,
            output_timeout=output_timeout(self.config),
            threads=max(cores() // workers, 1) if workers else None,
            environment=self.settings.environment,
        )
        if not option.nbval_lax:  # with `--nbval-lax`, only marked cells are compared
            yield StoredState.from_parent(self, name="stored state")
        told = (
            rules_of(self.nb, self.settings),
            unseeded(self.nb, self.settings),
            uses(self.nb),
        )
        for item, rules, draws, used in zip(items, *told, strict=True):
            cell = Cell.from_parent(
                self,
                name=item.name,
                cell_num=item.cell_num,
                cell=item.cell,
                options=item.options,
                rules=rules,
                draws=draws,
                used=used,
            )
            self.waiting.append(cell)
            yield cell

    def setup(self) -> None:
        """Do not start a kernel yet, because the stored-state test does not need one."""

    def start_kernel(self) -> None:
        """Start the kernel unless it is already running, and measure coverage if requested."""
        if self.kernel.process is None:
            self.kernel.start()
            if getattr(self.config.option, "cov_source", None):
                setup_coverage(self.config, self.kernel, self.path)

    def teardown(self) -> None:
        """Stop the kernel, and write the report."""
        lives = not self.stopped and self.kernel.process is not None
        if lives and getattr(self.config.option, "cov_source", None):
            teardown_coverage(self.config, self.kernel)
        self.kernel.stop()
        self.report.write(self.computed)


class StoredStateError(Exception):
    """A notebook's stored state is not the result of one run from top to bottom."""


class StoredState(pytest.Item):
    """Tests that a notebook's outputs come from one run from top to bottom. Needs no kernel."""

    def runtest(self) -> None:
        """Raise `StoredStateError` with a list of all problems."""
        found = problems(self.parent.nb, self.parent.settings)
        if found:
            raise StoredStateError("\n".join(found))

    def repr_failure(self, excinfo: pytest.ExceptionInfo) -> str:
        """Return a message with the notebook's name and all problems."""
        if not isinstance(excinfo.value, StoredStateError):
            return super().repr_failure(excinfo)
        return f"{self.path.name}: {excinfo.value}"

    def reportinfo(self):
        """Return the notebook as the test item's location."""
        return self.path, 0, f"{self.path.name}::{self.name}"


class CellError(Exception):
    """A cell's result differs from the stored one. The message is shown without a traceback."""


class CannotRunError(CellError):
    """The cell, or an earlier one, cannot be run to completion."""


class Cell(IPyNbCell):
    """One of nbval's cells."""

    def __init__(self, *, rules: Rules, draws: tuple[Draw, ...], used: set[int], **options):
        super().__init__(**options)
        self.rules = rules
        self.draws = draws
        self.used = used
        self.check = self.options["check"] and self.cell.execution_count is not None

    def setup(self) -> None:
        """Skip a cell that can no longer be run. `runtest`, not this method, starts the kernel."""
        if self.parent.stopped:
            pytest.skip(self.parent.stopped)

    def runtest(self) -> None:
        """Run the cell and compare its outputs; if it cannot be run, skip the cells after it."""
        notebook = self.parent
        if marks(self.cell, SKIPPED):
            pytest.skip()
        try:
            notebook.start_kernel()
            self.catch_up()
            outputs = self.run(self).outputs
            result = self.compare(outputs)
        except Exception as error:
            notebook.stopped = f"not run, because {self.name} of this notebook failed"
            notebook.report.failed = True
            if isinstance(error, CellError | pytest.UsageError):
                raise
            if isinstance(error, NoKernelError):
                choose = f"Choose an installed one with --nbval-kernel-name={error.other}"
                raise CannotRunError(f"could not be run: {error}. {choose}") from None
            raise CannotRunError(f"could not be run: {error or type(error).__name__}") from error
        pictures = notebook.report.add(self, result)
        if result.differences:
            said = [str(difference) for difference in result.differences]
            if len(said) > MANY:
                said[FIRST:] = [f"and {len(said) - FIRST} more differences"]
            said += [f"stored, computed, difference: {path}" for path in pictures]
            said += [*notebook.report.told, *self.chance(result)]
            raise CellError("\n\n".join(said))

    def chance(self, result: Comparison) -> list[str]:
        """Return advice on random numbers and clock calls that may have made the cell differ."""
        strict = self.parent.settings.strict
        return advice(self.draws, self.cell_num, self.used, kinds_of(result), strict)

    def run(self, cell: Cell) -> NotebookNode:
        """Run a cell and return it with its outputs.

        Raises
        ------
        CannotRunError
            If the cell raises an exception that no tag allows, does not finish, or kills the
            kernel.
        """
        name = "" if cell is self else f"{cell.name} "
        kernel = self.parent.kernel
        try:
            done = kernel.run(self.parent.places[cell.cell_num], cell.rules.seconds)
        except TimeoutError as error:
            raise CannotRunError(f"{name}{error}") from None
        except KernelDiedError as died:
            what = f"{name}ended the kernel" if name else "the kernel died"
            raise CannotRunError(f"{what}. {died}") from None
        for output in done.outputs:
            if output.output_type == "error" and not cell.options["check_exception"]:
                what = f"{name}raised {output.ename}: {output.evalue}{self.hint(output)}"
                trace = "" if name else "\n\n" + ANSI.sub("", "\n".join(output.traceback))
                raise CannotRunError(what + trace)
        return done

    def hint(self, error: NotebookNode) -> str:
        """Return a hint if the kernel's clean environment could have caused an exception."""
        name = error.evalue.strip("'\"")
        if error.ename == "KeyError" and name in os.environ:
            return (
                f"\n{name} is a variable of your shell that kernels do not inherit; add it to "
                "`environment` in pyproject.toml, [tool.nbval-tolerance]"
            )
        return ""

    def catch_up(self) -> None:
        """Run earlier cells that were not selected, because this cell may use their variables."""
        waiting = self.parent.waiting
        while self in waiting:
            cell = waiting.pop(0)
            if cell is not self and not marks(cell.cell, SKIPPED):
                try:
                    self.run(cell)
                except CannotRunError as error:
                    raise CannotRunError(f"could not be run: {error}") from None

    def compare(self, outputs: list[NotebookNode]) -> Comparison:
        """Compare the new outputs and probe values with the stored ones."""
        self.test_outputs = outputs  # an attribute of nbval that other plugins read
        result = Comparison()
        if self.check:
            old, new = self.cell.outputs, outputs
            if self.parent.sanitize_patterns:
                old, new = self.sanitize_outputs(old), self.sanitize_outputs(new)
            result += compare_outputs(old, new, self.rules)
        if not self.config.option.nbval_lax or self.check:
            result += self.compare_probes()
        return result

    def compare_probes(self) -> Comparison:
        """Compare the values of the cell's probes with the stored ones."""
        try:
            check_keys(self.cell)
            probes = expressions(notes(self.cell))
        except ControlError:
            return Comparison()  # the stored-state test reports the error
        stored = notes(self.cell).get("values", {})
        probes = {name: text for name, text in probes.items() if name in stored}
        try:
            values = self.parent.kernel.evaluate(probes) if probes else {}
        except ProbeError as error:
            return Comparison([Difference(str(error), str(stored), "nothing", "probe")])
        except (TimeoutError, KernelDiedError) as error:
            raise CannotRunError(str(error)) from None
        computed = self.parent.computed.cells[self.parent.places[self.cell_num]]
        if values:
            computed.metadata[KEY]["values"] = values
        return compare_values({name: stored[name] for name in values}, values, self.rules)

    def repr_failure(self, excinfo: pytest.ExceptionInfo) -> str:
        """Return a message that names the notebook and cell, the failure, and the cell's source."""
        if not isinstance(excinfo.value, CellError):
            return super().repr_failure(excinfo)
        count = self.cell.execution_count or " "
        first = f"{self.path.name}, {self.name}, shown as [{count}]: {excinfo.value}"
        source = "\n".join(f"    {line}" for line in self.cell.source.splitlines())
        return f"{first}\n\nThe cell is:\n\n{source}"
