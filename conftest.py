"""Tell every run of pytest, including those by hand or from an editor, where the data is."""

import os
from pathlib import Path

os.environ.setdefault("KERAS_HOME", str(Path(__file__).parent / ".course" / "keras"))

# Exercises are generated without answers, which learners fill in, so there is nothing to compare.
collect_ignore = ["notebooks/exercises"]
