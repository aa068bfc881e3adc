"""Point every pytest run at the data sets, even a run by hand or from an editor."""

import os
from pathlib import Path

os.environ.setdefault("KERAS_HOME", str(Path(__file__).parent / ".course" / "keras"))

# Exercises are generated without answers and outputs, so pytest has nothing to compare in them.
collect_ignore = ["notebooks/exercises"]
