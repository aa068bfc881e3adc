"""Test which parts of a text vary by run (ids, clock times, durations), and which are data."""

from __future__ import annotations

import pytest

from nbval_tolerance.compare import Phase, Rules, compare_text, passing

UNTRAINED = Rules(Phase.UNTRAINED)
NO_CLOCK = Rules(Phase.UNTRAINED, clock=False)
READS_CLOCK = Rules(Phase.UNTRAINED, clock=True)


def same(stored: str, computed: str, rules: Rules = UNTRAINED) -> bool:
    return not compare_text(stored, computed, rules).differences


@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        ("/tmp/ipykernel_17113/123456.py:3: UserWarning: x",
         "/tmp/ipykernel_9/9.py:3: UserWarning: x"),
        ("/var/folders/zz/a/T/ipykernel_1/1.py:3: W", "/tmp/ipykernel_9/9.py:3: W"),
        (r"C:\Users\me\AppData\Local\Temp\ipykernel_1\1.py:3: W", "/tmp/ipykernel_9/9.py:3: W"),
        ("(<ipython-input-5-abc>, line 1)", "(<ipython-input-7-0f3a>, line 1)"),
        ("/home/me/env/lib/python3.11/site-packages/a/b.py:7: W",
         "/opt/lib/python3.12/site-packages/a/b.py:7: W"),
        ("/usr/lib/python3.11/json/decoder.py:7: W", "/opt/lib/python3.12/json/decoder.py:7: W"),
        ("2026-01-02 10:11:12.123456: I tensorflow/a.cc:113] hi",
         "2026-11-12 01:00:02.1: I tensorflow/a.cc:113] hi"),
        ("W0000 00:00:1700000000.123456   12345 file.cc:12] m",
         "W0000 00:00:1800000000.1   5 file.cc:12] m"),
        ("I20260102 10:11:12.123456 12345 file.cc:12] m", "I20260103 00:11:12.1 12 file.cc:12] m"),
        ("[W1128 17:40:00.123456789 NNPACK.cpp:61] no", "[W0128 07:40:00.1 NNPACK.cpp:61] no"),
        ("[17113] INFO started", "[99] INFO started"),
        ("kernel[17113]: started", "kernel[815]: started"),
        ("[2026-01-02 10:11:12 +0000] [17113] [INFO] x",
         "[2026-01-03 00:11:12 +0000] [9] [INFO] x"),
        ("pid 123", "pid 4567"),
        ("[Process ForkPoolWorker-1, pid 4711] done", "[Process ForkPoolWorker-1, pid 815] done"),
        ("in process 4711", "in process 12"),
        ("<Thread(Thread-5, started 140123)>", "<Thread(Thread-7, started 14099)>"),
        ("<Thread(Thread-5 (f), started daemon 1401)>",
         "<Thread(Thread-5 (f), started daemon 99)>"),
        ("<P name='P-1' pid=4711 parent=4700 started>", "<P name='P-1' pid=1 parent=2 started>"),
        ("<Task pending name='Task-5' coro=<f()>>", "<Task pending name='Task-9' coro=<f()>>"),
        ("/tmp/tmpab12cd", "/tmp/tmpzz98yy"),
        ("/tmp/tmpab12cd_x/model.keras", "/tmp/tmpabcdefgh/model.keras"),
        ("/scratch/me/tmpab12cd_x", "/scratch/me/tmpzb12cd_x"),
        ("/tmp/lesson-ab12cd_x", "/tmp/lesson-zz9zzzzz"),
        ("/tmp/tmp.AbCdEfGhIj", "/tmp/tmp.ZZCdEfGhIj"),
        ("__autograph_generated_fileab12cd_x.py", "__autograph_generated_filezb12cd_x.py"),
        ("0c5b3b7e-5b0e-4b7e-9b0e-0c5b3b7e5b0e", "1c5b3b7e-5b0e-4b7e-9b0e-0c5b3b7e5b0e"),
        ("<f at 0x7f001122>", "<f at 0x7f001199>"),
        ("0x7f00aabbccdd", "0x55aa00112233"),
        ("id(x): 140123456789", "id(x): 140123456788"),
        ("140234866534752", "140234866534999"),
        ("http://127.0.0.1:45678/x", "http://127.0.0.1:39999/x"),
    ],
)  # fmt: skip
def test_ids_say_nothing(stored, computed):
    assert same(stored, computed)
    assert passing(stored, UNTRAINED)


