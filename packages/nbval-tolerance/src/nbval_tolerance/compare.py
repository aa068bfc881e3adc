"""Does a new text say the same as the stored one? Pure functions: no pytest, no Jupyter.

A text is taken as a template, compared exactly, with numbers in it, each compared by its kind.
Integers (counts, shapes, labels) must be equal. A float may differ as it does between machines that
work correctly: by float32 rounding before any training; in a training log and after it, by what
other instruction sets, thread counts and compilers were measured to change. What the run itself
brings into a text (its clock, durations, process ids, memory addresses) says nothing: see
`passing`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from nbval_tolerance.texts.kinds import OF_THE_RUN, Named, frozen, number_kind
from nbval_tolerance.texts.lines import Line, lines_of
from nbval_tolerance.texts.numbers import (
    NUMBER,
    are_noise,
    counted,
    decimals,
    is_integer,
    significant,
    value,
)
from nbval_tolerance.texts.passing import BAR, Token, is_clock, looks_read
from nbval_tolerance.texts.ranges import keys_of
from nbval_tolerance.texts.terminal import ANSI, has_frames, last_frame, rendered

__all__ = [
    "ANSI",
    "TOLERANCES",
    "Comparison",
    "Difference",
    "Number",
    "Passing",
    "Phase",
    "Rules",
    "compare_text",
    "has_frames",
    "last_frame",
    "numbers_of",
    "out_of_range",
    "passing",
    "rendered",
]


class Phase(Enum):
    """Where in its notebook a cell stands."""

    UNTRAINED = "before any training"
    FITTED = "after fitting a model other than a network"
    FIT = "in a training log"
    TRAINED = "after training"


# kind -> (absolute, relative) tolerance. Measured by `make prove-regression` on lessons 06 to 09:
# threads, instruction sets, oneDNN on and off, XLA, without op determinism, other Python and
# Matplotlib. The largest move of each kind stands behind it, most of them XLA's, with which
# Dropout drops other units. Where a tolerance is more than twice that, another network on another
# processor (AMD Zen) has moved farther: its training loss by 3.2%, its test loss by 5.7%. The
# absolute part is that of numbers of order 1; `floor` makes it smaller for small ones.
TOLERANCES = {
    Phase.UNTRAINED: {
        # float32 rounding: 6e-8 in the lessons; 4e-7 in a loss, on the other processor
        "loss": (2e-6, 2e-5),
        "accuracy": (1e-6, 0.0),
        "probability": (2e-6, 2e-5),
        "percentage": (2e-6, 2e-5),
        "float": (2e-6, 2e-5),
    },
    # 50 times what holds above: linear algebra on float32 data moved coefficients by 26 times that,
    # solvers on float64 data by 3, LinearSVC by 87; their scores moved by less than holds above
    # (tests/measure_estimators.py).
    Phase.FITTED: {
        "loss": (1e-4, 1e-3),
        "accuracy": (1e-6, 0.0),
        "probability": (1e-4, 1e-3),
        "percentage": (1e-4, 1e-3),
        "float": (1e-4, 1e-3),
    },
    Phase.FIT: {
        "loss": (0.001, 0.04),  # 0.0056 of 0.191
        "accuracy": (0.004, 0.0),  # 0.0027
        "held-out loss": (0.002, 0.08),  # 0.0058 of 0.098
        "held-out accuracy": (0.005, 0.0),  # 0.0032
        "probability": (0.02, 0.0),
        "percentage": (0.5, 0.0),
        "float": (0.02, 0.08),
    },
    Phase.TRAINED: {
        "loss": (0.002, 0.08),  # 0.003 of 0.094
        "accuracy": (0.005, 0.0),  # 0.0020
        "probability": (0.02, 0.0),  # 0.02, a mean score printed with two decimals
        # 0.3 of 8.6; shares of 1,000 images 1.1: lesson 07 has a tag there
        "percentage": (0.5, 0.0),
        "float": (0.02, 0.08),  # 0.084 of 1.211, the largest value of a feature map
    },
}

# From how many decimals on a float may also move by one unit of the last one: where rounding can
# flip it. A `1.` or `0.5` before training has no such unit; it would allow a 0, or a 0.4.
DIGITS = {Phase.UNTRAINED: 4, Phase.FITTED: 4, Phase.FIT: 1, Phase.TRAINED: 1}

# A kind that has no tolerance of its own -> the one that it is judged by.
JUDGED_AS = {"spread": "float"}
KINDS = {*TOLERANCES[Phase.FIT], "setting"}

MOST_NUMBERS = 4  # of a line that are named in a message
MOST_LINES = 2000  # of a text whose lines are aligned, to say which are new


@dataclass(frozen=True)
class Rules:
    """How strictly a cell is compared.

    Attributes
    ----------
    phase
        Where in its notebook the cell stands.
    exact
        Whether all must be printed the same: each digit, and times.
    wider
        Kind of number (`loss`, `accuracy`, …) -> factor by which its tolerance is wider.
    seeded
        If false, numbers come by chance: only the text around them is compared.
    figures
        If false, pictures are compared by being there only.
    seconds
        How long the cell may run; None leaves that to the runner.
    between
        What a number is (a kind, or words that stand on its line before it) -> the least and the
        greatest that it may be. Such a number is held to that range, not to the stored value.
    result
        What the cell's result is where no word names it (`accuracy` of `model.score(x, y)`): found
        in the source. Empty if that does not say.
    clock
        Whether the cell's code reads the clock: what may be a time of the run then is one. False:
        nothing can have timed anything, and durations are data. None: words decide.
    words
        Kind of number -> words that name it, beside those in `kinds.WORDS`. A word is a whole one,
        in capitals or not, and a blank in it stands for `_` as well.
    tolerances
        Tolerances that take the place of those in `TOLERANCES`; their absolute part is not made
        smaller for small numbers.
    skip
        MIME types that are not compared.
    """

    phase: Phase = Phase.UNTRAINED
    exact: bool = False
    wider: Mapping[str, float] = field(default_factory=dict)
    seeded: bool = True
    figures: bool = True
    seconds: float | None = None
    between: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    result: str = ""
    clock: bool | None = None
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tolerances: Mapping[Phase, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise `ValueError` for a phase or kind that there is not."""
        if unknown := [p for p in (self.phase, *self.tolerances) if not isinstance(p, Phase)]:
            raise ValueError(f"{unknown[0]!r} is not a Phase: Phase.TRAINED, for example")
        named = {*self.words, *(kind for of in self.tolerances.values() for kind in of)}
        if unknown := sorted(named - KINDS):
            raise ValueError(f"{unknown[0]!r} is not a kind: {', '.join(sorted(KINDS))}")


