"""Test which differences between texts pass and which fail. Only pure functions are tested."""

from __future__ import annotations

import math

import pytest

from nbval_tolerance.compare import Phase, Rules, compare_text, out_of_range, passing
from nbval_tolerance.texts.lines import lines_of
from nbval_tolerance.texts.numbers import NUMBER

UNTRAINED, FIT, TRAINED = map(Rules, (Phase.UNTRAINED, Phase.FIT, Phase.TRAINED))
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
        ("at 2026-01-31 12:00:01.5", "at 2027-02-01T00:00:00Z"),
        ("<Model at 0x7f00aabbccdd>", "<Model at 0x55aa00112233>"),
        ("1/9 ...\r5/9 ...\r9/9 done", "1/9 ...\r9/9 done"),
        ("\x1b[1mbold\x1b[0m", "bold"),
        ("[ 1. 10.]", "[1.  10.]"),
        ("[[1 2]\n [3 4]]", "[[1 2] [3\n 4]]"),  # line breaks depend on the array's width
        ("array([[1, 2]], dtype=int8)", "array([[1, 2]],\n      dtype=int8)"),
        (TABLE, TABLE.replace("     ", "       ").replace("━━━", "━━━━━")),
    ],
)
def test_what_says_nothing_is_not_compared(stored, computed, phase):
    assert same(stored, computed, Rules(phase))


@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        ("loss 2.5816898", "loss 2.5816901"),  # the last digit of a float32 number
        ("[ 1.     10.2512]", "[1. 10.2513]"),  # NumPy pads numbers to the widest one
        ("array([0.1007, 0.1006])", "array([0.1006, 0.1006])"),
        ("[-1.234e-05 3.e-07]", "[-1.235e-05 3.e-07]"),  # a lone number like this is a constant
        ("-1.234567e-05", "-1.234568e-05"),
        ("0.6931", "0.6932"),
        ("0.5712049603462219", "0.571204960346222"),  # adjacent floats in their shortest form
        ("0  0.1234  0.0012", "0  0.1234  0.0013"),
        ("[1.+0.5000000j]", "[1.+0.5000001j]"),
        ("31.4212dB", "31.4213dB"),
        ("[0.5 1.e-08]", "[0.5 3.e-08]"),  # noise scales with the array's largest number
        ("[[0.99999 1.2e-09]\n [0.1 0.9]]", "[[0.99999 1.9e-09]\n [0.1 0.9]]"),
        ("[0.00000000e+00 -4.44089210e-16]", "[4.44089210e-16 0.00000000e+00]"),
        ("0.0", "4.440892098500626e-16"),  # zero, except for a rounding error
        ("2.9802322e-08", "5.9604645e-08"),
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
        ("0.25 min 0.10 max", "0.25 min 0.20 max"),  # `0.25 min` is not a duration
        ("x[0:10]", "x[0:20]"),
        ("an open ( only\nends there )", "an open ( only ends there )"),
        ("learning rate 0.001", "learning rate 0.002"),  # training does not change a setting
        ("dropout rate 0.2", "dropout rate 0.21"),
        ("total 1200", "total 1,200"),  # the format differs
        ("1,200.5 km", "1200.5 km"),
        ("n = 007", "n = 7"),
        ("x = +0.5", "x = 0.5"),
        ("x = 0.50", "x = 0.5"),
        ("h = 6.62607015e-34", "h = 5.92607015e-34"),
        ("[6.626e-34 2.998e+08]", "[5.926e-34 2.998e+08]"),
        ("[1.e-09 2.e-09 4.e-09]", "[1.e-09 3.e-09 4.e-09]"),
        ("statistic=49.84, pvalue=np.float64(1.5015e-11)",
         "statistic=49.84, pvalue=np.float64(3.5015e-11)"),
        ("p-value: 0.0004123", "p-value: 0.0009456"),
        ("-3.2e-07", "3.2e-07"),
        ("alpha=0.1: 0.93", "alpha=0.2: 0.93"),
        ("dropout 0.5: 0.93", "dropout 0.4: 0.93"),  # the first number is a setting
        ("betas: (0.9, 0.999)", "betas: (0.9, 0.99)"),
        ("model  accuracy  dropout\na      0.90       0.2",
         "model  accuracy  dropout\na      0.90       0.3"),
        ("{0.1: 0.93, 0.01: 0.95}", "{0.1: 0.93, 0.02: 0.95}"),
        (TABLE, TABLE.replace("100,480", "100,481")),
        (TABLE, TABLE.replace("(Dense)", "(Flatten)")),
    ],
)  # fmt: skip
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
        ("largest value 1.211", "largest value 1.295", True),
        # Small numbers have small tolerances, unless they are next to larger numbers.
        ("loss 0.0020", "loss 0.0025", True),
        ("loss 0.00002", "loss 0.00100", False),
        ("spread: 0.004", "spread: 0.019", False),
        ("standard deviation 0.0041", "standard deviation 0.0055", True),
        ("mean 0.970, std 0.004", "mean 0.970, std 0.014", False),
        ("0.970 ± 0.004", "0.970 ± 0.014", False),
        ("gap 0.002", "gap 0.012", False),
        ("gap 0.002  0.844", "gap 0.012  0.844", True),
        ("[0.002 0.267]", "[0.012 0.267]", True),
        ("standard deviation 0.07%", "standard deviation 0.12%", True),
        ("standard deviation 0.07%", "standard deviation 0.27%", False),
        ("accuracy: 97.5", "accuracy: 97.8", True),
        ("accuracy: 97.5", "accuracy: 98.5", False),
        ("score 12.31", "score 12.90", True),  # not a probability
        ("[0.00 0.97] probabilities", "[0.02 0.95] probabilities", True),
        ("IoU 0.81", "IoU 0.74", False),
        ("steps: 5157", "steps: 5158", False),
    ],
)
def test_trained_numbers_may_move_by_their_kind(stored, computed, passes):
    assert same(stored, computed, TRAINED) is passes
    assert not same(stored, computed, UNTRAINED), "none of these may pass before training"


