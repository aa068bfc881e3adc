"""Test the comparison of lists of notebook outputs."""

from __future__ import annotations

import base64
import io

import pytest
from nbformat.v4 import new_output
from PIL import Image

from nbval_tolerance import outputs
from nbval_tolerance.compare import Phase, Rules
from nbval_tolerance.outputs import compare_outputs, html_text
from nbval_tolerance.pictures.figures import FigureComparison

TRAINED = Rules(Phase.TRAINED)


def stream(text: str, name: str = "stdout"):
    return new_output("stream", name=name, text=text)


def display(**data: str):
    names = {"html": "text/html", "plain": "text/plain", "json": "application/json"}
    data = {names.get(name, name): content for name, content in data.items()}
    return new_output("display_data", data=data)


def picture(shade: int, plain: str = "<Figure>"):
    file = io.BytesIO()
    image = Image.new("L", (80, 60), 255)
    image.paste(shade, (20, 15, 60, 45))
    image.save(file, "png")
    data = {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": plain}
    return new_output("display_data", data=data)


def table(value: str):
    rows = f"<table><tr><th>loss</th></tr><tr><td>{value}</td></tr></table>"
    return f"<style>td {{width: {value}px}}</style>{rows}"


@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        ([stream("a\n"), stream("b\n")], [stream("a\nb\n")]),  # A stream can be split anywhere.
        # Either stream can arrive first.
        ([stream("a\n"), stream("w", "stderr"), stream("b\n")],
         [stream("w", "stderr"), stream("a\nb\n")]),
        ([picture(0)], [picture(0)]),
        ([display(html=table("0.50"), plain="loss\n0.50")] * 2,
         [display(html=table("0.51"), plain="loss\n0.51")] * 2),
        ([display(json={"a": 1, "b": [0.5]})], [display(json={"b": [0.5], "a": 1})]),
    ],
)  # fmt: skip
def test_the_same_said_again_passes(stored, computed):
    assert not compare_outputs(stored, computed, TRAINED).differences


@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        ([stream("a")], []),
        ([], [stream("a")]),
        ([stream("a")], [stream("a", "stderr")]),
        ([stream("a"), display(plain="x"), stream("b")], [stream("ab"), display(plain="x")]),
        ([display(plain="x")], [display(plain="x", html="x")]),
        ([display(plain="x")], [new_output("execute_result", data={"text/plain": "x"})]),
        ([new_output("error", ename="ValueError", evalue="no")],
         [new_output("error", ename="TypeError", evalue="no")]),
        ([new_output("error", ename="ValueError", evalue="no 3")],
         [new_output("error", ename="ValueError", evalue="no 4")]),
        ([picture(0)], [picture(120)]),
        # The HTML differs, but the plain text is the same.
        ([display(html="<b>1</b>", plain="<HTML>")], [display(html="<b>2</b>", plain="<HTML>")]),
        ([display(html=table("0.5"), plain="<H>")], [display(html=table("0.9"), plain="<H>")]),
        ([display(html="<b>right 981</b>", plain="Report()")],
         [display(html="<b>right 17</b>", plain="Report()")]),
        ([display(html="<b>981 of 981</b>", plain="Report(981)")],
         [display(html="<b>17 of 981</b>", plain="Report(981)")]),
        ([display(html="<b>981</b>", plain="981")], [display(html="<b>17</b>", plain="981")]),
        ([display(html=table("0.5"), plain="0.5")], [display(html=table("0.5") * 2, plain="0.5")]),
        ([display(json={"a": 1})], [display(json={"a": 2})]),
        ([display(**{"text/markdown": "*a*"})], [display(**{"text/markdown": "*b*"})]),
    ],
)  # fmt: skip
def test_another_output_fails(stored, computed):
    assert compare_outputs(stored, computed, TRAINED).differences


