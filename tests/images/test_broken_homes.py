"""Test that a server starts despite a broken home directory, and reports what it ignored."""

from __future__ import annotations

import json
import os
import runpy
import time

import pytest
from docker.models.containers import Container

from tfcourse.hub.state import ROOT

# As root, run a script in the home directory, and then start a server as the hub does.
START = """
cd /home/jovyan
{script}
exec setpriv --reuid=1000 --regid=1000 --clear-groups env HOME=/home/jovyan \
    start-course jupyter-lab --ip=127.0.0.1 --no-browser --IdentityProvider.token=key
"""
OURS = "\nchown -R jovyan: /home/jovyan"
SETTINGS = "mkdir -p .jupyter; cat >.jupyter/jupyter_server_config.py <<'END'\n{}\nEND\n{}"
PACKAGES = (
    "d=$(echo .local/lib/python$(python -c 'import sys; print(*sys.version_info[:2], sep=\".\")'"
)
PACKAGES += ")/site-packages); mkdir -p $d; echo {!r} >$d/{}" + OURS
IPYTHON = "mkdir -p .ipython/profile_default/startup; echo {!r} >.ipython/profile_default/{}" + OURS
DATA = "mkdir -p .local/share/jupyter/{}"
THEMES = "@jupyterlab/apputils-extension/themes.jupyterlab-settings"
WORKSPACE = "default-37a8.jupyterlab-workspace"
STATE = "d=.jupyter/lab/{0}; mkdir -p $(dirname $d/{1}); {2} $d/{1}" + OURS

# Create the database that IPython or Jupyter would create, and damage all of it but its first page.
DAMAGED = r"""
mkdir -p {0}
python - {0}/{1} <<'END'
import pathlib, sqlite3, sys
path = pathlib.Path(sys.argv[1])
if path.suffix == ".db":
    from nbformat.sign import SQLiteSignatureStore
    SQLiteSignatureStore(str(path)).close()
else:
    from IPython.core.history import HistoryAccessor
    HistoryAccessor(hist_file=str(path)).db.close()
database = sqlite3.connect(path)
table = {{".db": "nbsignatures (algorithm, signature)", ".sqlite": "history (session, line)"}}
for number in range(5000):
    database.execute(f"INSERT INTO {{table[path.suffix]}} VALUES ('sha256', '{{number}}')")
database.commit()
database.close()
content = path.read_bytes()
path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))
END
"""

# Load JupyterLab's page, settings, workspaces and kernels, run a cell in a kernel, list the home
# directory, and print the page's notices.
LOOK = r"""
import contextlib, json, os, re, sys, time, urllib.request
from jupyter_client import BlockingKernelClient
def ask(path, data=None):
    headers = {"Authorization": "token key"}
    request = urllib.request.Request("http://127.0.0.1:8888" + path, data, headers)
    return urllib.request.urlopen(request, timeout=60).read().decode()
page = ask("/lab")
for path in ("settings", "workspaces", "workspaces/default"):
    ask("/lab/api/" + path)
assert "python3" in json.loads(ask("/api/kernelspecs"))["kernelspecs"]
(settings,) = re.findall(r'<script id="jupyter-config-data".*?>(.*?)</script>', page, re.S)
kernel = json.loads(ask("/api/kernels", b'{"path": "tensorflow-course"}'))["id"]
client = BlockingKernelClient(connection_file=f"/dev/shm/jupyter/kernel-{kernel}.json")
client.load_connection_file()
client.start_channels()
for _ in range(30):  # until the kernel listens, the client takes it for dead
    time.sleep(1)
    with contextlib.suppress(RuntimeError):
        client.wait_for_ready(timeout=60)
        break
client.execute_interactive(sys.argv[1] + "\nprint(6 * 7)", timeout=60)
found = json.loads(ask("/api/contents/?content=1"))["content"]
lesson = "tensorflow-course/00_start_here.ipynb"
if os.path.isfile(f"/home/jovyan/{lesson}") and "tensorflow-course" in [f["name"] for f in found]:
    ask(f"/api/contents/{lesson}")
print(json.dumps(json.loads(settings)["courseNotices"]))
"""