@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        ("p = 0.5", "p = 0.6"),
        ("6.0 on CPU", "6.1 on CPU"),
        ("2.38", "2.39"),
        ("p-value: 0.0123", "p-value: 0.0124"),
        ("h = 6.626e-34", "h = 6.627e-34"),
        ("mean 0.6931", "mean 0.693"),  # the format differs
        ("0.0004", "0.0005"),
    ],
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
    assert not same(" #\n# #", "#\n# #", exact)  # the spaces are part of a drawing
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
    allowed = 0.02 + 0.01  # the tolerance, plus one unit in the last place
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
        ("test loss 0.078\nshare 0.123", ["held-out loss", "float"]),  # not a table
        ("accuracy 97.5 % of 10", ["percentage", "integer"]),
        ("{'loss': [0.31, 0.16], 'accuracy': [0.9]}", ["loss", "loss", "accuracy"]),
        ("learning rate 0.001, loss 0.3", ["setting", "loss"]),
        ("val_acc: 0.95 train_auc 0.97", ["held-out accuracy", "accuracy"]),
        ("lr=0.001 weight_decay: 0.004 Dropout(0.2) 'rate': 0.2 SGD(0.01)", ["setting"] * 5),
        ("dropout 0.35", ["float"]),  # this may be a table row
        ("0.975 accuracy", ["accuracy"]),
        ("reached 0.98 test accuracy", ["held-out accuracy"]),
        ("0.3 accuracy: 0.9", ["float", "accuracy"]),
        # A setting's value is one number, or the numbers in one pair of brackets. Later numbers are
        # results.
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
        ("lr    \nsmall 0.93", ["float"]),  # not below `lr`
        ("rmse 0.25 nll: 0.3 test_iou 0.81 roc_auc: 0.9 AUROC 0.9 specificity 0.9",
         ["loss", "loss", "held-out accuracy", "accuracy", "accuracy", "accuracy"]),
        ("var2 0.5 R2 0.97 r² = 0.97", ["float", "probability", "probability"]),
        ("error rate 0.025, mean squared error 2.5", ["accuracy", "loss"]),
        ("test_score 0.9 mean_test_score 0.9 f1-score 0.9 Test set score: 0.9 best_score_ 0.9",
         ["held-out accuracy"] * 2 + ["accuracy", "held-out accuracy", "accuracy"]),
        ("mean score 0.9 std 0.1 p-value 0.1 0.9 ± 0.1",
         ["probability", "spread", "spread", "spread", "spread"]),
        ("fit_time 0.5 loss 0.3", ["loss"]),
    ],
)  # fmt: skip
def test_a_number_is_named_by_the_words_before_and_above(text, kinds):
    found = [number.kind for number in compare_text(text, text, FIT).numbers]
    assert [kind for kind in found if kind != "integer"] == [k for k in kinds if k != "integer"]