@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        ("/tmp/ipykernel_17113/1.py:3: UserWarning: x",
         "/tmp/ipykernel_17113/1.py:4: UserWarning: x"),
        ("/tmp/ipykernel_17113/1.py:3: UserWarning: x",
         "/tmp/ipykernel_17113/1.py:3: UserWarning: y"),
        ("2026-01-02 10:11:12.1: I a.cc:113] hi", "2026-01-02 10:11:12.1: W a.cc:113] hi"),
        ("W0000 00:00:1700000000.1   12345 file.cc:12] m",
         "W0000 00:00:1700000000.1   12345 file.cc:12] n"),
        ("/tmp/tmpab12cd_x/model.keras", "/tmp/tmpab12cd_x/modem.keras"),
        ("/tmp/lesson_one/x", "/tmp/lesson_two/x"),
        ("/data/tmpfolder/a", "/data/tmpfolded/a"),
        ("[17113]", "[17114]"),
        ("a[100]: 5", "a[101]: 5"),
        ("shape [17113] of data", "shape [17114] of data"),
        ("rapid 123", "rapid 124"),
        ("process 3 of 4", "process 2 of 4"),
        ("user id: 12345", "user id: 12346"),
        ("total 140123456789", "total 140123456788"),
        ("0xff", "0xfe"),
        ("colour 0xFF0000", "colour 0xFF0001"),
        ("http://localhost:8888", "http://localhost:8889"),
    ],
)  # fmt: skip
def test_what_only_resembles_an_id_is_compared(stored, computed):
    assert not same(stored, computed)
    assert same(stored, stored)


INDEX = "                     conc\n2026-04-01 09:00:12   0.1\n2026-04-01 10:00:12   0.2"


@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        (INDEX, INDEX.replace("10:00:12", "11:01:13")),
        ("2014-04-01 09:00:00   0.1", "2014-04-01 10:00:00   0.1"),
        ("                 time  x\n0 2026-01-01 10:11:12  1\n1 2026-01-01 10:11:15  2",
         "                 time  x\n0 2026-01-01 10:11:12  1\n1 2026-01-01 10:12:16  2"),
        ("0   2026-01-01 10:11:12\ndtype: datetime64[ns]",
         "0   2026-01-02 11:12:13\ndtype: datetime64[ns]"),
        ("DatetimeIndex(['2026-01-01 10:11:12'], dtype='datetime64[ns]')",
         "DatetimeIndex(['2026-01-01 11:12:13'], dtype='datetime64[ns]')"),
        ("['2026-01-01T00:00:01' '2026-01-01T10:11:12']",
         "['2026-01-01T00:00:01' '2026-01-01T10:12:13']"),
        ("Timestamp('2014-04-01 00:00:00')", "Timestamp('2014-04-02 00:00:00')"),
        ("Name: 2014-04-01 00:00:00, dtype: float64", "Name: 2014-04-02 00:00:00, dtype: float64"),
        ("2012-04-11 08:38:37", "2012-04-12 09:39:38"),  # earlier than any run
        ("event: 2026-04-11 08:38:37", "event: 2026-04-11 09:39:38"),
        ("2026-01-01 00:00:00", "2026-01-02 00:00:00"),
        ("2026-01-01 10:11:12", "2026-01-05 10:11:12"),  # on a clock, the seconds would differ
        ("2026-01-05 10:11:12", "2025-06-05 11:12:13"),  # a clock does not run backwards
        ("on 2012-01-01", "on 2012-01-02"),
        ("time of row 0: 09:30:00", "time of row 0: 10:30:00"),
        ("0 days 00:01:30", "0 days 00:02:31"),
        ("0:01:30", "0:02:31"),
        ("x[1:10:20]", "x[1:10:30]"),
        ("datetime.datetime(2026, 1, 1, 0, 0)", "datetime.datetime(2026, 1, 2, 0, 0)"),
        ("Date: Sat, 28 Apr 2012 10:11:12 +0000", "Date: Sat, 28 Apr 2012 11:11:12 +0000"),
    ],
)  # fmt: skip
def test_times_that_are_data_are_compared(stored, computed):
    assert not same(stored, computed)
    assert same(stored, stored)
    assert not any(found.what == "clock" for found in passing(INDEX, UNTRAINED))


