"""Make text safe for tables that people open in spreadsheets."""

from __future__ import annotations

import unicodedata


def safe(text: str) -> str:
    """Return the text in a form that no spreadsheet evaluates as a formula."""
    return f"'{text}" if is_formula(text) else text


def is_formula(text: str) -> bool:
    """Return whether a spreadsheet could evaluate a text as a formula.

    Some spreadsheets ignore a leading space, or treat a full-width character as its ASCII
    equivalent.
    """
    return unicodedata.normalize("NFKC", text.lstrip()[:1]) in {"=", "+", "-", "@"}
