"""Test limits on what strangers can make the hub keep: request bodies, log entries and notes."""

from __future__ import annotations

import logging
import socket
from types import SimpleNamespace

import psutil
import pytest
import requests
from hubs import Learner, post, wait_until
from jupyterhub import orm

from tfcourse.hub import limits
from tfcourse.hub.front import bounds


def test_after_a_limit_there_is_one_more_for_each_interval(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(limits.time, "monotonic", lambda: now)
    limit = limits.Limit(3, seconds=60)
    for _ in range(3):
        assert limit.wait("a") == 0
        limit.count("a")
    assert (limit.wait("a"), limit.wait("b")) == (60, 0)
    now += 59
    assert limit.wait("a") == 1
    now += 1
    assert limit.wait("a") == 0
    limit.count("a")
    assert limit.wait("a") == 60
    now += 180
    limit.count("b")
    assert list(limit.paid_off) == ["b"]  # the limit forgets `a` after a while


def megabytes(hub) -> float:
    """Return the memory of the hub's own process, in MiB."""
    return psutil.Process(hub.process.pid).memory_info().rss / 2**20


def send_body(port: int, size: int, chunked: bool) -> bytes:
    """Post a large body to the log-in page; return the response, or no bytes if there is none."""
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"POST /hub/login HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n\r\n")
        try:
            for _ in range(size // 2**20):
                start, end = (b"100000\r\n", b"\r\n") if chunked else (b"", b"")
                connection.sendall(start + bytes(2**20) + end)
            return connection.recv(100)
        except OSError:  # the hub has closed the connection
            return b""


@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies_take_no_memory_of_the_hub(hub, chunked):
    before = megabytes(hub)
    for port in (hub.port, hub.port + 1):  # the ports of the proxy and of the hub itself
        for _ in range(6):
            answer = send_body(port, 90 * 2**20, chunked)
            assert b" 403 " not in answer  # the status for a wrong password
    assert megabytes(hub) < before + 40


def test_a_long_note_on_a_token_is_cut(hub):
    learner = Learner(hub, "annie")
    response = learner.api("POST", "/hub/api/users/{name}/tokens", json={"note": "x" * 100_000})
    assert response.status_code == 201
    assert len(response.json()["note"]) == bounds.LONGEST_NOTE
    assert orm.APIToken(note=None).note is None


def test_the_oldest_tokens_make_room_for_new_ones(hub):
    learner = Learner(hub, "grace")  # who has one token already
    tokens = f"{hub.url}/hub/api/users/grace/tokens"
    made = [
        post(learner.session, tokens, json={}).json()["token"] for _ in range(bounds.MOST_TOKENS)
    ]

    def user(token: str) -> requests.Response:
        headers = {"Authorization": f"token {token}"}
        return requests.get(f"{hub.url}/hub/api/user", headers=headers, timeout=30)

    assert user(learner.token).status_code == 403
    assert user(made[0]).ok
    post(learner.session, tokens, json={})
    assert user(made[0]).ok  # it was used later than the others
    assert user(made[1]).status_code == 403
    listed = learner.session.get(tokens, headers={"Referer": tokens}, timeout=30).json()
    assert len(listed["api_tokens"]) == bounds.MOST_TOKENS


@pytest.mark.parametrize("note", ["\ud800", "a\0b"])
def test_text_that_no_database_can_store_is_refused_or_stored(hub, note):
    learner = Learner(hub, "annie")
    response = learner.api("POST", "/hub/api/users/{name}/tokens", json={"note": note})
    assert response.status_code in (201, 400)
    assert learner.api("GET", "/hub/api/users/{name}?limit=" + "9" * 30).ok


def test_strangers_cannot_wash_the_log_away(hub):
    learner = Learner(hub, "radia")
    log = hub.state / "hub" / "jupyterhub.log"
    before = log.stat().st_size
    session = requests.Session()
    for number in range(600):
        session.get(f"{hub.url}/hub/api/nothing{number}", timeout=30)
    names = {"username": "x" * 100_000, "password": "wrong"}
    page = hub.session()
    xsrf = {"_xsrf": page.cookies.get("_xsrf", path="/hub/")}
    page.post(f"{hub.url}/hub/login", params=xsrf, data=names, timeout=30)
    assert learner.api("GET", "/hub/api/users/{name}?seen=1").ok
    wait_until(lambda: "?seen=1" in log.read_text(), "the learner's request is in the log")
    new = log.read_bytes()[before:]
    assert new.count(b"nothing") <= bounds.ENTRIES_AT_ONCE
    assert b"x" * 2 * bounds.LONGEST_ENTRY not in new


def record(
    line: int, message: str, *arguments: object, level: int = logging.WARNING
) -> logging.LogRecord:
    return logging.LogRecord("hub", level, "place.py", line, message, arguments, None)


def test_one_place_in_the_code_cannot_fill_the_log(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(limits.time, "monotonic", lambda: now)
    entries = bounds.Entries()
    kept = [each for each in [record(1, "no %s", n) for n in range(1000)] if entries.filter(each)]
    assert len(kept) == bounds.ENTRIES_AT_ONCE
    assert kept[0].getMessage() == "no 0"
    assert kept[-1].getMessage() == "no 299 [More like this are left out for a while.]"
    assert entries.filter(record(2, "another place"))
    normal = [record(3, "started", level=logging.INFO) for _ in range(2000)]
    assert all(map(entries.filter, normal))  # two thousand learners may arrive at once
    now += bounds.SECONDS_PER_ENTRY
    assert entries.filter(record(1, "no %s", 1000))
    assert not entries.filter(record(1, "no %s", 1001))


def test_a_long_entry_is_cut():
    entry = record(1, "Failed login for %s", "x" * 1_000_000)
    assert bounds.Entries().filter(entry)
    assert entry.getMessage().endswith("x ... [1000017 characters]")
    assert len(entry.getMessage()) < bounds.LONGEST_ENTRY + 50


def test_requests_of_those_who_are_logged_in_are_always_logged(monkeypatch):
    logged = []
    monkeypatch.setattr(bounds, "log_request", logged.append)
    monkeypatch.setattr(bounds, "prometheus_log_method", lambda handler: None)
    requests = bounds.Requests()
    stranger, learner = SimpleNamespace(current_user=None), SimpleNamespace(current_user="ada")
    for _ in range(1000):
        requests(stranger)
        requests(learner)
    assert logged.count(learner) == 1000
    assert logged.count(stranger) == bounds.ENTRIES_AT_ONCE
