"""The comparison of texts, as pure functions: what may move, by how much, and what may not."""

from __future__ import annotations

import math
import pytest

from nbval_tolerance.compare import Phase, Rules, compare_text
from nbval_tolerance.lines import lines_of
from nbval_tolerance.numbers import NUMBER
from nbval_tolerance.terminal import rendered

UNTRAINED, FIT, TRAINED = (Rules(phase) for phase in Phase)
TABLE = """\
┏━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━┓
┃ Layer (type)      ┃   Param # ┃
┡━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━┩
│ dense (Dense)     │   100,480 │
└───────────────────┴───────────┘
"""


def same(stored: str, computed: str, rules: Rules) -> bool:
    return not compare_text(stored, computed, rules).differences


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "train (55000, 28, 28) uint8",
        "epoch 1  accuracy: 0.9080  loss: 0.3149",
        "[nan -inf  0.]",
        "an open [ bracket\n and more",
        TABLE,
    ],
)
def test_a_text_equals_itself(text, phase):
    assert same(text, text, Rules(phase))


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        ("5s 3ms/step - loss: 0.3", "12s 240us/step - loss: 0.3"),
        ("Wall time: 1min 3s", "Wall time: 59.2 s"),
        ("27,500 samples/s", "9,100.5 samples/s"),
        ("done in 0:00:12", "done in 1:07:09"),
        ("at 2026-01-31 12:00:01.5", "at 2027-02-01T00:00:00Z"),
        ("<Model at 0x7f00aabbccdd>", "<Model at 0x55aa00112233>"),
        ("1.23 ms ± 4.5 µs per loop, 1,000 loops each", "9 ms ± 1 µs per loop, 100 loops each"),
        ("100%|███| 10/10 [00:05<00:00,  1.9it/s]", "100%|███| 10/10 [00:01<00:00, 9.8it/s]"),
        ("1/9 ...\r5/9 ...\r9/9 done", "1/9 ...\r9/9 done"),
        ("\x1b[1mbold\x1b[0m", "bold"),
        ("[ 1. 10.]", "[1.  10.]"),
        ("[[1 2]\n [3 4]]", "[[1 2] [3\n 4]]"),  # an array's lines are broken by its widths
        ("array([[1, 2]], dtype=int8)", "array([[1, 2]],\n      dtype=int8)"),
        (TABLE, TABLE.replace("     ", "       ").replace("━━━", "━━━━━")),
    ],
)
def test_what_says_nothing_is_not_compared(stored, computed, phase):
    assert same(stored, computed, Rules(phase))


@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        ("loss 2.5816898", "loss 2.5816901"),  # the last digit of a float32
        ("[ 1.     10.2512]", "[1. 10.2513]"),  # NumPy pads by the widest entry
        ("array([0.1007, 0.1006])", "array([0.1006, 0.1006])"),
        ("-1.23e-05", "-1.24e-05"),
        ("[1.+0.5000000j]", "[1.+0.5000001j]"),
        ("31.4212dB", "31.4213dB"),
    ],
)
def test_rounding_passes_before_training(stored, computed):
    assert same(stored, computed, UNTRAINED)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        ("train (55000, 28, 28)", "train (54999, 28, 28)"),
        ("score 0.5816898", "score -0.5816898"),
        ("uint8", "uint16"),
        ("31.42dB", "36.42dB"),
        ("31.42dB", "31.42dBm"),
        ("TensorFlow 2.21.0", "TensorFlow 2.22.0"),
        ("1,234.5 images", "1,334.5 images"),
        ("equal: True", "equal: False"),
        ("[0. 0. 1.]", "[0. 1. 0.]"),
        ("label 5", "label 5.0"),
        ("one\ntwo", "one"),
        ("", "something"),
        ("nan", "0.5"),
        ("loss 0.5", "loss nan"),
        ("loss inf", "loss 0.5"),
        ("loss inf", "loss -inf"),
        ("0.25 min 0.10 max", "0.25 min 0.20 max"),  # `0.25 min` is no time
        ("x[0:10]", "x[0:20]"),
        ("an open ( only\nends there )", "an open ( only ends there )"),
        ("learning rate 0.001", "learning rate 0.002"),  # a setting is the same before and after
        ("dropout rate 0.2", "dropout rate 0.21"),
        (TABLE, TABLE.replace("100,480", "100,481")),
        (TABLE, TABLE.replace("(Dense)", "(Flatten)")),
    ],
)
def test_what_a_learner_would_notice_fails(stored, computed, phase):
    assert not same(stored, computed, Rules(phase))


