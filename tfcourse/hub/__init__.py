"""The course's JupyterHub: its settings, accounts, pages, servers and commands."""

import contextlib


def say(text: str) -> None:
    """Print to the terminal; carry on if the terminal is gone."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def plain(text: str) -> str:
    """Return the text with each character escaped that could control a terminal.

    Newlines and tabs stay. Marks that change the direction of writing are escaped, too.
    """
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else sign.encode("unicode_escape").decode()
        for sign in text
    )