REPORT = """\
              precision    recall  f1-score   support

    not nine       0.99      0.99      0.99       403
        nine       0.93      0.96      0.94        47

    accuracy                           0.98       450
   macro avg       0.96      0.97      0.97       450
weighted avg       0.98      0.98      0.98       450
"""


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        (REPORT, ["accuracy"] * 13),
        # Columns may be right-aligned, left-aligned, centred or unaligned.
        ("       accuracy  loss\nA          0.93  0.25", ["accuracy", "loss"]),
        ("model  accuracy  loss\nA      0.93      0.25", ["accuracy", "loss"]),
        ("    loss     accuracy\n 0.25          0.93   ", ["loss", "accuracy"]),
        ("| model | loss | accuracy |\n|---|---|---|\n| a longer name | 0.25 | 0.93 |",
         ["loss", "accuracy"]),
        ("| model | loss | accuracy |\n|:--|--:|--:|\n| A     | 0.25 |     0.93 |",
         ["loss", "accuracy"]),
        ("┃ model ┃ accuracy ┃\n┡━━━━━━━╇━━━━━━━━━━┩\n│ A     │ 0.93     │", ["accuracy"]),
        ("│ model │ loss │ accuracy\n│ long name │ 0.25 │ 0.93", ["loss", "accuracy"]),
        ("      accuracy   loss\nmean      0.97   0.12\nstd       0.00   0.02",
         ["accuracy", "loss", "spread", "spread"]),
        ("accuracy    0.93\nloss        0.25\ndtype: float64", ["accuracy", "loss"]),
        ("epoch         loss     val_loss     accuracy val_accuracy\n"
         "    1         1.65         1.11         0.45         0.65",
         ["loss", "held-out loss", "accuracy", "held-out accuracy"]),
        ("model  accuracy\n\nA      0.93\n\n\nB      0.93", ["accuracy", "float"]),
        ("model  accuracy\n\nA      0.93\n\nof all 0.5 are new", ["accuracy", "float"]),
    ],
)  # fmt: skip
def test_a_head_names_its_columns(text, kinds):
    found = [number.kind for number in compare_text(text, text, FIT).numbers]
    assert [kind for kind in found if kind != "integer"] == kinds


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("   accuracy  price\n0       0.9   20.0", ["accuracy", "float"]),
        ("   price  accuracy\n0   20.0       0.9", ["float", "accuracy"]),
        ("         loss  area\nmodel    0.3  2000.5", ["loss", "float"]),
        ("accuracy  plain  dropout\nsgd  0.91  0.93", ["accuracy", "accuracy"]),  # two models
        ("       loss: before   after\nsgd           2.30    0.45", ["loss", "loss"]),
    ],
)
def test_a_column_has_no_name_but_its_own(text, kinds):
    assert kinds_of(text, FIT)[-2:] == kinds


def test_a_report_of_a_trained_classifier_is_held_to_accuracy():
    assert same(REPORT, REPORT.replace("0.93", "0.94"), TRAINED)
    assert not same(REPORT, REPORT.replace("0.93", "0.87"), TRAINED)
    assert not same(REPORT, REPORT.replace("avg       0.98", "avg       0.92"), TRAINED)
    assert not same(REPORT, REPORT.replace(" 47", " 48"), TRAINED)


def kinds_of(text: str, rules: Rules, label: str = "") -> list[str]:
    return [number.kind for number in compare_text(text, text, rules, label).numbers]


def test_a_number_that_no_word_names_is_the_cells_result_or_its_label():
    result = Rules(Phase.TRAINED, result="accuracy")
    assert kinds_of("0.9312", result) == ["accuracy"]
    assert kinds_of("array([0.9, 0.8])", result) == ["accuracy"] * 2
    assert kinds_of("loss 0.3", result) == ["loss"]
    assert kinds_of("[[0.1 -0.2]]", TRAINED, "untrained scores") == ["probability"] * 2
    assert kinds_of("0.1 0.2", result, "the loss") == ["loss"] * 2
    assert kinds_of("accuracy 0.3", TRAINED, "the loss") == ["accuracy"]


