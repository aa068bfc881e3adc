"""Decide whether a new text matches the stored one. The functions are pure.

A text is split into numbers and a template, which is the text around them. The template is compared
exactly, and each number is compared according to its kind. Integers (counts, shapes, labels) must
be equal. A float may differ only as much as correct results vary between machines. Before any
training, only float32 rounding is allowed. In training logs and after training, the limit is based
on differences measured between instruction sets, thread counts and compilers. Values that change
with every run (clock times, durations, process ids, memory addresses) are ignored; see `passing`.
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
    """The phase in which a cell runs: before, during or after the training in its notebook."""

    UNTRAINED = "before any training"
    FITTED = "after fitting a model other than a network"
    FIT = "in a training log"
    TRAINED = "after training"


# Maps each kind of number to its (absolute, relative) tolerance. The tolerances were measured by
# `make prove-regression` on lessons 06 to 09: with different thread counts and instruction sets,
# with and without oneDNN, with XLA, without op determinism, and with other versions of Python and
# Matplotlib. The comment after each tolerance gives the largest measured change. Most of the
# largest changes came from XLA, where Dropout drops different units. Some tolerances are more than
# twice the value in their comment, because another network's results changed more on a different
# processor (AMD Zen): the training loss by 3.2% and the test loss by 5.7%. The absolute part of a
# tolerance applies to numbers of order 1; `floor` reduces it for small numbers.
TOLERANCES = {
    Phase.UNTRAINED: {
        # Measured float32 rounding: 6e-8 in the lessons, and 4e-7 in a loss on the AMD processor.
        "loss": (2e-6, 2e-5),
        "accuracy": (1e-6, 0.0),
        "probability": (2e-6, 2e-5),
        "percentage": (2e-6, 2e-5),
        "float": (2e-6, 2e-5),
    },
    # The tolerances after fitting are 50 times those before training. In
    # tests/measure_estimators.py, coefficients changed by up to 26 times the untrained tolerance
    # for linear algebra on float32 data, 3 times for solvers on float64 data, and 87 times for
    # LinearSVC. Scores stayed within the untrained tolerance.
    Phase.FITTED: {
        "loss": (1e-4, 1e-3),
        "accuracy": (1e-6, 0.0),
        "probability": (1e-4, 1e-3),
        "percentage": (1e-4, 1e-3),
        "float": (1e-4, 1e-3),
    },
    Phase.FIT: {
        "loss": (0.001, 0.04),  # Measured: 0.0056 of 0.191.
        "accuracy": (0.004, 0.0),  # Measured: 0.0027.
        "held-out loss": (0.002, 0.08),  # Measured: 0.0058 of 0.098.
        "held-out accuracy": (0.005, 0.0),  # Measured: 0.0032.
        "probability": (0.02, 0.0),
        "percentage": (0.5, 0.0),
        "float": (0.02, 0.08),
    },
    Phase.TRAINED: {
        "loss": (0.002, 0.08),  # Measured: 0.003 of 0.094.
        "accuracy": (0.005, 0.0),  # Measured: 0.0020.
        "probability": (0.02, 0.0),  # Measured: 0.02, in a mean score printed with two decimals.
        # Measured: 0.3 of 8.6. Percentages computed from 1,000 images changed by 1.1, so lesson 07
        # tags the cell that prints them.
        "percentage": (0.5, 0.0),
        "float": (0.02, 0.08),  # Measured: 0.084 of 1.211, the largest value of a feature map.
    },
}

# A float printed with at least this many decimals may also differ by one unit in the last place,
# because rounding can change the last digit. Before training, `1.` and `0.5` have too few decimals:
# one unit would allow 0 or 0.4.
DIGITS = {Phase.UNTRAINED: 4, Phase.FITTED: 4, Phase.FIT: 1, Phase.TRAINED: 1}

# Maps each kind without a tolerance to the kind whose tolerance it uses.
JUDGED_AS = {"spread": "float"}
KINDS = {*TOLERANCES[Phase.FIT], "setting"}

MOST_NUMBERS = 4  # A message lists at most this many numbers from one line.
MOST_LINES = 2000  # If longer texts differ in length, the message gives only the line counts.


@dataclass(frozen=True)
class Rules:
    """How strictly to compare a cell.

    Attributes
    ----------
    phase
        Whether the cell comes before, during or after the training in its notebook.
    exact
        Whether the output must be identical, including every digit and all times.
    wider
        Kind of number (`loss`, `accuracy`, …) -> factor that multiplies its tolerance.
    seeded
        If false, the numbers are random, and only the text around them is compared.
    figures
        If false, a picture must be present but may show anything.
    seconds
        The time limit of the cell; if None, the runner's default applies.
    between
        Kind of number, or the words before a number on its line -> minimum and maximum. The number
        is checked against that range, not against the stored value.
    result
        The kind assumed for numbers in the output if no word names their kind, such as `accuracy`
        for `model.score(x, y)`. The kind is inferred from the cell's source, and is empty if the
        source does not reveal it.
    clock
        Whether the cell's code reads the clock. If true, every value that could be a time is
        treated as a time measured during the run. If false, the code cannot have timed anything, so
        durations are treated as data. If None, the words around a time decide whether it is data.
    words
        Kind of number -> words that name it, in addition to those in `kinds.WORDS`. Only whole
        words match, regardless of case. A space also matches an underscore.
    tolerances
        Tolerances that replace those in `TOLERANCES`. The absolute part of such a tolerance is not
        reduced for small numbers.
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
        """Raise `ValueError` for an unknown phase or kind."""
        if unknown := [p for p in (self.phase, *self.tolerances) if not isinstance(p, Phase)]:
            raise ValueError(f"{unknown[0]!r} is not a Phase: Phase.TRAINED, for example")
        named = {*self.words, *(kind for of in self.tolerances.values() for kind in of)}
        if unknown := sorted(named - KINDS):
            raise ValueError(f"{unknown[0]!r} is not a kind: {', '.join(sorted(KINDS))}")


