"""Render a text as a terminal would, by interpreting its control characters. Pure functions."""

from __future__ import annotations

import re
from itertools import groupby

# Matches escape sequences: those that end in a letter (CSI), titles and links (OSC), and others.
ESCAPE = (
    r"\x1b\[ (?P<values> [0-9;?]* ) [\ -/]* (?P<command> [@-~] )"
    r" | \x1b\] [^\x07\x1b]* (?: \x07 | \x1b\\ ) | \x1b [()] [0-9A-Za-z]"
)
ANSI = re.compile(ESCAPE, re.VERBOSE)
STEP = re.compile(rf"{ESCAPE} | (?P<lone> [\r\n\b\x1b] ) | [^\r\n\b\x1b]+", re.VERBOSE)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Sequences that clear text, or that move the cursor so that later characters may overwrite text.
FRAME = re.compile(r"\r(?![\r\n]|\Z)|\x08|\x1b\[[\d;?]*[A-HJKSTf]")
FARTHEST = 2000  # The maximum number of rows or columns per move: real terminals stop at the edge.
# Code -> the attribute that it sets, for attributes such as colours, which several codes can set.
SAME = {
    **dict.fromkeys([*range(30, 39), *range(90, 98)], "foreground"),
    **dict.fromkeys([*range(40, 49), *range(100, 108)], "background"),
}
# Maps codes to the attributes that they reset.
ENDS = {
    22: {"1", "2"}, 23: {"3"}, 24: {"4"}, 25: {"5"}, 27: {"7"}, 28: {"8"}, 29: {"9"},
    39: {"foreground"}, 49: {"background"},
}  # fmt: skip

Style = tuple[tuple[str, str], ...]  # attribute, code


def has_frames(text: str) -> bool:
    """Return whether a text contains overwritten parts, such as old frames of a progress bar."""
    return bool(FRAME.search(text))


def rendered(text: str) -> str:
    """Return the text that a terminal would show after all cursor movements, without colours.

    Only the last frame of a progress bar remains. If the text contains cursor movements, trailing
    spaces are also removed, because they only overwrite a longer frame.
    """
    if not is_moved(text):
        return ANSI.sub("", text)
    return "\n".join("".join(character for character, _ in row) for row in screen(text))


def last_frame(text: str) -> str:
    """Return the text to store, which looks like `text` but contains no earlier frames.

    The visible text keeps its colours. `rendered` returns the same text for the argument and the
    result.
    """
    if not is_moved(text):
        return text
    parts, before = [], ()
    for row in screen(text):
        for style, cells in groupby(row, key=lambda cell: cell[1]):
            if style[: len(before)] != before:
                parts.append("\x1b[0m")
                before = ()
            parts += [f"\x1b[{code}m" for _, code in style[len(before) :]]
            parts += [character for character, _ in cells]
            before = style
        if before:
            parts.append("\x1b[0m")
            before = ()
        parts.append("\n")
    return "".join(parts[:-1])


def is_moved(text: str) -> bool:
    """Return whether a text contains control characters other than newlines and colours."""
    return "\r" in text or "\b" in text or "\x1b" in COLOUR.sub("", text)


def screen(text: str) -> list[list[tuple[str, Style]]]:
    """Return the rows of styled characters that a terminal of unlimited size would show."""
    rows: list[list[tuple[str, Style]]] = [[]]
    row = column = 0
    style: Style = ()
    for step in STEP.finditer(text):
        if step["command"] == "m":
            style = restyled(style, step["values"])
        elif step["command"]:
            row, column = move(rows, row, column, step["command"], step["values"])
        elif step["lone"] == "\r":
            column = 0
        elif step["lone"] == "\b":
            column = max(column - 1, 0)
        elif step["lone"] == "\n":
            row, column = row + 1, 0
        elif not step[0].startswith("\x1b"):
            line = rows[row]
            line += [(" ", ())] * (column - len(line))
            line[column : column + len(step[0])] = [(character, style) for character in step[0]]
            column += len(step[0])
        rows += [[] for _ in range(row + 1 - len(rows))]
    for line in rows:
        while line and line[-1][0] == " ":
            line.pop()
    return rows


def move(rows: list, row: int, column: int, command: str, values: str) -> tuple[int, int]:
    """Execute one sequence that moves the cursor or clears text; return the new cursor position."""
    given = [min(int(value), FARTHEST) for value in values.strip("?").split(";") if value.isdigit()]
    count = max(given[0], 1) if given else 1
    mode = given[0] if given else 0
    line = rows[row]
    if command in "AF":
        row = max(row - count, 0)
    elif command in "BE":
        row += count
    elif command == "C":
        column += count
    elif command == "D":
        column = max(column - count, 0)
    elif command == "G":
        column = count - 1
    elif command in "Hf":
        row, column = count - 1, (max(given[1], 1) if len(given) > 1 else 1) - 1
    elif command in "JK":
        if mode == 0:
            del line[column:]
        elif mode == 1:
            line[: column + 1] = [(" ", ())] * min(column + 1, len(line))
        else:
            line.clear()
        if command == "J":
            for other in {0: rows[row + 1 :], 1: rows[:row]}.get(mode, rows):
                other.clear()
    if command in "EF":
        column = 0
    return row, column


def restyled(style: Style, values: str) -> Style:
    """Return the style after codes such as `1;31`. No code, or `0`, resets all attributes."""
    found = dict(style)
    codes = [code or "0" for code in values.split(";")]
    while codes:
        code = codes.pop(0)
        if not code.isdigit():
            continue
        number = int(code)
        if number in (38, 48):  # an extended colour: 38;5;n or 38;2;r;g;b
            more = {"5": 2, "2": 4}.get(codes[0] if codes else "", 0)
            code = ";".join([code, *codes[:more]])
            del codes[:more]
        if number == 0:
            found.clear()
        elif number in ENDS:
            for attribute in ENDS[number]:
                found.pop(attribute, None)
        else:
            attribute = SAME.get(number, str(number))
            found.pop(attribute, None)
            found[attribute] = code
    return tuple(found.items())
