"""Test the detection of cells that read, or may have read, the clock."""

from __future__ import annotations

import nbformat
import pytest

from nbval_tolerance.config import Config
from nbval_tolerance.source import Draw, clock_read, reads_clock, unseeded


def notebook(*sources: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("from datetime import datetime\ndatetime.now()", "datetime.now"),
        ("import datetime\ndatetime.date.today()", "datetime.date.today"),
        ("import datetime as dt\nprint(f'{dt.datetime.utcnow():%H}')", "dt.datetime.utcnow"),
        ("import time\ntime.time()", "time.time"),
        ("import time\nprint(time.strftime('%H:%M:%S'))", "time.strftime"),
        ("import time\ntime.ctime()", "time.ctime"),
        ("import time\ntime.ctime(None)", "time.ctime"),
        ("from time import localtime\nlocaltime()", "localtime"),
        ("import time\ntime.gmtime().tm_hour", "time.gmtime"),
        ("import time\ntime.asctime()", "time.asctime"),
        ("from time import perf_counter as now\nnow()", "now"),
        ("import time\ntime.thread_time_ns()", "time.thread_time_ns"),
        ("import timeit\ntimeit.timeit('x')", "timeit.timeit"),
        ("from timeit import default_timer as timer\ntimer()", "timer"),
        ("import os\nos.times()", "os.times"),
        ("import pandas as pd\npd.Timestamp.now()", "pd.Timestamp.now"),
        ("import pandas as pd\npd.Timestamp('now')", "pd.Timestamp"),
        ("import numpy as np\nnp.datetime64('today')", "np.datetime64"),
        ("import tensorflow as tf\ntf.timestamp()", "tf.timestamp"),
    ],
)
def test_what_reads_the_clock(source, call):
    assert reads_clock(notebook(source)) == [True]
    assert unseeded(notebook(source)) == [(Draw(0, call, "", clock=True),)]


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.strftime('%H', moment)",
        "import time\ntime.ctime(0)\ntime.gmtime(0)\ntime.localtime(3)\ntime.asctime(moment)",
        "import time\ntime.sleep(1)",
        "import datetime\ndatetime.date(2026, 1, 2)",
        "import pandas as pd\npd.Timestamp('2026-01-02')",
        "import random\nrandom.random()",
        "x.now()\ntoday()",  # unknown functions
    ],
)
def test_what_does_not_read_the_clock(source):
    assert reads_clock(notebook(source)) == [False]


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.sleep(1)",
        "from timeit import timeit\ntimeit('x')",
        "import datetime\nprint(datetime.datetime.now())",
        "from datetime import date\ndate.today()",
        "when = clock.now()",
        "f = datetime.now",
        "import pandas as pd\npd.to_datetime(['now'])",
        "%time x = 1",
        "%%time\nx = 1",
        "seconds = %timeit -o f(x)",
        "%%timeit\nf(x)",
        "%prun f(x)",
        "!date",
        "files = !ls -l",
        "%run other.py",
        "%load_ext autotime",
        "get_ipython().events.register('post_run_cell', f)",
        "get_ipython().ask_exit()",
        "from os.path import getmtime as changed\nchanged('x')",
        "import threading\nthreading.Timer(1, f)",
        "%pip install x",
        "%%bash\ndate",
        "not even (Python",
        "model.fit(x, y)",
        "from sklearn.ensemble import RandomForestClassifier as F\nF().fit(x, y)",
        "from sklearn.model_selection import cross_validate\ncross_validate(m, x, y)",
        "from sklearn.linear_model import Ridge\nm = Ridge()\nmap(m.fit, x)",
        "import keras\nkeras.datasets.mnist.load_data()",
        "model.predict(x)",
        "from sklearn.neighbors import KernelDensity\nKernelDensity(verbose=2)",
        "import helpers\nhelpers.show(x)",
        "import helpers as h\nlist(map(h.show, x))",
        "from helpers import show\nshow(x)",
        "from .helpers import show\nshow(x)",
        "from helpers import *",
        "from tqdm.auto import tqdm\nfor i in tqdm(x):\n    pass",
        "import subprocess\nsubprocess.run(['date'])",
        "import os\nos.system('date')",
        "import os\nos.path.getmtime('x')",
        "from pathlib import Path\nPath('x').stat()",
        "exec(code)",
        "__import__('time').time()",
        "import sys\nsys.modules['time'].time()",
        "import time as t\nt.time()\nimport json as t",
        "import pickle\npickle.loads(x).show()",
        "def f():\n    import time\n    return time.time()",
        "import importlib\nimportlib.import_module('x')",
        "import logging\nlogging.warning('x')",
    ],
)
def test_what_may_have_read_the_clock_counts_from_there_on(source):
    found = clock_read(notebook("x = 1\nprint(x)", source, "y = 2"))
    assert found == [False, True, True]


@pytest.mark.parametrize(
    "source",
    [
        "",
        "# a comment",
        "import numpy as np\nimport pandas as pd\nnp.mean(pd.Series(x)).round(2)",
        "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot(x);",
        "from pathlib import Path\nlen(Path('x').read_text())",
        "import json, re, sys\njson.dumps(x)\nre.sub('a', 'b', y)",
        "import helpers",  # the code calls no function from the imported module
        "def f(x):\n    return x.copy().sum()\nf(3)",
        "class A:\n    def go(self):\n        return self.b\nA().go()",
        "import random\nrandom.seed(0)\nrandom.random()",
        "from IPython.display import display\ndisplay(x)",
        "sum?",
        "%load_ext autoreload\n%autoreload 2\n%config InlineBackend.figure_format = 'svg'",
        "from datetime import date\ndate(2026, 1, 2).isoformat()",
        "from sklearn.tree import DecisionTreeClassifier\nDecisionTreeClassifier(random_state=0)",
        "print('the time of day', f'{x:.2f}')",
    ],
)
def test_what_cannot_have_read_the_clock(source):
    assert clock_read(notebook(source, "y = 2")) == [False, False]


def test_a_projects_own_training_may_print_the_time():
    source = "def go():\n    return 1\ngo()"
    assert clock_read(notebook(source), Config(training=("go",))) == [True]
    assert clock_read(notebook(source)) == [False]
    assert clock_read(notebook("go()")) == [True]  # an unknown function


def test_a_notebook_may_have_text_cells_and_none_of_code():
    some = notebook("import time\ntime.time()", "x")
    some.cells.insert(0, nbformat.v4.new_markdown_cell("time.time()"))
    assert clock_read(some) == [True, True]
    assert clock_read(notebook()) == []
