"""Test that operators' own JupyterHub settings load last and that the guide's examples work."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import requests
from hubs import ROOT
from traitlets.config import Config, PyFileConfigLoader

from tfcourse.hub import state

GUIDE = (ROOT / "docs" / "operators.md").read_text()
GITHUB, REPORT = re.findall(
    r"```python\n# docker/jupyterhub_config\.d/\w+\.py\n(.*?)```", GUIDE, re.S
)
OURS = """
from pathlib import Path
from tfcourse.hub.accounts import setup

c = get_config()
c.JupyterHub.template_vars = {{}}
c.JupyterHub.load_roles = []
setup.configure(c, Path({folder!r}), lambda name: False)
load_subconfig({own!r})
"""
TOKEN = "of-a-script-that-reads-who-is-on-0123456789"
SCRIPT = REPORT.replace("32 random characters or more", TOKEN)


def who_is_on(url: str) -> requests.Response:
    headers = {"Authorization": f"token {TOKEN}"}
    return requests.get(f"{url}/hub/api/users", headers=headers, timeout=30)


def test_a_hub_on_this_machine_loads_them(make_hub, tmp_path):
    (tmp_path / "report.py").write_text(SCRIPT)
    (tmp_path / "notes.txt").write_text("not for the hub")
    hub = make_hub()
    hub.start(COURSE_CONFIG=str(tmp_path))
    assert who_is_on(hub.url).json() == []
    assert requests.get(f"{hub.url}/hub/api/users", timeout=30).status_code == 403


def test_a_hub_in_containers_loads_them(new_hub, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "report.py").write_text(SCRIPT)
    hub = new_hub()
    for wrong in (str(tmp_path / "nowhere"), "docker"):  # Compose treats a bare name as a volume
        with pytest.raises(AssertionError, match="COURSE_CONFIG: there is no folder"):
            hub.up(COURSE_CONFIG=wrong)
    for path in (tmp_path, *tmp_path.parents[:2]):  # pytest creates its folders with mode 700
        path.chmod(0o755)
    hub.up(COURSE_CONFIG=str(folder))
    assert [user["name"] for user in who_is_on(hub.url).json()] == ["instructor"]
    # `make up` applies changes to an existing settings file.
    (folder / "report.py").write_text("")
    hub.up(COURSE_CONFIG=str(folder))
    assert who_is_on(hub.url).status_code == 403


def test_make_up_says_that_people_log_in_elsewhere(new_hub, tmp_path):
    """If the operator's settings replace the authenticator, `make up` has no password to show."""
    (tmp_path / "login.py").write_text('c.JupyterHub.authenticator_class = "dummy"')
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    said = new_hub().up(COURSE_CONFIG=str(tmp_path))
    assert "Your own settings (docker/jupyterhub_config.d) determine how people log in" in said
    assert "Password" not in said


@pytest.mark.parametrize("path", ["/", "/jupyter/"])
def test_a_path_below_another_website_is_refused(path):
    c = Config()
    c.JupyterHub.base_url = path
    if path == "/":
        state.check_own_config(c)
    else:
        with pytest.raises(SystemExit, match="needs a host name of its own"):
            state.check_own_config(c)
    state.check_own_config(Config())


def test_they_come_last_and_in_order(tmp_path, monkeypatch):
    for name, text in {
        "b": "c.JupyterHub.services.append({'name': 'b'})\nc.Spawner.http_timeout = 8",
        "a": "c.JupyterHub.services.append({'name': 'a'})\nc.Spawner.http_timeout = 7",
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setenv("COURSE_CONFIG", str(tmp_path))
    monkeypatch.setenv("COURSE_STATE", str(tmp_path / "state"))
    c = PyFileConfigLoader("jupyterhub_config.py", path=str(ROOT)).load_config()
    assert c.Spawner.http_timeout == 8
    assert c.JupyterHub.services.get_value([]) == [{"name": "a"}, {"name": "b"}]


def test_without_a_folder_there_is_nothing_to_load(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_CONFIG", str(tmp_path / "nowhere"))
    assert state.own_config() == []


def test_a_file_that_the_hub_cannot_read_is_not_passed_over(tmp_path, monkeypatch):
    (tmp_path / "mine.py").mkdir()
    monkeypatch.setenv("COURSE_CONFIG", str(tmp_path))
    with pytest.raises(SystemExit, match=r"mine\.py cannot be read: Is a directory"):
        state.own_config()


@pytest.mark.parametrize("kind", ["native", "lti"])
def test_logging_in_with_github_opens_no_other_door(tmp_path, monkeypatch, kind):
    """Our authenticators' settings must not make an operator's authenticator admit everyone."""
    (tmp_path / "github").write_text("of the app\n")
    for name in ("ISSUER", "CLIENT_ID"):
        monkeypatch.setenv(f"COURSE_LTI_{name}", "x" if kind == "lti" else "")
    for name in ("AUTHORIZE_URL", "KEYS_URL"):
        monkeypatch.setenv(f"COURSE_LTI_{name}", "https://x.example.org" if kind == "lti" else "")
    monkeypatch.setenv("COURSE_ACCOUNTS", kind)
    monkeypatch.setenv("COURSE_ADMIN", "instructor")
    own = tmp_path / "own.py"
    own.write_text(GITHUB.replace("/srv/secrets/github", str(tmp_path / "github")))
    (tmp_path / "config.py").write_text(OURS.format(folder=str(tmp_path), own=str(own)))
    c = PyFileConfigLoader("config.py", path=str(tmp_path)).load_config()
    assert c.JupyterHub.template_vars["sign_up"] is False
    github = c.JupyterHub.authenticator_class(config=c)
    assert (github.allow_all, github.admin_users) == (False, {"your-name"})
    assert github.allowed_organizations == {"your-school"}
    assert github.client_secret == "of the app"
    assert github.validate_username("a-name-of-thirty-nine-letters-on-github")
    assert not github.validate_username("../instructor")
    app = SimpleNamespace(template_vars={})
    pages = [path for path, _ in github.get_handlers(app)]
    assert {"/announcement", "/logout", "/oauth_callback"} <= set(pages)
    assert len(pages) == len(set(pages))
    assert "sign_up" not in app.template_vars
