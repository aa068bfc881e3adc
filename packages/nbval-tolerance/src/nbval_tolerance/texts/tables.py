"""Which column of a table a number stands in. Pure functions of two lines."""

from __future__ import annotations

import re
from functools import lru_cache

# Between two cells: a rule, in Markdown or drawn, with blanks around it; or two blanks.
RULE = re.compile(r"(?:\A|(?<=\s))[|│┃](?=\s|\Z)")
GAP = re.compile(r"\s{2,}|\t")


@lru_cache(maxsize=1000)
def cells(line: str) -> tuple[tuple[int, int], ...]:
    """Return start and end of each cell in a line of a table."""
    rules = [match.span() for match in RULE.finditer(line)]
    edges = [0, *(at for rule in rules for at in rule), len(line)]
    if not rules:
        line = line.rstrip()
        begin = len(line) - len(line.lstrip())
        gaps = [match.span() for match in GAP.finditer(line, begin)]
        edges = [begin, *(at for gap in gaps for at in gap), len(line)]
    found = list(zip(edges[::2], edges[1::2], strict=True))
    # Before the first rule and after the last one may stand nothing.
    first, last = (line[slice(*found[n])].strip() for n in (0, -1))
    return tuple(found[0 if first else 1 : len(found) if last or not first else -1])


def column(head: str, line: str, start: int, end: int) -> tuple[int, int]:
    """Return where the column of what stands from `start` to `end` in `line` is in `head`.

    What begins or ends with a word of the head stands under it. Otherwise, or between rules, cells
    are counted, if both lines have as many, or the line has one more, its own name: a head may be
    aligned in another way than its numbers. If that does not help, the place in the line decides;
    the column then begins with the line.
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
    """Return where the cell above the names of rows ends; 0 where there is none."""
    heads, own = cells(head), cells(line)
    named = len(heads) == len(own) > 1 and re.search(r"[^\W\d_]", line[slice(*own[0])])
    return heads[0][1] if named else 0


def cell_of(head: str, line: str, start: int, end: int) -> str:
    """Return the text of a head's cell above what stands from `start` to `end` in `line`."""
    _, at = column(head, line, start, end)
    return next((head[left:right] for left, right in reversed(cells(head)) if left < at), "")


def is_row(head: str, line: str) -> bool:
    """Tell whether a line may be a row of the table with a head, if blank lines stand between."""
    heads, own = cells(head), cells(line)
    aligned = len(head.rstrip()) == len(line.rstrip())
    return len(heads) > 1 and len(own) > 1 and (aligned or len(own) - len(heads) in (0, 1))
