"""Test that `make backup` and `make restore` preserve everything, even on another hub."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from datetime import datetime, tzinfo
from pathlib import Path

import pytest
import requests
from hubs import IMAGE, PASSWORD, ROOT, ClassHub, ClassLearner, wait_until

from tfcourse.hub import plain
from tfcourse.hub.operations import backup

# This script creates every kind of file that a home directory can contain, including one that its
# owner cannot read.
FILES = r"""
cd /home/jovyan && mkdir -p "odd names/$(printf 'line\nbreak')" empty
echo one >"odd names/ä ö -> *.txt"
printf 'a\0b' >"odd names/$(printf '\377').bin"
ln -s ../outside "odd names/link"; echo hard >hard; ln hard hard2
echo closed >closed; chmod 000 closed
echo program >program; chmod 4750 program
echo shared >sub; chmod 0666 sub
truncate -s 1G sparse
mkfifo pipe
touch -d '2001-02-03 04:05:06.123456789' "odd names"
"""

# This script creates a file and a hard link to it. The link's path is too long to open.
DEEP = r"""
import os
os.chdir(os.path.expanduser("~"))
open("shallow", "w").close()
home = os.open(".", os.O_RDONLY)
for name in [*["d" * 250] * 9, *["\N{HERB}" * 60] * 9]:
    os.mkdir(name)
    os.chdir(name)
os.link("shallow", "deep", src_dir_fd=home)
"""

# This script lists each file's type, mode, owner, time, size, target and name, then the checksums
# of all contents.
LISTING = r"""
cd /home/jovyan && find . -printf '%y %m %U:%G %T+ %s %n %l %p\0' | sort -z | tr '\0' '\n'
find . -type f ! -name sparse -print0 | sort -z | xargs -0 sha256sum
"""


def in_home(hub: ClassHub, name: str, script: str, user: str = "root") -> str:
    """Run a script on a learner's home directory in a separate container."""
    return hub.engine.containers.run(
        f"{IMAGE}:hub",
        ["sh", "-ec", script],
        volumes={f"{hub.homes}/homes/{name}": {"bind": "/home/jovyan", "mode": "rw"}},
        user=user,
        remove=True,
        stderr=True,
    ).decode(errors="surrogateescape")


def run(hub: ClassHub, *command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command with the hub's settings."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **hub.environment, **environment},
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def hub(new_hub) -> ClassHub:
    """Return a running hub."""
    hub = new_hub()
    hub.up()
    return hub


@pytest.fixture(scope="module")
def ada(hub) -> ClassLearner:
    """Return a learner with a running server and a saved file."""
    ada = ClassLearner(hub, "ada")
    ada.start_server()
    ada.run("sh", "-c", "echo saved >~/saved")
    ada.run("python", "-c", DEEP)
    return ada


@pytest.fixture(scope="module")
def away(hub) -> ClassLearner:
    """Return a learner without a server.

    The name of the learner's home directory is an escaped form of the user name.
    """
    away = ClassLearner(hub, "a_way.b")
    in_home(hub, "a-5fway-2eb", f"chown 1000:1000 /home/jovyan; {FILES}")
    return away


@pytest.fixture(scope="module")
def file(hub, ada, away, tmp_path_factory) -> Path:
    """Return a backup that was made while a learner's program wrote and deleted files."""
    file = tmp_path_factory.mktemp("backups") / "hub.tar.gz"
    churn = """
import os, pathlib
while not os.path.exists('enough'):
    for i in range(200):
        path = pathlib.Path(f'churn/{i}')
        path.write_bytes(b'x' * (i * 100))
        if i % 3 == 0:
            path.unlink()
"""
    ada.run("mkdir", "/home/jovyan/churn")
    ada.container.exec_run(["python", "-c", churn], detach=True, workdir="/home/jovyan")
    wait_until(lambda: len(ada.run("ls", "/home/jovyan/churn").split()) > 50, "files come and go")
    said = hub.make("backup", BACKUP=str(file))
    ada.run("touch", "/home/jovyan/enough")
    assert "Not backed up in home-ada: paths of 1,000 characters or more (1)\n" in said
    progress = [line for line in said.splitlines() if " of 6: " in line]
    volumes = "home-a-5fway-2eb", "home-ada", "certificates", "secrets", "shared", "state"
    assert progress == [f"{number} of 6: {name}" for number, name in enumerate(volumes, 1)]
    return file


def test_the_file_is_one_for_its_owner_alone_and_says_what_it_is(hub, file):
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    with tarfile.open(file) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))
        names = archive.getnames()
    assert manifest["hub"] == hub.name
    assert manifest["image"] == f"{IMAGE}:hub"
    assert manifest["jupyterhub"].startswith("5.")
    assert len(manifest["revision"]) == 40
    assert "state/hub/cookie_secret" in names
    assert "secrets/proxy-token" in names
    # The live database may be in the middle of a write, so the backup contains a copy instead.
    assert "state/hub/jupyterhub.sqlite" not in names


