"""Convert formulas to MathML with Docutils' converter when the book is built.

By default, Sphinx uses MathJax, which is loaded from another host and typesets the formulas each
time a page is opened.
"""

from __future__ import annotations

import html
import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

# Browsers do not add space for the invisible operator after a function name such as "ln". We
# therefore add a space, except before a parenthesis.
SPACE = re.compile(r"<mo>&ApplyFunction;</mo>(?!\s*<mo[^>]*>\()")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def inline(translator: HTML5Translator, node: nodes.math) -> None:
    """Write an inline formula."""
    translator.body.append(convert(node, as_block=False))
    raise nodes.SkipNode


def block(translator: HTML5Translator, node: nodes.math_block) -> None:
    """Write a display formula."""
    formula = convert(node, as_block=True)
    # A wide formula scrolls, so it must be focusable for keyboard users.
    translator.body.append(f'<div class="formula" tabindex="0">{formula}</div>\n')
    raise nodes.SkipNode


def convert(node: nodes.Element, as_block: bool) -> str:
    """Return a formula as MathML, or its LaTeX source if it cannot be converted."""
    try:
        return SPACE.sub(r"\g<0><mspace width='0.1667em'/>", tex2mathml(node.astext(), as_block))
    except MathError as error:
        logging.getLogger(__name__).warning("%s in $%s$", error, node.astext(), location=node)
        return f"<code>{html.escape(node.astext())}</code>"
