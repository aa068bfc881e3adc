"""Test which files the learners' images contain and omit, and whether the images work."""

from __future__ import annotations

import json
import re
import subprocess
import time

import pytest
from hubs import IMAGE
from packaging.requirements import Requirement

from tfcourse.hub.operations import __main__ as operations
from tfcourse.hub.state import ROOT

MEMORY = 6 * 2**30  # bytes; enough to load all CUDA libraries together

# Load all shared libraries of the packages that `tensorflow[and-cuda]` requires. Also list the
# folders in the RUNPATH of TensorFlow's libraries, in which TensorFlow looks for other libraries at
# run time.
LIBRARIES = r"""
import ctypes, importlib.metadata, json, pathlib, re, subprocess
from packaging.requirements import Requirement
wanted = [Requirement(line) for line in importlib.metadata.requires("tensorflow")]
wanted = [r.name for r in wanted if r.marker and r.marker.evaluate({"extra": "and-cuda"})]
loaded, failed, folders = [], {}, set()
for package in wanted:
    for path in importlib.metadata.files(package):
        if ".so" in path.name:
            folders.add(path.parts[1])
            try:
                ctypes.CDLL(str(path.locate()))
                loaded.append(path.name)
            except OSError as error:
                failed[path.name] = str(error)
root = pathlib.Path(importlib.metadata.distribution("tensorflow").locate_file("tensorflow"))
searched = {
    name.decode()
    for path in root.glob("libtensorflow*.so.2")
    for name in re.findall(rb"\$ORIGIN/\.\./nvidia/(\w+)/lib", path.read_bytes())
}
ptxas = root.parent / "nvidia/cuda_nvcc/bin/ptxas"  # XLA compiles with it
release = subprocess.run([ptxas, "--version"], capture_output=True, text=True).stdout
print(json.dumps([wanted, loaded, failed, sorted(folders), sorted(searched), release]))
"""


@pytest.mark.timeout(900)
def test_every_cuda_library_of_tensorflows_is_there_and_loads(run, image):
    said = run(image("gpu"), "python", "-c", LIBRARIES, mem_limit=MEMORY)
    wanted, loaded, failed, folders, searched, release = json.loads(said)
    assert len(wanted) >= 12
    names = {name.split(".so")[0] for name in loaded}
    assert names >= {
        "libcublas", "libcublasLt", "libcudart", "libcudnn", "libcufft", "libcupti", "libcurand",
        "libcusolver", "libcusparse", "libnccl", "libnvJitLink", "libnvrtc",
    }  # fmt: skip
    # Only the GPU driver may be missing, because the host provides it.
    assert all(reason.startswith("libcuda.so.1: ") for reason in failed.values()), failed
    assert len(failed) <= 1
    assert set(searched) >= {
        "cublas", "cuda_cupti", "cuda_runtime", "cudnn", "cufft", "cusolver", "cusparse", "nccl",
    }  # fmt: skip
    assert set(searched) - set(folders) <= {"nvshmem"}  # needed only for training on multiple hosts
    assert "release 12." in release


INSTALLED = """
import importlib.metadata, json
from packaging.markers import default_environment
versions = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
print(json.dumps([default_environment(), versions]))
"""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_versions_are_those_of_the_lock(run, learner_image):
    environment, versions = json.loads(run(learner_image, "python", "-c", INSTALLED))
    lock = (ROOT / "requirements" / f"{learner_image.split(':')[1]}.txt").read_text()
    pinned = {}
    for line in re.findall(r"^\S+==.*?(?= \\$)", lock, re.M):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (version,) = requirement.specifier
            pinned[canonical(requirement.name)] = version.version
    assert len(pinned) > 100
    assert {canonical(name): version for name, version in versions.items()} == pinned


@pytest.mark.parametrize("kind", ["cpu", "gpu", "hub"])
def test_starting_jupyter_does_not_load_a_grammar(run, image, kind):
    program = "import jupyterhub.app, sys; print('lark' in sys.modules)"
    assert run(image(kind), "python", "-c", program) == "False\n"


def test_a_servers_start_loads_nothing_of_the_hub(run, learner_image):
    program = "python -X importtime $(command -v jupyterhub-singleuser) --version 2>&1"
    said = run(learner_image, "bash", "-c", program)
    assert "jupyterhub.singleuser.extension" in said
    assert not re.findall(r"sqlalchemy|alembic|jupyterhub\.orm|jupyterhub\.handlers", said)


def test_the_learner_is_nobody_special(run, learner_image):
    def found(*conditions: str) -> set[str]:
        # Discard find's errors about folders that the learner cannot read.
        search = f"find / -xdev {' '.join(conditions)} -print 2>/dev/null; true"
        command = ("sh", "-c", search)
        return set(run(learner_image, *command, entrypoint=[], read_only=False).split())

    assert run(learner_image, "id").startswith("uid=1000(jovyan) gid=1000(jovyan) groups=1000(")
    assert not found("-perm /6000")
    assert not found("! -type l", "-perm -o=w", "! -perm -1000", "! -path '/proc/*'")
    # The learner can write only to the home directory, Keras' folder and the temporary folders.
    writable = found("-writable", "! -type l", "! -path '/proc/*'", "-prune")
    assert writable == {"/home/jovyan", "/opt/keras", "/run/lock", "/tmp", "/var/tmp"}
    owned_by_others = "find ~ /opt/keras ! -user jovyan"
    assert run(learner_image, "sh", "-c", owned_by_others) == ""


