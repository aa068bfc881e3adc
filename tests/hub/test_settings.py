"""What `make up` says of settings before it does anything."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tfcourse.hub import settings
from tfcourse.hub.state import ROOT


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("COURSE_SUBDOMAIN=on", "no setting COURSE_SUBDOMAIN. Is it COURSE_SUBDOMAINS?"),
        ("A=1\nexport COURSE_SIGN_UP=open", "no setting COURSE_SIGN_UP. Is it COURSE_SIGNUP?"),
        ("COURSE_XYZZY = 1", "no setting COURSE_XYZZY."),
    ],
)
def test_a_misspelt_setting_gets_a_sentence(line, sentence):
    with pytest.raises(SystemExit, match=re.escape(sentence)):
        settings.check_file(line)


def test_what_is_explained_may_be_set():
    example = (ROOT / "docker" / ".env.example").read_text()
    settings.check_file(example.replace("#COURSE", "COURSE"))
    settings.check_file("#COURSE_XYZZY=1\nHTTPS_PROXY=http://x\n")


def test_what_is_explained_is_what_the_services_are_given():
    known = set(settings.names_in((ROOT / "docker" / ".env.example").read_text()))
    given = set(re.findall(r"COURSE_\w+", (ROOT / "docker" / "compose.yaml").read_text()))
    assert given == known | {"COURSE_SPAWNER"}


@pytest.mark.parametrize("name", ["My Course", "UPPER", "-x", "a/b", "ä"])
def test_a_name_that_docker_would_change_gets_a_sentence(name):
    run = subprocess.run(
        ["make", "up"],
        cwd=ROOT,
        env={**os.environ, "COURSE_NAME": name, "DOCKER": "false", "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert f"COURSE_NAME is {name!r}" in run.stderr
    assert "Building" not in run.stdout


def test_make_reads_the_file_as_compose_does(tmp_path):
    """Both take docker/.env: spaces, quotes and comments must mean the same."""
    for path in ("Makefile", "tfcourse"):
        (tmp_path / path).symlink_to(ROOT / path)
    (tmp_path / "docker").mkdir()
    Path(tmp_path, "docker", ".env").write_text(
        "# COURSE_NAME=no\nCOURSE_NAME='quoted'\nCOURSE_HOST=hub.example.org # mine\n"
        'COURSE_KEY="/a b/key.pem"\n'
    )
    show = "$(info $(COURSE_NAME)|$(COURSE_HOST)|$(COURSE_KEY)|$(COURSE_IMAGE))"
    (tmp_path / "show").write_text(show)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("COURSE_")}
    run = subprocess.run(
        ["make", "--no-print-directory", "--file=Makefile", "--file=show", "help"],
        cwd=tmp_path,
        env={**clean, "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.splitlines()[0] == "quoted|hub.example.org|/a b/key.pem|"
