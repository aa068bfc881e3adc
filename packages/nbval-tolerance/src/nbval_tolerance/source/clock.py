"""Detect whether a cell's code might read the clock; if this is unclear, assume that it does.

Pure functions.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable

from nbval_tolerance.source import libraries, variables
from nbval_tolerance.source.calls import name_of
from nbval_tolerance.source.libraries import listed

# Modules whose functions read the clock or time the code that they run.
CLOCKS = listed("time timeit")
# Modules whose functions do not read the clock, in addition to those in `libraries`.
CLOCKLESS = listed(
    "IPython PIL abc argparse array ast base64 bisect builtins cmath codecs colorsys contextlib "
    "contextvars csv dataclasses decimal difflib dis enum fractions gc glob gzip hashlib "
    "heapq html inspect io ipaddress json keyword numbers operator pathlib pprint queue re "
    "reprlib shlex shutil string struct sympy sys textwrap tokenize tomllib traceback typing "
    "types unicodedata warnings weakref xml zlib __future__"
)
# Matches the names of functions, methods and attributes that read the clock or a file's timestamp,
# run another program or unanalysed code, or may print a duration.
READS = re.compile(
    r"(now|today|utcnow|timestamp|perf_counter|monotonic|process_time|thread_time|ctime|gmtime"
    r"|localtime|asctime|strftime|default_timer|elapsed\w*|\w*[tT]imer|times|l?stat|scandir|get[acm]time"
    r"|system|popen|spawn\w*|exec|eval|compile_command|__import__|import_module|run_path|run_module|modules"
    r"|predict|evaluate|cross_val\w*|learning_curve|validation_curve|load_data|load_dataset|get_file"
    r"|download\w*|fetch\w*|from_pretrained|load_state_dict_from_url|benchmark|profiler?|Event"
    r"|st_[acm]time)(_ns)?\Z"
)
NOW = {"now", "today"}  # for calls such as `pd.Timestamp("now")`
TIMED = re.compile(r"%%?(time|timeit|prun|lprun|mprun|memit)\b")
# IPython magics that print no time and run no code.
MAGICS = listed("matplotlib config autoreload precision pinfo pinfo2 pylab psearch who")


def marked(cells: Iterable[tuple[str, ast.Module]]) -> list[bool]:
    """Return, for each cell, whether any part of its source might read the clock.

    Parameters
    ----------
    cells
        Each cell's source and its syntax tree, in order.
    """
    found = []
    strange: set[str] = set()  # names imported from modules that may read the clock
    made = set(dir(builtins)) | {"_", "__", "___", "In", "Out", "get_ipython", "display"}
    for source, tree in cells:
        taken, given = variables.scoped(tree)
        made |= given | {name for name, _ in variables.imported(tree)}
        strange |= {name for name, origin in variables.imported(tree) if may_read(origin)}
        unread = bool(source.strip()) and not tree.body and not is_comment(source)
        found.append(
            unread
            or bool(TIMED.search(source))
            or "*" in strange  # after `import *`, any name may come from such a module
            or bool(variables.read(tree) & strange)
            or bool(called(tree) & taken - made)  # an unknown function
            or leaves_python(tree)
            or any(map(reads, ast.walk(tree)))
        )
    return found


def called(tree: ast.AST) -> set[str]:
    """Return the names of the functions that the code calls."""
    found = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {function.id for function in found if isinstance(function, ast.Name)}


def may_read(origin: str) -> bool:
    """Return whether an imported module or function might read the clock."""
    root, last = origin.partition(".")[0], origin.rpartition(".")[2]
    known = libraries.is_known(root) or root in CLOCKLESS
    return root in CLOCKS or not known or bool(READS.match(last))


def leaves_python(tree: ast.AST) -> bool:
    """Return whether the code runs another program, or a magic that is not known to be harmless."""
    asked = harmless = 0
    for node in ast.walk(tree):
        asked += isinstance(node, ast.Name) and node.id == "get_ipython"
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Call(func=ast.Name(id="get_ipython"))),
                args=[ast.Constant(value=magic), *rest],
            ):
                extension = "".join(map(ast.unparse, rest)).strip("'\"")
                harmless += magic in MAGICS or (magic, extension) == ("load_ext", "autoreload")
    return asked > harmless


def reads(node: ast.AST) -> bool:
    """Return whether a syntax node, excluding its children, might read the clock."""
    match node:
        case ast.Attribute() | ast.Name():
            name = name_of(node)
            return bool(READS.match(name)) or name in libraries.FITS | libraries.TRAINS
        case ast.keyword(arg="verbose"):
            return not (isinstance(node.value, ast.Constant) and not node.value.value)
        case ast.Constant(value=str() as text):
            return text.casefold() in NOW
    return False


def is_comment(source: str) -> bool:
    """Return whether a source contains only comments and blank lines."""
    return all(line.strip()[:1] in ("", "#") for line in source.splitlines())
