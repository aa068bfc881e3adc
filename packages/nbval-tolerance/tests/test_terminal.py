"""Test that a notebook stores the text that a terminal would finally show."""

from __future__ import annotations

import random

import pytest

from nbval_tolerance.texts.terminal import has_frames, last_frame, rendered

# Shortened progress bars of Keras 3.15, tqdm 4.67 and rich 14.
BOLD, GREEN, GREY, RED, PINK, END = (f"\x1b[{n}m" for n in (1, 32, 37, 91, 35, 0))
KERAS = (
    "Epoch 1/2\n"
    f"\r{BOLD} 1/16{END} {GREEN}━{END}{GREY}━━━{END} {BOLD}4s{END} 327ms/step - loss: 0.9711"
    + "\b" * 40
    + f"\r{BOLD}16/16{END} {GREEN}━━━━{END}{GREY}{END} {BOLD}0s{END} 11ms/step - loss: 0.9525 \n"
)
NESTED = (
    "\router:   0%|    | 0/2 [00:00<?, ?it/s]"
    "\n\rinner:   0%|    | 0/3 [00:00<?, ?it/s]\x1b[A"
    "\n\rinner: 100%|####| 3/3 [00:00<00:00, 455.69it/s]\x1b[A"
    "\n\r                                               \x1b[A"
    "\router: 100%|####| 2/2 [00:00<00:00, 143.71it/s]\n"
)
RICH = (
    f"\x1b[?25l\r\x1b[2KWorking... {RED}━━{END}{GREY}━━━{END} {PINK} 45%{END} -:--:--"
    f"\r\x1b[2KWorking... {GREY}━━━━━{END} {PINK}100%{END} 0:00:00\n\x1b[?25h"
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("abc\rX", "Xbc"),
        ("abc\b\bX", "aXc"),
        ("windows\r\nlines\r\n", "windows\nlines\n"),
        ("\x1b[2K\x1b[1mbold\x1b[0m", "bold"),
        ("\b\ba", "a"),
        ("longer\r\x1b[Kno", "no"),
        ("longer\rno\x1b[K", "no"),
        ("longer\rno    ", "no"),
        ("one\ntwo\x1b[A\rONE", "ONE\ntwo"),
        ("one\ntwo\x1b[1A\x1b[2KONE", "   ONE\ntwo"),
        ("a\x1b[3Cb\x1b[2Dc", "a  cb"),
        ("abc\x1b[2GX", "aXc"),
        ("one\ntwo\x1b[2J\x1b[Hthree", "three\n"),
        ("one\ntwo\x1b[1F\x1b[Jthree", "three\n"),
        ("a \x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\", "a link"),
        ("\x1b[?25la", "a"),
        (KERAS, "Epoch 1/2\n16/16 ━━━━ 0s 11ms/step - loss: 0.9525\n"),
        (NESTED, "outer: 100%|####| 2/2 [00:00<00:00, 143.71it/s]\n"),
        (RICH, "Working... ━━━━━ 100% 0:00:00\n"),
    ],
)
def test_what_a_terminal_shows(text, shown):
    assert rendered(text) == shown
    assert rendered(last_frame(text)) == shown


def test_colours_stay_on_what_is_left_to_see():
    bar = f"{BOLD}16/16{END} {GREEN}━━━━{END} {BOLD}0s{END} 11ms/step - loss: 0.9525"
    assert last_frame(KERAS) == f"Epoch 1/2\n{bar}\n"
    assert last_frame(f"{RED}old\r{GREEN}new!") == f"{GREEN}new!{END}"
    assert last_frame("\x1b[1;31ma\rb") == "\x1b[1m\x1b[31mb\x1b[0m"
    assert last_frame("\x1b[38;5;208mab\x1b[39mc\b\bB") == "\x1b[38;5;208ma\x1b[0mBc"
    assert last_frame(f"x{GREEN}{END}\ry") == "y"


@pytest.mark.parametrize("text", ["plain\n", f"{GREEN}green", "trailing  \n", ""])
def test_what_has_no_frames_is_stored_as_it_is(text):
    assert last_frame(text) == text


def test_a_notebook_that_stores_frames_is_told_from_one_that_does_not():
    assert all(map(has_frames, [KERAS, NESTED, RICH, "1/3\r2/3", "a\b", "a\x1b[A"]))
    assert not any(map(has_frames, ["line\r\n", "line\r", f"{GREEN}a{END}", "\x1b[?25la"]))
    assert not any(has_frames(last_frame(text)) for text in (KERAS, NESTED, RICH))


def test_the_last_frame_of_any_text_shows_the_same():
    pieces = [
        *"\r\b\n\x1b[m\t", "\x1b[A", "\x1b[2B", "\x1b[3C", "\x1b[D", "\x1b[E", "\x1b[F", "\x1b[4G",
        "\x1b[K", "\x1b[1K", "\x1b[2K", "\x1b[J", "\x1b[1J", "\x1b[2J", "\x1b[H", "\x1b[2;3H",
        "\x1b[?25l", "\x1b[1m", "\x1b[0m", "\x1b[m", "\x1b[31m", "\x1b[1;32m", "\x1b[38;5;9m",
        "\x1b[38;5m", "\x1b[48;2;1;2;3m", "\x1b[39m", "\x1b[22m", "\x1b]8;;x\x07", "\x1b(B",
        "a", "bc", "  ", "━", "1m",
    ]  # fmt: skip
    chance = random.Random(42)
    for _ in range(5000):
        text = "".join(chance.choices(pieces, k=chance.randrange(15)))
        stored = last_frame(text)
        assert rendered(stored) == rendered(text), repr(text)
        assert last_frame(stored) == stored, repr(text)
        assert not has_frames(stored), repr(text)


def test_a_moved_cursor_takes_no_memory():
    assert len(rendered("\x1b[999999999Ca\x1b[999999999Bb")) < 10_000
