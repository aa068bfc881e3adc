"""Split a text into lines, and lines into plain text and tokens. Pure functions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from nbval_tolerance.texts.kinds import Words, words_of
from nbval_tolerance.texts.numbers import NUMBER, decimals, is_integer, largest
from nbval_tolerance.texts.passing import SOMETIMES, Token, tokens_of
from nbval_tolerance.texts.tables import cells, is_row
from nbval_tolerance.texts.terminal import rendered

# A horizontal rule in a table, drawn with box-drawing characters.
RULE = re.compile(r"[\s─-╿+|=-]*[─-╿][\s─-╿+|=-]*")
BOX = re.compile(r"\s*[─-╿]+\s*")
MOST_ABOVE = 50  # the maximum number of earlier lines whose words may name a number


@dataclass(frozen=True)
class Line:
    """One line of a text, or the lines of one array.

    Attributes
    ----------
    number
        The line's number, starting at 1.
    text
        The text of the line.
    above
        Earlier lines whose words may name the numbers on this line, from top to bottom.
    tokens
        The parts that are not plain text, in order.
    """

    number: int
    text: str
    above: tuple[str, ...] = ()
    tokens: tuple[Token, ...] = ()

    @cached_property
    def template(self) -> str:
        """The text with a placeholder for each token, such as `loss # of § at …`.

        White space next to brackets and in padding is ignored, so `[ 1. 10.]` and `[1. 9.]` have
        the same template. Table cells and progress bars of different widths also have the same
        template.
        """
        parts, at = [], 0
        for token in self.tokens:
            parts += [self.text[at : token.start], mark(token)]
            at = token.end
        marked = BOX.sub(" │ ", " ".join("".join([*parts, self.text[at:]]).split()))
        return " ".join(re.sub(r"\s*([\[\](),])\s*", r"\1", marked).split())

    @cached_property
    def compared(self) -> tuple[Token, ...]:
        """The tokens that are compared: numbers, and times that are data."""
        return tuple(token for token in self.tokens if not token.passes)

    @cached_property
    def arrays(self) -> dict[int, float]:
        """Maps the start of each number in an array to the largest magnitude in that array."""
        found: dict[int, float] = {}
        depth, opened = 0, 0
        for bracket in re.finditer(r"[\[\]]", self.text):
            depth = max(depth + (1 if bracket[0] == "[" else -1), 0)
            if bracket[0] == "[" and depth == 1:
                opened = bracket.start()
            elif bracket[0] == "]" and depth == 0:
                inside = [t for t in self.compared if opened < t.start < bracket.start()]
                numbers = [token.text for token in inside if token.what == "number"]
                if not re.search(r"[^\W\d_]", NUMBER.sub("", self.text[opened : bracket.end()])):
                    found |= dict.fromkeys((token.start for token in inside), largest(numbers))
        return found

    @cached_property
    def rows(self) -> dict[int, float]:
        """The largest magnitude of the line's floats, keyed by number of decimals."""
        found: dict[int, float] = {}
        for token in self.compared:
            if token.what == "number" and not is_integer(token.text):
                places = decimals(token.text) if "e" not in token.text.lower() else math.inf
                found[places] = max(found.get(places, 0.0), largest([token.text]))
        return found

    @cached_property
    def floats(self) -> int:
        """The number of non-integers on the line."""
        return sum(token.what == "number" and not is_integer(token.text) for token in self.compared)

    def stands_alone(self, token: Token) -> bool:
        """Return whether a number is outside arrays and not preceded by numbers in a table row."""
        if token.start in self.arrays:
            return False
        return self.floats == 1 or not re.search(r"[\d,|│]\s*\Z", self.text[: token.start])


def mark(token: Token) -> str:
    """Return the placeholder for a token in a template."""
    if token.passes:
        return " │ " if token.what == "bar" else "…"
    if token.what == "time":
        return "@"
    return "§" if is_integer(token.text) else "#"


def lines_of(text: str, words: Words = (), clock: bool | None = None) -> Iterator[Line]:
    """Yield the lines of a text as a terminal shows them, with the lines of each array joined.

    Parameters
    ----------
    text
        The text as it was printed.
    words
        The project's words for kinds of numbers. The word that names a number may be on an earlier
        line.
    clock
        Whether the code that printed the text reads the clock, or None if this is unknown.
    """
    numbered = list(logical_lines(rendered(text)))
    above: list[str] = []  # The lines that name a kind, since the last blank line.
    heads: list[str] = []  # The headers of a table that continues after a blank line.
    for index, (number, line) in enumerate(numbered):
        if not line.strip():
            before = index and numbered[index - 1][1].strip()
            heads = [head for head in (*heads, *above) if is_head(head)] if before else []
            above = []
            yield Line(number, line)
            continue
        if re.search(r"\w", line):
            heads = [head for head in heads if is_row(head, line)]
        context = (*heads, *above)
        around = [
            other for _, other in numbered[max(index - 1, 0) : index + 2] if other is not line
        ]
        yield Line(number, line, context, tuple(tokens_of(line, context, around, clock)))
        row = not is_head(line) and any(is_head(head) and is_row(head, line) for head in context)
        if words_of(line, words) and not row:
            above = [*above[1 - MOST_ABOVE :], line]


@lru_cache(maxsize=1000)
def is_head(line: str) -> bool:
    """Return whether a line may be a table header, which names columns and contains no floats."""
    floats = (match for match in NUMBER.finditer(line) if not is_integer(match[0]))
    return len(cells(line)) > 1 and not any(floats)


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line's number (from 1) and text, with the lines of each array joined."""
    begun, parts, depth, call, said = 0, [], 0, 0, False
    for number, line in enumerate(text.rstrip().splitlines(), start=1):
        first = not line.strip() and not said
        if first or RULE.fullmatch(line) or SOMETIMES.fullmatch(line):
            continue
        said = True
        begun = begun or number
        parts.append(line.rstrip())
        depth += line.count("[") - line.count("]")
        call += line.count("(") - line.count(")")
        # After `array([…],` NumPy may put `dtype=float32)` on a separate line.
        if depth <= 0 and (call <= 0 or not parts[-1].endswith(",")):
            yield begun, "\n".join(parts)
            begun, parts, depth, call = 0, [], 0, 0
    if parts:  # an unclosed bracket does not start an array
        yield from enumerate(parts, start=begun)