def test_everything_comes_back_on_another_hub(hub, ada, away, file, new_hub):
    other = new_hub()
    other.make("restore", BACKUP=str(file))
    before = in_home(hub, "a-5fway-2eb", LISTING)
    assert in_home(other, "a-5fway-2eb", LISTING) == before
    for odd in (
        "f 0 0:0 ",
        "f 4750 ",
        "f 666 ",
        "p 644 ",
        "l 777 ",
        "2001-02-03+04:05:06.123456789",
    ):
        assert odd in before
    other.up()
    assert other.admin_password == hub.admin_password
    for learner in (ada, away):
        assert other.login(learner.name, PASSWORD).url == f"{other.url}/hub/spawn"
        headers = {"Authorization": f"token {learner.token}"}
        user = requests.get(f"{other.url}/hub/api/user", headers=headers, timeout=30)
        assert user.json()["name"] == learner.name
        # The learner is still logged in, because browsers send a host's cookies to all of its
        # ports.
        assert learner.session.get(f"{other.url}/hub/home", timeout=30).url.endswith("/hub/home")
    restored = ClassLearner.__new__(ClassLearner)
    restored.hub, restored.name, restored.token = other, "ada", ada.token
    restored.start_server()
    assert restored.run("cat", "/home/jovyan/saved") == "saved\n"
    restored.run("test", "-f", "/home/jovyan/shallow")
    # Compose recognises the volumes as its own.
    labels = {"label": f"com.docker.compose.project={other.name}"}
    its_own = {volume.name for volume in other.engine.volumes.list(filters=labels)}
    assert its_own >= {f"{other.name}_{name}" for name in ("certificates", "secrets", "state")}


def test_a_file_that_two_homes_share_is_stored_twice(hub, ada, away, tmp_path):
    """An operator may copy a learner's work with `cp -al`."""
    homes = {f"{hub.homes}/homes": {"bind": "/homes", "mode": "rw"}}
    link = "cd /homes/ada; ln -s saved sign; ln saved sign ../a-5fway-2eb"
    script = ["sh", "-ec", link]
    hub.engine.containers.run(f"{IMAGE}:hub", script, volumes=homes, user="root", remove=True)
    hub.make("backup", BACKUP=str(tmp_path / "file"))
    in_home(hub, "a-5fway-2eb", "cd /home/jovyan; rm saved sign")
    in_home(hub, "ada", "rm /home/jovyan/sign")
    assert "home-ada" in backup.check(tmp_path / "file")
    with tarfile.open(tmp_path / "file") as archive:
        for home in ("home-ada", "home-a-5fway-2eb"):
            assert archive.extractfile(f"{home}/saved").read() == b"saved\n"
            assert archive.getmember(f"{home}/saved").isreg()
            assert archive.getmember(f"{home}/sign").issym()


