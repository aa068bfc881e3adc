"""The course's JupyterHub: its settings, accounts, pages, servers and commands."""

import contextlib


def say(text: str) -> None:
    """Print to the terminal, unless the terminal has been closed."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def plain(text: str) -> str:
    """Return the text with unprintable characters escaped, so that it cannot control a terminal.

    Newlines and tabs are kept. Characters that change the text direction are also escaped.
    """
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else sign.encode("unicode_escape").decode()
        for sign in text
    )
