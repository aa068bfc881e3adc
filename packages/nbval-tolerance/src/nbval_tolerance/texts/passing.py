"""Find parts of a line that vary by run and are ignored: ids, clock times and durations.

A line is split into tokens. The meaning of a token depends on the text around it: `3.2 s` was
measured during the run in `training took 3.2 s`, but is a result in `half-life 3.2 s`. The
functions in this module are pure. They take one line and the lines around it as arguments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from nbval_tolerance.texts.numbers import NUMBER
from nbval_tolerance.texts.tables import cell_of, cells

PATTERN = re.VERBOSE | re.IGNORECASE


@dataclass(frozen=True)
class Token:
    """A part of a line that is not compared as plain text.

    Attributes
    ----------
    start, end
        The token's position in the line.
    text
        The token's text.
    what
        `number`; `time` for a time of day, with or without a date, that is data; or, for parts that
        are ignored, `id`, `address`, `clock`, `duration` or `bar`.
    maybe
        Whether a `time` may have been read from the clock during the run; see `is_clock`.
    """

    start: int
    end: int
    text: str
    what: str
    maybe: bool = False

    @property
    def passes(self) -> bool:
        """Whether the token is ignored."""
        return self.what not in ("number", "time")


# ---- Ids and addresses. The token is the `id` group or, without one, the whole match.

PATH = r"(?<! [^\s'\"<>(=] ) [^\s'\"<>(=]*"  # matches the beginning of a path
TEMPORARY = r"(?: /tmp | /var/folders/[^/\s]+/[^/\s]+/T | /private/tmp | (?<! \S ) \S*\\Temp )"
RANDOM = r"(?= [a-z_]*\d ) (?= [\d_]*[a-z] ) [a-z0-9_]{8}"  # a `tempfile` name with a digit
LEVEL = r"(?: DEBUG | INFO | WARN(?:ING)? | ERROR | CRITICAL | FATAL | TRACE )"
# Each entry contains the type of token, a list of strings, and the pattern. Every line that matches
# the pattern contains at least one of the strings.
IDS = [
    ("address", ["0x"], r"(?<! [\w.] ) 0x [0-9a-f]{9,16} (?! \w )"),
    ("address", ["0x"], r"\b (?: at | object | address | pointer | ptr | id ) [\s:=]{1,3}"
     r"(?P<id> 0x [0-9a-f]{5,16} ) (?! \w )"),
    ("address", ["id"], r"\b id \b [^\d\n]{0,20} (?P<id> \d{9,19} ) (?! [\w.] )"),
    # The addresses of objects on Linux and macOS, 0x55… and 0x7f…, as `id(x)` returns them.
    ("address", [""], r"\A \s* (?P<id> 9[3-5]\d{12} | 1[34]\d{13} ) \s* \Z"),
    ("id", ["-1", "-4"],
     r"\b [0-9a-f]{8} - [0-9a-f]{4} - [14][0-9a-f]{3} - [89ab][0-9a-f]{3} - [0-9a-f]{12} \b"),
    ("id", ["ipykernel_"], rf"{PATH} ipykernel_\d+ [\\/] \d+ (?= \.py )"),
    # The folders in which Python and its packages are installed.
    ("id", ["-packages"], rf"{PATH} [\\/] (?: site | dist ) -packages (?= [\\/] )"),
    ("id", ["lib/python"], rf"{PATH} /lib/python3\.\d+ (?= /\w+ )"),
    ("id", ["<ipython-input"], r"<ipython-input-\d+-\w+>"),
    ("id", ["__autograph"], r"__autograph_generated_file (?P<id> \w{8} )"),
    ("id", ["tmp", "/var/folders/", "\\temp\\"],
     rf"{TEMPORARY} [\\/] (?: tmp[a-z0-9_]{{6,8}} (?! \w ) | tmp\.\w{{8,12}}"
     rf" | (?: [\w.]*[-_.] )? {RANDOM} (?! \w ) | pytest-of-[^\s/]+/pytest-\d+ )"),
    ("id", ["tmp"], rf"[\\/] (?P<id> tmp {RANDOM} ) (?! \w )"),
    ("id", ["id"], r"\b (?: p?pid | tid | native_id | (?: thread | process ) [\s_]* id )"
     r"[\s=:#]{0,3} (?P<id> \d+ ) (?! [\w.] )"),
    ("id", ["parent="], r"\b pid=\d+ \s parent= (?P<id> \d+ )"),
    ("id", ["process "],
     r"\b (?: in | from | by | started | killed ) \s process \s (?P<id> \d{2,7} ) (?! [\w.] )"),
    ("id", ["thread("],
     r"< \w*Thread\( .*? (?: started | stopped ) (?: \s daemon )? \s (?P<id> \d+ ) \)? >"),
    ("id", ["thread("], r"< \w*Thread\( Thread- (?P<id> \d+ )"),
    ("id", ["<task"], r"< Task \s .*? name='Task- (?P<id> \d+ ) '"),
    ("id", ["127.0.0.1:", "localhost:", "0.0.0.0:", "[::1]:"],  # a port that the system chose
     r"(?: 127\.0\.0\.1 | localhost | 0\.0\.0\.0 | \[::1\] ) :"
     r"(?P<id> (?: 3[3-9] | [4-6]\d ) \d{3} ) (?! \d )"),
    # The prefixes of log lines from absl and glog, PyTorch, and Chromium.
    ("clock", [":"],
     r"\A \s* [IWEF] (?P<id> \d{4} (?: \d{4} )? \s+ \d\d:\d\d:\d+ (?: \.\d+ )? \s+ \d+ )"
     r"(?= \s+ [^\s:]+:\d+\] )"),
    ("clock", ["["],
     r"\A \s* \[ [IWEF] (?P<id> \d{3,4} \s \d\d:\d\d:\d\d\.\d+ ) (?= \s [^\s:]+:\d+\] )"),
    ("clock", ["["], r"\A \[ (?P<id> \d+:\d+:\d{4}/\d{6} (?: \.\d+ )? ) :"),
    # Process ids at the start of log lines, as in `[17113] INFO` or `kernel[17113]: started`.
    ("id", ["["], rf"\A [^\[\]]{{0,40}} \[ (?P<id> \d{{1,7}} ) \] [\s:]* \[? {LEVEL} \b"),
    ("id", ["["], r"\A [\w.:\s-]{0,60} [a-z_]\w* \[ (?P<id> \d{3,7} ) \] : \s+ (?= [a-z] )"),
    ("id", ["["], r"\A \[? \d{4}-\d\d-\d\d [T\s] \d\d:\d\d:\d\d \S* (?: \s [-+]\d{4} )? \]?"
     r"\s* \[ (?P<id> \d{1,7} ) \] \s"),
]  # fmt: skip
IDS = [(what, texts, re.compile(pattern, PATTERN)) for what, texts, pattern in IDS]

# ---- Progress bars, and the line that Keras prints for an epoch.

BAR = re.compile(
    r"""
    (?<! \d ) \d+ / (?: \d+ | Unknown ) \s*
      (?: [━─╸╺]{3} | \[ [=>.]{5,} \] | - \s \d+m?s\b )  # Keras
    | \d% \s? \|  # tqdm
    | \[ \d+:\d\d (?: :\d\d )? ( < [\d:?]+ )? , [^\]]* /
    | [━╸╺]{3,} .* \d  # rich, pip
    | \d [nuµμm]?s / (?: step | epoch | sample ) \b
    """,
    re.VERBOSE,
)
# Matches progress bars without box-drawing characters. Their width and content are ignored.
FILLED = re.compile(r"(?<=%)\s?\|[^|\n]*\|(?=\s)|\[(?=[^\]]*[=#])[=#>.\- ]{8,}\]|\[\.{8,}\]")
IN_BAR = re.compile(
    r"""
    (?<= \[ ) \d+:\d\d (?: :\d\d )? (?: < [\d:?]+ )? (?: , \s* [^,\]]* / [^,\]]* )?  # tqdm
    | (?<! [\w:.] ) (?: \d+ | - ) : (?: \d\d | -- ) (?: : (?: \d\d | -- ) )? (?! [\w:] )
    | [\d.]+ \s? [kMGT]?i?B/s  | (?<= B\s ) \?
    """,
    re.VERBOSE,
)

# ---- Clocks.

FULL_DAY = r"\d{4} [-/] \d\d [-/] \d\d"
HOUR = r"\d\d:\d\d (?: :\d\d (?: [.] \d+ | , \d{3} (?! [\d:] ) )? )?"
ZONE = r"(?: \s? (?: Z | UTC | GMT | [+-]\d\d:?\d\d ) \b )?"
WEEKDAY = r"(?: Mon | Tues? | Wed(?:nes)? | Thu(?:rs)? | Fri | Sat(?:ur)? | Sun ) (?: day )?"
MONTH = r"(?: Jan | Feb | Mar | Apr | May | Jun | Jul | Aug | Sep | Oct | Nov | Dec ) [a-z]*"
CLOCK = re.compile(
    rf"""
    (?<! [\w./-] ) (?:
        (?P<full> {FULL_DAY} (?: T | ,? \s {{1,2}} ) {HOUR} {ZONE} )
      | (?P<full2> \d{{1,2}} [./] \d{{1,2}} [./] \d{{2,4}} ,? \s \d{{1,2}}:\d\d (?: :\d\d )?
          (?: \s [AP]M )? )
      | (?P<words> {WEEKDAY} , \s \d{{1,2}} \s {MONTH} \s \d{{4}} (?: \s {HOUR} {ZONE} )?
          | {WEEKDAY} \s {MONTH} \s+ \d{{1,2}} \s \d\d:\d\d:\d\d (?: \s [A-Z]{{3,4}} )? \s \d{{4}} )
      | (?P<object> datetime\.datetime\( \d{{4}} (?: ,\s\d+ ){{6}}
          (?: , \s [^()]+ (?: \(\) )? )? \) )
      | (?P<hour> (?<! : ) (?P<days> \d+ \s days? ,? \s [+-]? )? \d{{1,3}}:\d\d:\d\d
          (?: [.] \d+ | , \d{{3}} (?! [\d:] ) )? (?: \s? [AP]M \b )? )
    ) (?! \w | :\d | \.\d )
    """,
    re.VERBOSE,
)
LISTED = re.compile(
    rf"""\A [-dlbcps] [-rwxsStT]{{9}} [.+@]? \s .*?
        (?P<id> {MONTH} \s+ \d{{1,2}} \s+ (?: \d\d:\d\d | \d{{4}} ) )""",
    re.VERBOSE,
)  # `ls -l`
SUMMARY = re.compile(
    r"""\A \s* (?: Date | Time ): \s+ (?P<id> \w{3}, \s \d\d \s \w{3} \s \d{4} | \d\d:\d\d:\d\d )
        (?= \s{2,} \S | \s* \Z )""",
    re.VERBOSE,
)  # the summaries of statsmodels.
# Dates before this year are data, because no compared run is that old.
EARLIEST = 2025
# Words that precede a time if the code may have read it from the clock.
NOW = re.compile(
    r"""
    \b (?: now | today | current (?:ly)? | last \s (?: run | sav | updat | modif | chang ) \w*
      | on | at | since | ran | run | built | written | began | begun | done
      | (?: start | finish | complet | execut | sav | creat | generat | updat | modifi | train
          | logg | stopp | abort | submitt | load | download | end | print | launch ) ed
      | start \s time | end \s time ) \b [^.;]* \Z
    | \A \W* (?: date | time | date [\s/]? time | time [\s_]? stamp | when ) \W* \Z
    """,
    PATTERN,
)
DATA = re.compile(r"dtype|datetime64|DatetimeIndex|Timedelta|\bName: |\bFreq: |PeriodIndex")
LOG_BEFORE = re.compile(rf"\A \W{{0,2}} (?: (?: {LEVEL} | [IWEFD] ) \W{{1,3}} )? \Z", re.VERBOSE)
LOG_AFTER = re.compile(
    rf"""
    [\])]? \s* [-|:,]? \s* \[? (?: {LEVEL} | [IWEFD] ) \b
    | [\])]? \s? [-|:]+ \s+ (?= [A-Za-z\[] )  # a message, or a name
    | \] \s* (?= [A-Za-z\[] )
    | [\])]? \s+ \[ (?= [A-Za-z\d] )
    | \s \w+ \s (?: - \s )? {LEVEL} \b
    """,
    re.VERBOSE,
)

# ---- Durations, processing rates, and counts of timed loops.

UNIT = r"""(?: [nuµμm]?s | [nuµμm]?secs? | (?: nano | micro | milli )? seconds?
    | (?<! \s ) min | min (?= \s \d+ \s? s \b ) | min (?! \s* [-+.\d] )  # not `0.2 min 0.7`
    | mins | minutes? | h | hrs? | hours? | days? )"""
SIZE = r"\d[\d.,]*+ (?: e[+-]\d+ )?"
ONE = rf"{SIZE} \s? {UNIT} (?! [\w/^*²] | \s [*/] \s? \w )"
DURATION = re.compile(
    rf"""(?<! [\w.] ) (?: \d+ m \s \d[\d.]* s \b | {SIZE} \s? {UNIT} (?= /\w )
      | {ONE} (?: (?: \s* (?: ± | \+/?- ) \s* | ,? \s+ (?: and \s+ )? ) {ONE} )* )""",
    PATTERN,
)
# The units of work in a processing rate, such as `it/s`. Physical rates, such as `m/s` and `L/s`,
# are not included.
WORK = r"""(?: it | its | iter | iterations? | step | sample | example | image | img | picture
    | batch | epoch | token | tok | record | row | line | file | call | request | req | query
    | queries | op | operation | frame | word | sentence | document | doc | point | eval
    | evaluation | node | game | episode | loop | item | pixel | prediction | [kKMGT]?i?B
    | [kMGTP]?FLOPs? ) (?: s | es )?"""
RATE = re.compile(
    rf"(?<! [\w.] ) \d[\d.,]*+ (?: e[+-]\d+ )? \s? [kMGT]? \s? {WORK}"
    rf" (?: \s? / \s? (?: s | sec | second ) | \s per \s second ) \b"
    rf" | (?<! [\w.] ) \d[\d.,]*+ \s? [MGTP]FLOPS \b",
    PATTERN,
)
TIMEIT = re.compile(
    r"(?<! [\d,] ) (?P<id> [\d,]++ ) \s loops? (?: \s each | , \s best \s of )", PATTERN
)
# If these words precede a duration, it was measured during the run.
TIMED = r"""\b (?: took | takes? | taken | elapsed | latency | eta
    | (?: wall | cpu | run | execution | exec | training | train | fit | fitting | inference | total
        | prediction | score | computing | computation | compilation | compile | processing | load
        | loading | build | response | query | sort | search | user | sys | elapsed
      ) [\s_-]* times? | wall [\s-]? clock | (?: run | wall ) time | time \s+ taken )"""
STRONG = re.compile(rf"{TIMED} \b | \b (?: CPU \s times | user | sys ) \b", PATTERN)
WEAK = re.compile(
    r"""
    \b (?: train | training | trained | fit | fitted | fitting | epochs? | batch | batches
      | (?<! time\s ) (?<! time[-_] ) steps? | predict (?: ed | ing | ion | ions )? | inference
      | evaluat (?: e | ed | ing | ion ) | validation | validating | load (?: ed | ing )?
      | compil (?: e | ed | ing | ation ) | sav (?: ed | ing ) | import (?: ed | ing )?
      | comput (?: ed | ing | ation ) | done | finished | completed | ready | converged | executed
      | ran | processed | processing | sorted | built | (?: first | second | later ) \s calls?
      | eager | graph | forward | backward | per \s (?: loop | call | step | epoch | image ) | each
    ) \b
    | \b in \s* [~≈<]? \s* \Z | \b time \s* [:=]? \s* [~≈<]? \s* \Z
    | ['"] time ['"] : \s* ['"]? \Z
    """,
    PATTERN,
)
# If these words follow a duration, it was also measured during the run.
TIMED_AFTER = re.compile(
    rf"""
    \s* (?: / | per \s ) \s* (?: {WORK} | run | pass | prediction ) \b
    | \s* \(? (?: elapsed | remaining | left | of \s compute | to \s (?: train | fit | run | compute
        | load | execute | finish ) | for \s (?: training | fitting | inference ) ) \b
    """,
    PATTERN,
)
# Units of quantities other than time.
OTHER = r"""(?: [kcmµn]?m | mi | k?g | mg | [kM]?N | [kMm]?J | [kMm]?W | [kMG]?Hz | [kMh]?Pa
    | [kMm]?e?V | mol | rad | °C? | deg | bar | L | ml | km/h | [kMGT]i?B )"""
OTHER_UNIT = re.compile(rf"\s? {OTHER} (?! \w )", re.VERBOSE)
# A line that matches this pattern is about physics, so a word such as `in` does not show that the
# run was timed.
PHYSICAL = re.compile(
    rf"""\d \s? {OTHER} (?! \w )
      | \d \s? [^\W\d_]++ (?: / | \s per \s ) s (?! \w )
      | \b half[\s-]li[fv]e | \b (?: period | pulse | velocity | acceleration ) \b""",
    re.VERBOSE,
)
# Matches a duration without a unit.
UNITLESS = re.compile(
    rf"{TIMED} [\s'\":=~≈]{{1,12}} (?P<id> \d[\d.,]*\.\d+ (?: e[+-]\d+ )? ) (?! [\w%] )", PATTERN
)
ELAPSED = re.compile(r"\b elapsed (?: [\s_] time )? \W{1,3} (?P<id> \d+ ) (?! [\w.,:/%] )", PATTERN)
# Matches lines that IPython's timing magics print only in some runs.
SOMETIMES = re.compile(
    rf"\s* (?: The \s slowest \s run \s took .* | (?: Compiler | Parser ) \s* : \s* {ONE} \s* )",
    PATTERN,
)


def tokens_of(
    line: str, above: Sequence[str] = (), around: Sequence[str] = (), clock: bool | None = None
) -> list[Token]:
    """Return the parts of a line that are not plain text.

    Parameters
    ----------
    line
        One line of text, or the lines of one array.
    above
        The lines above `line` that may be table headers, from top to bottom.
    around
        The lines before and after `line`. A time is data if one of these lines has a time at the
        same position.
    clock
        Whether the code that printed the line reads the clock, or None if this is unknown.

    Returns
    -------
    list of Token
        The parts in order, without overlaps.
    """
    if "tmp" not in line and not any(character.isdigit() for character in line):
        return [number(match) for match in NUMBER.finditer(line)]  # nan and inf
    found: list[Token] = []
    taken = bytearray(len(line))  # to skip numbers inside ignored parts
    for token in (*candidates(line, above, around, clock), *map(number, NUMBER.finditer(line))):
        if not any(taken[token.start : token.end]):
            taken[token.start : token.end] = b"x" * (token.end - token.start)
            found.append(token)
    return sorted(found, key=lambda token: token.start)


def number(match: re.Match) -> Token:
    """Return a number as a token."""
    return Token(match.start(), match.end(), match[0], "number")


def candidates(
    line: str, above: Sequence[str], around: Sequence[str], clock: bool | None
) -> Iterator[Token]:
    """Yield ignored parts and times that are data. If two overlap, the first takes precedence."""
    lower = line.lower()
    for what, texts, pattern in IDS:
        if any(text in lower for text in texts):
            for match in pattern.finditer(line):
                yield part(match, what)
    bar = bool(BAR.search(line))
    if bar:
        for match in FILLED.finditer(line):
            yield part(match, "bar")
        for match in IN_BAR.finditer(line):
            yield part(match, "duration")
    for pattern in (LISTED, SUMMARY):
        for match in pattern.finditer(line):
            yield part(match, "clock")
    if ":" in line or "," in line:
        yield from clocks(line, above, around, clock)
    for match in (*TIMEIT.finditer(line), *RATE.finditer(line)):
        yield part(match, "duration")
    if clock is False and not bar:
        return  # nothing was timed, so durations are data
    yield from durations(line, above, bar, clock)
    for match in (*UNITLESS.finditer(line), *ELAPSED.finditer(line)):
        if not OTHER_UNIT.match(line, match.end()):
            yield part(match, "duration")


def part(match: re.Match, what: str) -> Token:
    """Return the ignored part of a match: its `id` group, or the whole match."""
    groups = [name for name, text in match.groupdict().items() if text and name.startswith("id")]
    start, end = match.span(groups[0]) if groups else match.span()
    return Token(start, end, match.string[start:end], what)


def durations(line: str, above: Sequence[str], bar: bool, clock: bool | None) -> Iterator[Token]:
    """Yield the durations in a line that were measured during the run.

    Whether a duration was measured during the run is inferred from the words between it and the
    previous duration, and from the text after it. In a list such as `took 3.2 s, 4.1 s`, each
    duration is treated like the previous one. A weak word (`training`, `in`) is ignored if the
    duration is in days, or if the line contains a quantity other than time, as in
    `falls 20 m in 2.02 s`. A duration without a strong or weak word is treated as data, unless the
    code reads the clock.
    """
    physical = bool(PHYSICAL.search(line))
    heads = [head for head in above if len(cells(head)) > 1 and not NUMBER.search(head)]
    at, timed = 0, False
    for match in DURATION.finditer(line):
        label, after = line[at : match.start()], line[match.end() :]
        weak = not physical and not match[0].endswith(("day", "days"))
        timed = (
            bar
            or "CPU times" in line
            or bool(STRONG.search(label) or TIMED_AFTER.match(after))
            or (weak and (clock or bool(WEAK.search(label))))
            or (timed and not re.search("[=:]", label))
            or any(STRONG.search(cell_of(head, line, match.start(), match.end())) for head in heads)
        )
        at = match.end()
        if timed:
            yield part(match, "duration")


def clocks(
    line: str, above: Sequence[str], around: Sequence[str], clock: bool | None
) -> Iterator[Token]:
    """Yield the times of day in a line, with or without a date, each as a clock time or as data.

    A time at the start of a log line, or one written in words, is treated as a clock time. A time
    may be a clock time if it is alone on its line, follows words such as `saved at`, or has
    fractions of a second. A time in a table is data. Times at the same position in adjacent lines
    are also data, unless the code reads the clock.
    """
    at = 0
    found = list(CLOCK.finditer(line))
    for match in found:
        label, after = line[at : match.start()], line[match.end() :]
        at = match.end()
        what, maybe = "time", False
        year = re.search(r"(?<!\d)(?:19|20)\d\d(?!\d)", match[0])
        if year and int(year[0]) < EARLIEST:
            pass
        elif match["words"] or is_log(line[: match.start()], after, match):
            what = "clock"
        elif match["hour"] and (
            STRONG.search(label)
            or TIMED_AFTER.match(after)
            or re.search(r"\b(?:done|finished|completed) in\s*\Z", label, re.I)
        ):
            what = "duration"
        elif not match["days"] and not is_data(line, match, () if clock else around, found):
            alone = year and not re.search(r"\w", line[: match.start()] + after)
            maybe = bool(clock or alone or NOW.search(label) or re.search(r"\.\d{3}", match[0]))
        yield Token(match.start(), match.end(), match[0], what, maybe)
    if above and re.search(r"\bepoch\b.*loss\b.*\btime\b", above[-1]):  # fastai's table
        for match in re.finditer(r"(?<=\s)\d\d:\d\d(?=\s*\Z)", line):
            yield part(match, "duration")


def is_log(before: str, after: str, match: re.Match) -> bool:
    """Return whether a time is at the start of a log line."""
    if not LOG_BEFORE.search(before):
        return False
    return bool(LOG_AFTER.match(after)) or bool(re.search(r",\d{3}\Z", match[0]))


def is_data(line: str, match: re.Match, around: Sequence[str], found: list[re.Match]) -> bool:
    """Return whether a time is in a table, an index or an array."""
    if DATA.search(line):
        return True
    if len(found) > 1 and "[" in line[: match.start()] and "]" in line[match.end() :]:
        return True
    if any("days" in other[0] for other in found):
        return True  # beside a pandas Timedelta
    if not re.search(r"[A-Za-z]", line[: match.start()]) and re.match(
        r"\s+[-+.\d]", line[match.end() :]
    ):
        return True  # a row in which numbers follow the time
    return any(
        other.start() == match.start() or other.end() == match.end()
        for neighbour in around
        for other in CLOCK.finditer(neighbour)
    )


def is_clock(stored: Token, computed: Token) -> bool:
    """Return whether two different times can be the clock times of two runs of the same code.

    Both times must look like clock times. The new time must be later than the stored one, or at
    most a day earlier because of a different time zone. The two times of day must differ, and must
    not both be full minutes. If the times are data, a change usually violates one of these
    conditions.
    """
    if not (stored.maybe and computed.maybe and any(map(looks_read, (stored, computed)))):
        return False
    old, new = parts_of(stored.text), parts_of(computed.text)
    if old and new:
        return new > old - timedelta(days=1) and old.time() != new.time()
    return not old and not new


def looks_read(token: Token) -> bool:
    """Return whether a time may come from the clock and is not a full minute."""
    moment = parts_of(token.text)
    if moment:
        return token.maybe and bool(moment.second or moment.microsecond)
    return token.maybe and not re.search(r":\d\d:00(?:\.0*)?\D*\Z", token.text)


def parts_of(text: str) -> datetime | None:
    """Return a date with a time as a `datetime`, or None if the text has no date."""
    numbers = re.findall(r"\d+", text.partition("+")[0])
    if not re.match(r"\D*\d{4}\D", text) or len(numbers) < 5:
        return None
    year, month, day, hour, minute, *rest = map(int, numbers[:6])
    fraction = numbers[6] if len(numbers) > 6 else "0"
    micro = int(fraction) if "(" in text else int(fraction[:6].ljust(6, "0"))
    try:
        return datetime(year, month, day, hour, minute, rest[0] if rest else 0, micro)
    except ValueError:
        return None