CASES = {
    "settings that raise": (SETTINGS.format("1 / 0", OURS), ["jupyter_server_config.py."]),
    "settings that end": (SETTINGS.format("raise SystemExit", OURS), ["in ~/.jupyter, so they"]),
    "settings of a wrong type": (
        SETTINGS.format("c.ServerApp.port = 'x'", OURS),
        ["jupyter_server_config.py."],
    ),
    "settings for a folder that is not there": (
        SETTINGS.format("c.ServerApp.root_dir = '/nowhere'", OURS),
        ["jupyter_server_config.py."],
    ),
    "settings that nobody may read": (
        SETTINGS.format("", "chmod 0 .jupyter/*; chown 1000 .jupyter"),
        ["jupyter_server_config.py."],
    ),
    "settings that are right": (SETTINGS.format("c.ServerApp.log_level = 10", OURS), []),
    "settings that are not JSON": (
        "mkdir .jupyter; echo '{' >.jupyter/jupyter_server_config.json" + OURS,
        ["jupyter_server_config.json."],
    ),
    "a page's settings that are no object": (
        "mkdir -p .jupyter/labconfig; echo '[1]' >.jupyter/labconfig/page_config.json" + OURS,
        ["labconfig/page_config.json."],
    ),
    "settings for a page that is not there": (
        SETTINGS.format("c.LabApp.app_dir = '/nowhere'", OURS),
        ["jupyter_server_config.py."],
    ),
    "settings without the course's kernel": (
        SETTINGS.format("c.KernelSpecManager.allowed_kernelspecs = {'x'}", OURS),
        ["jupyter_server_config.py."],
    ),
    "settings with which no kernel starts": (
        SETTINGS.format("c.KernelManager.ip = '8.8.8.8'", OURS),
        ["jupyter_server_config.py."],
    ),
    "settings without JupyterLab's schemas": (
        SETTINGS.format("c.LabApp.schemas_dir = '/nowhere'", OURS),
        ["jupyter_server_config.py."],
    ),
    "overrides that are no object": (
        "mkdir -p .jupyter/labconfig; echo [1] >.jupyter/labconfig/default_setting_overrides.json"
        + OURS,
        ["labconfig/default_setting_overrides.json."],
    ),
    "root's settings": ("mkdir .jupyter", ["write to ~/.jupyter,"]),
    "a pipe where Jupyter notes something": ("mkdir .jupyter; mkfifo .jupyter/migrated" + OURS, []),
    "a folder where Jupyter notes something": ("mkdir -p .jupyter/migrated" + OURS, []),
    "JupyterLab's settings, cut off": (
        STATE.format("user-settings", THEMES, 'echo \'{"theme": "Jup\' >'),
        [f"cannot read ~/.jupyter/lab/user-settings/{THEMES}, so ~/.jupyter/lab/user-settings is"],
    ),
    "JupyterLab's settings, no object": (
        STATE.format("user-settings", THEMES, "echo 5 >"),
        [f"cannot read ~/.jupyter/lab/user-settings/{THEMES}"],
    ),
    "JupyterLab's settings, a pipe": (
        STATE.format("user-settings", THEMES, "mkfifo"),
        [f"cannot read ~/.jupyter/lab/user-settings/{THEMES}"],
    ),
    "JupyterLab's settings, root's": (
        STATE.format("user-settings", THEMES, "install -m 600 /dev/null")
        + f"; chown root .jupyter/lab/user-settings/{THEMES}",
        [f"cannot read ~/.jupyter/lab/user-settings/{THEMES}"],
    ),
    "JupyterLab's settings, right": (
        STATE.format(
            "user-settings", THEMES, 'echo \'{ // Theme\n "theme": "JupyterLab Dark", }\' >'
        )
        + "; touch .jupyter/lab/user-settings/x.jupyterlab-settings",
        [],
    ),
    "a workspace, cut off": (
        STATE.format("workspaces", WORKSPACE, "echo '{\"data\": {' >"),
        [f"cannot read ~/.jupyter/lab/workspaces/{WORKSPACE}, so ~/.jupyter/lab/workspaces is"],
    ),
    "workspaces and settings, all of them pipes": (
        STATE.format("workspaces", WORKSPACE, "mkfifo")
        + "\n"
        + STATE.format("user-settings", THEMES, "mkfifo"),
        [f"cannot read ~/.jupyter/lab/{name}" for name in ("workspaces/", "user-settings/")],
    ),
    "a workspace, right": (
        STATE.format(
            "workspaces", WORKSPACE, 'echo \'{"data": {}, "metadata": {"id": "default"}}\' >'
        ),
        [],
    ),
    "settings that are a file": ("touch .jupyter" + OURS, ["It is not a folder: rename it"]),
    "a link to nowhere": ("ln -s nowhere .local" + OURS, ["write to ~/.local,"]),
    "root's data": ("mkdir .local", ["write to ~/.local, so", "belongs to another user"]),
    "data without permission": (
        DATA.format("") + OURS + "; chmod 500 .local/share/jupyter",
        ["run `chmod u+rwx ~/.local/share/jupyter`"],
    ),
    "root's key": (
        DATA.format("") + OURS + "; cd .local/share/jupyter; touch notebook_secret; chmod 600 *",
        ["notebook_secret, so ~/.local/share/jupyter is left out"],
    ),
    "an extension that is broken": (
        DATA.format("labextensions/x")
        + "; echo { >.local/share/jupyter/labextensions/x/package.json"
        + OURS,
        ["labextensions, so ~/.local/share/jupyter is left out"],
    ),
    "a kernel with the name of the course's": (
        DATA.format("kernels/python3")
        + '; cd .local/share/jupyter/kernels/python3; echo \'{"argv": ["no"]}\' >kernel.json'
        + OURS,
        [],
    ),
    "kernels without permission": (
        DATA.format("kernels/mine") + OURS + "; chmod 0 .local/share/jupyter/kernels",
        ["chmod u+rwx ~/.local/share/jupyter/kernels`"],
    ),
    "root's kernels": (
        DATA.format("kernels")
        + OURS
        + "; cd .local/share/jupyter; chown root kernels; chmod 700 *",
        ["~/.local/share/jupyter/kernels, so", "belongs to another user"],
    ),
    "IPython's kernels without permission": (
        "mkdir -p .ipython/kernels" + OURS + "; chmod 0 .ipython/kernels",
        ["chmod u+rwx ~/.ipython/kernels`"],
    ),
    "usercustomize": (PACKAGES.format("raise SystemExit", "usercustomize.py"), ["~/.local/lib,"]),
    "pth": (PACKAGES.format("import os; os._exit(0)", "x.pth"), ["~/.local/lib,"]),
    "usercustomize that puts broken packages first": (
        PACKAGES.format("import sys; sys.path.insert(0, '/home/jovyan/mylibs')", "usercustomize.py")
        + "; mkdir mylibs; echo raise ImportError | tee mylibs/zmq.py >mylibs/typing.py",
        ["~/.local/lib, so that is left out"],
    ),
    "packages that are right": (PACKAGES.format("x = 1", "usercustomize.py"), []),
    "packages that start and print something": (
        PACKAGES.format(
            "import atexit, os, subprocess; subprocess.Popen(['sleep', '99']); "
            "atexit.register(print, 'Bye.'); os.write(1, b'x' * 1_000_000)",
            "usercustomize.py",
        ),
        [],
    ),
    "root's IPython": ("mkdir .ipython", ["write to ~/.ipython,"]),
    "IPython's profile is a file": (
        "mkdir .ipython; touch .ipython/profile_default" + OURS,
        ["write to ~/.ipython/profile_default,", "It is not a folder: rename it"],
    ),
    "IPython's profile without permission": (
        "mkdir -p .ipython/profile_default/startup" + OURS + "; chmod 0 .ipython/profile_default",
        ["chmod u+rwx ~/.ipython/profile_default`"],
    ),
    "root's profile of IPython": (
        "mkdir -p .ipython/profile_default" + OURS + "; chown root .ipython/profile_default",
        ["~/.ipython/profile_default, so", "belongs to another user"],
    ),
    "packages and a program that both end kernels": (
        PACKAGES.format("raise SystemExit", "usercustomize.py")
        + "\n"
        + IPYTHON.format("import os; os._exit(0)", "startup/mine.py"),
        ["~/.local/lib, so that is left out", "in ~/.ipython, so they are left out"],
    ),
    "a program that ends kernels": (
        IPYTHON.format("import os; os._exit(0)", "startup/mine.py"),
        ["in ~/.ipython, so they are left out", "startup/mine.py."],
    ),
    "programs that start and print something": (
        IPYTHON.format(
            "import atexit, os; os.system('sleep 99 &'); atexit.register(print, 'Bye.')",
            "startup/mine.py",
        ),
        [],
    ),
    "IPython's settings of a wrong type": (
        IPYTHON.format("c.IPKernelApp.hb_port = 'x'", "ipython_kernel_config.py"),
        ["ipython_kernel_config.py."],
    ),
    "names of Python's own": (
        "mkdir tensorflow-course; for name in json random os re types operator glob enum; do "
        "for d in . tensorflow-course; do echo raise SystemExit >$d/$name.py; done; done" + OURS,
        [],
    ),
    "a module beside the notebook": (
        "mkdir tensorflow-course; echo answer = 42 >tensorflow-course/helper.py" + OURS,
        [],
    ),
    "a history that is damaged": (
        DAMAGED.format(".ipython/profile_default", "history.sqlite") + OURS,
        ["Your command history was damaged, so a new one was started"],
    ),
    "a history that is damaged and cannot be renamed": (
        DAMAGED.format(".ipython/profile_default", "history.sqlite")
        + "mkdir -p .ipython/profile_default/history.sqlite.damaged/x"
        + OURS,
        ["Your command history is damaged, so ~/.ipython is left out"],
    ),
    "a history that is empty": (
        "mkdir -p .ipython/profile_default; touch .ipython/profile_default/history.sqlite" + OURS,
        [],
    ),
    "signatures that are damaged": (
        DAMAGED.format(".local/share/jupyter", "nbsignatures.db") + OURS,
        [],
    ),
    "a style in another encoding": (
        r"mkdir -p .config/matplotlib/stylelib; printf '# gr\366\337er\n' "
        ">.config/matplotlib/stylelib/mine.mplstyle" + OURS,
        ["cannot read ~/.config/matplotlib/stylelib/mine.mplstyle, so your settings in ~/.config"],
    ),
    "Matplotlib's settings, right": (
        "mkdir -p .config/matplotlib; echo 'axes.titlesize: 5  # größer' "
        ">.config/matplotlib/matplotlibrc" + OURS,
        [],
    ),
    "a shell that ends": ("echo exit 1 | tee .bashrc >.profile" + OURS, []),
    "lessons that are a file": ("touch tensorflow-course" + OURS, ["lessons are not up to date"]),
    "root's lessons": ("mkdir tensorflow-course", ["files belong to somebody else"]),
    "root's home": ("chown root .; chmod 755 .", ["write to ~,", "lessons are not up to date"]),
}


