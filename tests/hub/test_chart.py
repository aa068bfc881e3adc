"""Test the course's pages, accounts and messages on a Zero to JupyterHub hub with our image."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import requests
from chart import ChartHub, Cluster
from hubs import PASSWORD, Learner, post, wait_until

from tfcourse.hub.spawners.profiles import PROFILES


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.add_home("grace")
        yield cluster


@pytest.fixture(scope="module")
def hub(cluster, tmp_path_factory):
    hub = ChartHub(tmp_path_factory.mktemp("hub"), cluster, COURSE_SIGNUP="open")
    hub.start()
    yield hub
    hub.stop()


@pytest.fixture(scope="module")
def ada(hub):
    return Learner(hub, "ada")


def test_a_learner_signs_up_and_finds_the_courses_picker(hub, ada):
    assert "TensorFlow in notebooks" in requests.get(f"{hub.url}/hub/login", timeout=30).text
    page = ada.session.get(f"{hub.url}/hub/spawn", timeout=30).text
    assert re.findall(r'name="profile" [^>]*\bvalue="([^"]+)"', page.replace("\n", " ")) == [
        PROFILES[0].slug
    ]
    assert PROFILES[0].description in page


def test_who_signs_up_under_the_name_of_somebodys_work_waits(hub):
    assert "once your instructor lets you in" in hub.sign_up("grace")
    assert hub.login("grace", PASSWORD).url != f"{hub.url}/hub/spawn"


def test_what_the_cluster_refuses_is_told_to_the_learner(hub, ada):
    ada.api("POST", "/hub/api/users/{name}/server", json={})

    def page() -> str:
        return ada.session.get(f"{hub.url}/hub/spawn-pending/ada", timeout=30).text

    wait_until(lambda: Cluster.QUOTA in page(), "the page gives the reason")
    assert "The cluster did not accept your server." in page()


@pytest.mark.parametrize("options", [{"profile": "no-such"}, ["junk"], {"image": "mine"}])
def test_only_the_courses_profiles_can_be_started(ada, options):
    answer = ada.api("POST", "/hub/api/users/{name}/server", json=options)
    assert answer.status_code == 400, answer.text


def test_an_instructor_announces(hub):
    password = (hub.folder / "hub" / "first-password-of-instructor").read_text().strip()
    session = hub.login("instructor", password).session
    text = "The server restarts at 18:00."
    post(session, f"{hub.url}/hub/announcement", data={"text": text}).raise_for_status()
    assert text in requests.get(f"{hub.url}/hub/login", timeout=30).text


def test_an_authenticator_in_the_values_stays(cluster, tmp_path):
    hub = ChartHub(tmp_path, cluster)
    text = (tmp_path / "config.py").read_text()
    chosen = text.replace('"dummy"', '"oauthenticator.generic.GenericOAuthenticator"')
    (tmp_path / "config.py").write_text(chosen)
    assert "GenericOAuthenticator" in configuration(hub)
    (tmp_path / "config.py").write_text(text)
    assert "CourseAuthenticator" in configuration(hub)


def test_an_operators_own_profiles_keep_their_picker(cluster, tmp_path):
    """An operator's profiles might offer options that our picker does not support."""
    hub = ChartHub(tmp_path, cluster)
    path = tmp_path / "config.py"
    path.write_text(path.read_text().replace(PROFILES[0].slug, "their-own"))
    assert "options_form" not in configuration(hub)


def test_a_misspelt_setting_ends_the_start(cluster, tmp_path):
    hub = ChartHub(tmp_path, cluster, COURSE_SIGNUPP="open")
    assert "hub.extraEnv: there is no setting COURSE_SIGNUPP" in configuration(hub)


def configuration(hub: ChartHub) -> str:
    """Return the configuration that the hub loads, or the error that prevents it from starting."""
    run = subprocess.run(
        [sys.executable, "-m", "jupyterhub", "--config", "config.py", "--show-config"],
        cwd=hub.folder,
        env=hub.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return run.stdout
