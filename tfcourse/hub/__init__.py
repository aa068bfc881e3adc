"""The course's JupyterHub: its settings, accounts, pages, servers and commands."""

import contextlib


def say(text: str) -> None:
    """Print to the terminal; ignore the error if the terminal has been closed."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def plain(text: str) -> str:
    """Escape the characters that could control a terminal, and return the text.

    Newlines and tabs are kept. Marks that change the text's direction are escaped, too.
    """
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else sign.encode("unicode_escape").decode()
        for sign in text
    )
