"""Skip unchanged notebooks that have already passed, to save authors time, but never in CI."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import time
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

import pytest

import nbval_tolerance
from nbval_tolerance.notebooks import NotebookError, read
from nbval_tolerance.pytest_plugin import setting
from nbval_tolerance.session.options import settings

OPTION = "--nbval-tolerance-changed"
DATA = "--nbval-tolerance-data"
CACHE = "nbval-tolerance/passed"  # maps each notebook to its fingerprint when it passed
VARIABLES = (
    "TF_",
    "ONEDNN_",
    "OMP_",
    "KERAS_",
    "XLA_",
    "NVIDIA_TF32",
    "PYTHONHASH",
)  # prefixes of environment variables


def wanted(config: pytest.Config) -> bool:
    """Return whether to skip unchanged notebooks."""
    return bool(setting(config, "changed"))


def pytest_configure(config: pytest.Config) -> None:
    """Record which notebooks pass; reject `--nbval-tolerance-changed` where it cannot work."""
    if wanted(config) and any(map(os.environ.get, ("CI", "BUILD_NUMBER"))):
        raise pytest.UsageError(f"{OPTION} is for your own machine; in CI every notebook is run")
    if wanted(config) and not config.pluginmanager.hasplugin("cacheprovider"):
        raise pytest.UsageError(f"{OPTION} needs pytest's cache, which is switched off")
    for root in data_of(config) if wanted(config) else ():
        if not root.exists():
            raise pytest.UsageError(f"{DATA} names {root}, which does not exist")
    option = config.option
    compares = not (option.nbval_lax or option.collectonly or option.setuponly or option.setupplan)
    cached = config.pluginmanager.hasplugin("cacheprovider")
    if compares and cached and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Outcomes(config))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the notebooks that have not changed since they last passed."""
    if not wanted(config):
        return
    passed = config.cache.get(CACHE, {})
    notebooks = {item.path for item in items if item.path.suffix == ".ipynb"}
    same = {path for path in notebooks if passed.get(str(path)) == fingerprint(path, config)}
    config.hook.pytest_deselected(items=[item for item in items if item.path in same])
    items[:] = [item for item in items if item.path not in same]


def data_of(config: pytest.Config) -> tuple[Path, ...]:
    """Return the files and folders that the author has declared as the notebooks' data."""
    names = [Path(os.path.expandvars(name)).expanduser() for name in setting(config, "data")]
    return tuple(config.rootpath / name for name in names)


def fingerprint(path: Path, config: pytest.Config) -> str:
    """Return a hash of all inputs that can affect a notebook's result."""
    digest = hashlib.sha256(surroundings(data_of(config)).encode())
    option = config.option
    chosen = (option.nbval_kernel_name, option.nbval_current_env, settings(path, config))
    digest.update(repr(chosen).encode())
    if option.nbval_sanitize_with:
        digest.update(Path(option.nbval_sanitize_with).read_bytes())
    modules = set(path.parent.glob("*.py"))  # modules that the notebook might import
    for package in path.parent.glob("*/__init__.py"):
        modules |= set(package.parent.rglob("*.py"))
    for part in [path, *sorted(modules)]:
        digest.update(part.read_bytes())
    return digest.hexdigest()


@cache
def surroundings(data: tuple[Path, ...]) -> str:
    """Return a hash of the data, this package's code, the packages, Python and the host."""
    packages = sorted(f"{found.name}=={found.version}" for found in distributions())
    variables = [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith(VARIABLES)]
    machine = [sys.version, platform.platform(), platform.processor(), *packages, *variables]
    digest = hashlib.sha256("\n".join(machine).encode())
    for root in [*data, Path(nbval_tolerance.__file__).parent]:
        files = [root] if root.is_file() else sorted(root.rglob("*"))
        for file in files:
            if file.is_file() and file.suffix != ".pyc":
                with file.open("rb") as opened:
                    digest.update(str(file).encode())
                    digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


class Outcomes:
    """Records, in xdist's main process only, the notebooks whose tests all passed."""

    def __init__(self, config: pytest.Config):
        self.config = config
        self.began = time.time()
        self.outcomes: dict[Path, dict[str, bool]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record the outcome of one phase (setup, call or teardown) of a cell's test."""
        path = self.config.rootpath / report.nodeid.partition("::")[0]
        if path.suffix == ".ipynb":
            cells = self.outcomes.setdefault(path, {})
            if report.failed or report.when == "call":  # setup alone does not run a cell
                cells[report.nodeid] = cells.get(report.nodeid, True) and not report.failed

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Save the notebooks whose cells all passed, unless they were edited during the run."""
        passed = self.config.cache.get(CACHE, {})
        complete = all(root.exists() for root in data_of(self.config))
        for path, cells in self.outcomes.items():
            if not path.exists():
                continue
            whole = len(cells) == self.expected(path)
            unedited = path.stat().st_mtime < self.began
            if complete and whole and all(cells.values()) and unedited:
                passed[str(path)] = fingerprint(path, self.config)
            else:
                passed.pop(str(path), None)
        self.config.cache.set(CACHE, passed)
        if wanted(self.config) and session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK  # nothing has changed

    @staticmethod
    def expected(path: Path) -> int:
        """Return the number of test items: one for each code cell, and one for the stored state."""
        try:
            return sum(cell.cell_type == "code" for cell in read(path).cells) + 1
        except NotebookError:  # another program may be writing the file
            return -1