def test_a_figure_that_differs_is_kept_for_the_report():
    result = compare_outputs([picture(0)], [picture(120)], TRAINED)
    assert len(result.pictures) == 1
    assert result.worst.kind == "figure"
    assert result.worst.used > 1
    by_being_there = compare_outputs([picture(0)], [picture(120)], Rules(figures=False))
    assert not by_being_there.differences


def test_html_is_compared_as_it_is_read():
    html = (
        "<style>b {color: red}</style><p>one<br>two</p><table><tr><td>3</td><td>4</td></tr></table>"
    )
    assert html_text(html) == "one\ntwo\n│ 3 │ 4"


@pytest.mark.parametrize(
    "html",
    [
        "<b>Control</b> accuracy {}</p>",
        "<b>Accuracy</b> {} by R&D",
        "Accuracy {} (Q&A)",
        "<p>first</p>loss {} &mdash",
        "loss {} &",
        "loss {} &#",
        "loss {} <",
        "loss {} <b",
        "loss {} <!--",
        "</style>loss {}",
        "loss {}<script>",
    ],
)
def test_the_end_of_html_swallows_no_text(html):
    """Text after the last tag may look like the start of an entity or a tag."""
    old, new = ([display(html=html.format(number), plain="<H>")] for number in (0.97, 0.12))
    assert compare_outputs(old, new, TRAINED).differences
    assert "0.97" in html_text(html.format(0.97))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<td></td><td>x</td>", "<td>x</td><td></td>"),
        ("<img src='a.png'>", "<img src='b.png'>"),
        ("<img src='data:image/png;base64,AA'>", ""),
    ],
)
def test_in_html_an_empty_cell_and_a_picture_count(old, new):
    assert not compare_outputs([display(html=old)], [display(html=old)], TRAINED).differences
    assert compare_outputs([display(html=old)], [display(html=new)], TRAINED).differences


def test_json_of_any_kind_is_compared_but_for_widgets():
    chart, widget = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"
    old, new = {"y": [1, 2]}, {"y": [1, 3]}
    assert compare_outputs(
        [display(**{chart: old})], [display(**{chart: new})], TRAINED
    ).differences
    assert not compare_outputs(
        [display(**{widget: old})], [display(**{widget: new})], TRAINED
    ).differences


def test_the_view_of_a_live_widget_is_not_compared_where_it_has_another_form():
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "b4e5"}}
    stored, live = display(plain="answer 3"), display(plain="answer 3", **view)
    assert not compare_outputs([stored], [live], TRAINED).differences
    other = display(plain="answer 5", **view)
    (difference,) = compare_outputs([stored], [other], TRAINED).differences
    assert difference.what.startswith("line 1")
    named = display(plain="<Pad at 0x7f0010>", **view)
    assert compare_outputs([named], [display(plain="<Pad at 0x7f0010>")], TRAINED).differences
    assert compare_outputs([display(**view)], [], TRAINED).differences


def test_the_text_of_a_figure_is_compared():
    one, other = picture(0), picture(0)
    one.metadata = {"image/png": {"alt": "A falling line, from 0.97 to 0.5."}}
    other.metadata = {"image/png": {"alt": "A rising line, from 0.97 to 0.5."}}
    (difference,) = compare_outputs([one], [other], TRAINED).differences
    assert difference.what == "the alternative text, line 1: the text differs"
    assert not compare_outputs([one], [other], Rules(figures=False)).differences
    other.metadata = {"image/png": {"alt": "A falling line, from 0.968 to 0.5."}}
    assert not compare_outputs([one], [other], TRAINED).differences


def test_the_name_of_a_picture_is_not_compared_and_the_picture_is():
    sizes = ("<Figure size 640x480 with 1 Axes>", "<Figure size 320x240 with 2 Axes>")
    one, same, other = picture(0, sizes[0]), picture(0, sizes[1]), picture(120, sizes[1])
    assert not compare_outputs([one], [same], Rules()).differences
    (difference,) = compare_outputs([one], [other], Rules()).differences
    assert difference.what.startswith("the figure differs")
    # Plain text is compared unless it only names an object and accompanies a picture.
    assert compare_outputs([picture(0, "0.5 <b>")], [picture(0, "0.7 <b>")], Rules()).differences
    names = [display(plain=f"<Model with {units} units>") for units in (64, 128)]
    assert compare_outputs(names[:1], names[1:], Rules()).differences


