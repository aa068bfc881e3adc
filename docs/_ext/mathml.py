"""Turn formulas into MathML with Docutils' own converter while the book is built.

Sphinx's default, MathJax, is a script from another host that typesets a page every time the page is
opened.
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

# The invisible operator that follows the name of a function such as ln. Browsers draw no space for
# the operator, so we add a space, except before a bracket.
SPACE = re.compile(r"<mo>&ApplyFunction;</mo>(?!\s*<mo[^>]*>\()")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def inline(translator: HTML5Translator, node: nodes.math) -> None:
    """Write a formula within a sentence."""
    translator.body.append(convert(node, as_block=False))
    raise nodes.SkipNode


def block(translator: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on a line of its own."""
    formula = convert(node, as_block=True)
    # A wide formula scrolls, so keyboard users must be able to focus it.
    translator.body.append(f'<div class="formula" tabindex="0">{formula}</div>\n')
    raise nodes.SkipNode


def convert(node: nodes.Element, as_block: bool) -> str:
    """Return the formula as MathML, or its source if the converter cannot read it."""
    try:
        return SPACE.sub(r"\g<0><mspace width='0.1667em'/>", tex2mathml(node.astext(), as_block))
    except MathError as error:
        logging.getLogger(__name__).warning("%s in $%s$", error, node.astext(), location=node)
        return f"<code>{html.escape(node.astext())}</code>"
