"""Make every run of pytest, even by hand or by an editor, find the data where `make` puts it."""

import os
from pathlib import Path

os.environ.setdefault("KERAS_HOME", str(Path(__file__).parent / ".course" / "keras"))

# Exercises are generated without answers, which learners fill in, so there is nothing to compare.
collect_ignore = ["notebooks/exercises"]