def test_what_is_there_is_not_overwritten_unless_that_is_wanted(hub, ada, file, new_hub, request):
    with pytest.raises(AssertionError, match=r"The hub is running\. Stop it first: make down"):
        hub.make("restore", BACKUP=str(file))
    hub.make("down")
    request.addfinalizer(hub.up)
    with pytest.raises(AssertionError, match=f"docker stop {ada.container.name}"):
        hub.make("restore", BACKUP=str(file))
    ada.container.stop()
    wait_until(lambda: not hub.containers(), "the hub has no containers")
    in_home(hub, "ada", "echo newer >/home/jovyan/newer")
    with pytest.raises(AssertionError, match=r"This hub already has work .*: home-.*, home-ada, "):
        hub.make("restore", BACKUP=str(file))
    assert in_home(hub, "ada", "cat /home/jovyan/newer") == "newer\n"
    said = hub.make("restore", BACKUP=str(file), REPLACE="1")
    assert set(in_home(hub, "ada", "ls /home/jovyan").split()) & {"newer", "saved"} == {"saved"}
    aside = Path(said.partition("The backup is complete: ")[2].split()[0])
    with tarfile.open(aside) as archive:
        assert archive.extractfile("home-ada/newer").read() == b"newer\n"
        assert "state/hub/jupyterhub.sqlite" in archive.getnames()
    aside.unlink()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda content: content[: len(content) // 2], "is damaged or not a backup: "),
        (lambda content: content[:-4], "is damaged or not a backup: "),
        (
            lambda content: content[:3000] + bytes(9) + content[3009:],
            "is damaged or not a backup: ",
        ),
        (lambda content: b"", "is damaged or not a backup: "),
        (lambda content: b"no archive", "is damaged or not a backup: "),
        (None, "is not a backup that this version understands."),
    ],
)
def test_a_file_that_is_not_a_whole_backup_changes_nothing(
    file, new_hub, tmp_path, damage, sentence
):
    other = new_hub()
    bad = tmp_path / "bad.tar.gz"
    if damage:
        bad.write_bytes(damage(file.read_bytes()))
    else:
        with tarfile.open(bad, "w:gz") as archive:
            archive.add(__file__, "test.py")
    with pytest.raises(AssertionError, match=sentence):
        other.make("restore", BACKUP=str(bad))
    assert not other.engine.volumes.list(filters={"name": other.name})
    assert not other.homes.exists()


GOOD = {"format": 1, "hub": "course", "made": "2026-11-29", "volumes": ["home-ada", "state"]}


def member(name: str, kind: bytes = tarfile.DIRTYPE, **values: object) -> tarfile.TarInfo:
    """Return a member of a tar archive, by default a folder."""
    made = tarfile.TarInfo(name)
    made.type = kind
    for key, value in values.items():
        setattr(made, key, value)
    return made


def write_backup(path: Path, manifest: bytes, members: Iterable[str | tarfile.TarInfo]) -> Path:
    """Write an archive of the manifest and the members; a string member is a folder's name."""
    with tarfile.open(path, "w:gz") as archive:
        first = tarfile.TarInfo("manifest.json")
        first.size = len(manifest)
        archive.addfile(first, io.BytesIO(manifest))
        for each in members:
            each = member(each) if isinstance(each, str) else each
            archive.addfile(each, io.BytesIO(bytes(each.size)))
    return path


def test_a_backup_of_this_version_is_understood(tmp_path, capsys):
    """The check accepts a valid backup and escapes control characters in its output.

    If the check rejected every backup, the next test would prove nothing.
    """
    odd = {**GOOD, "hub": "\x1b]0;title\x07\u202eevil", "made": "\x9b31m\r\ud800" + 1000 * "x"}
    file = write_backup(tmp_path / "x.tar.gz", json.dumps(odd).encode(), ("home-ada", "state"))
    assert backup.check(file) == ["home-ada", "state"]
    said = capsys.readouterr().err
    assert "A backup of \\x1b]0;title\\x07\\u202eevil, made \\x9b31m\\r\\ud800xxx" in said
    assert len(said) < 500