@dataclass(frozen=True)
class Difference:
    """One thing in which a new output differs from the stored one.

    `about` is `text`, `number`, `figure` or `probe`: it decides how an author may allow it.
    """

    what: str
    stored: str
    computed: str
    about: str = "text"

    def __str__(self) -> str:
        return f"{self.what}\n    stored:   {self.stored}\n    computed: {self.computed}"


@dataclass(frozen=True)
class Number:
    """One printed number and what it became: by how much it moved, and by how much it may.

    Of a number that is held to a range, `kind` is the key of that range, and what it moved is its
    distance from the middle.
    """

    line: int
    kind: str
    stored: str
    computed: str
    moved: float
    allowed: float
    between: tuple[float, float] | None = None

    @property
    def used(self) -> float:
        """The share of the tolerance that was used; beyond 1 the number fails."""
        if self.moved == 0:
            return 0.0
        return self.moved / self.allowed if self.allowed else math.inf

    def __str__(self) -> str:
        if self.between:
            low, high = self.between
            is_so = "is" if self.used <= 1 else "is not"
            return f"{self.kind} {self.computed} {is_so} between {low:g} and {high:g}"
        became = f"{self.stored} became {self.computed}"
        if self.allowed == 0 or self.kind == "setting":
            return f"{became} ({self.kind}: must be equal)"
        return f"{became} ({self.kind}: at most ±{self.allowed:.2g}, moved {self.moved:.2g})"


@dataclass
class Comparison:
    """What differs, how far each number moved, and a PNG for each figure that differs.

    `ranged` holds the keys of `Rules.between` that some stored number has.
    """

    differences: list[Difference] = field(default_factory=list)
    numbers: list[Number] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)
    ranged: set[str] = field(default_factory=set)

    def __iadd__(self, other: Comparison) -> Comparison:
        self.differences += other.differences
        self.numbers += other.numbers
        self.pictures += other.pictures
        self.ranged |= other.ranged
        return self

    @property
    def worst(self) -> Number | None:
        """The number (or figure) that used most of its tolerance."""
        return max(self.numbers, key=lambda number: number.used, default=None)