@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        ("2026-11-28 17:40:00.123456", "2026-11-29 07:41:10.654321"),
        ("2026-11-28 17:40:11", "2026-11-29 07:41:00"),
        ("now: 2026-11-28 17:40:11", "now: 2026-11-28 17:50:00"),
        ("saved at 2026-11-28T17:40:11Z", "saved at 2026-12-28T07:50:00Z"),
        ("2026-11-28 17:40:11,123 - root - INFO - hi",
         "2026-11-28 18:40:12,003 - root - INFO - hi"),
        ("[2026-11-28 17:40:11] hi", "[2026-11-28 18:40:00] hi"),
        ("INFO:2026-11-28 17:40:11: hi", "INFO:2026-11-28 18:40:00: hi"),
        ("[I 10:11:12.123 NotebookApp] hi", "[I 11:11:12.123 NotebookApp] hi"),
        ("[10:11:12] WARNING: x", "[10:12:12] WARNING: x"),
        ("Sat Nov 28 17:40:00 2026", "Sun Nov 29 17:40:01 2026"),
        ("datetime.datetime(2026, 11, 28, 17, 40, 11, 123456)",
         "datetime.datetime(2026, 11, 28, 18, 40, 11, 3)"),
        ("Timestamp('2026-11-28 17:40:11.123456')", "Timestamp('2026-11-29 17:40:12.123')"),
        ("Last updated: 2026-11-28T17:40:11.123456+00:00",
         "Last updated: 2026-11-29T17:40:12.123456+00:00"),
        ("Date:   Sat, 28 Nov 2026   Prob (F-statistic):  0.5",
         "Date:   Sun, 29 Nov 2026   Prob (F-statistic):  0.5"),
        ("Time:   17:36:38   Log-Likelihood:   -146.51",
         "Time:   07:36:00   Log-Likelihood:   -146.51"),
        ("-rw-r--r-- 1 root root 2095 Nov 28 17:44 a.pth",
         "-rw-r--r-- 1 root root 2095 Nov 28 18:02 a.pth"),
    ],
)  # fmt: skip
def test_the_clock_of_the_run_is_not_compared(stored, computed):
    assert same(stored, computed)
    assert passing(stored, UNTRAINED)[0].what == "clock"


@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        ("v = 3.5 m/s", "v = 3.9 m/s"),
        ("9.81 m/s^2", "9.18 m/s^2"),
        ("3.5 m s^-1", "3.9 m s^-1"),
        ("T = 2.006 s", "T = 2.106 s"),
        ("half-life 5730 s", "half-life 5731 s"),
        ("half-life 5.5 hours", "half-life 8.5 hours"),
        ("pulse width 100 ns", "pulse width 100 µs"),
        ("   pulse   width\n0  1  100 ns\n1  2  250 ns",
         "   pulse   width\n0  1  100 µs\n1  2  250 ns"),
        ("period of oscillation = 3.8 seconds", "period of oscillation = 4.8 seconds"),
        ("falls 20 m in 2.02 s", "falls 20 m in 2.92 s"),
        ("t = 3.2 s, x = 4.5 m", "t = 4.2 s, x = 4.5 m"),
        ("time step 0.01 s", "time step 0.02 s"),
        ("time of flight: 3.2 s", "time of flight: 4.2 s"),
        ("44 kHz, length 3.2 s", "44 kHz, length 5.2 s"),
        ("100.0 L/min, 1.667 L/s", "100.0 L/min, 2.000 L/s"),
        ("c = 299792458 m/s", "c = 299792459 m/s"),
        ("6.28 rad/s", "7.28 rad/s"),
        ("42 cells/s", "43 cells/s"),
        ("3.2 s", "4.2 s"),
        ("after 5 s the ball stops", "after 7 s the ball stops"),
        ("in 1 day", "in 2 days"),
        ("1 h = 3600 s", "1 h = 3601 s"),
        ("film 2: 120 minutes", "film 2: 121 minutes"),
        ("0.25 min 0.10 max", "0.25 min 0.20 max"),
        ("elapsed distance 3.2 km", "elapsed distance 3.3 km"),
        ("elapsed charge: 3.2", "elapsed charge: 3.3"),
        ("train time signal 3.2 V, 1 kW", "train time signal 3.3 V, 1 kW"),
        ("elapsed: 3.25 mi", "elapsed: 4.25 mi"),
        ("T = 2.006 s, took 3.2 s", "T = 2.106 s, took 3.2 s"),
        ("took 3.2 s, T = 2.006 s", "took 3.2 s, T = 2.106 s"),
    ],
)  # fmt: skip
def test_a_physical_quantity_is_compared(stored, computed):
    assert not same(stored, computed)
    assert same(stored, stored)


