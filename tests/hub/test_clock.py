"""Test start-up progress and idle time-outs on a host whose clock was wrong or has been reset."""

from __future__ import annotations

import asyncio
import json
import runpy
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jupyter_server.base.handlers import FileFindHandler
from jupyterhub import orm
from jupyterhub.singleuser.extension import JupyterHubSingleUser
from jupyterhub.utils import utcnow
from traitlets.config import Config, Configurable

from tfcourse.hub.front import pages
from tfcourse.hub.spawners import idle

NOW = utcnow(with_tz=False)
YEAR = timedelta(days=365)


@pytest.mark.parametrize("off", [YEAR, timedelta(hours=2)])
def test_a_server_that_was_active_in_the_future_becomes_idle_all_the_same(off):
    db = orm.new_session_factory("sqlite:///:memory:")()
    user = orm.User(name="ada", last_activity=NOW + off)
    server = orm.Spawner(name="", user=user, last_activity=NOW + off)
    db.add_all([user, server])
    db.commit()
    idle.forget_the_future(SimpleNamespace(db=db, users={1: SimpleNamespace(orm_user=user)}))
    db.expire_all()
    for noted in (user, server):
        assert abs(noted.last_activity - utcnow(with_tz=False)) < timedelta(minutes=1)


@pytest.mark.parametrize("moment", [None, NOW - YEAR, NOW, NOW + timedelta(minutes=50)])
def test_what_may_be_true_is_not_corrected(moment):
    assert idle.not_later(moment, NOW) == moment


@pytest.mark.parametrize("started", [NOW + YEAR, NOW, None, NOW - YEAR])
def test_the_page_of_a_start_outlives_a_clock_that_is_set_back(started):
    spawner = SimpleNamespace(
        start_timeout=60, http_timeout=60, orm_spawner=SimpleNamespace(started=started)
    )
    said = asyncio.run(anext(pages.progress(spawner)))
    assert 0 <= said["progress"] <= 95
    assert said["message"]


# --- A clock that jumps while servers run


class Clock:
    """A host's two clocks: the wall clock, which can be set, and the monotonic clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.wall, self.steady = time.time(), 1000.0
        monkeypatch.setattr(time, "time", lambda: self.wall)
        monkeypatch.setattr(time, "monotonic", lambda: self.steady)

    def go_on(self, seconds: float, jump: float = 0) -> None:
        self.wall += seconds + jump
        self.steady += seconds


def settings_of(path: str | Path) -> tuple[Config, dict[str, Any]]:
    """Run a Python settings file; return the settings and the file's global variables."""
    c = Config()
    return c, runpy.run_path(str(path), {"get_config": lambda: c})


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


HOUR = 3600


def is_idle(arbiter: Any, clock: Clock, since: float) -> bool:
    inactive = timedelta(seconds=clock.wall - since)
    return arbiter(inactive=inactive, inactive_limit=HOUR, server={})


@pytest.mark.parametrize("jump", [2 * HOUR, 365 * 24 * HOUR])
def test_a_clock_that_jumps_ahead_stops_no_server(clock, jump):
    c, _ = settings_of(Path(idle.__file__).with_name("culler_config.py"))
    arbiter = c.IdleCuller.cull_arbiter_hook
    clock.go_on(2 * HOUR)
    used = clock.wall
    clock.go_on(360, jump)
    assert not is_idle(arbiter, clock, used)
    clock.go_on(HOUR - 360)
    assert not is_idle(arbiter, clock, used)
    clock.go_on(360)  # the server has now had an hour to report that it is in use
    assert is_idle(arbiter, clock, used)
    clock.go_on(360, -jump)
    assert not is_idle(arbiter, clock, clock.wall - 360)


def test_idle_servers_are_stopped_at_their_time_if_the_clock_is_only_corrected(clock):
    c, _ = settings_of(Path(idle.__file__).with_name("culler_config.py"))
    arbiter = c.IdleCuller.cull_arbiter_hook
    used = clock.wall
    for _ in range(9):
        clock.go_on(360, jump=1)
        assert not is_idle(arbiter, clock, used)
    clock.go_on(360)
    assert is_idle(arbiter, clock, used)
    assert not is_idle(arbiter, clock, clock.wall - 60)


def test_the_culler_loads_these_settings(monkeypatch):
    monkeypatch.setenv("COURSE_IDLE_MINUTES", "60")
    monkeypatch.setattr(idle.rounds, "regularly", lambda *_, **__: None)
    c = Config({"JupyterHub": {"template_vars": {}, "services": [], "load_roles": []}})
    c.Spawner.args, c.Spawner.environment = [], {}
    idle.configure(c)
    (culler,) = c.JupyterHub.services
    (path,) = (each[9:] for each in culler["command"] if each.startswith("--config="))
    assert callable(settings_of(path)[0].IdleCuller.cull_arbiter_hook)


SETTINGS = Path(__file__).parents[2] / "tfcourse/prefix/etc/jupyter/jupyter_server_config.py"


@pytest.mark.parametrize("jump", [2 * HOUR, 365 * 24 * HOUR, -365 * 24 * HOUR])
def test_a_clock_that_jumps_stops_no_kernel(clock, monkeypatch, jump):
    manager = kernels(clock, monkeypatch)
    stopped = []
    monkeypatch.setattr(manager, "shutdown_kernel", lambda name: stopped.append(name))
    clock.go_on(360, jump)
    asyncio.run(manager.cull_kernels())
    assert not stopped
    now = datetime.fromtimestamp(clock.wall, UTC)
    # The server reports this time to the hub, which ignores times in the future.
    assert manager.last_kernel_activity == now
    assert manager.parent.web_app.settings == {"api_last_activity": now, "base_url": "/"}
    clock.go_on(HOUR - 360)
    asyncio.run(manager.cull_kernels())
    assert not stopped
    clock.go_on(720)
    asyncio.run(manager.cull_kernels())
    assert stopped == ["x"]


def kernels(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the kernel manager of a learner's server, with one idle kernel."""
    monkeypatch.delenv("JUPYTERHUB_API_TOKEN", raising=False)
    monkeypatch.setenv("COURSE_NOTICES", json.dumps([]))
    _, defined = settings_of(SETTINGS)

    class Now(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.fromtimestamp(clock.wall, tz)

    manager_class = defined["BusyIsActive"]
    monkeypatch.setitem(manager_class.cull_kernels.__globals__, "datetime", Now)
    monkeypatch.setattr(
        "jupyter_server.services.kernels.kernelmanager.utcnow", lambda: Now.now(UTC)
    )
    manager = manager_class(cull_idle_timeout=HOUR, cull_connected=True)
    settings = {"api_last_activity": Now.now(UTC), "base_url": "/"}
    manager.parent = Configurable()
    manager.parent.web_app = SimpleNamespace(settings=settings)
    manager._kernels["x"] = SimpleNamespace(
        execution_state="idle", last_activity=Now.now(UTC), kernel_name="python3",
        kernel_spec=SimpleNamespace(metadata={}),
    )  # fmt: skip
    return manager


def test_a_server_reports_activity_again_after_the_clock_was_ahead(monkeypatch):
    """A JupyterHub server reports no activity while its last report is dated in the future."""
    for kind, name in [
        (JupyterHubSingleUser, "_last_activity_sent"),
        (FileFindHandler, "get"),
        (FileFindHandler, "head"),
    ]:
        monkeypatch.setattr(kind, name, getattr(kind, name))
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "x")
    settings_of(SETTINGS)
    server = JupyterHubSingleUser()
    server._last_activity_sent = datetime.now(UTC) + YEAR
    assert not server._last_activity_sent
