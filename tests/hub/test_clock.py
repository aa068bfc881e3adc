"""Test start progress and idle timers after the hub's clock was wrong or set back."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from types import SimpleNamespace

import pytest
from jupyterhub import orm
from jupyterhub.utils import utcnow

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