@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        ("CPU times: user 3.39 ms, sys: 0 ns, total: 3.39 ms",
         "CPU times: user 1e+03 ns, sys: 1 µs, total: 3.39 s"),
        ("Wall time: 3 ms\nCompiler : 116 ms", "Wall time: 1min 3s"),
        ("1.11 µs ± 79.5 ns per loop (mean ± std. dev. of 7 runs, 1,000,000 loops each)",
         "998 ns ± 1.5 ns per loop (mean ± std. dev. of 7 runs, 10 loops each)"),
        ("1000000 loops, best of 3: 1.2 µs per loop", "1000 loops, best of 3: 1.2 ms per loop"),
        ("The slowest run took 4.5 times longer.\n1 µs ± 2 ns per loop", "1 µs ± 2 ns per loop"),
        ("took 3.2 s", "took 41 ms"),
        ("took 3.2 s, 4.1 s and 5 s", "took 3.3 s, 4.4 s and 5 s"),
        ("Took: 3.2s.", "Took: 3.9s."),
        ("done in 3.2 seconds", "done in 5 seconds"),
        ("done in 0:00:12.345678", "done in 0:00:02.1"),
        ("Execution time: 1 min 3 s", "Execution time: 59 s"),
        ("training: 3.2 s", "training: 5.1 s"),
        ("Training took 3.2 s for 5 epochs, 0.64 s each",
         "Training took 5 s for 5 epochs, 1 s each"),
        ("first call: 1.2 s, later calls: 3 ms", "first call: 2.2 s, later calls: 300 µs"),
        ("time: 3.2 s", "time: 4.1 s"),
        ("2m 3s elapsed", "59s elapsed"),
        ("elapsed: 0.0123121", "elapsed: 1.2"),
        ("Elapsed time: 12", "Elapsed time: 9"),
        ("speedup: 3.2x", "speedup: 4.1x"),
        ("27,500 samples/s", "9,100.5 samples/s"),
        ("120 images per second", "99 images per second"),
        ("12.3 GFLOP/s", "14 GFLOP/s"),
        ("{'fit_time': array([0.01, 0.02]), 'test_score': array([0.9])}",
         "{'fit_time': array([0.0133, 0.2]), 'test_score': array([0.9])}"),
        ("   fit_time  score_time  test_score\n0    0.0012      0.0003      0.9667",
         "   fit_time  score_time  test_score\n0    0.0031      0.0007      0.9667"),
        ("model   training time   accuracy\nA               3.2 s       0.90",
         "model   training time   accuracy\nA              500 ms       0.90"),
        ("epoch  train_loss  accuracy  time\n0      0.50        0.90      00:12",
         "epoch  train_loss  accuracy  time\n0      0.50        0.90      00:09"),
    ],
)  # fmt: skip
def test_a_duration_of_the_run_is_not_compared(stored, computed):
    assert same(stored, computed)
    assert {found.what for found in passing(stored, UNTRAINED)} == {"duration"}