def compare_text(stored: str, computed: str, rules: Rules, label: str = "") -> Comparison:
    """Compare two texts as a reader sees them, line by line.

    Parameters
    ----------
    stored, computed
        The text in the notebook, and what its cell says now.
    rules
        How strictly.
    label
        The name of what is printed, such as a probe's: its words say what a number is that no word
        of its own names, and keys of `rules.between` may stand in it.

    Returns
    -------
    Comparison
        Without differences if both say the same. White space counts only as a separator: NumPy
        pads a column by its widest entry, so that one changed digit moves the others, and it may
        break the lines of an array elsewhere. The rules of tables do not count at all. With
        `rules.exact` all of it counts, but for white space at the ends of lines, and colours.
    """
    if rules.exact:
        return compare_exactly(stored, computed)
    named = named_by(stored, rules, label)
    old = list(lines_of(stored, named.words, rules.clock))
    new = old if stored == computed else list(lines_of(computed, named.words, rules.clock))
    result = Comparison()
    if len(old) != len(new):
        result.differences = missing_lines(old, new)
        keys = (key for line in old for key in keys_of(line, rules.between, KINDS, named))
        result.ranged = set(filter(None, keys))
        return result
    for one, other in zip(old, new, strict=True):
        result += compare_line(one, other, rules, named)
    return result


def named_by(text: str, rules: Rules, label: str = "") -> Named:
    """Return what is known of the names of a text's numbers."""
    lone = len(NUMBER.findall(text)) == 1
    return Named(frozen(rules.words), label, rules.result, lone, timed=rules.clock is not False)


def compare_exactly(stored: str, computed: str) -> Comparison:
    """Compare two texts character by character, but for colours and blanks at the ends of lines."""
    old, new = (
        [Line(number, line.rstrip()) for number, line in enumerate(text.splitlines(), start=1)]
        for text in (rendered(stored).rstrip(), rendered(computed).rstrip())
    )
    if len(old) != len(new):
        return Comparison(missing_lines(old, new))
    return Comparison(
        [
            Difference(f"line {one.number}: the text differs", one.text, other.text)
            for one, other in zip(old, new, strict=True)
            if one.text != other.text
        ]
    )


def compare_line(stored: Line, computed: Line, rules: Rules, named: Named) -> Comparison:
    """Compare two lines: their form first, then their times and numbers."""
    keys = keys_of(stored, rules.between, KINDS, named)
    result = Comparison(ranged=set(filter(None, keys)))
    if stored.template != computed.template or has_other_format(stored, computed):
        what = f"line {stored.number}: the text differs"
        result.differences = [Difference(what, stored.text, computed.text)]
        return result
    for old, new, key in zip(stored.compared, computed.compared, keys, strict=True):
        if key:
            result.numbers.append(within(new.text, key, rules.between[key], stored.number))
        elif not rules.seeded:
            continue
        elif old.what == "time":
            moved = 0.0 if old.text == new.text or is_clock(old, new) else math.inf
            result.numbers.append(Number(stored.number, "time", old.text, new.text, moved, 0.0))
        else:
            kind = number_kind(stored.text, old, stored.above, named)
            if kind not in OF_THE_RUN:
                scale, alone = magnitude(stored, old, kind), stored.stands_alone(old)
                allowed = tolerance(old.text, new.text, kind, rules, scale, alone)
                moved = distance(old.text, new.text, kind)
                name = kind if rules.phase is Phase.FIT else kind.removeprefix("held-out ")
                number = Number(stored.number, name, old.text, new.text, moved, allowed)
                result.numbers.append(number)
    failed = [number for number in result.numbers if number.used > 1]
    if failed:
        said = [*map(str, failed[:MOST_NUMBERS])]
        if more := len(failed) - len(said):
            said.append(f"and {more} more numbers")
        what = f"line {stored.number}, {rules.phase.value}: {'; '.join(said)}"
        result.differences = [Difference(what, stored.text, computed.text, "number")]
    return result