def test_what_the_run_brings_is_not_compared():
    process, took = Rules(result="id"), Rules(result="duration")
    assert same("process 17113", "process 17190", process)
    assert not same("process 17113\n3 workers", "process 17190\n3 workers", process)
    assert [found.what for found in passing("17113", process)] == ["id"]
    assert same("0.12", "0.25", took)
    assert not same("0.12\naccuracy 0.93", "0.12\naccuracy 0.94", took)
    assert not same("10 runs 0.12", "11 runs 0.12", took)
    assert not same("0.12 m", "0.25 m", Rules())


def test_a_project_has_words_of_its_own():
    words = {
        "loss": ("perplexity", "bits per char"),
        "accuracy": ("Hit Rate", "score"),
        "setting": ("temperature",),
        "percentage": ("share",),
    }
    rules = Rules(Phase.FIT, words=words)
    text = "perplexity 1.5 val_perplexity: 1.5 Bits_per char 1.5 test hit_rate=0.5 score 0.5"
    found = ["loss", "held-out loss", "loss", "held-out accuracy", "accuracy"]
    assert kinds_of(text, rules) == found
    assert kinds_of("temperature 0.7 then 0.5", rules) == ["setting", "float"]
    assert kinds_of("share 0.5", rules) == ["percentage"]
    assert kinds_of("scores 0.5 hyperperplexity: 0.5", rules) == ["probability"] * 2
    assert kinds_of("model  perplexity\nA      1.5", rules) == ["loss"]


def test_a_project_has_tolerances_of_its_own():
    rules = Rules(Phase.TRAINED, tolerances={Phase.TRAINED: {"float": (0.1, 0.0)}})
    assert same("0.004", "0.090", rules), "a tolerance that a project sets is not reduced"
    assert not same("0.500", "0.620", rules)
    assert not same("accuracy 0.90", "accuracy 0.99", rules)
    assert same("0.500", "0.520", Rules(Phase.FIT, tolerances=rules.tolerances))


RANGES = Rules(
    Phase.TRAINED,
    between={
        "accuracy": (0.08, 0.6),
        "mistakes": (900, 1500),
        "without scaling": (0.1, 0.3),
        "loss": (1, 5),
    },
)


@pytest.mark.parametrize(
    ("stored", "computed", "outside", "keys"),
    [
        ("accuracy 0.30", "accuracy 0.55", None, {"accuracy"}),
        ("accuracy 0.30", "accuracy 0.71",
         "accuracy 0.71 is not between 0.08 and 0.6", {"accuracy"}),
        ("val_accuracy 0.30", "val_accuracy 0.55", None, {"accuracy"}),
        ("precision 0.30", "precision 0.55", None, {"accuracy"}),
        ("mistakes 1234", "mistakes 999", None, {"mistakes"}),
        ("mistakes 1,234", "mistakes 899",
         "mistakes 899 is not between 900 and 1500", {"mistakes"}),
        ("without scaling  accuracy 0.1135", "Without_scaling  accuracy 0.2", "the text differs",
         {"without scaling"}),
        ("Without_Scaling  accuracy 0.1135", "Without_Scaling  accuracy 0.4",
         "without scaling 0.4 is not between 0.1 and 0.3", {"without scaling"}),
        ("accuracy 0.3 loss 2.3", "accuracy 0.1 loss 4.9", None, {"accuracy", "loss"}),
        ("loss 2.3", "loss nan", "loss nan is not between 1 and 5", {"loss"}),
        ("loss 2.3 of 7", "loss 4.9 of 8", "7 became 8", {"loss"}),
        ("two\nloss 2.3", "loss 2.3", "line 1: 1 line gone", {"loss"}),
        ("mistaken 1234", "mistaken 999", "1234 became 999", set()),
        ("scaling 0.5", "scaling 0.5", None, set()),
    ],
)  # fmt: skip
def test_a_number_may_be_held_to_a_range(stored, computed, outside, keys):
    result = compare_text(stored, computed, RANGES)
    assert [outside in difference.what for difference in result.differences] == [True] * bool(
        outside
    )
    assert result.ranged == keys


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("mistakes 1200 of 10000, accuracy 0.93", ["1200"]),
        ("mistakes: [[1200, 1000], [900, 901]] of 10000", ["1200", "1000", "900", "901"]),
        ("5 mistakes 1200", ["1200"]),
        ("10000 images, 1200 mistakes", []),
    ],
)
def test_words_hold_the_next_number_or_array(text, held):
    result = compare_text(text, text, Rules(between={"mistakes": (900, 1500)}))
    assert [number.computed for number in result.numbers if number.between] == held
    assert not result.differences