def test_nothing_is_left_of_the_build(run, learner_image):
    for program in ("gcc", "cc", "make", "uv", "npm", "node"):
        assert run(learner_image, "sh", "-c", f"command -v {program} || echo none") == "none\n"
    caches = "find / -xdev -path '*/.cache/*' -o -path '/var/lib/apt/lists/?*' 2>/dev/null; true"
    assert run(learner_image, "sh", "-c", caches, entrypoint=[]) == ""
    assert run(learner_image, "sh", "-c", "ls -A /mnt /media", entrypoint=[]).split() == [
        "/media:",
        "/mnt:",
    ]
    compiled = "cd /opt/course/lib/python3*/site-packages; ls keras/__pycache__ | wc -l"
    assert int(run(learner_image, "sh", "-c", compiled)) > 0


def test_labels_say_what_it_is(engine, learner_image):
    labels = engine.images.get(learner_image).labels
    label = {name.removeprefix("org.opencontainers.image."): labels[name] for name in labels}
    assert "TensorFlow course" in label["title"]
    assert label["licenses"] == "BSD-3-Clause AND CC-BY-4.0"
    assert f'"{label["version"]}"' in (ROOT / "tfcourse" / "__init__.py").read_text()
    assert re.fullmatch("[0-9a-f]{40}", label["revision"])


def test_solutions_are_not_inside(run, learner_image):
    solved = "grep -rl 'BEGIN SOLUTION' ~ /opt/course/share || true"
    assert run(learner_image, "sh", "-c", solved) == ""
    names = run(learner_image, "sh", "-c", "cd /opt/course/share/lessons; find").split()
    assert "./exercises/05_loss.ipynb" in names
    assert not [name for name in names if "solutions" in name]


def test_the_learners_work_outlives_the_container(home, run, learner_image):
    volumes = {home.name: {"bind": "/home/jovyan", "mode": "rw"}}
    work = "echo mine | tee ~/mine ~/tensorflow-course/05_loss.ipynb; rm ~/tensorflow-course/06*"
    run(learner_image, "sh", "-c", work, volumes=volumes)
    look = "cat ~/mine ~/tensorflow-course/05_loss.ipynb; ls ~/tensorflow-course/06*"
    found = run(learner_image, "sh", "-c", look, volumes=volumes).split()
    assert found == ["mine", "mine", "/home/jovyan/tensorflow-course/06_compile_and_fit.ipynb"]


def test_it_serves_jupyterlab_by_itself_and_complains_of_nothing(start, learner_image):
    container = start(
        learner_image,
        healthcheck={"test": ["CMD", "check-server"], "interval": 10**9, "retries": 30},
    )
    deadline = time.monotonic() + 60
    while container.attrs["State"].get("Health", {}).get("Status") != "healthy":
        assert time.monotonic() < deadline, container.logs().decode()
        time.sleep(0.5)
        container.reload()
    container.stop()
    log = container.logs().decode()
    assert "http://" in log  # the address to open
    # Log lines start with the level: [W for a warning, [E for an error, and [C for the line with
    # the server's URL, as in [W 2026-11-22 ...].
    assert not re.findall(r"^(?:\[[WE] |.*(?:[Ww]arning|Traceback)).*", log, re.M)


# Run a server, request its largest script with and without compression, and print the headers.
SCRIPTS = r"""
import gzip, pathlib, subprocess, time, urllib.request
command = ["jupyter-lab", "--no-browser", "--port=8000", "--IdentityProvider.token="]
server = subprocess.Popen(command)
scripts = pathlib.Path("/opt/course/share/jupyter/lab/static").glob("*.js")
script = max(scripts, key=lambda path: path.stat().st_size)
url = f"http://localhost:8000/static/lab/{script.name}"
def get(accepted, **headers):
    request = urllib.request.Request(url, headers={"Accept-Encoding": accepted, **headers})
    with urllib.request.urlopen(request) as response:
        return response.read(), response.headers
deadline = time.monotonic() + 60
while True:
    try:
        sent, headers = get("gzip, br")
        break
    except OSError:
        assert time.monotonic() < deadline
        time.sleep(0.5)
assert sent == pathlib.Path(f"{script}.gz").read_bytes()
assert gzip.decompress(sent) == script.read_bytes()
assert headers["Content-Encoding"] == "gzip", headers
assert headers["Content-Type"] == "application/javascript", headers
assert "Accept-Encoding" in headers["Vary"], headers
assert get("identity")[0] == script.read_bytes()
part, headers = get("gzip", Range="bytes=10-19")
assert part == script.read_bytes()[10:20] and "Content-Encoding" not in headers
try:
    get("gzip", **{"If-Modified-Since": headers["Last-Modified"]})
except urllib.error.HTTPError as error:
    assert error.code == 304
else:
    raise AssertionError("the script was sent again")
# The compressed copy in a learner's own extension does not match its script.
own = pathlib.Path.home() / ".local/share/jupyter/labextensions/own/static"
own.mkdir(parents=True)
(own / "own.js").write_text("own" * 1000)
pathlib.Path(own / "own.js.gz").write_bytes(gzip.compress(b"forged"))
url = "http://localhost:8000/lab/extensions/own/static/own.js"
sent, headers = get("gzip")
assert gzip.decompress(sent) == b"own" * 1000, sent
server.terminate()
"""


