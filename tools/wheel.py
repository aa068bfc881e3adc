"""Refuse to build a wheel: the course needs its clone (docker/, kubernetes/, notebooks/) beside it.

`make environment` and conda install it as editable, which makes a wheel that points to the clone.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):
    """Called by hatchling before each build."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Allow only editable installs.

        Raises
        ------
        RuntimeError
            For any other build.
        """
        if version != "editable":
            raise RuntimeError(
                "tfcourse cannot be a wheel, because it runs from its clone: use "
                "`make environment` or `pip install --editable .`. For the comparison alone, "
                "install packages/nbval-tolerance."
            )
