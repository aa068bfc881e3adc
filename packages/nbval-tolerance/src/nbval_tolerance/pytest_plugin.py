"""pytest's entry point: add the options, and load the plugin if it is turned on.

If this package is installed, pytest loads this module in every session, so the module avoids slow
imports.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PARTS = ("plugin", "report", "changed")
# The options that cannot be combined with `--nbval-tolerance`, and the reasons.
REPLACED = {
    "nbdime": "nbdime shows every difference, even those that a tolerance allows",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add this package's options, which can also be set in pytest's configuration file."""
    group = parser.getgroup("nbval-tolerance", "Jupyter Notebook validation with tolerances")

    def add(name: str, about: str, kind: str = "bool", **how: object) -> None:
        twin = name.replace("-", "_")
        action = {"bool": "store_true", "args": "append"}.get(kind, "store")
        group.addoption(f"--{name}", dest=twin, action=action, default=None, help=about, **how)
        parser.addini(twin, f"the same as --{name}", type=kind)

    add("nbval-tolerance", "compare outputs as a reader would, and numbers with tolerances")
    add(
        "nbval-tolerance-report",
        "list what share of its tolerance each cell used",
    )
    add(
        "nbval-tolerance-dir",
        "keep in this folder each notebook's computed outputs, all compared numbers, and pictures "
        "of figures that differ (default: in pytest's cache, and only for notebooks that fail)",
        "string",
        metavar="DIR",
    )
    add(
        "nbval-tolerance-changed",
        "skip the notebooks that have already passed with the same source, outputs, data and "
        "packages",
    )
    add(
        "nbval-tolerance-data",
        "a file or folder that notebooks read, for --nbval-tolerance-changed; environment "
        "variables are expanded; may be repeated",
        "args",
        metavar="PATH",
    )
    add(
        "nbval-tolerance-output-timeout",
        "how many seconds a cell's last output may take to arrive after the cell has ended "
        "(default: 30)",
        "string",
        metavar="SECONDS",
    )
    add(
        "nbval-tolerance-config",
        "read the table [tool.nbval-tolerance] from this file (default: from the nearest "
        "pyproject.toml above the notebook that has one)",
        "string",
        metavar="FILE",
    )


def setting(config: pytest.Config, name: str) -> object:
    """Return an option's value from the command line or, failing that, the configuration file."""
    name = f"nbval_tolerance{'_' * bool(name)}{name}"
    given = getattr(config.known_args_namespace, name, None)
    return config.getini(name) if given is None else given


def path_setting(config: pytest.Config, name: str) -> Path | None:
    """Return an option's path. In the configuration file, paths are relative to that file."""
    given = getattr(config.known_args_namespace, f"nbval_tolerance_{name}", None)
    path = os.path.expandvars(str(given or setting(config, name)))
    folder = config.invocation_params.dir if given or not config.inipath else config.inipath.parent
    return folder / path if path else None


@pytest.hookimpl(trylast=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Load the plugin if it is turned on."""
    options = early_config.known_args_namespace
    if setting(early_config, "") and (options.nbval or options.nbval_lax):
        for part in PARTS:
            early_config.pluginmanager.import_plugin(f"nbval_tolerance.session.{part}")


@pytest.hookimpl(tryfirst=True)  # run this before nbval looks for nbdime
def pytest_configure(config: pytest.Config) -> None:
    """Reject command-line options that would have no effect.

    Settings in the configuration file are ignored unless the comparison is turned on.
    """
    options = config.known_args_namespace
    given = {
        f"--{name.replace('_', '-')}": value
        for name, value in vars(options).items()
        if name.startswith("nbval_tol") and value is not None
    }
    validates = options.nbval or options.nbval_lax
    need = f"{', '.join(given)} need{'s' * (len(given) == 1)}"
    for name, value in given.items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise pytest.UsageError(f"{name} takes a value, but got an empty one")
    if given and not validates:
        raise pytest.UsageError(f"{need} nbval: add --nbval (or --nbval-lax)")
    if given and not setting(config, ""):
        raise pytest.UsageError(f"{need} the comparison: add --nbval-tolerance")
    if "--nbval-tolerance-data" in given and not setting(config, "changed"):
        raise pytest.UsageError(
            "--nbval-tolerance-data works only with --nbval-tolerance-changed: also add that option"
        )
    if setting(config, "") and validates:
        for name, why in REPLACED.items():
            if getattr(options, name, None):
                raise pytest.UsageError(f"--{name} cannot be used with --nbval-tolerance: {why}")
        if options.nbval_kernel_name and (options.nbval_current_env or options.current_env):
            raise pytest.UsageError(
                "--nbval-kernel-name and --nbval-current-env both say which kernel to use: give one"
            )