def test_a_server_sends_the_compressed_copies_of_scripts(run, learner_image):
    run(learner_image, "python", "-c", SCRIPTS)


def test_the_health_check_fails_where_nothing_answers(start, learner_image):
    container = start(learner_image, "sleep", "60")
    assert container.exec_run("check-server").exit_code == 1


def test_a_lesson_can_be_exported(run, learner_image):
    export = "jupyter nbconvert --to html --stdout ~/tensorflow-course/05_loss.ipynb"
    assert "<title>05_loss</title>" in run(learner_image, "sh", "-c", export)


def test_data_are_verified_and_need_no_network(run, learner_image):
    run_it = "python -m tfcourse.datasets"
    verify = f"cd /srv/clone; {run_it} --help; {run_it}"
    said = run(learner_image, "sh", "-c", verify)
    assert "verified in /dev/shm/keras/datasets" in said
    assert "verified in /opt/keras/datasets" in run(
        learner_image, "sh", "-c", verify, read_only=False
    )


WRITE = """
import keras, matplotlib.pyplot, numpy, tensorflow as tf
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
model.compile("sgd", "mse", jit_compile=True)
x = numpy.zeros((64, 8))
after = [keras.callbacks.ModelCheckpoint("/tmp/best.keras"), keras.callbacks.BackupAndRestore("b")]
model.fit(x, x[:, :4], verbose=0, callbacks=after)
list(tf.data.Dataset.range(10).cache("/tmp/cache"))
tf.summary.create_file_writer("logs")
matplotlib.pyplot.savefig("/tmp/a.png")
print(keras.utils.get_file("own.txt", origin="file:///etc/passwd"))
"""


def test_what_a_learner_does_needs_only_the_home_and_memory(run, learner_image):
    assert "/dev/shm/keras/datasets/own.txt" in run(learner_image, "python", "-c", WRITE)
    shell = "cp /bin/true /tmp/mine; /tmp/mine && python -m venv --without-pip ~/venv"
    run(learner_image, "sh", "-ec", shell)


def test_a_hub_that_is_not_ours_gets_its_own_jupyterhub_inside(run, image):
    """`--build-arg JUPYTERHUB` must change JupyterHub's version, but not TensorFlow's."""
    older = image("cpu", f"{IMAGE}-older", "--build-arg JUPYTERHUB=5.5.0")
    version = "import jupyterhub, tensorflow; print(jupyterhub.__version__, tensorflow.__version__)"
    assert "5.5.0 2.21.0" in run(older, "python", "-c", version)


def test_the_hubs_image_is_what_the_chart_expects(run, image):
    """The hub's image uses /srv/jupyterhub as its working directory and contains our settings."""
    chart = """
c.JupyterHub.authenticator_class = "dummy"
c.KubeSpawner.profile_list = [{"slug": "tensorflow-cpu"}]
import glob
for path in glob.glob("/usr/local/etc/jupyterhub/jupyterhub_config.d/*.py"):
    exec(open(path).read())
"""
    command = "import pycurl, psycopg2; open('jupyterhub.sqlite', 'x')"
    assert run(image("hub"), "python", "-c", command, read_only=False) == ""
    assert run(image("hub"), "pwd") == "/srv/jupyterhub\n"
    write = f"cat > /tmp/chart.py <<'END'\n{chart}END\n"
    show = "jupyterhub --config /tmp/chart.py --show-config"
    said = run(image("hub"), "sh", "-c", write + show, read_only=False)
    assert "CourseAuthenticator" in said
    assert "PodSpawner" in said


def test_make_images_gets_debians_fixes_and_make_up_keeps_them(engine, image, monkeypatch):
    commands = subprocess.run(
        ["make", "--dry-run", "images", "KINDS=hub"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    assert re.search(r"pull --quiet debian:[a-z]+-slim", commands)
    assert re.search(r"--build-arg UPDATED=20\d\d-W\d\d ", commands)

    made = engine.images.get(image("hub")).labels["tensorflow-course.updated"]
    monkeypatch.setenv("COURSE_IMAGE", IMAGE)
    assert operations.updated() == made
    monkeypatch.setenv("COURSE_IMAGE", "course-absent")
    assert operations.updated() == ""
    monkeypatch.delenv("COURSE_IMAGE")
    ran = []
    monkeypatch.setattr(operations, "updated", lambda: "2026-W01")
    monkeypatch.setattr(
        operations.subprocess, "run", lambda command, **_: ran.append(command) or Done
    )
    operations.build()
    assert ran[0][-2:] == ["PULL=", "UPDATED=2026-W01"]


class Done:
    returncode = 0