def distance(stored: str, computed: str, kind: str) -> float:
    """Return by how much a number moved; NaN and infinity may stand only where they are stored."""
    if stored == computed or (kind != "spread" and are_noise(stored, computed)):
        return 0.0
    if math.isfinite(value(stored)) and math.isfinite(value(computed)):
        return abs(value(stored) - value(computed))
    return math.inf


def tolerance(
    stored: str, computed: str, kind: str, rules: Rules, scale: float = 0.0, alone: bool = True
) -> float:
    """Return by how much a number of a kind may move.

    One unit of the last printed digit is included, where `has_unit`. NumPy strips zeros, so the
    digits are those of the longer of the two. `scale` is as in `floor`; a number is `alone` outside
    arrays and rows of a table.
    """
    if kind == "integer" or not math.isfinite(value(stored)):
        return 0.0
    size = abs(value(stored))
    if kind == "setting":  # a constant, not computed: as float32 holds it
        return 1e-6 * size
    phase = rules.phase
    known = {**TOLERANCES[phase], **rules.tolerances.get(phase, {})}
    # Only a training log tells its held-out data apart.
    kind = kind if kind in known else kind.removeprefix("held-out ")
    kind = JUDGED_AS.get(kind, kind)
    factor = rules.wider.get(kind.removeprefix("held-out "), 1.0)
    if kind.endswith(("accuracy", "probability")) and size > 1:
        # No share: an accuracy in per cent, or a score of another kind.
        kind = "percentage" if kind.endswith("accuracy") and size <= 100 else "float"
    absolute, relative = known[kind]
    if kind not in rules.tolerances.get(phase, {}):
        absolute = floor(absolute, kind, phase, stored, scale)
    digits = max(decimals(stored), decimals(computed))
    # The slack keeps 0.13 and 0.12 one unit apart: as floats they differ by a little more.
    unit = 10.0**-digits * (1 + 1e-9) if has_unit(stored, computed, phase, scale, alone) else 0.0
    return unit + factor * (absolute + relative * size)


def floor(absolute: float, kind: str, phase: Phase, stored: str, scale: float) -> float:
    """Return the absolute part of one number's tolerance, which is smaller for small numbers.

    Parameters
    ----------
    absolute
        What a number of order 1 may move.
    scale
        The largest magnitude of the numbers that it was computed with, such as those of its array:
        rounding noise in an array goes with the largest one.
    """
    size = abs(value(stored))
    if size == 0 or size > 1e-20 * scale:  # smaller ones are no noise: two constants in one array
        size = max(size, scale)
    if phase is Phase.UNTRAINED:
        return min(absolute, 1e-5 * size)
    if kind.endswith(("accuracy", "probability")):
        return absolute  # they are on [0, 1], whatever their size
    if kind == "percentage":  # a share of n: its spread goes with its root
        return min(absolute, 0.35 * max(size, 10.0 ** -decimals(stored)) ** 0.5)
    if kind == "float" and 0 < size < 1e-4:  # printed with an exponent: a constant, a p-value
        return 0.0
    return min(absolute, 0.5 * max(size, 10.0 ** -decimals(stored)))


def magnitude(line: Line, token: Token, kind: str) -> float:
    """Return the largest magnitude of the numbers that stand beside one, in its array or row.

    In the row of a percentage, or of a number that no word names, are the numbers on its line that
    are printed with as many decimals.
    """
    row = line.rows.get(decimals(token.text), 0.0) if kind in ("float", "percentage") else 0.0
    return max(line.arrays.get(token.start, 0.0), row)


def has_unit(stored: str, computed: str, phase: Phase, scale: float, alone: bool) -> bool:
    """Tell whether rounding may flip the last printed digit of a number.

    A training moves it often. Before one, float32 moves a number by 1e-7 of itself, or of `scale`,
    the largest one beside it: of three digits or fewer, the last is hardly ever so near an edge. Of
    a number that stands `alone`, six digits are needed where it has an exponent, as constants and
    p-values have, or another count of digits than before, which comes from another format.
    """
    texts = (stored, computed)
    exponent = "e" in "".join(texts).lower()
    if not exponent and max(map(decimals, texts)) < DIGITS[phase]:
        return False
    digits = max(map(significant, texts))
    if phase is not Phase.UNTRAINED:
        return not exponent or digits >= 2
    if alone and digits < 6 and (exponent or decimals(stored) != decimals(computed)):
        return False
    unit = 10.0 ** -max(map(decimals, texts))
    return unit <= (1e-3 if alone else 1e-2) * max(abs(value(stored)), scale)


