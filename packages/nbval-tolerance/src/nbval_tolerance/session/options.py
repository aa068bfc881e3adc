"""Read and validate the options and the project's settings before any test runs."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from nbval.plugin import get_sanitize_patterns

from nbval_tolerance.config import Config, ConfigError, find, load
from nbval_tolerance.pytest_plugin import path_setting, setting
from nbval_tolerance.run import OUTPUT_TIMEOUT


def check(config: pytest.Config) -> None:
    """Raise `pytest.UsageError` if an option or the project's settings are invalid."""
    output_timeout(config)
    for name in ("cell-timeout", "kernel-startup-timeout"):
        seconds = getattr(config.option, f"nbval_{name.replace('-', '_')}")
        if not 0 < seconds < float("inf"):  # nbclient would treat 0 as no limit
            raise pytest.UsageError(f"--nbval-{name} takes seconds, not {seconds:g}")
    check_folder(config)
    check_patterns(config)
    try:
        settings(config.rootpath, config)  # notebooks in subfolders may have other settings
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None


def settings(path: Path, config: pytest.Config) -> Config:
    """Return the settings of a notebook's project; raise `ConfigError` if they are invalid."""
    file = path_setting(config, "config")
    return load(file) if file else find(path)


def check_folder(config: pytest.Config) -> None:
    """Create the folder for reports before any test runs; raise an error if that fails."""
    folder = path_setting(config, "dir")
    if not folder:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        there = Path(error.filename)
        there = next(path for path in (there, *there.parents) if path.exists())
        raise pytest.UsageError(f"--nbval-tolerance-dir: {there} is not a folder") from None
    except (OSError, ValueError) as error:  # a name with a null byte raises `ValueError`
        why = getattr(error, "strerror", None) or error
        raise pytest.UsageError(
            f"--nbval-tolerance-dir: {folder} cannot be written: {why}"
        ) from None


def check_patterns(config: pytest.Config) -> None:
    """Reject a `--nbval-sanitize-with` file that is unreadable, malformed or ineffective."""
    name = config.option.nbval_sanitize_with or config.option.sanitize_with
    if not name:
        return
    try:
        patterns = get_sanitize_patterns(Path(name).read_text())
        for pattern, replacement in patterns:
            re.sub(pattern, replacement, "")
    except OSError as error:
        raise pytest.UsageError(f"--nbval-sanitize-with: {name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise pytest.UsageError(f"--nbval-sanitize-with: {name} is not a text file") from None
    except (re.error, IndexError) as error:  # an unknown group raises `IndexError`
        raise pytest.UsageError(f"--nbval-sanitize-with: {name}: {pattern!r}: {error}") from None
    if not patterns:
        raise pytest.UsageError(
            f"--nbval-sanitize-with: {name} has no line `regex: …` followed by `replace: …`"
        )


def output_timeout(config: pytest.Config) -> float:
    """Return how many seconds a cell's last output may take to arrive."""
    text = setting(config, "output_timeout")
    try:
        seconds = float(text or OUTPUT_TIMEOUT)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise pytest.UsageError(f"--nbval-tolerance-output-timeout takes seconds, not {text!r}")
    return seconds
