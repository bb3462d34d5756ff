"""Equations as MathML, which browsers draw themselves: no script, no network."""

from latex2mathml.converter import convert


def visit_math(translator, node):
    translator.body.append(convert(node.astext()))
    from docutils.nodes import SkipNode

    raise SkipNode


def visit_displaymath(translator, node):
    translator.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    from docutils.nodes import SkipNode

    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
