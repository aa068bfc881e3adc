"""Use nbval to re-run notebooks that train models, and compare outputs as a reader would.

`pytest --nbval --nbval-tolerance` turns on the plugin. Without pytest, the pure functions
`compare_text` and `compare_outputs` decide whether a new output matches the stored one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "Comparison",
    "Difference",
    "Number",
    "Phase",
    "Rules",
    "compare_notebooks",
    "compare_outputs",
    "compare_text",
]

if TYPE_CHECKING:
    from nbval_tolerance.compare import Comparison, Difference, Number, Phase, Rules, compare_text
    from nbval_tolerance.outputs import compare_notebooks, compare_outputs


def __getattr__(name: str) -> Any:
    """Import a public name on first use, because pytest imports this package in every session."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nbval_tolerance import compare, outputs

    module = outputs if name.startswith("compare_") and name != "compare_text" else compare
    return getattr(module, name)