# Case -> a cell that has to work.
CELLS = {
    "a module beside the notebook": "import helper\nassert helper.answer == 42",
    "a style in another encoding": "import matplotlib.pyplot",
    "Matplotlib's settings, right": "import matplotlib.pyplot",
    "names of Python's own": "import glob, types\nassert glob.glob and types.FunctionType",
}


@pytest.fixture
def start_in(start, image):
    """Return a function that runs a script in the home directory and then starts a server."""

    def start_in(script: str, seconds: float = 90, **options) -> Container:
        options = {"user": "root", "entrypoint": ["tini", "--"], "cap_drop": [], **options}
        container = start(image("cpu"), "sh", "-c", START.format(script=script), **options)
        deadline = time.monotonic() + seconds
        while container.exec_run("check-server").exit_code:
            assert time.monotonic() < deadline, container.logs().decode()
            time.sleep(0.5)
        return container

    return start_in


def look(container: Container, cell: str = "") -> list[str]:
    """Return the notices; fail unless JupyterLab's page, its API and a kernel work.

    A server whose settings break its pages or kernels responds briefly before it is replaced.
    """
    deadline = time.monotonic() + 60
    while True:
        looked = container.exec_run(["python", "-sPc", LOOK, cell], user="jovyan", workdir="/")
        if looked.exit_code == 0 or time.monotonic() > deadline:
            break
        time.sleep(2)
    said = looked.output.decode()
    assert looked.exit_code == 0, said + container.logs().decode()
    assert "42\n" in said
    return json.loads(said.splitlines()[-1])


