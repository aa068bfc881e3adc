"""Test that the hub recovers from damaged files and prints untrusted text safely."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hubs import ROOT

from tfcourse.hub import plain, settings, state
from tfcourse.hub.classroom import announcement
from tfcourse.hub.operations import backup, engine

# Examples of damaged file contents after a power cut.
RUINS = [b"", b"\n", b"\0" * 20, b"abc", b"\xff\xfe" * 20, b"abcd efgh jkmn pqrs"]


@pytest.mark.parametrize("ruin", RUINS)
@pytest.mark.parametrize("length", [16, 32])
def test_a_damaged_password_is_made_anew(tmp_path, capsys, ruin, length):
    file = tmp_path / "password"
    file.write_bytes(ruin)
    found = state.password(file, length)
    assert len(found.replace("-", "")) == length
    assert file.read_text() == f"{found}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert f"{file} was damaged, perhaps by a power cut" in capsys.readouterr().out
    assert state.password(file, length) == found
    assert capsys.readouterr().out == ""


def test_a_whole_password_is_kept(tmp_path, capsys):
    file = tmp_path / "password"
    made = state.password(file)
    assert state.password(file) == made
    file.write_text("  What-the-operator-has-chosen!\n")
    assert state.password(file) == "What-the-operator-has-chosen!"
    assert capsys.readouterr().out == ""


def test_hub_and_proxy_agree_on_a_token_that_was_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_SECRETS", str(tmp_path))
    (tmp_path / "proxy-token").touch()
    program = "from tfcourse.hub import state; t = state.proxy_token(); print('token:' + t)"
    run = [sys.executable, "-c", program]
    both = [subprocess.Popen(run, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate(timeout=30)[0] for process in both]
    assert len({text.partition("token:")[2] for text in said}) == 1
    assert len(said[0].partition("token:")[2].strip()) == 39


@pytest.mark.parametrize("ruin", [*RUINS, b"0123456789abcdef", b"0" * 63])
def test_a_damaged_cookie_secret_is_made_anew_and_says_what_follows(tmp_path, capsys, ruin):
    file = tmp_path / "cookie_secret"
    state.cookie_secret(file)
    assert not file.exists()  # in this case, JupyterHub generates a secret
    file.write_bytes(ruin)
    state.cookie_secret(file)
    made = file.read_text()
    assert len(bytes.fromhex(made)) == 32
    assert "Everyone has to log in again." in capsys.readouterr().out
    state.cookie_secret(file)
    assert file.read_text() == made


def test_a_secret_that_cannot_be_read_gets_a_sentence(tmp_path):
    (tmp_path / "password").mkdir()
    with pytest.raises(SystemExit, match="password cannot be read or written: Is a directory"):
        state.password(tmp_path / "password")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(SystemExit, match="link cannot be read or written: No such file"):
        state.password(tmp_path / "link")
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="password cannot be read or written: Not a directory"):
        state.password(tmp_path / "file" / "password")


@pytest.mark.parametrize("write", [state.write, state.write_once])
def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch, write):
    """Sync the file, rename it, then sync its folder, so that a power cut cannot empty the file."""
    file, done = tmp_path / "file", []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        done.append((path.name, path.is_file() and path.read_bytes(), file.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    write(file, b"content")
    assert done == [(".file.part", b"content", False), (tmp_path.name, False, True)]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_backups_that_were_killed_leave_nothing_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(backup, "ROOT", tmp_path)
    folder = backup.default_file().parent
    ages = {
        "course-2026-01-01-120000.tar.gz.part": 7200,
        "running.tar.gz.part": 60,
        "a.tar.gz": 1e9,
    }
    for name, age in ages.items():
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age,) * 2)
    backup.default_file()
    assert {path.name for path in folder.iterdir()} == {"running.tar.gz.part", "a.tar.gz"}


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    state.write(tmp_path / "file", b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        state.write(tmp_path / "file", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


SAID = {"text": "The server restarts", "by": "instructor", "when": "2026-11-29T10:00:00+00:00"}


@pytest.mark.parametrize(
    "content",
    [
        *RUINS,
        b"[]",
        b"null",
        b"[" * 100_000,
        json.dumps({**SAID, "when": "yesterday"}).encode(),
        json.dumps({**SAID, "when": 5}).encode(),
        json.dumps({"text": "The server restarts"}).encode(),
    ],
)
def test_no_page_fails_because_of_a_damaged_announcement(tmp_path, monkeypatch, content):
    monkeypatch.setenv("COURSE_STATE", str(tmp_path))
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "announcement.json").write_text(json.dumps(SAID))
    assert "The server restarts" in announcement.render(None)
    (tmp_path / "hub" / "announcement.json").write_bytes(content)
    assert announcement.render(None) == ""
    assert announcement.current() == {}


# --- On a terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ada\n\tÄ ö", "ada\n\tÄ ö"),
        ("\x1b[2J\x1b]0;x\x07", "\\x1b[2J\\x1b]0;x\\x07"),
        ("\x9b31m\r\x00\x7f", "\\x9b31m\\r\\x00\\x7f"),
        ("\u202eada\u2066\u200f", "\\u202eada\\u2066\\u200f"),
        ("\ud800\u2028\U000e0001", "\\ud800\\u2028\\U000e0001"),
    ],
)
def test_a_terminal_obeys_nothing_of_a_plain_text(text, shown):
    assert plain(text) == shown


def test_what_visitors_wrote_into_the_log_is_shown_plainly(tmp_path, monkeypatch, capfd):
    compose = tmp_path / "docker"
    compose.write_text("#!/bin/sh\nprintf 'Failed login for \\033[2J\\n\\377\\n'; exit 3\n")
    compose.chmod(0o755)
    monkeypatch.setenv("DOCKER", str(compose))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0))
    monkeypatch.setattr(engine, "SOCKET", tmp_path)
    assert engine.compose("logs", check=False, each_line=plain) == 3
    assert capfd.readouterr().out == "Failed login for \\x1b[2J\n\N{REPLACEMENT CHARACTER}\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\n\nCOURSE_NAME=\xff", r"^docker/\.env has to be text in UTF-8, but line 3 is not"),
        (b"COURSE_NAME=a\0b", r"^docker/\.env: COURSE_NAME has a character that cannot be seen"),
        (b"COURSE_NAME=\x1b[2J", r"COURSE_NAME has a character that cannot be seen"),
        (None, r"^docker/\.env cannot be read: Is a directory"),
    ],
)
def test_odd_settings_get_a_sentence(tmp_path, monkeypatch, content, sentence):
    monkeypatch.setattr(settings, "DOCKER_FOLDER", tmp_path)
    assert settings.in_file() == {}
    if content is None:
        (tmp_path / ".env").mkdir()
    else:
        (tmp_path / ".env").write_bytes(content)
    with pytest.raises(SystemExit, match=sentence):
        settings.in_file()


def test_settings_that_an_editor_on_windows_wrote_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "DOCKER_FOLDER", tmp_path)
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfCOURSE_NAME=ours\r\nCOURSE_PORT=8100\r\n")
    assert settings.in_file() == {"COURSE_NAME": "ours", "COURSE_PORT": "8100"}
