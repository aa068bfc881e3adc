"""Test every lesson inside the images, as the learner's user and without a network."""

from __future__ import annotations

import json
import os
import re

import pytest
from hubs import IMAGE

from tfcourse.hub.state import ROOT

pytestmark = pytest.mark.timeout(900)

LESSONS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))

# If several pytest workers run, one thread per worker is faster and gives the same results.
SHARED = {"CPU_LIMIT": "1"} if "PYTEST_XDIST_WORKER" in os.environ else {}

# Copy the files to a writable folder, because pytest writes a report and a cache there.
RERUN = """
set -e
mkdir /tmp/rerun
cp -r /srv/clone/pyproject.toml /srv/clone/tfcourse /tmp/rerun
cp -r ~/tensorflow-course /tmp/rerun/notebooks
cd /tmp/rerun
python -m pytest -q "notebooks/$1"
"""


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_holds_inside_as_the_learners_user(run, image, lesson):
    said = run(image("test"), "sh", "-c", RERUN, "sh", lesson, environment=SHARED)
    cells = json.loads((ROOT / "notebooks" / lesson).read_text())["cells"]
    code = sum(cell["cell_type"] == "code" for cell in cells)
    # For each notebook, the pytest plugin adds a test that checks the stored outputs.
    assert re.search(r"^(\d+) passed in", said, re.M)[1] == str(code + 1), said[-1000:]


def test_a_lesson_holds_inside_the_gpu_image_without_a_gpu(run, image):
    gpu = image("test", f"{IMAGE}-gpu", "--build-arg LEARNER=gpu")
    assert " passed" in run(gpu, "sh", "-c", RERUN, "sh", "14_speed_and_gpu.ipynb")
