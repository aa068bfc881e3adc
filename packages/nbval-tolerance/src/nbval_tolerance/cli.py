"""The command `nbval-tolerance`."""

from nbval_tolerance.execute import main as main