@dataclass(frozen=True)
class Difference:
    """One difference between a new output and the stored one.

    `about` says what differs: `text`, `number`, `figure` or `probe`.
    """

    what: str
    stored: str
    computed: str
    about: str = "text"

    def __str__(self) -> str:
        return f"{self.what}\n    stored:   {self.stored}\n    computed: {self.computed}"


@dataclass(frozen=True)
class Number:
    """A compared number: its stored value, its new value, its change, and the allowed change.

    If the number is checked against a range, `kind` is the range's key in `Rules.between`, and
    `moved` is the distance from the middle of the range.
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
        """The change as a share of the allowed change. The number fails if this share exceeds 1."""
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
    """The result of a comparison: differences, compared numbers, and PNGs of differing figures.

    `ranged` contains the keys of `Rules.between` that match a stored number.
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
        """The number (or figure) that used the largest share of its tolerance."""
        return max(self.numbers, key=lambda number: number.used, default=None)


def compare_text(stored: str, computed: str, rules: Rules, label: str = "") -> Comparison:
    """Compare two texts line by line, as a reader sees them.

    Parameters
    ----------
    stored, computed
        The text stored in the notebook, and the text that the cell prints now.
    rules
        How strictly to compare.
    label
        A name for the text, such as the name of a probe. If no word in the text names a number's
        kind, the words in the label determine the kind. The label may also contain keys of
        `rules.between`.

    Returns
    -------
    Comparison
        The comparison, which has no differences if the texts match. White space matters only as a
        separator: NumPy pads columns to their widest entry and wraps long arrays, so one changed
        digit can shift the rest. Horizontal rules in tables are ignored. With `rules.exact`,
        everything matters except colours and trailing white space.
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
    """Return the context that helps to determine the kind of each number in a text."""
    lone = len(NUMBER.findall(text)) == 1
    return Named(frozen(rules.words), label, rules.result, lone, timed=rules.clock is not False)


def compare_exactly(stored: str, computed: str) -> Comparison:
    """Compare two texts exactly, except for colours and trailing white space."""
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
    """Compare two lines: first their templates and number formats, then their times and numbers."""
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
    """Return how much a number changed, or infinity if it changed from or to NaN or infinity."""
    if stored == computed or (kind != "spread" and are_noise(stored, computed)):
        return 0.0
    if math.isfinite(value(stored)) and math.isfinite(value(computed)):
        return abs(value(stored) - value(computed))
    return math.inf


def tolerance(
    stored: str, computed: str, kind: str, rules: Rules, scale: float = 0.0, alone: bool = True
) -> float:
    """Return how much a number of the given kind may change.

    The result includes one unit in the last printed place if `has_unit` returns true. NumPy strips
    trailing zeros, so the number with more decimals determines that place. `scale` has the same
    meaning as in `floor`. `alone` is true outside arrays and table rows.
    """
    if kind == "integer" or not math.isfinite(value(stored)):
        return 0.0
    size = abs(value(stored))
    if kind == "setting":  # a constant may change only by float32 rounding
        return 1e-6 * size
    phase = rules.phase
    known = {**TOLERANCES[phase], **rules.tolerances.get(phase, {})}
    # Only training logs have separate tolerances for held-out data.
    kind = kind if kind in known else kind.removeprefix("held-out ")
    kind = JUDGED_AS.get(kind, kind)
    factor = rules.wider.get(kind.removeprefix("held-out "), 1.0)
    if kind.endswith(("accuracy", "probability")) and size > 1:
        # The number is not a fraction between 0 and 1, but an accuracy in per cent or another
        # score.
        kind = "percentage" if kind.endswith("accuracy") and size <= 100 else "float"
    absolute, relative = known[kind]
    if kind not in rules.tolerances.get(phase, {}):
        absolute = floor(absolute, kind, phase, stored, scale)
    digits = max(decimals(stored), decimals(computed))
    # The slack is needed because the floats 0.13 and 0.12 differ by slightly more than 0.01.
    unit = 10.0**-digits * (1 + 1e-9) if has_unit(stored, computed, phase, scale, alone) else 0.0
    return unit + factor * (absolute + relative * size)


def floor(absolute: float, kind: str, phase: Phase, stored: str, scale: float) -> float:
    """Return the absolute part of a number's tolerance, reduced for small numbers.

    Parameters
    ----------
    absolute
        How much a number of order 1 may change.
    scale
        The largest magnitude among the numbers that were computed together with this one, such as
        those in the same array. Rounding noise in an array is proportional to the array's largest
        number.
    """
    size = abs(value(stored))
    if size == 0 or size > 1e-20 * scale:  # a smaller number is a constant, not noise
        size = max(size, scale)
    if phase is Phase.UNTRAINED:
        return min(absolute, 1e-5 * size)
    if kind.endswith(("accuracy", "probability")):
        return absolute  # A small fraction in [0, 1] can change as much as a large one.
    if kind == "percentage":  # A percentage's standard deviation grows with its square root.
        return min(absolute, 0.35 * max(size, 10.0 ** -decimals(stored)) ** 0.5)
    if kind == "float" and 0 < size < 1e-4:  # printed with an exponent: a constant or a p-value
        return 0.0
    return min(absolute, 0.5 * max(size, 10.0 ** -decimals(stored)))


def magnitude(line: Line, token: Token, kind: str) -> float:
    """Return the largest magnitude among the numbers in the same array or row.

    Rows are used only if the number is a percentage or no word names its kind. A row consists of
    the numbers on the same line that are printed with the same number of decimals.
    """
    row = line.rows.get(decimals(token.text), 0.0) if kind in ("float", "percentage") else 0.0
    return max(line.arrays.get(token.start, 0.0), row)


def has_unit(stored: str, computed: str, phase: Phase, scale: float, alone: bool) -> bool:
    """Return whether rounding can change the last printed digit of a number.

    After training, rounding often changes the last printed digit. Before training, float32 rounding
    changes a number by about 1e-7 times its value, or times `scale`, the largest magnitude in its
    array or row. A number with three or fewer digits is rarely close enough to a rounding boundary
    for this change to show. Outside arrays and rows (`alone`), the result is false for a number
    with fewer than six digits in two cases. If the number has an exponent, it may be a constant or
    a p-value. If the number of decimals has changed, the format has probably changed too.
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
    """Return whether the format of a number has changed, for example from `1200` to `1,200`.

    Trailing zeros are part of the format only outside arrays and tables, because printing an array
    or a table strips them from all of its numbers at once.
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
    """Compare a number with a range; a number at either end uses the whole tolerance."""
    low, high = between
    here = value(computed)
    moved = abs(here - (low + high) / 2)
    allowed = (high - low) / 2
    if low <= here <= high:
        moved = min(moved, allowed)
    elif not moved > allowed:  # NaN, or a rounding error at an end of the range
        moved = math.inf
    return Number(line, key, computed, computed, moved, allowed, between)


def missing_lines(old: list[Line], new: list[Line]) -> list[Difference]:
    """Describe the missing and added lines. If a text is very long, only report the line counts."""
    if max(len(old), len(new)) > MOST_LINES:  # aligning lines takes quadratic time
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
    """Return a message for each number in a text that is outside its range in `rules.between`."""
    result = compare_text(text, text, rules, label)
    outside = (number for number in result.numbers if number.between and number.used > 1)
    return [f"line {number.line}: {number}" for number in outside]


def numbers_of(text: str) -> list[re.Match]:
    """Return a regex match, with a `number` group, for each compared number in a text."""
    return [
        NUMBER.match(line.text, token.start)
        for line in lines_of(text)
        for token in line.compared
        if token.what == "number"
    ]


@dataclass(frozen=True)
class Passing:
    """A part of a text that differs from run to run and is therefore ignored.

    Attributes
    ----------
    line
        The number of the part's line, starting at 1.
    text
        The part itself.
    what
        `id`, `address`, `clock` or `duration`.
    progress
        Whether the part is in a progress bar or in Keras's line for an epoch.
    """

    line: int
    text: str
    what: str
    progress: bool


def passing(text: str, rules: Rules) -> list[Passing]:
    """Return the parts that `compare_text` ignores: clock times, durations, addresses and ids."""
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
