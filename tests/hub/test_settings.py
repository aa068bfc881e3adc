"""Test how `make up` validates settings before it does anything else."""

from __future__ import annotations

import os
import re
import subprocess
import urllib.request
from urllib.parse import urlsplit

import pytest
import requests
import yaml

from tfcourse.hub import settings
from tfcourse.hub.spawners.profiles import PROFILES
from tfcourse.hub.state import ROOT


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("COURSE_SUBDOMAIN=on", "no setting COURSE_SUBDOMAIN. Did you mean COURSE_SUBDOMAINS?"),
        (
            "A=1\nexport COURSE_SIGN_UP=open",
            "no setting COURSE_SIGN_UP. Did you mean COURSE_SIGNUP?",
        ),
        ("COURSE_XYZZY = 1", "no setting COURSE_XYZZY."),
    ],
)
def test_a_misspelt_setting_gets_a_sentence(line, sentence):
    with pytest.raises(SystemExit, match=re.escape(sentence)):
        settings.check_names("docker/.env", settings.read(line))


def test_what_is_commented_out_or_not_ours_is_passed_over():
    assert settings.read("#COURSE_XYZZY=1\nHTTPS_PROXY=http://x\n") == {}


def test_the_example_is_what_the_table_says():
    example = (ROOT / "docker" / ".env.example").read_text()
    assert example == settings.example(), (
        "run: python3 -m tfcourse.hub.settings > docker/.env.example"
    )
    shown = settings.read(example.replace("#COURSE", "COURSE"))
    assert list(shown) == settings.OPERATORS


@pytest.mark.parametrize("service", ["proxy", "hub", "https", "prometheus", "grafana"])
def test_no_service_uses_the_proxy_in_the_operators_docker_settings(service, monkeypatch):
    """Otherwise, the hub would ask a school's proxy for addresses on its own machine."""
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://proxy.example.org:3128")
    for name, value in compose["services"][service]["environment"].items():
        if "proxy" in name.lower() and not name.startswith("COURSE_"):
            monkeypatch.setenv(name, value)
    for url in ("http://127.0.0.1:8001/api/routes", "https://id.example.org"):
        assert requests.utils.get_environ_proxies(url) == {}
        assert urllib.request.proxy_bypass_environment(urlsplit(url).hostname)


@pytest.mark.parametrize("name", settings.TABLE)
def test_what_is_shown_and_the_default_are_what_the_setting_takes(monkeypatch, name):
    monkeypatch.delenv(name, raising=False)
    setting = settings.TABLE[name]
    setting()
    if setting.example:
        monkeypatch.setenv(name, setting.example)
        setting()


def test_the_limits_that_are_shown_are_those_of_the_profiles():
    cpu, gpu = PROFILES
    for profile, memory, cpus in (
        (cpu, settings.MEMORY, settings.CPUS),
        (gpu, settings.GPU_MEMORY, settings.GPU_CPUS),
    ):
        assert memory.parse(memory.example) == profile.memory
        assert cpus.parse(cpus.example) == profile.cpus


def test_each_service_is_given_the_settings_that_it_uses():
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    for service, what in compose["services"].items():
        given = {name for name in what["environment"] if name.startswith("COURSE_")}
        wanted = {s.name for s in settings.TABLE.values() if service in s.given_to.split()}
        assert given == wanted, service
    named = set(re.findall(r"\$\{(COURSE_\w+)", (ROOT / "docker" / "compose.yaml").read_text()))
    assert named == {s.name for s in settings.TABLE.values() if "compose" in s.given_to.split()}


def test_the_image_sets_what_the_table_says():
    found = re.findall(r"\b(COURSE_\w+)=", (ROOT / "docker" / "Dockerfile").read_text())
    assert set(found) == {s.name for s in settings.TABLE.values() if "image" in s.given_to.split()}


def test_nothing_else_in_the_hub_reads_the_environment():
    hub = ROOT / "tfcourse" / "hub"
    reads = [path for path in hub.rglob("*.py") if "os.environ" in path.read_text()]
    assert [path.relative_to(hub).as_posix() for path in reads] == ["settings.py"]


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


def test_the_shown_default_of_the_image_changes_nothing(monkeypatch):
    """Docker must not look in a registry for images that were built locally."""
    assert "#COURSE_IMAGE=tensorflow-course\n" in settings.example()
    monkeypatch.setenv("COURSE_IMAGE", "tensorflow-course")
    assert not settings.has_registry()
    monkeypatch.setenv("COURSE_IMAGE", "registry.example.org/tensorflow-course")
    assert settings.has_registry()


def test_compose_alone_starts_no_service_for_https():
    """Without a host name, the HTTPS service would listen on ports 80 and 443 of all addresses."""
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    unasked = {name for name, what in compose["services"].items() if not what.get("profiles")}
    assert unasked == {"proxy", "hub"}


def test_the_file_is_read_as_compose_reads_it():
    """`make` and Compose must interpret spaces, quotes and comments in docker/.env identically."""
    text = (
        "# COURSE_NAME=no\nCOURSE_NAME='quoted'\nexport COURSE_HOST=hub.example.org # mine\n"
        'COURSE_KEY="/a b/key.pem"\nCOURSE_ADMIN = ada \nCOURSE_OAUTH_CLIENT_SECRET=a#b\n'
    )
    assert settings.read(text) == {
        "COURSE_NAME": "quoted",
        "COURSE_HOST": "hub.example.org",
        "COURSE_KEY": "/a b/key.pem",
        "COURSE_ADMIN": "ada",
        "COURSE_OAUTH_CLIENT_SECRET": "a#b",
    }


def test_the_environment_comes_before_the_file(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("COURSE_NAME=of-the-file\nCOURSE_CPUS=3\nCOURSE_SIGNUP=open\n")
    monkeypatch.setattr(settings, "DOCKER_FOLDER", tmp_path)
    for name in settings.OPERATORS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COURSE_NAME", "of-the-shell")
    monkeypatch.setenv("COURSE_SIGNUP", "")  # an empty value selects the default
    settings.load()
    assert (settings.NAME(), settings.CPUS(), settings.SIGNUP()) == ("of-the-shell", 3, "approval")
    for name in settings.OPERATORS:  # remove the variables that load() has set
        monkeypatch.delenv(name, raising=False)
