"""Report how much of the tolerance each cell used, and write pictures of differences.

JUnit reports include the share of the tolerance that each cell used.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from functools import cache
from math import isfinite
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from nbval_tolerance.compare import Comparison
from nbval_tolerance.pytest_plugin import path_setting, setting


class Report:
    """Collects the results for one notebook, and writes them to files.

    For a notebook `05_loss.ipynb` with a figure that differs in Cell 5, the files are
    `05_loss.cell-5.png` (stored, computed, difference), `05_loss.computed.ipynb` and
    `05_loss.tolerance.json`, a list of all compared numbers. In the folder that
    `--nbval-tolerance-dir` specifies, the files are in a subfolder named after the notebook's path
    relative to pytest's root directory.
    """

    def __init__(self, path: Path, config: pytest.Config):
        self.stem = path.stem
        inside = path.is_relative_to(config.rootpath)
        # Reports on notebooks with the same name are written to separate folders.
        self.place = path.parent.relative_to(config.rootpath) if inside else Path()
        self.always = path_setting(config, "dir")
        self.cache = getattr(config, "cache", None)
        self.entries: list[dict] = []
        self.failed = False

    @property
    def folder(self) -> Path:
        """The folder to write to, which is created if necessary."""
        folder = self.always or (self.cache.mkdir("nbval-tolerance") if self.cache else temporary())
        folder /= self.place
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def told(self) -> list[str]:
        """A note that names the executed notebook's folder if the folder is temporary."""
        known = self.always or self.cache
        return [] if known else [f"the computed notebook and its numbers: {self.folder}"]

    def add(self, item: pytest.Item, result: Comparison) -> list[Path]:
        """Add a cell's comparison, and return the paths of pictures of differing figures."""
        shown_as = item.cell.execution_count
        for number in result.numbers:
            self.entries.append(
                {"cell": item.cell_num, "shown_as": shown_as, "phase": item.rules.phase.value}
                | asdict(number)
                | {"used": number.used if isfinite(number.used) else None}  # JSON has no infinity
            )
        if result.worst:
            item.user_properties.append(("tolerance_used", f"{result.worst.used:.3f}"))
            item.user_properties.append(("tolerance_worst", str(result.worst)))
        pictures = []
        for count, picture in enumerate(result.pictures, start=1):
            suffix = f"-{count}" if len(result.pictures) > 1 else ""
            pictures.append(self.folder / f"{self.stem}.cell-{item.cell_num}{suffix}.png")
            pictures[-1].write_bytes(picture)
        self.failed |= bool(result.differences)
        return pictures

    def write(self, computed: NotebookNode) -> None:
        """Write the executed notebook and compared numbers, if requested or if a cell failed."""
        if self.always or self.failed:
            nbformat.write(computed, self.folder / f"{self.stem}.computed.ipynb")
            text = json.dumps(self.entries, indent=1)
            (self.folder / f"{self.stem}.tolerance.json").write_text(text)


@cache
def temporary() -> Path:
    """Return the folder for this session's reports if pytest has no cache."""
    return Path(tempfile.mkdtemp(prefix="nbval-tolerance-"))


def pytest_terminal_summary(terminalreporter) -> None:
    """If requested, list how much of the tolerance each compared cell used."""
    if not setting(terminalreporter.config, "report"):
        return
    terminalreporter.section("share of the tolerance that was used")
    for reports in terminalreporter.stats.values():
        for report in reports:
            found = dict(getattr(report, "user_properties", []))
            if "tolerance_used" in found and report.when == "call":
                used, worst = float(found["tolerance_used"]), found["tolerance_worst"]
                terminalreporter.line(f"{used:6.1%}  {report.nodeid}  {worst if used else ''}")
