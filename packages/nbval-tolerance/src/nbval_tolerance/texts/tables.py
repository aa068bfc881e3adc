"""Find the table column that contains a number. Pure functions."""

from __future__ import annotations

import re
from functools import lru_cache

# Cells are separated by at least two spaces, by a tab, or by a vertical bar between spaces.
RULE = re.compile(r"(?:\A|(?<=\s))[|│┃](?=\s|\Z)")
GAP = re.compile(r"\s{2,}|\t")


@lru_cache(maxsize=1000)
def cells(line: str) -> tuple[tuple[int, int], ...]:
    """Return the start and end of each cell in a line of a table."""
    rules = [match.span() for match in RULE.finditer(line)]
    edges = [0, *(at for rule in rules for at in rule), len(line)]
    if not rules:
        line = line.rstrip()
        begin = len(line) - len(line.lstrip())
        gaps = [match.span() for match in GAP.finditer(line, begin)]
        edges = [begin, *(at for gap in gaps for at in gap), len(line)]
    found = list(zip(edges[::2], edges[1::2], strict=True))
    # The first and last cells are empty if the line starts and ends with a bar.
    first, last = (line[slice(*found[n])].strip() for n in (0, -1))
    return tuple(found[0 if first else 1 : len(found) if last or not first else -1])


def column(head: str, line: str, start: int, end: int) -> tuple[int, int]:
    """Return the position in `head` of the column that contains `line[start:end]`.

    Text that starts or ends at the same position as a word in the header belongs to that word's
    column. If there is no such word, or if vertical bars separate the cells, the cells are counted,
    because headers may be aligned differently from numbers. Counting works only if both lines have
    the same number of cells, or if the line has one additional cell for the row's name. If counting
    fails, the column extends from the start of the line to `end`.
    """
    heads, own = cells(head), cells(line)
    more = len(own) - len(heads)
    ruled = RULE.search(head) and RULE.search(line)
    above = [w for w in re.finditer(r"\S+", head) if start == w.start() or end == w.end()]
    if len(heads) > 1 and more in (0, 1) and (ruled or not above):
        for index, (left, right) in enumerate(own):
            if left <= start and end <= right and index >= more:
                first, last = heads[index - more]
                if more == 0 or ruled or (first - 2 < right and left - 2 < last):
                    return first, last
    if above and len(heads) > 1:
        word = above[-1].start()
        return next((left for left, right in heads if left <= word < right), 0), end
    return 0, end


def corner_end(head: str, line: str) -> int:
    """Return the end of the cell above the row names, or 0 if there is no such cell."""
    heads, own = cells(head), cells(line)
    named = len(heads) == len(own) > 1 and re.search(r"[^\W\d_]", line[slice(*own[0])])
    return heads[0][1] if named else 0


def cell_of(head: str, line: str, start: int, end: int) -> str:
    """Return the text of the header cell above `line[start:end]`."""
    _, at = column(head, line, start, end)
    return next((head[left:right] for left, right in reversed(cells(head)) if left < at), "")


def is_row(head: str, line: str) -> bool:
    """Return whether a line may be a row below a table header, even with blank lines in between."""
    heads, own = cells(head), cells(line)
    aligned = len(head.rstrip()) == len(line.rstrip())
    return len(heads) > 1 and len(own) > 1 and (aligned or len(own) - len(heads) in (0, 1))