@pytest.mark.parametrize(
    ("stored", "computed"), [("3.2 s", "4.1 ms"), ("2026-01-02 10:11:12", "2026-01-02 10:12:00")]
)
def test_what_may_be_a_time_is_one_where_the_code_reads_the_clock(stored, computed):
    assert same(stored, computed, READS_CLOCK)
    assert passing(stored, READS_CLOCK)
    assert not same("v = 3.5 m/s after 2 s", "v = 3.5 m/s after 3 s", READS_CLOCK)


@pytest.mark.parametrize(
    "text", ["fall time: 2.019 s", "The race took 9.58 s", "latency 20 ms", "runtime: 120 min",
             "elapsed 3.5", "   fit_time  score\n0      0.12    0.9"],
)  # fmt: skip
def test_durations_are_data_where_nothing_can_have_timed_anything(text):
    computed = text.replace("2", "3").replace("5", "6")
    assert same(text, computed)
    assert not same(text, computed, NO_CLOCK)
    assert same(f"{KERAS}\n{TQDM}", f"{KERAS}\n{TQDM}".replace("1s", "2s"), NO_CLOCK)


def test_times_below_each_other_are_the_clocks_where_the_code_reads_it():
    stored, computed = "10:11:12\n10:11:12", "10:15:38\n10:15:39"
    assert same(stored, computed, READS_CLOCK)
    assert not same(stored, computed)


KERAS = "12/12 ━━━━━━━━━━ 1s 34ms/step - accuracy: 0.8790 - loss: 0.4282"
TQDM = "100%|██████████| 10/10 [00:05<00:00,  1.9it/s, loss=0.50]"
RICH = "Working... ━━━━━━━━━━ 100% 0:00:05"


@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        (KERAS, KERAS.replace("1s 34ms", "59s 240us").replace("━━", "━")),
        (KERAS, KERAS.replace("1s", "1:02")),
        (KERAS.replace("━━━━━━━━━━ 1s", "- 1s -"), KERAS.replace("━━━━━━━━━━ 1s", "- 9s -")),
        (KERAS.replace("━━━━━━━━━━", "[==========] -"),
         KERAS.replace("━━━━━━━━━━", "[====================] -")),
        (f"\x1b[1m1/12\r{KERAS}", KERAS),
        (TQDM, TQDM.replace("00:05", "01:05:07").replace("1.9it/s", "2.01s/it")),
        (TQDM, TQDM.replace("██████████", "#####")),
        ("100it [00:02, 41.2it/s]", "100it [00:03, ?it/s]"),
        (RICH, RICH.replace("━━━━━", "━━").replace("0:00:05", "0:01:15")),
        ("down ━━━━━ 100% 0:00:00 1.0/1.0 MB 9.7 MB/s", "down ━━━━━ 100% 0:00:01 1.0/1.0 MB ?"),
    ],
)  # fmt: skip
def test_the_times_and_the_width_of_a_progress_bar_say_nothing(stored, computed):
    assert same(stored, computed)
    assert all(found.progress for found in passing(stored, UNTRAINED))


@pytest.mark.parametrize(
    ("stored", "computed"),
    [
        (KERAS, KERAS.replace("12/12", "11/12")),
        (KERAS, KERAS.replace("0.4282", "0.4382")),
        (KERAS, KERAS.replace("loss", "mae")),
        (TQDM, TQDM.replace("100%", " 90%").replace("10/10", "9/10")),
        (TQDM, TQDM.replace("0.50", "0.90")),
        (RICH, RICH.replace("100%", " 90%")),
    ],
)
def test_the_numbers_of_a_progress_bar_are_compared(stored, computed):
    assert not same(stored, computed)


def test_what_passes_is_named_with_its_line():
    text = "loss 0.5\ntook 3.2 s\n" + KERAS
    found = [(one.line, one.text, one.what, one.progress) for one in passing(text, UNTRAINED)]
    assert found == [
        (2, "3.2 s", "duration", False),
        (3, "1s", "duration", True),
        (3, "34ms", "duration", True),
    ]
