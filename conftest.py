"""For pytest run by hand or by an editor: the data where `make` puts them."""

import os
from pathlib import Path

os.environ.setdefault("KERAS_HOME", str(Path(__file__).parent / ".course" / "keras"))
