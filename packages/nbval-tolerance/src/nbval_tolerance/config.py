"""What a project says about its notebooks: `[tool.nbval-tolerance]` in `pyproject.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path

from nbval_tolerance.compare import TOLERANCES, Phase

TABLE = "nbval-tolerance"
# As they are written in the table: what a number is, without where it stands.
KINDS = (*TOLERANCES[Phase.TRAINED], "setting")


class ConfigError(ValueError):
    """The table is wrong; the message names the file, the key and what it takes."""


@dataclass(frozen=True)
class Config:
    """A project's settings. Each field is a key of the table, with `-` for `_`.

    Attributes
    ----------
    notebooks
        Glob patterns, relative to the file, of the notebooks that `nbval-tolerance execute` means
        where it is given a name or nothing.
    training
        Calls that train a model by chance or rounding, beside those that are known: a function's
        or method's name, as `train_epoch`.
    deterministic
        Calls that look like training and give the same result on every machine but for rounding.
    words
        Kind of number -> words that name it, beside those that are known.
    tolerances
        Phase (`untrained`, `fit`, `trained`, …) -> kind -> (absolute, relative).
    figures
        Whether pictures are compared.
    skip
        MIME types that are not compared.
    environment
        Environment variables that kernels inherit, beside those in `run.INHERITED`: names, in which
        `*` stands for anything; or `NAME=value`, which sets one.
    strict
        Whether outputs may hold neither stderr nor times, addresses and frames of progress bars.
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
    folder: Path | None = None  # in which the file lies; set by `load`


DEFAULTS = Config()


@cache
def find(start: Path) -> Config:
    """Return the settings for a notebook: of the nearest `pyproject.toml` upwards with our table.

    Parameters
    ----------
    start
        The notebook, or its folder; absolute.

    Raises
    ------
    ConfigError
        As `load` does.
    """
    for folder in (start, *start.parents):
        file = folder / "pyproject.toml"
        if file.is_file() and TABLE in read(file).get("tool", {}):
            return load(file)
    return DEFAULTS


def load(file: Path) -> Config:
    """Return the settings in one TOML file.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a key or value of the table is unknown.
    """
    table = read(file).get("tool", {}).get(TABLE, {})
    known = {each.name.replace("_", "-") for each in fields(Config)} - {"folder"}
    found = {}
    for key, value in table.items():
        where = f"{file}, [tool.{TABLE}], {key}"
        if key not in known:
            raise ConfigError(f"{where}: unknown; the keys are {', '.join(sorted(known))}")
        if key in ("figures", "strict"):
            if not isinstance(value, bool):
                raise ConfigError(f"{where}: takes true or false, not {value!r}")
        elif key == "words":
            value = {kind: texts(of, f"{where}.{kind}") for kind, of in kinds(value, where)}
        elif key == "tolerances":
            value = tolerances(value, where)
        else:
            value = texts(value, where)
        found[key] = value
    return Config(**found, folder=file.parent)


@cache
def read(file: Path) -> dict:
    """Return a TOML file's content; raise `ConfigError` if it has none."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from None


def texts(value: object, where: str) -> tuple[str, ...]:
    """Return a list of texts as a tuple; raise `ConfigError` if it is none."""
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise ConfigError(f"{where}: takes a list of texts, not {value!r}")
    return tuple(value)


def kinds(value: object, where: str) -> list[tuple[str, object]]:
    """Return the items of a table by kind; raise `ConfigError` if it is none."""
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: takes a table, not {value!r}")
    for kind in value:
        if kind not in KINDS:
            raise ConfigError(f"{where}.{kind}: no such kind; there are {', '.join(KINDS)}")
    return list(value.items())


def tolerances(value: object, where: str) -> dict[Phase, dict[str, tuple[float, float]]]:
    """Return tolerances by phase and kind; raise `ConfigError` if one is none."""
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: takes a table, not {value!r}")
    found = {}
    for name, table in value.items():
        phases = {phase.name.lower(): phase for phase in Phase}
        if name not in phases:
            raise ConfigError(f"{where}.{name}: no such phase; there are {', '.join(phases)}")
        found[phases[name]] = {}
        for kind, pair in kinds(table, f"{where}.{name}"):
            if (
                not isinstance(pair, list)
                or len(pair) != 2
                or not all(type(n) in (int, float) and 0 <= n < float("inf") for n in pair)
            ):
                raise ConfigError(
                    f"{where}.{name}.{kind}: takes [absolute, relative], as [0.002, 0.08] for "
                    f"±0.002 and 8 %; not {pair!r}"
                )
            found[phases[name]][kind] = (float(pair[0]), float(pair[1]))
    return found