def test_a_folder_that_is_no_learners_is_named_and_left_out(tmp_path, monkeypatch):
    """`make restore` refuses an archive if a folder's name cannot belong to a learner."""
    for name in ("ada", "-2dbob", ".eve.part", "ada (old)", "ada\n"):
        (tmp_path / "homes" / name).mkdir(parents=True)
    monkeypatch.setenv("COURSE_HOMES", str(tmp_path))
    monkeypatch.setattr(backup, "output", lambda *_: "")
    monkeypatch.setattr(backup.homes, "old_volumes", dict)
    found = backup.volumes()
    assert found.keys() == {"shared", "home-ada", "home--2dbob"}
    assert backup.left_out(found) == [f"{tmp_path}/homes/{name}" for name in ("ada\n", "ada (old)")]


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'"format"',
        b"1e999",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"format": ' + b"9" * 10_000 + b"}",
        json.dumps(GOOD).encode() + b" " * 2**25,
        *(
            json.dumps({**GOOD, **odd}).encode()
            for odd in (
                {"format": 2},
                {"format": True},
                {"format": 1.0},
                {"format": "1"},
                {"format": float("nan")},
                {"format": None},
                {"hub": None},
                {"hub": ["course"]},
                {"made": 20261129},
                {"volumes": None},
                {"volumes": "home-ada"},
                {"volumes": {"home-ada": 1, "state": 2}},
                {"volumes": []},
                {"volumes": [1, "state"]},
                {"volumes": ["home-ada", "state", "state"]},
                {"volumes": ["home-ada"]},  # Fewer volumes than the archive contains.
                {"volumes": ["home-ada", "home-bob", "state"]},  # More volumes than archived.
                {"volumes": ["home-..", "state"]},
                {"volumes": ["home-.ada.part", "state"]},
                {"volumes": ["home-a/../..", "state"]},
                {"volumes": ["home-ada\n", "state"]},
                {"volumes": ["home-\x1b[2J", "state"]},
                {"volumes": ["--to-command=sh", "state"]},
                {"volumes": ["home-" + "a" * 1000, "state"]},
                {"volumes": ["home-ada", "state:/etc"]},
                {"volumes": ["home-ada", "prometheus"]},
                {"volumes": ["home-ada", "invented"]},
            )
        ),
        *(
            json.dumps({name: GOOD[name] for name in GOOD if name != missing}).encode()
            for missing in GOOD
        ),
    ],
)
def test_an_odd_manifest_gets_a_sentence(tmp_path, capsys, manifest):
    members = ("home-ada", "state")
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        named = json.loads(manifest)["volumes"]
        if all(isinstance(name, str) for name in named) and len(named) == 2:
            members = tuple(named)  # only the names are invalid
    file = write_backup(tmp_path / "x.tar.gz", manifest, members)
    with pytest.raises(SystemExit, match="is not a backup that this version understands") as end:
        backup.check(file)
    assert plain(end.value.code) == end.value.code
    assert capsys.readouterr().err == f"Checking {file} ...\n"


@pytest.mark.parametrize("member", ["other", "../state", "/state", "\x1b[2Jstate", "./state"])
def test_what_the_manifest_does_not_name_is_not_in_a_backup(tmp_path, member):
    file = write_backup(
        tmp_path / "x.tar.gz", json.dumps(GOOD).encode(), ("home-ada", "state", member)
    )
    with pytest.raises(SystemExit, match="is not a backup that this version understands"):
        backup.check(file)


FILE, HARD, SYMBOLIC = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE


@pytest.mark.parametrize(
    "members",
    [
        [member("home-ada/x", tarfile.CHRTYPE)],
        [member("home-ada/x", tarfile.BLKTYPE)],
        [member("home-ada/x", b"V")],
        [member("home-ada/../state/x", FILE)],
        [member("home-ada/..")],
        [member("home-ada//x", FILE)],
        [member("home-ada/" + "x" * 256, FILE)],
        ["home-ada/" + "/".join(["x" * 250] * depth) for depth in range(1, 18)],
        [member("home-ada/x\0y", FILE, pax_headers={"path": "home-ada/x\0y"})],
        [member("home-ada/x", HARD, linkname="/etc/passwd")],
        [member("home-ada/x", HARD, linkname="home-ada/missing")],
        [member("home-ada/x", HARD, linkname="home-ada/x")],
        ["home-ada/x", member("home-ada/y", HARD, linkname="home-ada/x")],
        [member("home-ada/x", FILE), "state", member("state/y", HARD, linkname="home-ada/x")],
        [member("home-ada/x", SYMBOLIC)],
        [member("home-ada/x", SYMBOLIC, linkname="x" * 4096)],
        [member("home-ada/x/y", FILE)],
        [member("home-ada/x", FILE), member("home-ada/x/y", FILE)],
        [member("home-ada/x", SYMBOLIC, linkname="/etc"), member("home-ada/x/y", FILE)],
        [member("home-ada/x", FILE), "home-ada/x"],
        ["home-ada/x", member("home-ada/x", FILE)],
        [member("home-ada/x", FILE, pax_headers={"path": "home-ada/x/"})],
        ["state", member("home-ada/x", FILE)],
    ],
)
def test_what_tar_cannot_restore_is_not_in_a_backup(tmp_path, members):
    file = write_backup(
        tmp_path / "x.tar.gz", json.dumps(GOOD).encode(), ["home-ada", *members, "state"]
    )
    with pytest.raises(
        SystemExit, match=r"this version understands: .* (restore|together)\. Nothing"
    ):
        backup.check(file)