def has_other_format(stored: Line, computed: Line) -> bool:
    """Tell whether a number of a line is printed in another format, as `1,200` for `1200`.

    Zeros at the end are a format only outside arrays and tables, which strip them together.
    """
    for one, other in zip(stored.compared, computed.compared, strict=True):
        old, new = one.text, other.text
        if old == new or one.what != "number":
            continue
        alone = is_integer(old) or (stored.floats == 1 and stored.stands_alone(one))
        if alone and value(old) == value(new):
            return True
        large = all(abs(value(text)) >= 1000 for text in (old, new))
        if large and ("," in old) != ("," in new):
            return True
        positive = all(value(text) > 0 for text in (old, new))
        if positive and old.startswith("+") != new.startswith("+"):
            return True
    return False


def within(computed: str, key: str, between: tuple[float, float], line: int) -> Number:
    """Compare a number with a range: at its middle, nothing of it is used, at its ends, all."""
    low, high = between
    here = value(computed)
    moved = abs(here - (low + high) / 2)
    allowed = (high - low) / 2
    if low <= here <= high:
        moved = min(moved, allowed)
    elif not moved > allowed:  # NaN, or a rounding at the end of the range
        moved = math.inf
    return Number(line, key, computed, computed, moved, allowed, between)


def missing_lines(old: list[Line], new: list[Line]) -> list[Difference]:
    """Say which lines are gone and which are new; of very long texts, only how many."""
    if max(len(old), len(new)) > MOST_LINES:  # aligning them takes time that grows by the square
        return [Difference("the text differs", f"{len(old)} lines", f"{len(new)} lines")]
    matcher = difflib.SequenceMatcher(
        a=[line.template for line in old], b=[line.template for line in new], autojunk=False
    )
    differences = []
    for operation, start, stop, begin, end in matcher.get_opcodes():
        if operation != "equal":
            gone, come = old[start:stop], new[begin:end]
            if gone and come:
                what = f"line {gone[0].number}: {counted(len(gone), 'line')} became {len(come)}"
            elif gone:
                what = f"line {gone[0].number}: {counted(len(gone), 'line')} gone"
            else:
                after = f"after line {old[start - 1].number}" if start else "at the beginning"
                what = f"{counted(len(come), 'line')} more {after}"
            texts = (
                "\n".join(line.text for line in lines) or "(no line)" for lines in (gone, come)
            )
            differences.append(Difference(what, *texts))
    return differences


def out_of_range(text: str, rules: Rules, label: str = "") -> list[str]:
    """Say which numbers of a text are not in the range that `rules.between` gives for them."""
    result = compare_text(text, text, rules, label)
    outside = (number for number in result.numbers if number.between and number.used > 1)
    return [f"line {number.line}: {number}" for number in outside]


def numbers_of(text: str) -> list[re.Match]:
    """Return the matches of all numbers in a text that are compared; their group is `number`."""
    return [
        NUMBER.match(line.text, token.start)
        for line in lines_of(text)
        for token in line.compared
        if token.what == "number"
    ]


@dataclass(frozen=True)
class Passing:
    """A part of a text that says nothing: it differs from run to run.

    Attributes
    ----------
    line
        The number of its line, from 1.
    text
        What stands there.
    what
        `id`, `address`, `clock` or `duration`.
    progress
        Whether it stands in a progress bar, or in what Keras prints of an epoch.
    """

    line: int
    text: str
    what: str
    progress: bool


def passing(text: str, rules: Rules) -> list[Passing]:
    """Return what `compare_text` leaves out of a text: clocks, durations, addresses, ids."""
    named = named_by(text, rules)
    found = []
    for line in lines_of(text, named.words, rules.clock):
        progress = bool(BAR.search(line.text))
        for token in line.tokens:
            what = token.what
            if what == "time" and looks_read(token):
                what = "clock"
            elif what == "number":
                kind = number_kind(line.text, token, line.above, named)
                what = kind if kind in OF_THE_RUN else what
            if what not in ("time", "number", "bar"):
                found.append(Passing(line.number, token.text.strip(), what, progress))
    return found
