"""Read a project's settings from the `[tool.nbval-tolerance]` table in `pyproject.toml`."""

from __future__ import annotations

import keyword
import mimetypes
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path

from nbval_tolerance.compare import TOLERANCES, Phase

TABLE = "nbval-tolerance"
# The kinds of numbers that the table accepts. These kinds do not distinguish between training data
# and held-out data.
KINDS = (*TOLERANCES[Phase.TRAINED], "setting")
FIXED = {
    "setting": "a setting is a constant and must be equal",
    "integer": "an integer must be equal",
}
VARIABLE = re.compile(r"[A-Za-z_*][\w*().-]*", re.ASCII)
MIME_TYPE = re.compile(
    r"(?:application|audio|font|image|message|model|multipart|text|video|x-[a-z0-9-]+)"
    r"/[A-Za-z0-9][\w!#$&^.+-]*",
    re.ASCII,
)
# The image MIME types built into Python, without those registered on the host.
IMAGES = {
    kind
    for types in mimetypes.MimeTypes(()).types_map
    for kind in types.values()
    if kind.startswith("image/")
} | {"image/webp", "image/avif", "image/apng"}


class ConfigError(ValueError):
    """The settings are invalid; the message names the file, the key and the accepted values."""


@dataclass(frozen=True)
class Config:
    """A project's settings. Each field corresponds to a key of the table, with `_` instead of `-`.

    Attributes
    ----------
    notebooks
        Glob patterns for notebooks, relative to the file. `nbval-tolerance execute` runs these
        notebooks by default, and searches them for the names that the user gives.
    training
        Calls, in addition to the built-in ones, that train a model in a way that depends on random
        numbers or amplifies rounding errors. Each entry is the name of a function or method, such
        as `train_epoch`.
    deterministic
        Calls that look like training but produce the same result on every machine, except for
        rounding.
    words
        Kind of number -> words that name it, in addition to the built-in ones.
    tolerances
        Phase (`untrained`, `fit`, `trained`, …) -> kind -> (absolute, relative).
    figures
        Whether pictures are compared.
    skip
        MIME types that are not compared.
    environment
        Environment variables that kernels inherit, in addition to those in `run.INHERITED`. Each
        entry is a name, in which `*` matches any characters, or `NAME=value`, which sets the
        variable. `PYTHONHASHSEED` defaults to 0.
    strict
        Whether stderr, times, addresses and frames of progress bars are forbidden in outputs.
    """

    notebooks: tuple[str, ...] = ("*.ipynb", "notebooks/**/*.ipynb")
    training: tuple[str, ...] = ()
    deterministic: tuple[str, ...] = ()
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tolerances: Mapping[Phase, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    figures: bool = True
    skip: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    strict: bool = False
    folder: Path | None = None  # the folder that contains the file; set by `load`


DEFAULTS = Config()


@cache
def find(start: Path) -> Config:
    """Return the settings in the nearest `pyproject.toml` that contains our table, or the defaults.

    Parameters
    ----------
    start
        The absolute path of the notebook or of its folder.

    Raises
    ------
    ConfigError
        For the same reasons as `load`.
    """
    for folder in (start, *start.parents):
        file = folder / "pyproject.toml"
        if file.is_file() and table_of(file) is not None:
            return load(file)
    return DEFAULTS


def load(file: Path) -> Config:
    """Return the settings in a TOML file.

    Raises
    ------
    ConfigError
        If the file cannot be read, or the table contains an invalid key or value.
    """
    table = table_of(file)
    here = f"{file}, [tool.{TABLE}]"
    if not isinstance(table, dict):
        raise ConfigError(f"{file} has no table [tool.{TABLE}]")
    known = {each.name.replace("_", "-") for each in fields(Config)} - {"folder"}
    found = {}
    for key, value in table.items():
        where = f"{here}, {key}"
        if key not in known:
            raise ConfigError(f"{where}: unknown; the keys are {', '.join(sorted(known))}")
        if key in ("figures", "strict"):
            if not isinstance(value, bool):
                raise ConfigError(f"{where}: takes true or false, not {value!r}")
        elif key == "words":
            value = words(value, where)
        elif key == "tolerances":
            value = tolerances(value, where)
        else:
            value = texts(value, where)
            for text in value:
                if wrong := CHECKS.get(key, lambda text: "")(text):
                    raise ConfigError(f"{where}: {text!r} {wrong}")
        found[key] = value
    if both := set(found.get("training", ())) & set(found.get("deterministic", ())):
        raise ConfigError(f"{here}: {min(both)!r} is in training and in deterministic; choose one")
    return Config(**found, folder=file.parent)


def wrong_call(text: str) -> str:
    """Return what is wrong with a function's name, or an empty string if it is valid."""
    parts = text.split(".")
    if all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        return ""
    return "is not a name; write one without brackets, such as train_epoch or optimizer.update"


def wrong_type(text: str) -> str:
    """Return what is wrong with a MIME type, or an empty string if it is known."""
    if not MIME_TYPE.fullmatch(text):
        return "is not a MIME type; write one in full, such as image/png"
    if text.startswith("image/") and text not in IMAGES and not re.match("image/(x-|vnd)", text):
        return f"is not known; the types of images are {', '.join(sorted(IMAGES))}"
    return ""


def wrong_variable(text: str) -> str:
    """Return what is wrong with an entry of `environment`, or an empty string if it is valid."""
    name, equals, _ = text.partition("=")
    if VARIABLE.fullmatch(name) and not (equals and "*" in name) and "\0" not in text:
        return ""
    return "is not an environment variable; write NAME, MY_*, or NAME=value"


def wrong_pattern(text: str) -> str:
    """Return what is wrong with a pattern for notebooks, or an empty string if it is valid."""
    return "" if text.endswith(".ipynb") else "matches no notebook; write one that ends in .ipynb"


# Maps each key that contains strings to the function that validates each string.
CHECKS = {
    "notebooks": wrong_pattern,
    "training": wrong_call,
    "deterministic": wrong_call,
    "skip": wrong_type,
    "environment": wrong_variable,
}


def table_of(file: Path) -> object:
    """Return this package's table in a TOML file, or None if the file has no such table.

    Raises
    ------
    ConfigError
        If the table's name is misspelled, so that the table would be ignored.
    """
    content = read(file)
    tools = content.get("tool")
    tools = tools if isinstance(tools, dict) else {}
    other = TABLE.replace("-", "_")
    wrong = [name for name in (TABLE, other) if name in content]
    wrong += [f"tool.{other}"] if other in tools else []
    if wrong:
        raise ConfigError(f"{file}: the table [{wrong[0]}] is not read; call it [tool.{TABLE}]")
    return tools.get(TABLE)


@cache
def read(file: Path) -> dict:
    """Return a TOML file's content; raise `ConfigError` if it cannot be read or parsed."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file} is not a TOML file: {error}") from None


def texts(value: object, where: str) -> tuple[str, ...]:
    """Return a list of non-empty strings as a tuple; raise `ConfigError` for anything else."""
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ConfigError(f"{where}: takes a list of strings, not {value!r}")
    if not all(map(str.strip, value)):
        raise ConfigError(f"{where}: {value!r} has an empty string; fill it in or remove it")
    return tuple(value)


def items(value: object, where: str) -> list[tuple[str, object]]:
    """Return the items of a table; raise `ConfigError` if the value is not a table."""
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: takes a table, not {value!r}")
    return list(value.items())


def words(value: object, where: str) -> dict[str, tuple[str, ...]]:
    """Return the words that name each kind; raise `ConfigError` if a kind or word is invalid."""
    found: dict[str, tuple[str, ...]] = {}
    names: dict[str, str] = {}  # word -> its kind
    for kind, listed in items(value, where):
        if kind not in KINDS:
            raise ConfigError(f"{where}.{kind}: no such kind; the kinds are {', '.join(KINDS)}")
        found[kind] = texts(listed, f"{where}.{kind}")
        for word in found[kind]:
            if not re.search(r"[^\W_]", word):
                raise ConfigError(f"{where}.{kind}: {word!r} contains no letter or digit")
            if names.setdefault(word.casefold(), kind) != kind:
                both = f"{names[word.casefold()]} and {kind}"
                raise ConfigError(f"{where}: {word!r} names {both}; choose one")
    return found


def tolerances(value: object, where: str) -> dict[Phase, dict[str, tuple[float, float]]]:
    """Return the tolerances by phase and kind; raise `ConfigError` if a tolerance is invalid."""
    phases = {phase.name.lower(): phase for phase in Phase}
    found: dict[Phase, dict[str, tuple[float, float]]] = {}
    for name, table in items(value, where):
        if name not in phases:
            raise ConfigError(f"{where}.{name}: no such phase; the phases are {', '.join(phases)}")
        phase = phases[name]
        found[phase] = {}
        for kind, pair in items(table, f"{where}.{name}"):
            if kind in FIXED:
                raise ConfigError(f"{where}.{name}.{kind}: {FIXED[kind]}; remove it")
            if kind not in TOLERANCES[phase]:
                there = ", ".join(TOLERANCES[phase])
                raise ConfigError(f"{where}.{name}.{kind}: no such kind; the kinds are {there}")
            if (
                not isinstance(pair, list)
                or len(pair) != 2
                or not all(type(n) in (int, float) and 0 <= n < float("inf") for n in pair)
            ):
                raise ConfigError(
                    f"{where}.{name}.{kind}: takes [absolute, relative], such as [0.002, 0.08] "
                    f"for ±0.002 plus 8%, not {pair!r}"
                )
            found[phase][kind] = (float(pair[0]), float(pair[1]))
    return found
