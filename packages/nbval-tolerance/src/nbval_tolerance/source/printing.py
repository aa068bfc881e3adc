"""Find the expressions that a `print` call shows, and the words before each. Pure functions."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass

PERCENT = re.compile(r"%[-+# 0]*[\d*]*(?:\.[\d*]+)?([a-zA-Z])")


@dataclass(frozen=True)
class Part:
    """A printed expression with its format and the words before it, or only words."""

    words: str
    node: ast.expr | None = None
    form: str = ""


def printed(arguments: list[ast.expr]) -> Iterator[Part]:
    """Yield the parts of `print` arguments, without the words after the last expression."""
    words = ""
    for argument in arguments:
        for part in parts(argument):
            words = f"{words} {part.words}"
            if part.node is not None:
                yield Part(words, part.node, part.form)
                words = ""


def parts(node: ast.expr) -> Iterator[Part]:
    """Yield the parts of one argument. A formatted string consists of words and fields."""
    match node:
        case ast.Constant():
            yield Part(str(node.value))
        case ast.JoinedStr():
            words = ""
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    form = ast.unparse(part.format_spec)[2:-1] if part.format_spec else ""
                    yield Part(words, part.value, form)
                    words = ""
                else:
                    words += str(getattr(part, "value", ""))
            yield Part(words)
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str() as text), attr="format")):
            yield from formatted(text, node)
        case ast.BinOp(left=ast.Constant(value=str() as text), op=ast.Mod()):
            values = node.right.elts if isinstance(node.right, ast.Tuple) else [node.right]
            pieces = PERCENT.split(text.replace("%%", "°"))
            for words, form, each in zip(pieces[::2], pieces[1::2], values, strict=False):
                yield Part(words, each, form)
        case _:
            yield Part("", node)


def formatted(text: str, node: ast.Call) -> Iterator[Part]:
    """Yield the parts of `"…".format(…)`."""
    try:
        fields = list(string.Formatter().parse(text))
    except ValueError:  # a malformed format string makes the cell itself raise an exception
        return
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    place = 0
    for words, name, form, _ in fields:
        if name is None:
            yield Part(words)
            continue
        key = re.split(r"[.\[]", name)[0]
        index = int(key) if key.isdigit() else place
        value = keywords.get(key) or (node.args[index] if index < len(node.args) else None)
        yield Part(words, value, form or "")
        place += 1
