"""Prevent building a wheel of the course, which would lack docker/, kubernetes/ and notebooks/.

`make environment` and conda use an editable install, whose wheel only refers to the clone.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):
    """The hook that hatchling calls before each build."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Allow only editable installs.

        Raises
        ------
        RuntimeError
            If the requested build is not editable.
        """
        if version != "editable":
            raise RuntimeError(
                "tfcourse cannot be a wheel, because it runs from its clone: use "
                "`make environment` or `pip install --editable .`. If you need only the "
                "comparison, install packages/nbval-tolerance."
            )