def test_types_that_are_skipped_need_not_even_be_there():
    skip = Rules(skip=("image/png", "text/html"))
    html = [display(html=f"<b>{n}</b>", plain="a table") for n in (1, 2)]
    for pair in [
        ([picture(0)], [picture(120)]),
        ([picture(0)], []),
        (html[:1], html[1:]),
        (html[:1], [display(plain="a table")]),
        ([stream("a"), picture(0), stream("b")], [stream("ab")]),
    ]:
        assert compare_outputs(*pair, Rules()).differences
        assert not compare_outputs(*pair, skip).differences
    assert compare_outputs(html[:1], [display(plain="no table")], skip).differences
    plain = Rules(skip=("text/plain",))
    assert not compare_outputs([display(plain="a")], [display(plain="b")], plain).differences
    assert compare_outputs([stream("a")], [stream("b")], plain).differences


def data_of(shade: int) -> str:
    return picture(shade).data["image/png"]


def drawing(word: str, where: str = "image/svg+xml"):
    svg = f'<svg xmlns="http://www.w3.org/2000/svg"><text x="1">{word}</text></svg>'
    return display(**{where: svg if where == "image/svg+xml" else f"<p>a {svg} b</p>"})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (drawing("loss"), drawing("gain")),
        (drawing("loss", "html"), drawing("gain", "html")),
        *(
            tuple(display(**{kind: text.format(data_of(shade))}) for shade in (0, 120))
            for kind, text in [
                ("html", "<p>one</p><img src='data:image/png;base64,{}'>"),
                ("text/markdown", "one ![two](data:image/png;base64,{}) three"),
            ]
        ),
        *(tuple(display(**{kind: data_of(shade)}) for shade in (0, 120))
          for kind in ("image/gif", "image/webp", "image/jpeg")),
    ],
)  # fmt: skip
def test_pictures_of_any_kind_and_place_are_compared_unless_figures_are_off(one, other):
    assert not compare_outputs([one], [one], TRAINED).differences
    result = compare_outputs([one], [other], TRAINED)
    assert len(result.differences) == 1
    assert result.worst.kind == "figure"
    by_being_there = Rules(figures=False)
    assert not compare_outputs([one], [other], by_being_there).differences
    assert compare_outputs([one], [], by_being_there).differences


def test_as_many_pictures_as_before_stand_in_html_and_markdown():
    for kind, text in [("html", "<img src='{0}'>"), ("text/markdown", "![a]({0})")]:
        text = text.format(f"data:image/png;base64,{data_of(0)}")
        pair = [display(**{kind: text})], [display(**{kind: text * 2})]
        for rules in (TRAINED, Rules(figures=False)):
            assert compare_outputs(*pair, rules).differences


def test_a_picture_that_is_no_base64_is_said():
    one, other = (display(**{"image/png": text}) for text in ("AAAA", "AAAAA"))
    (difference,) = compare_outputs([one], [other], TRAINED).differences
    assert "picture cannot be read" in difference.what


@pytest.mark.parametrize(
    ("phase", "loose"),
    [(Phase.UNTRAINED, False), (Phase.FITTED, False), (Phase.FIT, True), (Phase.TRAINED, True)],
)
def test_only_a_network_loosens_figures(monkeypatch, phase, loose):
    seen = []

    def compare(*pictures, trained, wider):
        seen.append(trained)
        return FigureComparison(0.0, None)

    monkeypatch.setattr(outputs, "compare_figures", compare)
    compare_outputs([picture(0)], [picture(200)], Rules(phase))
    assert seen == [loose]
