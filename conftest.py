"""Set KERAS_HOME for all pytest runs, including those started without `make`."""

import os
from pathlib import Path

os.environ.setdefault("KERAS_HOME", str(Path(__file__).parent / ".course" / "keras"))

# Exercises contain neither answers nor outputs, so pytest has nothing to compare.
collect_ignore = ["notebooks/exercises"]
