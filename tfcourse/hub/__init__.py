"""What jupyterhub_config.py needs beyond settings."""

import contextlib


def say(text: str) -> None:
    """Print to the terminal; if that is gone, what has to be done is done nevertheless."""
    with contextlib.suppress(OSError):
        print(text, flush=True)