@pytest.mark.parametrize(
    ("stored", "computed", "passes"),
    [
        ("test accuracy 0.975", "test accuracy 0.978", True),
        ("test accuracy 0.975", "test accuracy 0.985", False),
        ("test loss     0.078", "test loss     0.083", True),
        ("test loss     0.078", "test loss     0.120", False),
        ("accuracy 97.5%", "accuracy 97.9%", True),
        ("accuracy 97.5%", "accuracy 98.5%", False),
        ("score 0.91", "score 0.93", True),
        ("score 0.91", "score 0.99", False),
        ("R2 0.97", "R2 0.88", False),
        ("IoU 0.81", "IoU 0.74", False),
        ("steps: 5157", "steps: 5158", False),
    ],
)
def test_trained_numbers_may_move_by_their_kind(stored, computed, passes):
    assert same(stored, computed, TRAINED) is passes
    assert not same(stored, computed, UNTRAINED), "before training, none of these may pass"


@pytest.mark.parametrize(
    ("stored", "computed"), [("p = 0.5", "p = 0.6"), ("6.0 on CPU", "6.1 on CPU"), ("2.38", "2.39")]
)
def test_a_short_number_is_exact_before_training(stored, computed):
    assert not same(stored, computed, UNTRAINED)


def test_the_log_of_the_training_data_is_held_closer_than_that_of_other_data():
    log = "loss: 0.3149  val_loss: 0.1241"
    assert same(log, "loss: 0.3149  val_loss: 0.1301", FIT)
    assert not same(log, "loss: 0.3449  val_loss: 0.1241", FIT)
    assert same("loss: 0.3149", "loss: 0.3349", TRAINED)


def test_an_exact_cell_compares_each_digit_and_times_as_data():
    exact = Rules(Phase.TRAINED, exact=True)
    assert same("loss 0.25  in 5 s  \n", "loss 0.25  in 5 s", exact)
    assert not same("loss 0.25  in 5 s", "loss  0.25 in 5 s", exact)
    assert not same(" #\n# #", "#\n# #", exact)  # a drawing
    assert not same(TABLE, TABLE.replace("└", "+"), exact)
    assert not same("loss 0.25", "loss 0.26", exact)
    assert not same("in 5 s", "in 6 s", exact)


def test_a_wider_tolerance_is_for_its_kind_alone():
    wider = Rules(Phase.TRAINED, wider={"loss": 3.0})
    assert same("loss 0.100", "loss 0.120", wider)
    assert not same("loss 0.100", "loss 0.120", TRAINED)
    assert not same("accuracy 0.900", "accuracy 0.920", wider)


def test_an_unseeded_cell_compares_the_form():
    chance = Rules(seeded=False)
    assert same("picked 3 of [0.1 0.2]", "picked 8 of [0.7 0.9]", chance)
    assert not same("picked 3 of [0.1 0.2]", "picked 3 of [0.1 0.2 0.3]", chance)
    assert not same("picked 3", "took 3", chance)


def test_the_head_room_is_the_share_of_the_tolerance():
    result = compare_text("score 0.50", "score 0.52", TRAINED)
    allowed = 0.02 + 0.01  # and one unit of the last digit
    assert result.worst.used == pytest.approx(0.02 / allowed)
    assert result.worst.kind == "probability"
    assert compare_text("label 5", "label 6", TRAINED).worst.used == math.inf


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        (
            "epoch 1  accuracy: 0.9080  loss: 0.3149  val_accuracy: 0.9664  val_loss: 0.1241",
            ["integer", "accuracy", "loss", "held-out accuracy", "held-out loss"],
        ),
        ("epoch   val_loss   accuracy\n    1      0.140      0.962", ["held-out loss", "accuracy"]),
        ("validation loss after epoch   1      2\nsgd   0.513  0.359", ["held-out loss"] * 2),
        ("test loss 0.078\nshare 0.123", ["held-out loss", "float"]),  # no table
        ("accuracy 97.5 % of 10", ["percentage", "integer"]),
        ("{'loss': [0.31, 0.16], 'accuracy': [0.9]}", ["loss", "loss", "accuracy"]),
        ("learning rate 0.001, loss 0.3", ["setting", "loss"]),
        ("val_acc: 0.95 train_auc 0.97", ["held-out accuracy", "accuracy"]),
        ("lr=0.001 weight_decay: 0.004 Dropout(0.2) 'rate': 0.2 SGD(0.01)", ["setting"] * 5),
        ("dropout 0.35", ["float"]),  # a row of a table, perhaps
        ("0.975 accuracy", ["accuracy"]),
        ("reached 0.98 test accuracy", ["held-out accuracy"]),
        ("0.3 accuracy: 0.9", ["float", "accuracy"]),
        # A setting is one number, or those of its bracket; what follows is a result.
        ("lr=0.1: 0.9312", ["setting", "float"]),
        ("dropout: 0.2 {'l2': 0.001, 'eps': 1e-7} threshold: 0.5 beta_1: 0.9", ["setting"] * 5),
        ("validation_split=0.2 clipnorm 1.5 label_smoothing=0.1 L2(1e-4)", ["setting"] * 4),
        ("Dropout: 0.54 L2: 0.54 l2 0.5 best threshold: 0.43 temperature: 1.66", ["float"] * 5),
        ("accuracy of SGD(0.1, momentum=0.9)  0.9312", ["setting", "setting", "accuracy"]),
        ("Adam(1e-3, 0.9): [0.93, 0.92]", ["setting", "setting", "float", "float"]),
        ("momentum 0.9 gives 0.9312", ["setting", "float"]),
        ("learning rates [0.1, 0.01]", ["setting", "setting"]),
        ("0.9312 lr 0.1", ["float", "setting"]),
        ("learning rate, accuracy\n0.1 0.9312", ["setting", "float"]),
        ("steps  learning rate  accuracy\n   10          0.001      0.93",
         ["setting", "accuracy"]),
        ("lr    \nsmall 0.93", ["float"]),  # not under it
        ("rmse 0.25 nll: 0.3 test_iou 0.81 roc_auc: 0.9 AUROC 0.9 specificity 0.9",
         ["loss", "loss", "held-out accuracy", "accuracy", "accuracy", "accuracy"]),
        ("var2 0.5 R2 0.97 r² = 0.97", ["float", "probability", "probability"]),
        ("error rate 0.025, mean squared error 2.5", ["accuracy", "loss"]),
    ],
)  # fmt: skip
def test_a_number_is_named_by_the_words_before_and_above(text, kinds):
    found = [number.kind for number in compare_text(text, text, FIT).numbers]
    assert [kind for kind in found if kind != "integer"] == [k for k in kinds if k != "integer"]