@pytest.mark.parametrize("case", CASES)
def test_a_server_starts_in_a_broken_home(start_in, case):
    script, expected = CASES[case]
    notices = look(start_in(script), CELLS.get(case, ""))
    assert all(any(text in notice for notice in notices) for text in expected), notices
    assert bool(notices) == bool(expected), notices


@pytest.mark.parametrize(("load", "seconds"), [(0.5, 15), (4, 30), (80, 45)])
def test_a_busy_machine_is_not_taken_for_a_broken_home(monkeypatch, load, seconds):
    """Forty learners may start at once, and then each test of a home takes longer."""
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0, 0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert runpy.run_path(str(ROOT / "docker" / "start-course"))["LIMIT"] == seconds


def test_a_server_does_not_wait_long_for_what_never_ends(start_in):
    loop = "while True: pass"
    many = "; for i in 1 2 3 4 5 6 7 8; do cp .jupyter/*r_config.py .jupyter/a${i}_config.py; done"
    script = (
        f"{SETTINGS.format(loop, OURS)}{many}\n"
        "extension=.local/share/jupyter/labextensions/x\n"
        "mkdir -p $extension; mkfifo $extension/package.json\n"
        f"{IPYTHON.format(loop, 'startup/mine.py')}\n"
        f"{PACKAGES.format(loop, 'usercustomize.py')}"
    )
    notices = look(start_in(script, seconds=80))  # the hub waits for 120 seconds
    assert len(notices) == 4


