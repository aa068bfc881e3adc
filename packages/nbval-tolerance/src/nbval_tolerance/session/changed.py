"""Which notebooks need no second run? For an author's own machine, and never for CI."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import time
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

import nbformat
import pytest

import nbval_tolerance
from nbval_tolerance.pytest_plugin import setting

OPTION = "--nbval-tolerance-changed"
CACHE = "nbval-tolerance/passed"  # notebook -> fingerprint with which it passed
SETTINGS = ("TF_", "ONEDNN_", "OMP_", "KERAS_", "XLA_", "NVIDIA_TF32")  # of the environment


def wanted(config: pytest.Config) -> bool:
    """Tell whether unchanged notebooks are to be left out."""
    return bool(setting(config, "changed"))


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to leave anything out in CI."""
    if wanted(config) and any(map(os.environ.get, ("CI", "BUILD_NUMBER"))):
        raise pytest.UsageError(f"{OPTION} is for your own machine; in CI every notebook is run")
    if wanted(config) and not config.pluginmanager.hasplugin("cacheprovider"):
        raise pytest.UsageError(f"{OPTION} needs pytest's cache, which is switched off")
    option = config.option
    compares = not (option.nbval_lax or option.collectonly or option.setuponly or option.setupplan)
    cached = config.pluginmanager.hasplugin("cacheprovider")
    if compares and cached and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Outcomes(config))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the notebooks that are as they were when they passed."""
    if not wanted(config):
        return
    passed = config.cache.get(CACHE, {})
    notebooks = {item.path for item in items if item.path.suffix == ".ipynb"}
    same = {path for path in notebooks if passed.get(str(path)) == fingerprint(path, config)}
    config.hook.pytest_deselected(items=[item for item in items if item.path in same])
    items[:] = [item for item in items if item.path not in same]


def fingerprint(path: Path, config: pytest.Config) -> str:
    """Return a hash of all that a notebook's result depends on."""
    data = [Path(os.path.expandvars(name)).expanduser() for name in setting(config, "data")]
    digest = hashlib.sha256(surroundings(tuple(config.rootpath / d for d in data)).encode())
    modules = set(path.parent.glob("*.py"))  # that it may import, and packages
    for package in path.parent.glob("*/__init__.py"):
        modules |= set(package.parent.rglob("*.py"))
    for part in [path, *sorted(modules)]:
        digest.update(part.read_bytes())
    return digest.hexdigest()


@cache
def surroundings(data: tuple[Path, ...]) -> str:
    """Return a hash of data, packages, Python, machine and of how results are compared."""
    packages = sorted(f"{found.name}=={found.version}" for found in distributions())
    settings = [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith(SETTINGS)]
    machine = [sys.version, platform.platform(), platform.processor(), *packages, *settings]
    digest = hashlib.sha256("\n".join(machine).encode())
    for root in [*data, Path(nbval_tolerance.__file__).parent]:
        if not root.exists():
            raise pytest.UsageError(f"nbval_tolerance_data names {root}, which is not there")
        files = [root] if root.is_file() else sorted(root.rglob("*"))
        for file in files:
            if file.is_file() and file.suffix != ".pyc":
                with file.open("rb") as opened:
                    digest.update(str(file).encode())
                    digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


class Outcomes:
    """Notes which notebooks passed as a whole; with xdist this is the main process's business."""

    def __init__(self, config: pytest.Config):
        self.config = config
        self.began = time.time()
        self.outcomes: dict[Path, dict[str, bool]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in one step of one cell."""
        path = self.config.rootpath / report.nodeid.partition("::")[0]
        if path.suffix == ".ipynb":
            cells = self.outcomes.setdefault(path, {})
            if report.failed or report.when == "call":  # a cell that was only set up did not run
                cells[report.nodeid] = cells.get(report.nodeid, True) and not report.failed

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Remember the notebooks of which every cell held, unless they were edited meanwhile."""
        passed = self.config.cache.get(CACHE, {})
        for path, cells in self.outcomes.items():
            if not path.exists():
                continue
            code = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
            whole = len(cells) == len(code) + 1  # and the stored state
            if whole and all(cells.values()) and path.stat().st_mtime < self.began:
                passed[str(path)] = fingerprint(path, self.config)
            else:
                passed.pop(str(path), None)
        self.config.cache.set(CACHE, passed)
        if wanted(self.config) and session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK  # nothing has changed
