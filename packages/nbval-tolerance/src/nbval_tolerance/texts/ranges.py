"""Find the numbers that are checked against an author's range, not against the stored value.

Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from nbval_tolerance.texts.kinds import Named, number_kind, phrase, word_kind, words_of
from nbval_tolerance.texts.lines import Line
from nbval_tolerance.texts.numbers import NUMBER
from nbval_tolerance.texts.passing import Token


def keys_of(line: Line, keys: Collection[str], kinds: Collection[str], named: Named) -> list[str]:
    """Return, for each compared token of a line, the key of its range or an empty string.

    Parameters
    ----------
    line
        The stored line.
    keys
        The keys of the ranges: kinds of numbers, and words before a number.
    kinds
        The known kinds; all other keys are words.
    named
        Other information that helps to determine the kinds of numbers.
    """
    words = [key for key in keys if key not in kinds]
    return [
        (word_key(line, token, words, named.label) or kind_key(line, token, keys, named))
        if keys and token.what == "number"
        else ""
        for token in line.compared
    ]


def word_key(line: Line, token: Token, words: list[str], label: str) -> str:
    """Return the key whose words precede a number or array most closely, or are in the label."""
    before = line.text[: token.start]
    opened: list[int] = []  # brackets around the number
    for bracket in re.finditer(r"[\[\]]", before):
        if bracket[0] == "[":
            opened.append(bracket.start())
        elif opened:
            opened.pop()
    before = before[: opened[0]] if opened else before
    for text in (before, label):
        found = [
            (match.end(), len(key), key)
            for key in words
            for match in re.finditer(phrase(key), text, re.IGNORECASE)
            if text is label or not NUMBER.search(text, match.end())
        ]
        if found:
            return max(found)[-1]
    return ""


def kind_key(line: Line, token: Token, keys: Collection[str], named: Named) -> str:
    """Return the key that names a number's kind; `accuracy` also matches a held-out accuracy.

    A percentage also has the kind named by the word before it, as in `accuracy 11.3 %`. The first
    integer after such a word also has that kind.
    """
    kind = number_kind(line.text, token, line.above, named)
    kinds = [kind, kind.removeprefix("held-out ")]
    before = [word.end for word in words_of(line.text, named.words) if word.end <= token.start]
    first = not re.search(r"\d", line.text[max(before, default=0) : token.start])
    if kind == "percentage" or (kind == "integer" and before and first):
        word = word_kind(line.text, token, line.above, named) or ""
        kinds += [word, word.removeprefix("held-out ")]
    return next((kind for kind in kinds if kind in keys), "")