def test_a_server_that_its_settings_end_later_starts_without_them(start_in):
    timer = "import os, threading; threading.Timer(20, os._exit, [0]).start()"
    script = SETTINGS.format(f"import sys\nif 'jupyter_server' in sys.modules: {timer}", OURS)
    container = start_in(script)
    assert look(container) == []
    time.sleep(20)
    (notice,) = look(container)
    assert "does not work with your settings in ~/.jupyter" in notice


def test_a_notice_can_be_followed_without_a_terminal(start_in):
    """A terminal closes immediately if the learner's .bashrc exits the shell."""
    shell = "echo exit 1 | tee .bashrc >.profile; mkdir .jupyter" + OURS + "; chmod 500 .jupyter"
    container = start_in(shell)
    (notice,) = look(container, "!chmod u+rwx ~/.jupyter")
    assert "in a notebook with `!` before each command, run `chmod u+rwx ~/.jupyter`" in notice
    assert container.exec_run(["stat", "--format=%a", "/home/jovyan/.jupyter"]).output == b"700\n"


# The two constants are FS_IOC_SETFLAGS and FS_IMMUTABLE_FL from linux/fs.h.
LOCK = """
import fcntl, os, struct
fcntl.ioctl(os.open(".jupyter", os.O_RDONLY), 0x40086602, struct.pack("l", 0x10))
"""


def test_nobody_is_told_to_change_permissions_that_are_right(start_in):
    """Only root can change a folder that is locked with `chattr +i`."""
    script = f"mkdir .jupyter{OURS}; python3 -c '{LOCK}'"
    # The home directory is a tmpfs, because not every file system can lock a folder.
    tmpfs = {"/home/jovyan": "mode=777", "/tmp": "mode=1777,exec"}
    options = {"cap_add": ["LINUX_IMMUTABLE"], "tmpfs": tmpfs, "volumes": []}
    (notice,) = look(start_in(script, **options))
    assert "write to ~/.jupyter," in notice
    assert "locked: tell your instructor" in notice
    assert "chmod" not in notice


def test_a_server_with_settings_of_its_own_ends_when_it_is_told_to(start_in):
    container = start_in(SETTINGS.format("c.ServerApp.log_level = 10", OURS))
    container.stop(timeout=30)
    assert container.wait()["StatusCode"] == 0  # Docker did not have to kill it
