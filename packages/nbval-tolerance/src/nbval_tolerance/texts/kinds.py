"""Determine the kind of a printed number from the words around it. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from nbval_tolerance.texts.numbers import NUMBER, is_integer
from nbval_tolerance.texts.passing import OTHER_UNIT, Token
from nbval_tolerance.texts.tables import GAP, column, corner_end

Words = tuple[tuple[str, tuple[str, ...]], ...]  # kind, its words

# Words before a number, or above it in a table, determine its kind. A setting, such as a learning
# rate, does not depend on training, so the strictest tolerance applies in every phase. Words that
# may also name results are not listed as settings: a temperature may have been fitted, and a step
# size may have been found by a search. IoU, specificity and scikit-learn's `test_score` are
# fractions of correct answers, like accuracy. R² is 1 minus a loss that may change by 8%, so R² may
# change more than an accuracy. A spread or a p-value is usually much smaller than the numbers
# around it, so their size does not determine its tolerance. The words `error` and `perplexity` are
# not listed, so numbers with these names are treated as `float`. An error may be a rounding error,
# and a perplexity grows faster than its loss.
WORDS = re.compile(
    r"""
    (?P<setting> (?: learning | dropout | decay ) [\s_]* rate | weight [\s_]* decay | momentum
      | epsilon | (?<! [a-z] ) (?: lr | eps ) (?! [a-z] ) | beta_[12]
      | (?<! [a-z] ) betas ['"]? \s? [=:(] | negative_slope | clip_? (?: norm | value )
      | label [\s_] smoothing | validation_split | test_size | ['"] rate ['"] | dropout \s? [=(]
      | \b (?: SGD | RMSprop | N?Adam[wx]? | L[12] ) \(
        # Capitals name a model, as in `L2: 0.54`, and `best_alpha` is the result of a search.
      | (?-i: (?<! [a-z] ) (?: dropout | l[12] | (?<! best [\s_] ) (?: alpha | threshold ) ) )
        (?= ['"]? \s? [=:(] ) )
    | (?P<duration> (?<! [a-z] ) (?: fit | score | train | training | inference | predict | elapsed
        | wall | cpu | run | execution ) [\s_-]* times? (?! [a-z] ) | \b speed-? \s? up \b
      # An elapsed distance is not a duration.
      | \b elapsed \b (?! [\s_] (?! (?: times? | wall | cpu | real | since | in | m?s | secs?
          | mins? | h | seconds? | minutes? | hours? ) \b ) [a-z]+ \W{1,3} [\d.-] )
      | \b (?: times | x ) \s (?: faster | slower | as \s fast ) \b )
    | (?P<spread> (?<! [a-z] ) (?: std | stdev | stddev ) (?! [a-z] )
        (?: _ (?: train | test ) _ score )?
      | \b spread \b | standard [\s_-]* (?: deviations? | errors? ) | \b std \s err \b
      | \b variance \b | (?<! [a-z] ) p [\s_-]* val (?: ue )? s? (?! [a-z] ) | P>\|[tzF]\|
      | \b PR? \(>F\) | ± | \+/- )
    | (?P<held_out> (?: val (?: idation )? | test ) [\s_]* )?
      (?: (?P<loss> loss (?: es )? | entropy | (?<! [a-z] ) (?: r?mse | mae | nll ) (?! [a-z] )
          | (?: squared | absolute ) [\s_]* error )
        | (?P<accuracy> (?: accurac(?: y | ies ) | precision | recall
            | (?<! [a-z] ) (?: f1 | (?: au )? roc | auc ) (?! [a-z] ) )
            (?: [\s_-]* scores? (?! [a-z] ) )?
          | (?<! [a-z] ) (?: acc | iou ) (?! [a-z] )
          | (?: mean _ | split \d+ _ )? (?: (?P<test> test ) | train | best ) _ score (?! [a-z] )
          | \b (?: set | best | cv | cross[\s_-]validation ) [\s_] scores? \b
          | specificity | error [\s_]* rate | \b correct \b ) )
    | (?P<probability> probability | probabilities | \b scores? \b | confidence
      | (?<! [a-z] ) r[2²] (?! \w ) )
    """,
    re.VERBOSE | re.IGNORECASE,
)
KINDS = ("setting", "duration", "spread", "loss", "accuracy", "probability")
SETTING_COLUMN = re.compile(r"(?:dropout|alpha|gamma|lambda|[lL][12]|C|threshold)")
OF_THE_RUN = ("duration", "id")  # Numbers of these kinds depend on the run and are ignored.
# If this pattern follows a number, the number labels the numbers after it, as in `{0.1: 0.93}` or
# `dropout 0.5: accuracy 0.93`.
KEY = re.compile(r"['\")\]]{0,2}\s?:\s")


@dataclass(frozen=True)
class Word:
    """A word that names a kind of number, and the word's position in its line."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class Named:
    """Information, besides the words on a line, that helps to determine the kinds of numbers.

    Attributes
    ----------
    words
        Words in addition to `WORDS`.
    label
        A name for the text, such as the name of a probe.
    result
        The kind assumed for numbers that no word names.
    lone
        Whether the text contains only one number. An integer next to other numbers is treated as a
        count.
    timed
        Whether words can mark a number as a duration measured during the run.
    """

    words: Words = ()
    label: str = ""
    result: str = ""
    lone: bool = False
    timed: bool = True


def frozen(words: Mapping[str, Sequence[str]]) -> Words:
    """Return the words for each kind as a tuple, which is hashable."""
    return tuple((kind, tuple(of)) for kind, of in words.items())


def phrase(words: str) -> str:
    """Return a pattern that matches whole words, in which a space also matches an underscore."""
    parts = map(re.escape, re.split(r"[\s_]+", words.strip(" _")))
    return r"(?<![^\W_])" + r"[\s_]+".join(parts) + r"(?![^\W_])"


def number_kind(line: str, token: Token, above: Sequence[str], named: Named) -> str:
    """Determine the kind of a number from the text around it.

    Parameters
    ----------
    line
        The line with the number.
    token
        The number's position in the line.
    above
        The lines before `line` that name a kind, from top to bottom. One of them may be a table
        header.
    named
        Other information that helps to determine the kinds of numbers.

    Returns
    -------
    str
        `integer`, `percentage`, `setting`, `loss`, `held-out loss`, `spread`, `duration`, `id`, …
        or `float`.
    """
    if is_integer(token.text):
        return named.result if named.lone and named.result in OF_THE_RUN else "integer"
    rest = line[token.end :]
    if rest.lstrip().startswith("%"):
        return "percentage"
    kind = word_kind(line, token, above, named)
    if kind == "duration" and (not named.timed or OTHER_UNIT.match(rest)):
        kind = None
    if not kind and KEY.match(rest) and NUMBER.search(rest):
        return "setting"
    return kind or named.result or "float"


def word_kind(line: str, token: Token, above: Sequence[str], named: Named) -> str | None:
    """Return the kind named by a word on the number's line, in a table header or in the label."""
    kind = nearest_word(line, line, token, named.words)
    if kind:
        return kind
    rest = line[token.end :]
    after = next((word for word in words_of(line, named.words) if word.start >= token.end), None)
    # In `0.93 accuracy`, the word names the number before it. In `0.93 lr: 0.1`, it names the next
    # number.
    if (
        after
        and not rest[: after.start - token.end].strip()
        and not re.match(r"\s*([:=]|[-+.]?\d)", line[after.end :])
    ):
        return after.kind
    for head in reversed(above):
        kind = nearest_word(head, line, token, named.words)
        if any(not is_integer(match[0]) for match in NUMBER.finditer(head)):
            if kind:  # a separate line, such as `loss 0.25`
                break
        elif kind:
            return kind
    return next((word.kind for word in reversed(words_of(named.label, named.words))), None)


def nearest_word(text: str, line: str, token: Token, words: Words) -> str | None:
    """Return the kind named by the last word before a number, as in `accuracy: 0.93`.

    `text` is the number's line, or a table header above it. In a table header, words above the
    number's column take precedence over words above the row names, and over words that apply to
    several columns, such as `loss:`.
    """
    found = words_of(text, words)
    if text is line:
        return last_word(found, 0, token.end, text, line, token)
    begin, end = column(text, line, token.start, token.end)
    corner = corner_end(text, line)
    if SETTING_COLUMN.fullmatch(text[begin:end].strip()) and any(
        word.start >= corner and word.kind not in ("setting", "duration") for word in found
    ):  # otherwise, the columns may be models with and without dropout
        return "setting"
    shared = [word for word in found if word.start < corner or text[word.end :][:1] == ":"]
    return last_word(found, begin, end, text, line, token) or last_word(
        shared, 0, begin, text, line, token
    )


def last_word(
    found: Sequence[Word], begin: int, end: int, text: str, line: str, token: Token
) -> str | None:
    """Return the kind of the last word that starts between two positions in the text."""
    for word in reversed(found):
        if begin <= word.start < end and (
            word.kind != "setting" or is_set(word, text, line, token, end)
        ):
            return word.kind
    return None


@lru_cache(maxsize=500)  # called once for each number in a line
def words_of(text: str, words: Words = ()) -> tuple[Word, ...]:
    """Return all words in a line that name a kind; a project's words take precedence."""
    found = [
        Word(*match.span(), f"held-out {kind}" if match["held_out"] and kind != "setting" else kind)
        for kind, pattern in patterns(words)
        for match in pattern.finditer(text)
    ]
    for match in WORDS.finditer(text):
        start, end = match.span()
        if all(end <= word.start or start >= word.end for word in found):
            kind = next(name for name in KINDS if match[name])
            held_out = match["held_out"] or match["test"]
            found.append(Word(start, end, f"held-out {kind}" if held_out else kind))
    return tuple(sorted(found, key=lambda word: word.start))


@lru_cache(maxsize=100)
def patterns(words: Words) -> list[tuple[str, re.Pattern]]:
    """Return a pattern for the words of each kind, with the longest words first."""
    made = []
    for kind, of in words:
        choice = "|".join(phrase(one) for one in sorted(of, key=len, reverse=True))
        held_out = r"(?P<held_out>(?<![^\W_])(?:val(?:idation)?|test)[\s_]+)?"
        made.append((kind, re.compile(f"{held_out}(?:{choice})", re.IGNORECASE)))
    return made


def is_set(word: Word, text: str, line: str, token: Token, end: int) -> bool:
    """Return whether a word such as `lr` names this number: `lr=0.1: 0.93` has only one setting.

    The word names the first number after it. If that number is in brackets, as in
    `Adam(1e-3, 0.9)`, the word also names the other numbers in the same brackets. In a table
    header, the word names the first number in its column.
    """
    if text is not line:
        if end != token.end:  # the column was found by counting cells
            return not GAP.search(text[word.end : end])
        first = next(match for match in NUMBER.finditer(line) if match.end() > word.start)
        return first.start() == token.start < word.end
    first = next(match for match in NUMBER.finditer(line, word.start) if match.end() <= token.end)
    opened, between = line[word.start : first.start()], line[word.start : token.start]
    in_bracket = re.search(r"[(\[]", opened) and not re.search(r"[)\]]", between)
    return first.start() == token.start or bool(in_bracket)
