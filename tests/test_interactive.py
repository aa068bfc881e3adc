"""Test the drawing pad and the film in Python; tests/browser/test_pad.py tests the browser side."""

from __future__ import annotations

import base64
import io
import json

import keras
import numpy as np
import pytest
from interactive import DRAWINGS, DigitCollector, DigitPad, Film, live, network, rasterise
from matplotlib import pyplot
from PIL import Image

PAD, FILM = (f"application/vnd.tensorflow-course.{kind}+json" for kind in ("pad", "film"))
VIEW = "application/vnd.jupyter.widget-view+json"
ALL = [drawing for drawings in DRAWINGS.values() for drawing in drawings]


def dense(*layers, shape=(28, 28)) -> keras.Sequential:
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input(shape), keras.layers.Flatten(), *layers])


@pytest.fixture(scope="module")
def model() -> keras.Sequential:
    hidden = keras.layers.Dense(16, activation="relu")
    return dense(hidden, keras.layers.Dropout(0.2), keras.layers.Dense(10))


def forms(shown) -> tuple[dict, dict]:
    return shown._repr_mimebundle_()


def picture(data: dict) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data["image/png"])))


@pytest.fixture
def no_anywidget(monkeypatch) -> None:
    monkeypatch.setattr(live, "anywidget", None)


# --- The rasteriser


@pytest.mark.parametrize("drawing", ALL)
def test_a_drawing_has_its_centre_in_the_middle_and_fits_mnists_box(drawing):
    image = rasterise(drawing)
    assert image.shape == (28, 28)
    assert image.dtype == np.float32
    assert image.min() == 0
    assert image.max() == 1
    y, x = np.mgrid[:28, :28]
    centre = [(image * axis).sum() / image.sum() for axis in (x, y)]
    assert np.allclose(centre, 14, atol=0.05)
    rows, columns = np.nonzero(image)
    # A drawing's size in pixels depends on its position relative to the pixel grid.
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20, 21)
    rows, columns = np.nonzero(image > 0.1)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 <= 20


def test_ours_have_about_as_much_ink_as_mnists():
    assert np.mean([rasterise(drawing) for drawing in ALL]) == pytest.approx(0.13, abs=0.01)


def test_size_and_place_of_a_drawing_count_only_as_it_lies():
    small = [[(0.05 + x / 4, 0.6 + y / 4) for x, y in stroke] for stroke in DRAWINGS[5][0]]
    assert np.abs(rasterise(small) - rasterise(DRAWINGS[5][0])).max() < 0.02
    lying = rasterise(small, centred=False)
    assert not lying[:15].any()
    assert not lying[:, 12:].any()
    assert lying.any()


def test_nothing_and_a_dot_are_drawings_too():
    for nothing in ([], [[]]):
        assert not rasterise(nothing).any()
        assert not rasterise(nothing, centred=False).any()
    dot = rasterise([[(0.9, 0.1)]])
    assert dot[14, 14] == 1
    assert 4 < np.count_nonzero(dot) < 30
    assert np.array_equal(rasterise([[(0.9, 0.1)]] * 2), dot)


# --- The model


def test_logits_of_a_softmax_are_recovered(model):
    image = rasterise(DRAWINGS[4][1])
    logits = network.logits_of(model, image)
    scored = dense(*model.layers[1:], keras.layers.Softmax())
    assert network.softmax(network.logits_of(scored, image)) == pytest.approx(
        network.softmax(logits), abs=1e-6
    )
    last = keras.layers.Dense(10, activation="softmax")
    inside = dense(*model.layers[1:-1], last)
    last.set_weights(model.layers[-1].get_weights())
    found = network.logits_of(inside, image)
    assert found - found.max() == pytest.approx(logits - logits.max(), abs=1e-4)


@pytest.mark.parametrize("shape", [(28, 28, 1), (784,)])
def test_other_forms_of_an_image_are_taken(model, shape):
    other = dense(*model.layers[1:], shape=shape)
    image = rasterise(DRAWINGS[4][1])
    assert network.logits_of(other, image) == pytest.approx(network.logits_of(model, image))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (dense(keras.layers.Dense(10), shape=(32, 32)), r"takes an array of shape \(32, 32\)"),
        (dense(keras.layers.Dense(5)), r"answers with an array of shape \(5,\)"),
    ],
)
def test_a_model_that_does_not_fit_is_told_at_once(wrong, says):
    with pytest.raises(ValueError, match=says):
        DigitPad(wrong)


def test_a_dense_network_is_packed_in_a_byte_a_weight(model):
    steps = network.packed(model)
    assert len(json.dumps(steps)) < 4 / 3 * 784 * 16 + 2000
    for drawing in ALL:
        image = rasterise(drawing)
        exact = network.logits_of(model, image)
        assert network.forward(steps, image) == pytest.approx(exact, abs=0.02)