def test_a_number_in_its_range_is_said_to_be_in_it():
    (number,) = compare_text("loss 0.2", "loss 0.3", Rules(between={"loss": (0.1, 0.5)})).numbers
    assert str(number) == "loss 0.3 is between 0.1 and 0.5"


def test_a_setting_is_said_to_be_a_constant():
    (difference,) = compare_text("learning rate 0.1", "learning rate 0.2", TRAINED).differences
    assert "0.1 became 0.2 (setting: must be equal)" in difference.what


def test_rules_that_there_are_not():
    with pytest.raises(ValueError, match="'trained' is not a Phase"):
        Rules("trained")
    with pytest.raises(ValueError, match="'speed' is not a kind"):
        Rules(words={"speed": ("m/s",)})
    with pytest.raises(ValueError, match="'speed' is not a kind"):
        Rules(tolerances={Phase.FIT: {"speed": (0.1, 0.1)}})


def test_a_share_of_a_range_is_its_head_room():
    used = [
        compare_text("accuracy 0.3", f"accuracy {here}", RANGES).worst.used
        for here in (0.34, 0.6, 0.08, 0.73)
    ]
    assert used == pytest.approx([0, 1, 1, 1.5])
    assert same("accuracy 0.3", "accuracy 0.6", RANGES)
    assert same("loss 3", "loss 3", Rules(between={"loss": (3, 3)}))


def test_ranges_hold_for_a_label_and_where_numbers_come_by_chance():
    assert same("[1000, 1200]", "[1499, 900]", Rules(between=RANGES.between)) is False
    assert not compare_text("[1000, 1200]", "[1499, 900]", RANGES, "mistakes").differences
    assert compare_text("[1000, 1200]", "[1, 900]", RANGES, "mistakes").differences
    chance = Rules(seeded=False, between=RANGES.between)
    assert same("loss 2.5 of 7", "loss 4.5 of 8", chance)
    assert not same("loss 2.5 of 7", "loss 5.5 of 8", chance)


def test_a_stored_text_alone_may_be_outside_its_range():
    text = "first\naccuracy 0.71\nloss 2, mistakes 3"
    assert out_of_range(text, RANGES) == [
        "line 2: accuracy 0.71 is not between 0.08 and 0.6",
        "line 3: mistakes 3 is not between 900 and 1500",
    ]
    assert out_of_range("0.5", RANGES, "accuracy by hand") == []
    assert len(out_of_range("0.7", RANGES, "accuracy by hand")) == 1


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


def test_the_difference_names_the_line_and_both_values():
    (difference,) = compare_text(
        "first\nshape (3, 4)", "first\nshape (3, 5)", UNTRAINED
    ).differences
    assert "line 2" in str(difference)
    assert "4 became 5" in str(difference)
    assert difference.stored == "shape (3, 4)"
    assert difference.computed == "shape (3, 5)"


def test_of_many_numbers_in_a_line_a_few_are_named():
    old, new = ("[" + " ".join(f"{n}" for n in range(k, k + 30)) + "]" for k in (0, 100))
    (difference,) = compare_text(old, new, UNTRAINED).differences
    assert "3 became 103 (integer: must be equal); and 26 more numbers" in difference.what


def test_a_line_that_is_gone_is_named_and_the_others_are_not():
    (difference,) = compare_text("one\ntwo\nthree", "one\nthree", UNTRAINED).differences
    assert (difference.stored, difference.computed) == ("two", "(no line)")
    assert "line 2" in difference.what


def test_the_form_of_a_text():
    (line,) = lines_of("loss 0.25 of 3 at 0x7f00aabbcc")
    assert line.template == "loss # of § at …"
