"""For every run of pytest, also by hand or by an editor: the data where `make` puts them."""

import os
from pathlib import Path

os.environ.setdefault("KERAS_HOME", str(Path(__file__).parent / ".course" / "keras"))

# Made from the solutions, for learners to fill in: there is nothing to compare.
collect_ignore = ["notebooks/exercises"]