def test_other_networks_are_not_packed(model):
    convolution = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(2, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    tanh = dense(keras.layers.Dense(16, activation="tanh"), keras.layers.Dense(10))
    entered = keras.Input((28, 28))
    flat = keras.layers.Flatten()(entered)
    twice = keras.layers.Dense(10)(flat) + keras.layers.Dense(10)(flat)
    for other in (convolution, tanh, keras.Model(entered, twice)):
        assert network.packed(other) is None
        data, _ = forms(DigitPad(other))
        assert PAD not in data
        assert picture(data).width > 800


# --- The pad


def test_the_pad_tells_later_cells_what_was_drawn(model):
    pad = DigitPad(model, DRAWINGS[7][0], temperature=2.0)
    assert np.array_equal(pad.image, rasterise(DRAWINGS[7][0]))
    assert pad.scores == pytest.approx(network.softmax(pad.logits / 2))
    assert pad.answer == pad.logits.argmax() == pad.scores.argmax()
    pad.centred = False
    assert np.array_equal(pad.image, rasterise(DRAWINGS[7][0], centred=False))
    pad.strokes = np.array([[(0.25, 0.5), (0.5, 0.5)]])
    assert pad.strokes == [[[0.25, 0.5], [0.5, 0.5]]]
    pad.clear()
    assert pad.strokes == []
    assert not pad.image.any()
    assert repr(pad) == "DigitPad: nothing is drawn yet."
    with pytest.raises(ValueError, match="from 0 to 1"):
        pad.strokes = [[(14, 20)]]


def test_the_browser_is_told_when_a_cell_draws(model):
    pad = DigitPad(model)
    pad.strokes = DRAWINGS[1][0]
    seen = pad._shared.get("seen")
    assert seen["pixels"] == np.rint(255 * rasterise(DRAWINGS[1][0])).astype(int).ravel().tolist()
    assert seen["logits"] == pytest.approx(pad.logits.tolist())


def test_a_model_that_fails_later_says_so_on_the_pad(model):
    pad = DigitPad(model)
    pad.model = lambda image, training: 1 / 0
    pad.strokes = DRAWINGS[1][0]
    assert pad._shared.get("problem").startswith("The model cannot answer: division")
    pad.model = model
    pad.strokes = DRAWINGS[2][0]
    assert pad._shared.get("problem") == ""


def test_a_pad_has_a_live_form_a_picture_a_text_and_what_the_book_needs(model):
    pad = DigitPad(model)
    data, metadata = forms(pad)
    assert set(data) == {"text/plain", "image/png", PAD, VIEW}
    first, *rows = data["text/plain"].splitlines()
    assert first.startswith(f"The model says {pad.answer}, with a score of {pad.scores.max():.3f}")
    assert [row.split()[0] for row in rows] == ["digit", "logit", "score"]
    assert {len(row.split()) for row in rows} == {11}
    assert float(rows[2].split()[1 + pad.answer]) == pytest.approx(pad.scores.max(), abs=5e-4)
    drawn = picture(data)
    assert metadata["image/png"] == {"width": drawn.width // 2, "height": drawn.height // 2}
    stored = json.loads(json.dumps(data[PAD]))
    assert stored["strokes"] == DRAWINGS[3][0]
    image = rasterise(stored["strokes"])
    assert network.forward(stored["network"], image).argmax() == pad.answer


@pytest.mark.usefixtures("no_anywidget")
def test_without_anywidget_a_pad_is_a_picture_that_says_how_it_comes_to_life(model):
    pad = DigitPad(model)
    data, _ = forms(pad)
    assert set(data) == {"text/plain", "image/png", PAD}
    assert "pip install anywidget" in data["text/plain"]
    pad.strokes = DRAWINGS[6][0]
    assert np.array_equal(pad.image, rasterise(DRAWINGS[6][0]))
    assert len(pad._shared.get("seen")["pixels"]) == 784
    data, _ = forms(Film(np.zeros((2, 4, 4))))
    assert set(data) == {"text/plain", "image/png", FILM}


# --- The collector


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COURSE_EXAMPLES", raising=False)
    return tmp_path


def press(collector: DigitCollector, drawing: list) -> None:
    """Send the message that the browser's save button sends."""
    collector._said({"do": "save", "strokes": drawing})


def test_before_anything_is_drawn_ours_stand_in(folder):
    mine = DigitCollector([3, 3, 5])
    assert mine.drawn == 0
    assert mine.labels.tolist() == [3, 3, 5]
    ours = [DRAWINGS[3][0], DRAWINGS[3][1], DRAWINGS[5][0]]
    assert np.array_equal(mine.digits, [rasterise(drawing) for drawing in ours])
    assert "stand in" in repr(mine)
    assert not list(folder.iterdir())


def test_what_is_drawn_is_saved_at_once_and_found_again(folder, monkeypatch):
    mine = DigitCollector([1, 2, 2])
    press(mine, DRAWINGS[1][1])
    assert mine._shared.get("collecting") == {"ask": "2", "done": 1, "total": 3, "last": "1"}
    monkeypatch.chdir("/")
    press(mine, DRAWINGS[2][1])
    monkeypatch.chdir(folder)
    again = DigitCollector([1, 2, 2])
    assert again.drawn == 2
    assert again.labels.tolist() == [1, 2]
    assert again.labels.dtype == np.int64
    assert again.digits.dtype == np.float32
    assert np.array_equal(again.digits[1], rasterise(DRAWINGS[2][1]))
    assert again.wanted == [2]
    again._said({"do": "undo"})
    assert again.wanted == [2, 2]
    assert DigitCollector([1, 2, 2]).labels.tolist() == [1]
    again.start_again()
    assert DigitCollector([1]).drawn == 0
    assert [path.name for path in folder.iterdir()] == ["my_digits.json"]


def test_more_than_is_asked_for_is_not_saved(folder):
    mine = DigitCollector([1])
    press(mine, [])
    assert mine.drawn == 0
    press(mine, DRAWINGS[1][0])
    press(mine, DRAWINGS[1][1])
    assert mine.drawn == 1
    assert mine._shared.get("collecting")["ask"] == ""


@pytest.mark.parametrize("content", ["", "{", "[]", '{"digits": [{"label": 1}]}', '{"digits": 3}'])
def test_a_damaged_file_is_put_away(folder, content):
    (folder / "my_digits.json").write_text(content)
    mine = DigitCollector([1])
    assert mine.drawn == 0
    assert "damaged" in mine._shared.get("problem")
    assert (folder / "my_digits-damaged.json").read_text() == content
    press(mine, DRAWINGS[1][0])
    assert mine._shared.get("problem") == ""
    assert DigitCollector([1]).drawn == 1


def test_where_nothing_can_be_written_the_pad_says_so_and_keeps_the_digit(folder, monkeypatch):
    mine = DigitCollector([1, 2])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    press(mine, DRAWINGS[1][0])
    assert "No space left" in mine._shared.get("problem")
    assert mine.drawn == 1


def test_what_a_lesson_stores_does_not_depend_on_who_has_drawn(folder, monkeypatch):
    press(DigitCollector([1]), DRAWINGS[1][0])
    monkeypatch.setenv("COURSE_EXAMPLES", "1")
    assert DigitCollector([1]).drawn == 0
    monkeypatch.delenv("COURSE_EXAMPLES")
    assert DigitCollector([1]).drawn == 1


def test_a_label_that_is_no_digit_is_refused(folder):
    with pytest.raises(ValueError, match="from 0 to 9"):
        DigitCollector([1, 10])


def test_a_collector_shows_the_wall_of_its_digits(folder):
    data, _ = forms(DigitCollector(list(range(10)) * 2))
    assert set(data) == {"text/plain", "image/png", VIEW}
    assert "0 of 20" in data["text/plain"]
    assert picture(data).width > 1000


# --- The film


def decoded(content: dict) -> list[np.ndarray]:
    frames = [base64.b64decode(frame.partition(",")[2]) for frame in content["frames"]]
    return [np.asarray(Image.open(io.BytesIO(frame)).convert("RGB")) for frame in frames]


def test_a_film_of_arrays_holds_each_frame():
    values = np.zeros((3, 2, 4, 5))
    values[1, 0, 2, 3] = 1
    values[2, 1, 0, 0] = -1
    film = Film(values, captions=["a", "b", "c"], title="Three")
    data, _ = forms(film)
    assert set(data) == {"text/plain", "image/png", FILM, VIEW}
    assert data["text/plain"] == "Film “Three”: 3 frames, from a to c."
    content = json.loads(json.dumps(data[FILM]))
    assert content["captions"] == ["a", "b", "c"]
    frames = decoded(content)
    assert {frame.shape for frame in frames} == {(4, 12, 3)}  # two images and the gap between them
    red, _, blue = frames[1][2, 3].astype(int)
    assert red > blue + 100  # above 0: orange
    red, _, blue = frames[2][0, 7].astype(int)
    assert blue > red + 100  # below 0: blue
    assert np.abs(frames[0].astype(int) - (255, 253, 248)).max() <= 2


def test_a_film_of_figures_closes_them():
    figures = []
    for number in range(2):
        figure, axes = pyplot.subplots(figsize=(4, 2))
        axes.plot([0, number])
        figures.append(figure)
    film = Film(figures)
    assert not pyplot.get_fignums()
    assert film.captions == ["1", "2"]
    content = forms(film)[0][FILM]
    assert content["width"] == 400
    first, second = decoded(content)
    assert first.shape == (400, 800, 3)
    assert (first != second).any()


@pytest.mark.parametrize(
    ("frames", "captions", "says"),
    [
        (np.zeros((2, 3)), None, "shape"),
        (np.zeros((2, 3, 3)), ["one"], "2 frames and 1 captions"),
        ([], None, "shape"),
    ],
)
def test_frames_that_make_no_film_are_refused(frames, captions, says):
    with pytest.raises(ValueError, match=says):
        Film(frames, captions)
