"""The course's JupyterHub: its settings, accounts, pages, servers and commands."""

import contextlib


def say(text: str) -> None:
    """Print to the terminal; carry on if the terminal is gone."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def plain(text: str) -> str:
    """Return the text with everything escaped that a terminal could obey, except lines and tabs.

    This includes the marks that change the direction of writing.
    """
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else sign.encode("unicode_escape").decode()
        for sign in text
    )
