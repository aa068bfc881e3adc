"""Check that the load test, tools/load.py, counts failures and reports measurements."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hubs import ROOT


@pytest.fixture(scope="module")
def table() -> dict[str, str]:
    """Run the load test with three learners; return its table of results.

    One learner cannot log in, and another's server fails to start.
    """
    settings = [
        "c.Authenticator.blocked_users = {'learner1'}",
        "fail = lambda spawner: 1 / (spawner.user.name != 'learner2')",
        "c.Spawner.pre_spawn_hook = fail",
    ]
    times = ["--within=2", "--stay=2", "--leave=1"]
    command = [sys.executable, "tools/load.py", "--learners=3", "--database=sqlite", *times]
    run = subprocess.run(
        [*command, "--set", *settings], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return dict(re.findall(r"^\| (\S.*?) \| (.*) \|$", run.stdout, re.M))


def test_who_cannot_come_in_is_counted(table):
    assert table["failed log-ins"] == "1"
    assert re.search(r"1 of log-in: \w+: HTTP 403 from /hub/oauth_callback", table["failures"])


def test_who_gets_no_server_is_counted(table):
    assert "1 of start: FailedError: HTTP 500 from /hub/spawn" in table["failures"]


def test_what_works_is_measured(table):
    assert table["failures"].count(" of ") == 2
    assert float(table["requests a second at the hub, while learners arrive"]) > 1
    assert float(table["MiB of the hub"]) > 50
