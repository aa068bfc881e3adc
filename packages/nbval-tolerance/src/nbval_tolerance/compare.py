"""Does a new text say the same as the stored one? Pure functions: no pytest, no Jupyter.

A text is taken as a template, compared exactly, with numbers in it, each compared by its kind.
Integers (counts, shapes, labels) must be equal. A float may differ by what honest machines differ:
float32 rounding before any training; in a training log and after it what other instruction sets,
thread counts and compilers were measured to change. Times and memory addresses say nothing.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache


class Phase(Enum):
    """Where in its notebook a cell stands."""

    UNTRAINED = "before any training"
    FITTED = "after fitting a model that is no network"
    FIT = "in a training log"
    TRAINED = "after training"


# kind -> (absolute, relative) tolerance. Measured by `make prove-regression` on lessons 05 to 08:
# threads, instruction sets, oneDNN on and off, XLA, without op determinism, other Python and
# Matplotlib. The largest honest move of each kind stands behind it, most of them XLA's, with which
# Dropout drops other units. Where a tolerance is more than twice that, another network on another
# processor (AMD Zen) has moved farther: its training loss by 3.2 %, its test loss by 5.7 %.
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
        "percentage": (
            0.5,
            0.0,
        ),  # 0.3 of 8.6; shares of 1,000 images 1.1: lesson 06 has a tag there
        "float": (0.02, 0.08),  # 0.084 of 1.211, the largest value of a feature map
    },
}

# From how many decimals on a float may also move by one unit of the last one: where rounding can
# flip it. A `1.` or `0.5` before training has no such unit; it would allow a 0, or a 0.4.
DIGITS = {Phase.UNTRAINED: 4, Phase.FITTED: 4, Phase.FIT: 1, Phase.TRAINED: 1}

MOST_LINES = 2000  # of a text whose lines are aligned, to say which are new

# What the words before a number, or above it in a table, say that it is. A setting, such as a
# learning rate, depends on no training: it is held to the strictest tolerance everywhere. What also
# names results is none: a temperature may have been fitted, a step size found. IoU and specificity
# are shares of right answers, like accuracy. R² is 1 minus a loss that may move by 8 %, so it moves
# farther. Two are left to be floats: `error`, which may be one of rounding, and perplexity, which
# grows faster than its loss.
WORDS = re.compile(
    r"""
    (?P<setting> (?: learning | dropout | decay ) [\s_]* rate | weight [\s_]* decay | momentum
      | epsilon | (?<! [a-z] ) (?: lr | eps ) (?! [a-z] ) | beta_[12] | clip_? (?: norm | value )
      | label [\s_] smoothing | validation_split | test_size | ['"] rate ['"] | dropout \s? [=(]
      | \b (?: SGD | RMSprop | N?Adam[wx]? | L[12] ) \(
        # Not in capitals, which name a model with it, `L2: 0.54`, nor one that was searched for.
      | (?-i: (?<! [a-z] ) (?: dropout | l[12] | (?<! best [\s_] ) threshold ) )
        (?= ['"]? \s? [=:(] ) )
    | (?P<held_out> (?: val (?: idation )? | test ) [\s_]* )?
      (?: (?P<loss> loss (?: es )? | entropy | (?<! [a-z] ) (?: r?mse | mae | nll ) (?! [a-z] )
          | (?: squared | absolute ) [\s_]* error )
        | (?P<accuracy> accurac(?: y | ies ) | precision
          | (?<! [a-z] ) (?: acc | f1 | (?: au )? roc | auc | iou ) (?! [a-z] )
          | recall | specificity | error [\s_]* rate | \b correct \b ) )
    | (?P<probability> probability | probabilities | \b scores? \b | confidence
      | (?<! [a-z] ) r[2²] (?! \w ) )
    """,
    re.VERBOSE | re.IGNORECASE,
)

# What changes at every run and says nothing. `min` must touch its number (`1min 3s`), because in a
# table `0.5 min 0.1` are two numbers and a word.
DURATION = r"\d[\d.,]*+ (?: \s? (?: [nuµμm]?s | sec | seconds? | minutes? | hours? ) | min )"
MASKED = rf"""
    (?<! [\w.] ) (?P<masked>
        0x [0-9a-fA-F]{{6,}}  # a memory address
      | \d{{4}}-\d\d-\d\d [T\s] \d\d:\d\d (?: :\d\d (?: [.,]\d+ )? )? Z?
      | \d+:\d\d:\d\d (?: \.\d+ )?
      | \[ \d\d:\d\d < [\d:?]+ , [^\]]* \]  # in the bar of tqdm
      | [\d,]++ \s loops? \s each  # of timeit
      | {DURATION} (?: \s {DURATION} )* (?: /\w+ )?
      | [\d.,]++ \s? \w*+ / (?: s | sec | second )
    ) (?! \w )
"""
NUMBER = r"""
    (?<! [\w.] )  # not the 1 of x1
    (?P<number>
        [-+]? (?: \d{1,3} (?: ,\d{3} )+ | \d+ ) \.\d++ (?: [eE] [-+]? \d+ )?+
        (?= [^\W\d_] )  # a unit may touch a decimal number, as in 31.42dB
      | [-+]? (?:
            (?: \d{1,3} (?: ,\d{3} )+ (?! ,?\d ) | \d+ | (?= \.\d ) )  # 101,770 or 42 or .5
            (?: \.\d* )?
            (?: [eE] [-+]? \d+ )?
          | nan | NaN | inf
        )
        (?! \w | \.\d )  # not the 3 of 3x, nor a part of the version 2.21.0
    )
"""
TOKEN = re.compile(f"{MASKED} | {NUMBER}", re.VERBOSE)

ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
RULE = re.compile(r"[\s─-╿+|=-]*[─-╿][\s─-╿+|=-]*")  # only box-drawing: a table's rule
BOX = re.compile(r"\s*[─-╿]+\s*")


@dataclass(frozen=True)
class Rules:
    """How strictly a cell is compared.

    Attributes
    ----------
    phase
        Where in its notebook the cell stands.
    exact
        Whether all must be printed the same: each digit, and times, which are data then.
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
        greatest that it may be. Such a number is held to that range, not to the stored one.
    result
        What the cell's result is where no word names it (`accuracy` of `model.score(x, y)`): found
        in the source. Empty if that does not say.
    words
        Kind of number -> words that name it, beside `WORDS`.
    tolerances
        Tolerances that take the place of those in `TOLERANCES`.
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
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tolerances: Mapping[Phase, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    skip: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """One thing in which a new output differs from the stored one."""

    what: str
    stored: str
    computed: str

    def __str__(self) -> str:
        return f"{self.what}\n    stored:   {self.stored}\n    computed: {self.computed}"


@dataclass(frozen=True)
class Number:
    """One printed number and what it became: by how much it moved, and by how much it may."""

    line: int
    kind: str
    stored: str
    computed: str
    moved: float
    allowed: float

    @property
    def used(self) -> float:
        """The share of the tolerance that was used; beyond 1 the number fails."""
        if self.moved == 0:
            return 0.0
        return self.moved / self.allowed if self.allowed else math.inf

    def __str__(self) -> str:
        became = f"{self.stored} became {self.computed}"
        if self.allowed == 0:
            return f"{became} ({self.kind}: must be equal)"
        return f"{became} ({self.kind}: at most ±{self.allowed:.2g}, moved {self.moved:.2g})"


@dataclass
class Comparison:
    """What differs, how far each number moved, and a PNG for each figure that differs."""

    differences: list[Difference] = field(default_factory=list)
    numbers: list[Number] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)

    def __iadd__(self, other: Comparison) -> Comparison:
        self.differences += other.differences
        self.numbers += other.numbers
        self.pictures += other.pictures
        return self

    @property
    def worst(self) -> Number | None:
        """The number (or figure) that used most of its tolerance."""
        return max(self.numbers, key=lambda number: number.used, default=None)


def compare_text(stored: str, computed: str, rules: Rules) -> Comparison:
    """Compare two texts as a reader sees them, line by line.

    Parameters
    ----------
    stored, computed
        The text in the notebook, and what its cell says now.
    rules
        How strictly.

    Returns
    -------
    Comparison
        Without differences if both say the same. White space counts only as a separator: NumPy
        pads a column by its widest entry, so that one changed digit moves the others, and it may
        break the lines of an array elsewhere. The rules of tables do not count at all. With
        `rules.exact` all of it counts, but for white space at the ends of lines, and colours.
    """
    lines = verbatim_lines if rules.exact else logical_lines
    old, new = (list(lines(rendered(text))) for text in (stored, computed))
    result = Comparison()
    if len(old) != len(new):
        result.differences += missing_lines(old, new)
        return result
    above: list[str] = []  # of the lines since the last blank one, those that name a kind
    for (number, one), (_, other) in zip(old, new, strict=True):
        result += compare_line(one, other, rules, above, number)
        if not one.strip():
            above.clear()
        elif WORDS.search(one):
            above.append(one)
    return result


def compare_line(
    stored: str, computed: str, rules: Rules, above: list[str], line: int
) -> Comparison:
    """Compare two lines; `above` holds the stored lines before them, for the heads of tables."""
    result = Comparison()
    if rules.exact and stored == computed:
        return result
    if rules.exact or template(stored) != template(computed):
        result.differences = [Difference(f"line {line}: the text differs", stored, computed)]
        return result
    if not rules.seeded:
        return result
    for old, new in zip(numbers_of(stored), numbers_of(computed), strict=True):
        kind = number_kind(stored, old, above)
        result.numbers.append(compare_number(old["number"], new["number"], kind, rules, line))
    failed = [str(number) for number in result.numbers if number.used > 1]
    if failed:
        what = f"line {line}, {rules.phase.value}: {'; '.join(failed)}"
        result.differences = [Difference(what, stored, computed)]
    return result


def compare_number(stored: str, computed: str, kind: str, rules: Rules, line: int) -> Number:
    """Compare two printed numbers of one kind."""
    if stored == computed:
        moved = 0.0
    elif math.isfinite(value(stored)) and math.isfinite(value(computed)):
        moved = abs(value(stored) - value(computed))
    else:  # NaN and infinity only where they are stored
        moved = math.inf
    kind, allowed = tolerance(stored, computed, kind, rules)
    return Number(line, kind, stored, computed, moved, allowed)


def tolerance(stored: str, computed: str, kind: str, rules: Rules) -> tuple[str, float]:
    """Return the kind under which a number is judged, and by how much it may move.

    One unit of the last printed digit is included. NumPy strips zeros, so the digits are those of
    the longer of the two.
    """
    if kind == "integer" or not math.isfinite(value(stored)):
        return kind, 0.0
    if kind == "setting":  # a constant, not computed: as float32 holds it
        return kind, 1e-6 * abs(value(stored))
    phase = rules.phase
    if kind not in TOLERANCES[phase]:  # only a training log tells its held-out data apart
        kind = kind.removeprefix("held-out ")
    absolute, relative = TOLERANCES[phase][kind]
    factor = rules.wider.get(kind.removeprefix("held-out "), 1.0)
    digits = max(decimals(stored), decimals(computed))
    # The slack keeps 0.13 and 0.12 one unit apart: as floats they differ by a little more.
    unit = 10.0**-digits * (1 + 1e-9) if digits >= DIGITS[phase] else 0.0
    return kind, unit + factor * (absolute + relative * abs(value(stored)))


def rendered(text: str) -> str:
    """Return what a terminal would show: carriage returns, backspaces and colours carried out.

    Of a progress bar only the last frame remains.
    """
    text = ANSI.sub("", text)
    if "\r" not in text and "\b" not in text:
        return text
    lines = []
    for line in text.split("\n"):
        shown: list[str] = []
        column = 0
        for character in line.rstrip("\r"):
            if character == "\r":
                column = 0
            elif character == "\b":
                column = max(column - 1, 0)
            else:
                shown[column : column + 1] = [character]
                column += 1
        lines.append("".join(shown))
    return "\n".join(lines)


def verbatim_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number (from 1) and text of each line, as it is but for white space at its end."""
    yield from enumerate((line.rstrip() for line in text.rstrip().splitlines()), start=1)


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number (from 1) and text of each line; the lines of one array are one line."""
    begun, parts, depth, call = 0, [], 0, 0
    for number, line in enumerate(text.strip().splitlines(), start=1):
        if RULE.fullmatch(line):
            continue
        begun = begun or number
        parts.append(line.rstrip())
        depth += line.count("[") - line.count("]")
        call += line.count("(") - line.count(")")
        # After `array([…],` NumPy may put `dtype=float32)` into a line of its own.
        if depth <= 0 and (call <= 0 or not parts[-1].endswith(",")):
            yield begun, "\n".join(parts)
            begun, parts, depth, call = 0, [], 0, 0
    if parts:  # a bracket that never closes is no array
        yield from enumerate(parts, start=begun)


def missing_lines(old: list[tuple[int, str]], new: list[tuple[int, str]]) -> list[Difference]:
    """Say which lines are gone and which are new; of very long texts, only how many."""
    if max(len(old), len(new)) > MOST_LINES:  # aligning them takes time that grows by the square
        return [Difference("the text differs", f"{len(old)} lines", f"{len(new)} lines")]
    matcher = difflib.SequenceMatcher(
        a=[template(line) for _, line in old], b=[template(line) for _, line in new], autojunk=False
    )
    differences = []
    for operation, start, stop, begin, end in matcher.get_opcodes():
        if operation != "equal":
            number = old[start][0] if start < len(old) else len(old)
            gone, come = (
                "\n".join(line for _, line in lines) or "(no line)"
                for lines in (old[start:stop], new[begin:end])
            )
            what = f"line {number}: {stop - start} lines became {end - begin}"
            differences.append(Difference(what, gone, come))
    return differences


def template(text: str) -> str:
    """Return `text` with each number replaced by a mark that says whether it is an integer.

    What is masked, and white space beside brackets and in padding, say nothing: `[ 1. 10.]` and
    `[1. 9.]` have the same form, and so have table cells of other widths.
    """

    def mark(match: re.Match) -> str:
        if match["masked"]:
            return "…"
        return "§" if is_integer(match["number"]) else "#"

    marked = BOX.sub(" │ ", TOKEN.sub(mark, text))
    return " ".join(re.sub(r"\s*([\[\](),])\s*", r"\1", marked).split())


def numbers_of(line: str) -> list[re.Match]:
    """Return the matches of all numbers in a line that are compared."""
    return [match for match in TOKEN.finditer(line) if match["number"]]


def is_integer(number: str) -> bool:
    """Tell whether a printed number is an integer: digits, no point, no exponent."""
    return not set(number) & set(".eEnN")


def value(number: str) -> float:
    """Return a printed number's value: `101,770.5` is 101770.5."""
    return float(number.replace(",", ""))


def decimals(number: str) -> int:
    """Return the place of the last printed digit: 2 for `0.25`, 6 for `1.5e-05`."""
    mantissa, _, exponent = number.lower().partition("e")
    return len(mantissa.partition(".")[2]) - int(exponent or 0)


def number_kind(line: str, match: re.Match, above: list[str]) -> str:
    """Name a number by what stands around it.

    Parameters
    ----------
    line
        The line in which it stands.
    match
        Its place there.
    above
        The lines before it, down from the last blank one; one may be the head of a table.

    Returns
    -------
    str
        `integer`, `percentage`, `setting`, `loss`, `held-out loss`, … or `float`.
    """
    if is_integer(match["number"]):
        return "integer"
    if line[match.end() :].lstrip().startswith("%"):
        return "percentage"
    kind = nearest_word(line, line, match)
    if kind:
        return kind
    rest = line[match.end() :].lstrip()
    after = WORDS.match(rest)
    # As in `0.93 accuracy`, but not in `0.93 lr: 0.1`, where the word names what comes next.
    if after and not re.match(r"\s*([:=]|[-+.]?\d)", rest[after.end() :]):
        return kind_of(after)
    for head in reversed(above):
        kind = nearest_word(head, line, match)
        if any(not is_integer(number["number"]) for number in numbers_of(head)):
            if kind:  # a line of its own, such as `loss 0.25`
                break
        elif kind:
            return kind
    return "float"


def nearest_word(text: str, line: str, match: re.Match) -> str | None:
    """Return the kind that the last word before a number names, as in `accuracy: 0.93`.

    `text` is the number's own line, or one above it, whose words then stand before its column.
    """
    for word in reversed([word for word in words_of(text) if word.start() < match.end()]):
        if not word["setting"] or is_set(word, text is not line, line, match):
            return kind_of(word)
    return None


@lru_cache(maxsize=100)  # a line is asked once for each of its numbers
def words_of(text: str) -> list[re.Match]:
    """Return the matches of all words in a line that say what a number is."""
    return list(WORDS.finditer(text))


def is_set(word: re.Match, above: bool, line: str, match: re.Match) -> bool:
    """Tell whether a setting's word names this number: `lr=0.1: 0.93` has one setting, not two.

    It names the first number after it and, if that stands in a bracket, as in `Adam(1e-3, 0.9)`,
    the others there; in the head of a table, the first number in its column.
    """
    numbers = (n for n in TOKEN.finditer(line) if n["number"] and n.end() > word.start())
    first = next(numbers)
    if above:
        return first.start() == match.start() < word.end()
    opened, between = line[word.start() : first.start()], line[word.start() : match.start()]
    in_bracket = re.search(r"[(\[]", opened) and not re.search(r"[)\]]", between)
    return first.start() == match.start() or bool(in_bracket)


def kind_of(word: re.Match) -> str:
    """Return the kind that a match of `WORDS` stands for."""
    group = next(name for name in ("setting", "loss", "accuracy", "probability") if word[name])
    return f"held-out {group}" if word["held_out"] else group