def test_what_tar_can_restore_is_in_a_backup(tmp_path):
    """If the check rejected this valid backup, the previous test would prove nothing."""
    members = [
        "home-ada",
        member("home-ada/x", FILE, size=1000, mtime=-5.5),
        member("home-ada/x", FILE),  # a file that was replaced during the backup
        member("home-ada/" + "x" * 255, HARD, linkname="home-ada/x"),
        member("home-ada/\udcff", SYMBOLIC, linkname="../../etc"),
        member("home-ada/hard", HARD, linkname="home-ada/\udcff"),
        member("home-ada/pipe", tarfile.FIFOTYPE, uid=2**31),
        "home-ada/" + "y" * 255,
        "state",
    ]
    file = write_backup(tmp_path / "x.tar.gz", json.dumps(GOOD).encode(), members)
    assert backup.check(file) == GOOD["volumes"]


def test_an_archive_does_not_end_at_an_unreadable_header(tmp_path):
    file = write_backup(tmp_path / "x.tar.gz", json.dumps(GOOD).encode(), ["home-ada", "state"])
    content = gzip.decompress(file.read_bytes())
    end = len(content.rstrip(b"\0")) // 512 * 512 + 512
    file.write_bytes(gzip.compress(content[:end] + b"x" * 512 + content[end:]))
    with pytest.raises(SystemExit, match="is damaged or not a backup: "):
        backup.check(file)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, b"K"])
