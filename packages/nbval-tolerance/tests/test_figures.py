"""Test that pictures fail the comparison if a learner would notice the difference."""

from __future__ import annotations

import io
from math import inf
from pathlib import Path

import matplotlib.style
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from nbval_tolerance.pictures.axes import BLOCK, axes
from nbval_tolerance.pictures.figures import compare_figures, on_grounds, read, side_by_side

FIGURES = Path(__file__).parent / "figures"


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG, drawn as in a notebook."""
    file = io.BytesIO()
    figure.savefig(file, bbox_inches="tight")
    return file.getvalue()


def curves(
    title="Same model, same data, three optimizers",
    labels=("epoch", "validation loss"),
    legend=("sgd", "rmsprop", "adam"),
    styles=("o-", "s--", "^:"),
    order=(0, 1, 2),
    move=0.0,
    **axes,
) -> bytes:
    """Draw curves like those in lesson 05, which show the losses of trained networks."""
    values = np.array(
        [
            [0.51 + move, 0.36 + move, 0.305 + move, 0.28 + move, 0.26 + move],
            [0.18, 0.14, 0.122, 0.113, 0.115],
            [0.187, 0.14, 0.119, 0.109, 0.105],
        ]
    )
    with matplotlib.style.context("petroff10"):
        figure = Figure(figsize=(7, 3.5))
        ax = figure.subplots()
        for name, style, i in zip(legend, styles, order, strict=True):
            ax.plot(range(1, 6), values[i], style, linewidth=2, label=name)
        ax.set(xlabel=labels[0], ylabel=labels[1], xticks=range(1, 6), title=title)
        ax.set(**({"ylim": (0, None)} | axes))
        ax.legend()
        return png(figure)


def classes(names="ABCDEFGHIJ", turn=lambda matrix: matrix, cmap="Greys") -> bytes:
    """Draw a confusion matrix with class names on both axes."""
    matrix = turn(np.random.default_rng(1).gamma(0.6, 0.5, (10, 10)))
    figure = Figure(figsize=(5, 4))
    ax = figure.subplots()
    figure.colorbar(ax.imshow(matrix, cmap=cmap, vmin=0, vmax=3), label="share (%)")
    ax.set_xticks(range(10), labels=names)
    ax.set_yticks(range(10), labels=names)
    return png(figure)


def seeds(values=(97.49, 97.60, 97.55, 97.69, 97.59), marker="o", mean=True) -> bytes:
    """Draw points like the test accuracies in lesson 06, which vary between machines."""
    figure = Figure(figsize=(7, 2.8))
    ax = figure.subplots()
    middle = np.mean(values)
    ax.axvspan(middle - 0.3, middle + 0.3, color="lightgray", label="95 % interval")
    ax.plot(values, range(5), marker, color="black", label="one model")
    if mean:
        ax.axvline(middle, color="black", linestyle="--")
    ax.set(xlim=(96.8, 98.4), xlabel="test accuracy (%)", title="Five seeds, one test set")
    ax.legend(loc="upper left")
    return png(figure)


def panels(
    titles=("55,000 images", "2,000 images"),
    labels=("training loss", "validation loss"),
    below="epoch",
    move=0.0,
) -> bytes:
    """Draw two panels with text between them."""
    figure = Figure(figsize=(9, 3.3))
    for ax, title, label in zip(figure.subplots(1, 2), titles, labels, strict=True):
        ax.plot(range(9), 1 / np.arange(1, 10) + move, "o-")
        ax.set(title=title, xlabel=below, ylabel=label, ylim=(0, 1.2))
    figure.tight_layout()
    return png(figure)


def pictures(titles=("Shirt", "Coat", "Shirt", "Bag"), rolled=0) -> bytes:
    """Draw pictures with titles but without axes."""
    figure = Figure(figsize=(5, 4))
    random = np.random.default_rng(2)
    for ax, title in zip(figure.subplots(2, 2).flat, titles, strict=True):
        ax.imshow(np.roll(random.uniform(size=(8, 8)), rolled), cmap="gray_r")
        ax.set_title(title)
        ax.axis("off")
    return png(figure)


def bars(
    names=("shirt", "coat", "bag"), spines=("left", "bottom"), values=(0.3, 0.2, 0.1)
) -> bytes:
    """Draw bars with only the given spines."""
    figure = Figure(figsize=(5, 2.5))
    ax = figure.subplots()
    ax.barh(names, values)
    for side, spine in ax.spines.items():
        spine.set_visible(side in spines)
    ax.set(xlim=(0, 0.4), xlabel="mean score")
    return png(figure)


BASE = {draw: draw() for draw in (curves, classes, seeds, panels, pictures, bars)}

# Maps each change to the function that draws the figure, the options that make the change, and
# whether the comparison must also detect it after training.
CHANGES = {
    "a word of the title": (curves, {"title": "Same model, same data, five optimizers"}, True),
    "the x label": (curves, {"labels": ("batch", "validation loss")}, True),
    "the y label": (curves, {"labels": ("epoch", "training loss")}, True),
    "tick labels": (curves, {"xticks": (1, 3, 5)}, True),
    "limits": (curves, {"ylim": (0, 0.6)}, True),
    "a logarithmic axis": (curves, {"yscale": "log", "ylim": (0.1, 1)}, True),
    "a series left out": (
        curves,
        {"legend": ("sgd", "rmsprop"), "styles": ("o-", "s--"), "order": (0, 1)},
        True,
    ),
    "two series exchanged": (curves, {"order": (1, 0, 2)}, True),
    "names in the legend exchanged": (curves, {"legend": ("rmsprop", "sgd", "adam")}, True),
    "a curve moved by 10 pixels": (curves, {"move": 0.03}, True),
    "a curve moved by 3 pixels": (curves, {"move": 0.009}, False),
    "a line style": (curves, {"styles": ("o--", "s--", "^:")}, False),
    "a word in the legend": (curves, {"legend": ("sgd", "rmsprop", "nadam")}, False),
    "class names permuted": (classes, {"names": "ABCEDFGHIJ"}, True),
    "a transposed image": (classes, {"turn": np.transpose}, True),
    "a flipped image": (classes, {"turn": np.fliplr}, True),
    "a shifted image": (classes, {"turn": lambda matrix: np.roll(matrix, 1, 1)}, True),
    "another colour map": (classes, {"cmap": "viridis"}, True),
    "a colour map reversed": (classes, {"cmap": "Greys_r"}, True),
    "a point far away": (seeds, {"values": (97.0, 97.6, 97.55, 97.69, 97.59)}, True),
    "the mean's line left out": (seeds, {"mean": False}, True),
    "another marker": (seeds, {"marker": "x"}, False),
    "the title of a second panel": (panels, {"titles": ("55,000 images", "5,000 images")}, True),
    "the label of a second panel": (panels, {"labels": ("training loss", "validation gain")}, True),
    "the labels below": (panels, {"below": "batch"}, True),
    "titles of pictures exchanged": (pictures, {"titles": ("Shirt", "Coat", "Bag", "Shirt")}, True),
    "pictures shifted": (pictures, {"rolled": 1}, True),
    "names of bars exchanged": (bars, {"names": ("coat", "shirt", "bag")}, True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_learner_would_notice_fails(change):
    draw, options, told_when_trained = CHANGES[change]
    changed = draw(**options)
    for trained, told in [(False, True), (True, told_when_trained)]:
        comparison = compare_figures(BASE[draw], changed, trained=trained)
        assert (comparison.what is not None) is told
        assert (comparison.used > 1) is told


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("draw", BASE)
def test_the_same_figure_passes_and_another_or_a_blank_one_does_not(draw, trained):
    assert compare_figures(BASE[draw], draw(), trained=trained).used == 0
    width, height = Image.open(io.BytesIO(BASE[draw])).size
    others = [BASE[other] for other in BASE if other is not draw]
    for other in [*others, encoded(np.full((height, width, 3), 255, np.uint8))]:
        assert compare_figures(BASE[draw], other, trained=trained).what


def test_without_spines_nothing_is_inside_the_axes():
    free = {"spines": ()}
    renamed = bars(names=("coat", "shirt", "bag"), **free)
    assert compare_figures(bars(**free), renamed, trained=True).what


@pytest.mark.parametrize(
    ("draw", "moved"), [(panels, {"move": 0.01}), (bars, {"values": (0.3, 0.21, 0.1)})]
)
def test_what_another_processor_moves_in_a_trained_figure_passes(draw, moved):
    changed = draw(**moved)
    assert compare_figures(BASE[draw], changed, trained=True).what is None
    assert compare_figures(BASE[draw], changed, trained=False).what


def test_a_retina_figure_is_compared_as_it_is_shown():
    with matplotlib.rc_context({"savefig.dpi": 200}):
        stored, moved = panels(), panels(move=0.01)
        renamed = panels(titles=("55,000 images", "5,000 images"))
    assert Image.open(io.BytesIO(stored)).width > 1700
    assert compare_figures(stored, moved, trained=True).what is None
    assert "(x 6" in compare_figures(stored, renamed, trained=True).what


@pytest.mark.parametrize("trained", [False, True])
def test_another_matplotlib_passes(trained):
    old, new = (
        (FIGURES / f"curves-matplotlib-{minor}.png").read_bytes() for minor in ("3.10", "3.11")
    )
    assert compare_figures(old, new, trained=trained).what is None
    assert compare_figures(new, old, trained=trained).what is None
    assert compare_figures(old, curves(order=(1, 0, 2)), trained=trained).what


def test_an_edge_may_be_smoothed_otherwise_and_move_by_a_pixel():
    edge = np.full((64, 64, 3), 255, np.uint8)
    edge[:, 30:] = 0
    for column, shade in [(29, 128), (30, 100), (29, 0)]:
        other = edge.copy()
        other[:, column] = shade
        assert compare_figures(encoded(edge), encoded(other), trained=False).what is None
    assert compare_figures(encoded(edge), encoded(np.roll(edge, 3, 1)), trained=False).what


@pytest.mark.parametrize("shade", [0, 255])
def test_a_thin_line_counts_on_any_ground(shade):
    ground = np.full((64, 64, 3), 255 - shade, np.uint8)
    lined = ground.copy()
    lined[:, 30] = shade
    assert compare_figures(encoded(ground), encoded(lined), trained=False).what
    assert compare_figures(encoded(lined), encoded(ground), trained=False).what


@pytest.mark.parametrize("trained", [False, True])
def test_the_size_counts_even_if_only_white_is_added(trained):
    wider = np.full((64, 80, 3), 255, np.uint8)
    what = compare_figures(encoded(wider[:, :64]), encoded(wider), trained=trained).what
    assert what == "the size was 64 by 64 pixels and is 80 by 64"


def test_a_trained_figure_may_move_as_measured():
    # These are the test accuracies in lesson 06 with ONEDNN_MAX_CPU_ISA=AVX2 on one thread.
    moved = seeds(values=(97.49, 97.59, 97.63, 97.68, 97.59))
    assert compare_figures(BASE[seeds], moved, trained=True).what is None
    assert compare_figures(BASE[seeds], moved, trained=False).what


def test_a_wider_tolerance_is_for_values_that_move_and_not_for_another_picture():
    noise = np.random.default_rng(2).normal(0, 0.1, (10, 10))
    moved = classes(turn=lambda matrix: matrix + noise)
    assert compare_figures(BASE[classes], moved, trained=True).what
    wider = {"trained": True, "wider": 4}
    assert compare_figures(BASE[classes], moved, **wider).what is None
    for change in ({"turn": np.transpose}, {"cmap": "Greys_r"}, {"names": "ABCEDFGHIJ"}):
        assert compare_figures(BASE[classes], classes(**change), **wider).what


def test_the_sentence_names_the_place():
    blank = np.full((96, 96, 3), 255, np.uint8)
    dotted = blank.copy()
    dotted[8:16, 80:88] = 0
    what = compare_figures(encoded(blank), encoded(dotted), trained=False).what
    assert "1 of 144 blocks differ, most in the upper right (x 84, y 12)" in what


def encoded(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None) -> bytes:
    """Encode an array as a picture file."""
    file = io.BytesIO()
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(file, kind)
    return file.getvalue()


GRAY = np.full((40, 60), 200, np.uint8)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"no picture",
        BASE[seeds][:3000],
        encoded(GRAY, "BMP"),
        encoded(GRAY)[:20],
        BASE[seeds][:40] + b"\0" * 100 + BASE[seeds][140:],
        encoded(np.zeros((6000, 6000), np.uint8)),
    ],
    ids=["empty", "text", "truncated", "bmp", "head", "damaged", "huge"],
)
def test_what_cannot_be_read_is_said(broken):
    for pair, name in [((broken, BASE[seeds]), "stored"), ((BASE[seeds], broken), "computed")]:
        comparison = compare_figures(*pair, trained=True)
        assert comparison.used == inf
        assert comparison.what.startswith(f"the {name} picture cannot be read")
        assert Image.open(io.BytesIO(side_by_side(*pair))).format == "PNG"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_every_kind_of_picture_is_compared(kind):
    shades = GRAY, GRAY.copy()
    shades[1][8:32, 8:32] = 100
    one, other = (encoded(pixels, kind) for pixels in shades)
    assert compare_figures(one, encoded(GRAY, kind, "RGB"), trained=False).used == 0
    assert compare_figures(one, other, trained=True).what


def test_of_an_animation_each_frame_is_compared():
    def animation(*shades: int) -> bytes:
        file = io.BytesIO()
        frames = [Image.fromarray(np.full((40, 40), shade, np.uint8)) for shade in shades]
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
        return file.getvalue()

    assert compare_figures(animation(9, 99, 200), animation(9, 99, 201), trained=False).used == 0
    assert compare_figures(animation(9, 99, 200), animation(9, 99, 150), trained=True).what
    what = compare_figures(animation(9, 99, 200), animation(9, 99), trained=True).what
    assert what == "the size was 40 by 120 pixels and is 40 by 80"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (40, 60)])
def test_every_kind_of_png_is_read(mode, size):
    picture = encoded(GRAY[: size[0], : size[1]], mode=mode)
    for trained in (False, True):
        assert compare_figures(picture, picture, trained=trained).used == 0


def test_side_by_side_shows_both_and_frames_what_differs():
    one, other = BASE[curves], curves(labels=("batch", "validation loss"))
    sheet = Image.open(io.BytesIO(side_by_side(one, other)))
    width, height = Image.open(io.BytesIO(one)).size
    assert sheet.width > 3 * width
    red = np.argwhere((np.asarray(sheet) == (178, 34, 34)).all(axis=2))  # firebrick
    assert red.min(axis=0)[1] > 2 * width, "only in the third panel"
    assert red.min(axis=0)[0] > 0.8 * height, "only around the x label"


def test_side_by_side_takes_any_sizes():
    for pair in [(BASE[curves], BASE[classes]), (encoded(GRAY[:1, :1]), BASE[seeds])]:
        assert Image.open(io.BytesIO(side_by_side(*pair, trained=True))).format == "PNG"


def styled(style="default", projection=None, save=None, after=lambda ax: None, **options) -> bytes:
    """Draw a curve with a legend outside the axes, in the given style."""
    texts = {"title": "Loss over six epochs", "xlabel": "epoch", "ylabel": "validation loss"}
    texts |= {name: options[name] for name in texts if name in options}
    ticks, move = options.get("ticks", "abcdefg"), options.get("move", 0)
    with matplotlib.style.context(style):
        figure = Figure(figsize=(6, 3.5))
        ax = figure.subplots(subplot_kw={"projection": projection})
        x = np.linspace(0, 6, 50)
        height = 0.2 + np.exp(-x / 2) + move
        if projection == "3d":
            ax.plot(x, np.cos(x), height, label=options.get("legend", "adam"))
            ax.set(zlim=(0, 1.4))
        else:
            ax.plot(x, height, label=options.get("legend", "adam"))
            ax.set(ylim=(0, 1.4))
        ax.set(**texts)
        ax.set_xticks(range(7), labels=ticks)
        ax.legend(loc="upper left", bbox_to_anchor=(1.15, 1))
        after(ax)
        file = io.BytesIO()
        figure.savefig(file, bbox_inches="tight", **(save or {}))
        return file.getvalue()


def without_spines(ax):
    ax.spines[:].set_visible(False)


def with_twin(ax):
    ax.twinx().set(ylim=(0, 9), ylabel="seconds")


def framed(ax):
    ax.figure.set(edgecolor="black", linewidth=4)


def on_a_photograph(ax):
    smooth = Image.fromarray(np.random.default_rng(3).integers(0, 80, (6, 6), np.uint8))
    smooth = np.asarray(smooth.resize((300, 200), Image.Resampling.BICUBIC))
    ax.imshow(smooth, cmap="gray", vmin=0, vmax=255, extent=(0, 6, 0, 1.4), aspect="auto", zorder=0)


def with_a_colour_bar(ax):
    ax.figure.colorbar(ax.imshow([[0, 1]], extent=(4, 5, 1, 1.2), aspect="auto"), label="share")


def with_faint_texts(ax):
    for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
        text.set_color("lightgray")
    ax.tick_params(labelcolor="lightgray")


# Maps each style of figure to the options that draw it. The comparison must detect changed text in
# every style.
LOOKS = {
    **{
        style: {"style": style}
        for style in (
            "dark_background",
            "ggplot",
            "fivethirtyeight",
            "Solarize_Light2",
            "seaborn-v0_8-darkgrid",
            "seaborn-v0_8-whitegrid",
        )
    },
    "transparent": {"save": {"transparent": True}},
    "dark and transparent": {"style": "dark_background", "save": {"transparent": True}},
    "dark at 200 dpi": {"style": "dark_background", "save": {"dpi": 200}},
    "black around white axes": {"style": ["dark_background", {"axes.facecolor": "white"}]},
    "without spines": {"after": without_spines},
    "dark without spines": {"style": "dark_background", "after": without_spines},
    "twin axes": {"style": "dark_background", "after": with_twin},
    "a frame around the figure": {"after": framed},
    "a sharp black legend": {"style": {"legend.fancybox": False, "legend.edgecolor": "black"}},
    "a dark photograph": {"after": on_a_photograph},
    "a colour bar": {"style": "dark_background", "after": with_a_colour_bar},
    "faint texts": {"after": with_faint_texts},
    "faint texts on black": {
        "style": ["dark_background", {"text.color": "#555555", "axes.labelcolor": "#555555"}]
    },
    "polar": {"projection": "polar"},
    "dark polar": {"style": "dark_background", "projection": "polar"},
    "3d": {"projection": "3d"},
    "dark 3d": {"style": "dark_background", "projection": "3d"},
}
TEXTS = {
    "title": "Loss over five epochs",
    "xlabel": "batch",
    "ylabel": "training loss",
    "ticks": "abcdxfg",
    "legend": "nadam",
}


@pytest.mark.parametrize("look", LOOKS)
def test_however_axes_look_texts_beside_them_stay_and_a_curve_may_move(look):
    base = styled(**LOOKS[look])
    for name, text in TEXTS.items():
        changed = styled(**LOOKS[look] | {name: text})
        for trained in (False, True):
            assert compare_figures(base, changed, trained=trained).what, name
    moved = styled(**LOOKS[look] | {"move": 0.015})
    assert compare_figures(base, moved, trained=True).what is None
    assert compare_figures(base, moved, trained=False).what
    if "without spines" not in look:
        found, size = inside(base).getbbox(), inside(base).size
        share = (found[2] - found[0]) * (found[3] - found[1]) / (size[0] * size[1])
        assert 0.25 < share < 0.85


def inside(picture: bytes) -> Image.Image:
    """Return a mask of the blocks inside axes, at the size of the figure."""
    grounds = [canvas for canvas, _ in on_grounds(read(picture), read(picture))]
    found = max((axes(canvas)[0] for canvas in grounds), key=np.sum)
    return Image.fromarray(found).resize(grounds[0].size, Image.Resampling.NEAREST)


def test_beside_the_axes_of_an_untrained_figure_one_digit_counts_even_at_72_dpi():
    how = {"save": {"dpi": 72}}
    old, new = (styled(**how, ticks=digits) for digits in ("0123456", "0123496"))
    assert compare_figures(old, new, trained=False).what


def test_a_cube_is_no_rectangle_and_the_labels_around_it_are_outside():
    for style in ("default", "dark_background"):
        with matplotlib.style.context(style):
            figure = Figure(figsize=(5, 4))
            ax = figure.subplots(subplot_kw={"projection": "3d"})
            ax.plot(range(7), np.cos(range(7)), range(7))
            found = inside(png(figure))
        box = np.asarray(found.crop(found.getbbox()))
        assert 0.5 < box.mean() < 0.9
        assert not box[-BLOCK:, : box.shape[1] // 2].any(), "labels at the lower left are outside"


def test_panels_without_labels_are_axes_and_a_table_and_a_legend_are_not():
    figure = Figure(figsize=(6, 2))
    for ax in figure.subplots(1, 4):
        ax.imshow(np.eye(4), cmap="Greys")
        ax.set(xticks=[], yticks=[], title="eye")
    assert len(np.unique(np.asarray(inside(png(figure))).any(axis=0).nonzero()[0])) > 300
    figure = Figure(figsize=(6, 3))
    ax = figure.subplots()
    ax.axis("off")
    ax.table([[f"{row}{column}" for column in "abc"] for row in range(9)], loc="center")
    assert inside(png(figure)).getbbox() is None


def test_side_by_side_shows_white_on_black_where_that_differs():
    white_on_clear = np.zeros((64, 200, 4), np.uint8)
    changed = white_on_clear.copy()
    changed[16:32, 16:32] = 255
    pair = [encoded(pixels) for pixels in (white_on_clear, changed)]
    assert compare_figures(*pair, trained=True).what
    sheet = np.asarray(Image.open(io.BytesIO(side_by_side(*pair))).convert("L"))
    assert (sheet == 0).sum() > 2 * 200 * 60
    assert (sheet == 255).sum() >= 16 * 16