def test_a_head_holds_for_its_paragraph():
    kinds = [
        number.kind for number in compare_text("loss\n0.5\n\n0.5", "loss\n0.5\n\n0.5", FIT).numbers
    ]
    assert kinds == ["loss", "float"]


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(
    ("old", "new"), [("1e-07", "1e-06"), ("0.001", "0.002"), ("1e-5", "1.1e-5")]
)
def test_a_setting_is_a_constant(phase, old, new):
    assert not same(f"epsilon {old}", f"epsilon {new}", Rules(phase))
    assert same("learning rate 0.001", "learning rate 0.0010000000474974513", Rules(phase))


@pytest.mark.timeout(60)
def test_long_texts_take_time_in_proportion():
    lines = "\n".join(f"step {n} 0.{n:05}" for n in range(20_000))
    assert same(lines, lines, TRAINED)
    assert not same(lines, lines + "\n1", TRAINED)
    row = "[" + "1," * 5_000 + "1]"
    assert same(row, row, TRAINED)
    row = "lr: [" + "0.1, " * 5_000 + "0.1]"
    assert same(row, row, TRAINED)
    assert same("[ open\n" * 2_000, "[ open\n" * 2_000, TRAINED)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("101,770 (397.54 KB)", ["101,770", "397.54"]),
        ("(60000, 28, 28) uint8", ["60000", "28", "28"]),
        ("[-1. .5 1e-05]", ["-1.", ".5", "1e-05"]),
        ("x1 3x 2.21.0 x1.5 2.5_a", []),
        (
            "1,031.42dB 2.31x 1.5e-05j 3.1µm -0.5V 25.4.1a",
            ["1,031.42", "2.31", "1.5e-05", "3.1", "-0.5"],
        ),
        ("31.42ms 2.5s 2.5min", ["31.42", "2.5", "2.5"]),
        ("1,2 10,000 / 32 = 312.50", ["1", "2", "10,000", "32", "312.50"]),
        ("nan -inf infinity", ["nan", "-inf"]),
        ("0-255", ["0", "255"]),
    ],
)
def test_what_counts_as_a_number(text, numbers):
    assert [match["number"] for match in NUMBER.finditer(text)] == numbers


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("abc\rX", "Xbc"),
        ("abc\b\bX", "aXc"),
        ("windows\r\nlines\r\n", "windows\nlines\n"),
        ("\x1b[2K\x1b[1mbold\x1b[0m", "bold"),
        ("\b\ba", "a"),
    ],
)
def test_what_a_terminal_shows(text, shown):
    assert rendered(text) == shown


def test_the_difference_names_the_line_and_both_values():
    (difference,) = compare_text(
        "first\nshape (3, 4)", "first\nshape (3, 5)", UNTRAINED
    ).differences
    assert "line 2" in str(difference)
    assert "4 became 5" in str(difference)
    assert difference.stored == "shape (3, 4)"
    assert difference.computed == "shape (3, 5)"


def test_a_line_that_is_gone_is_named_and_the_others_are_not():
    (difference,) = compare_text("one\ntwo\nthree", "one\nthree", UNTRAINED).differences
    assert (difference.stored, difference.computed) == ("two", "(no line)")
    assert "line 2" in difference.what


def test_the_form_of_a_text():
    (line,) = lines_of("loss 0.25 of 3 at 0x7f00aabbcc")
    assert line.template == "loss # of § at …"