@pytest.mark.parametrize("position", [0, 1])
def test_checking_takes_little_memory(tmp_path, kind, position):
    """A compressed backup of a few megabytes can contain a header that expands to gigabytes."""
    size = 400 * 2**20
    content = json.dumps(GOOD).encode()
    first = member("manifest.json", FILE, size=len(content)).tobuf() + content.ljust(512, b"\0")
    with gzip.open(tmp_path / "x.tar.gz", "wb", 1) as file:
        file.write(first * position + member("x", kind, size=size).tobuf())
        for _ in range(size // 2**20):
            file.write(bytes(2**20))
    script = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from tfcourse.hub.operations import backup\n"
        "backup.MEMORY = 200 * 2**20\n"
        "try:\n"
        "    backup.check(Path(sys.argv[1]))\n"
        "except SystemExit as end:\n"
        # `ru_maxrss` would include the memory of the process that starts this one.
        "    status = Path('/proc/self/status').read_text()\n"
        "    print(end, re.search(r'VmHWM:\\s*(\\d+)', status)[1])\n"
    )
    command = [sys.executable, "-c", script, tmp_path / "x.tar.gz"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "Nothing was changed." in said
    assert int(said.split()[-1]) < 300 * 2**10


def test_headers_of_headers_get_a_sentence(tmp_path):
    with gzip.open(tmp_path / "x.tar.gz", "wb") as file:
        file.write(member("x", tarfile.XHDTYPE).tobuf() * 10_000)
    with pytest.raises(SystemExit, match="Nothing was changed"):
        backup.check(tmp_path / "x.tar.gz")


def test_what_tar_complains_about_does_not_command_the_terminal(tmp_path, capsys):
    file = write_backup(tmp_path / "x.tar.gz", b"{}", [])
    complain = r"cat >/dev/null; printf 'tar: \033[2J\342\200\256x: no\n' >&2; exit 2"
    assert backup.give(file, ["sh", "-c", complain]) == 2
    assert capsys.readouterr().err == "tar: \\x1b[2J\\u202ex: no\n"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_a_manifest_that_is_no_file_gets_a_sentence(tmp_path, kind):
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        first = tarfile.TarInfo("manifest.json")
        first.type, first.linkname = kind, "/etc/passwd"
        archive.addfile(first)
    with pytest.raises(SystemExit, match="is not a backup that this version understands"):
        backup.check(tmp_path / "x.tar.gz")


def test_what_a_file_is_called_or_says_does_not_command_the_terminal(tmp_path):
    file = tmp_path / "\x1b[2J\u202e.tar.gz"
    for content in (None, b"", b"no archive"):
        if content is not None:
            file.write_bytes(content)
        ended = subprocess.run(
            [sys.executable, "-m", "tfcourse.hub.operations", "restore", file],
            cwd=ROOT,
            env={**os.environ, "COURSE_IMAGE": "none"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 1
        assert "\\x1b[2J\\u202e.tar.gz" in ended.stderr
        assert plain(ended.stderr) == ended.stderr
        assert "Traceback" not in ended.stderr


def test_backups_of_one_second_do_not_replace_each_other(tmp_path, monkeypatch):
    """The same local time can occur twice, for example when daylight saving time ends."""
    monkeypatch.setattr(backup, "ROOT", tmp_path)
    monkeypatch.setattr(backup, "datetime", Stopped)
    names = []
    for _ in range(3):
        file = backup.default_file()
        file.touch()
        names.append(file.name)
    begin = "tensorflow-course-2026-10-25-023000"
    assert names == [f"{begin}.tar.gz", f"{begin}-2.tar.gz", f"{begin}-3.tar.gz"]


class Stopped(datetime):
    """A `datetime` class whose `now` always returns the same time."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return datetime(2026, 10, 25, 2, 30, tzinfo=tz)


def test_one_that_is_interrupted_leaves_no_file(hub, ada, tmp_path):
    in_home(hub, "ada", "head -c 300M /dev/urandom >/home/jovyan/large")
    with hub.begin("backup", BACKUP=str(tmp_path / "x.tar.gz")) as process:
        for line in process.stdout:
            if "home-ada" in line:
                break
        assert list(tmp_path.iterdir()) == [tmp_path / "x.tar.gz.part"]
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        assert "Stopped." in process.communicate(timeout=60)[0]
    assert process.returncode
    assert not list(tmp_path.iterdir())
    in_home(hub, "ada", "rm /home/jovyan/large")


def test_a_full_disk_is_a_sentence(hub, ada, tmp_path):
    """A limit on file sizes simulates a full disk."""
    file = tmp_path / "x.tar.gz"
    ended = run(hub, "prlimit", "--fsize=1000", "make", "backup", BACKUP=str(file))
    assert ended.returncode
    assert f"The backup cannot be written to {file}: File too large." in ended.stderr.decode()
    assert not list(tmp_path.iterdir())


def test_it_can_go_to_a_program_that_keeps_many(hub, ada, tmp_path):
    """A backup to stdout is uncompressed, so that restic can deduplicate unchanged data."""
    ended = run(hub, "make", "--silent", "backup", BACKUP="-")
    assert not ended.returncode, ended.stderr
    (tmp_path / "x.tar").write_bytes(ended.stdout)
    with tarfile.open(tmp_path / "x.tar", "r:") as archive:
        assert "home-ada/saved" in archive.getnames()


def test_a_hub_without_learners_is_backed_up_and_one_that_is_none_is_not(new_hub, tmp_path):
    hub = new_hub()
    with pytest.raises(AssertionError, match="There is no hub called"):
        hub.make("backup", BACKUP=str(tmp_path / "x.tar.gz"))
    hub.up()
    said = hub.make("backup")
    file = Path(said.partition("The backup is complete: ")[2].split()[0])
    assert file.parent == ROOT / ".course" / "backups"
    assert file.name.startswith(f"{hub.name}-2")
    file.unlink()
