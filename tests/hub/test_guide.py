"""The commands of the guide for clusters, run by the real kubectl and Helm as they stand there.

The cluster is the stand-in of tests/cluster.py. It has no containers: what would run in one ends
there, and what is looked at then is that the program has understood the command.
"""

import json
import os
import re
import shutil
import subprocess

import kubernetes_validate
import pods
import pytest
import yaml
from cluster import Cluster, write_kubeconfig
from hubs import ROOT
from postgres import Postgres

from tfcourse.hub import settings
from tfcourse.hub.operations import values
from tfcourse.hub.spawners import pods as our_pods

GUIDE = (ROOT / "docs" / "kubernetes.md").read_text()
BLOCKS = [
    block
    for block in re.findall(r"^```sh\n(.*?)^```", GUIDE, re.M | re.S)
    if "kubectl" in block or "helm" in block
] + re.findall(r"`(kubectl -{0,2}\w[^`]+)`", GUIDE)

# What is there before a command that does not make it itself. What the chart makes is called as its
# documentation has it.
THERE = (
    "Namespace course",
    "Secret course-hub",
    "Secret course-registry",
    "Secret hub",
    "Secret hub-tls",
    "ServiceAccount default",
    "ServiceAccount course-hub",
    "StatefulSet user-placeholder",
    "Deployment hub",
    "Deployment course-hub",
    "Job course-recover",
    "Node NODE",
    "Node NAME",
    "Pod jupyter-ada",
    "PersistentVolumeClaim claim-ada",
)

LABELS = {"Pod": {"component": "singleuser-server"}}

# Runs a block. What needs a container, a registry or the chart is only given to the program. What
# makes something is made in two steps: the first would send it in a form that the stand-in cannot
# read, and `run` would wait for the container.
SHELL = r"""
set -eu
make() { :; }
made() {
    local arguments=()
    for argument; do
        case "$argument" in --rm | --stdin) ;; *) arguments+=("$argument") ;; esac
    done
    "$KUBECTL" "${arguments[@]}" --dry-run=client --output yaml >made.yaml
    "$KUBECTL" --namespace course create --filename made.yaml
}
understood() {
    local no="$1"
    shift
    ! "$@" </dev/null >said 2>&1 || return 0
    if grep -iE "unknown|usage|invalid|requires$no" said; then return 1; fi
}
kubectl() {
    case " $* " in
        *" --dry-run"*) "$KUBECTL" "$@" ;;
        *" exec "* | *" logs "*) understood "|not found" "$KUBECTL" "$@" ;;
        *" create "* | *" run "*) made "$@" ;;
        *) "$KUBECTL" "$@" ;;
    esac
}
helm() {
    [ -z "$HELM" ] || understood "" "$HELM" "$@"
}
"""


@pytest.fixture
def cluster(tmp_path):
    cluster = Cluster(tmp_path)
    cluster.has_room = False
    cluster.start()
    yield cluster
    cluster.stop()


def prepare(cluster: Cluster, block: str) -> None:
    """Make what a block takes for granted."""
    for kind, name in map(str.split, THERE):
        made = rf"create {kind} ([a-z-]+ )?{name}\b"
        made += {"course-hub": "|hub.yaml", "course-recover": "|recover.yaml"}.get(name, "")
        is_there = f"delete {kind.lower()} {name}" in block or "replace --filename" in block
        if re.search(made, block, re.I) and not is_there:
            continue
        metadata = {"name": name, "labels": LABELS.get(kind, {})}
        spec = {"replicas": 1, "template": {}, "nodeName": "NODE"}
        cluster.add(kind, {"metadata": metadata, "spec": spec})


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("#")[0].strip()[:60])
def test_a_step_of_the_guide_does_and_prints_what_it_says(block, cluster, tmp_path):
    prepare(cluster, block)
    write_kubeconfig(tmp_path / "kubeconfig", cluster.url)
    (tmp_path / "kubernetes").symlink_to(ROOT / "kubernetes")
    certificate = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=hub"]
    certificate += ["-keyout", "key.pem", "-out", "certificate.pem"]
    subprocess.run(certificate, cwd=tmp_path, check=True, capture_output=True)
    files = "secret.yaml secret.txt password.txt registry.txt jupyterhub.sqlite"
    for name in files.split():
        (tmp_path / name).touch()
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "claim-ada"}}
    (tmp_path / "claim-ada.yaml").write_text(json.dumps(claim))
    (tmp_path / "registry.json").write_text('{"auths": {}}')
    run = subprocess.run(
        ["bash", "-c", SHELL + block],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "KUBECONFIG": str(tmp_path / "kubeconfig"),
            "KUBECTL": shutil.which("kubectl"),
            "HELM": shutil.which("helm") or "",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    if "helm" in block and not shutil.which("helm"):
        pytest.skip("there is no helm on PATH: its commands in this block were not looked at")
    for line in re.findall(r"# (\S+/\S+ \w+ed|\S+ \"\S+\" (?:deleted|success).*)$", block, re.M):
        assert line in run.stdout
    # What was made for the test was not made by `apply`, which says so.
    warnings = [line for line in run.stderr.splitlines() if "arning" in line]
    assert not [line for line in warnings if "last-applied-configuration" not in line]


def test_the_guide_speaks_of_what_there_is():
    """A selector or a name that nothing has does nothing, and no command says so."""
    manifests = [*yaml.safe_load_all((ROOT / "kubernetes" / "hub.yaml").read_text())]
    (hub,) = [m["spec"]["template"] for m in manifests if m["kind"] == "Deployment"]
    own = {f"{key}={value}" for key, value in hub["metadata"]["labels"].items()}
    learners = {
        "component=singleuser-server",
        our_pods.HOMES,
    }  # KubeSpawner's: test_kubernetes.py
    charts = {"component=hub"}
    assert set(re.findall(r"--selector (\S+?)[\s`)]", GUIDE)) == own | learners | charts
    assert set(re.findall(r"--version (\S+)", GUIDE)) == {values.CHART}
    assert f"JupyterHub {values.CHART}" in (values.FOLDER / "values.yaml").read_text()
    settings.check_names("the guide", re.findall(r"\bCOURSE_\w+", GUIDE))


@pytest.fixture
def restore():
    """Return the pod that brings the chart's database back."""
    (found,) = re.findall(r"--overrides '(.*?)' <", GUIDE, re.S)
    return json.loads(re.sub(r"""'"\$\(.*?\)"'""", "SUM", found))["spec"]


def test_the_pod_that_restores_the_database_has_only_fields_that_there_are(restore):
    """Other fields `kubectl run` leaves out, and says nothing."""
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": restore}
    kubernetes_validate.validate(pod, "1.37", strict=True)
    assert pods.forbidden(restore) == []


@pytest.mark.parametrize(("arrived", "after"), [(b"the copy", b"the copy"), (b"the", b"as it was")])
def test_a_copy_that_does_not_arrive_as_a_whole_replaces_nothing(restore, tmp_path, arrived, after):
    """The pod's own command; a connection that breaks is for it the end of the copy."""
    (tmp_path / "jupyterhub.sqlite").write_bytes(b"as it was")
    command = [part.replace("/db/", f"{tmp_path}/") for part in restore["containers"][0]["command"]]
    (said,) = re.findall(r"""'"(\$\(.*? jupyterhub.sqlite\))"'""", GUIDE)
    (tmp_path / "copy").write_bytes(b"the copy")
    copy = f'echo "{said.replace("jupyterhub.sqlite", str(tmp_path / "copy"))}"'
    there = subprocess.run(["sh", "-c", copy], capture_output=True, text=True, check=True).stdout
    run = subprocess.run(command, input=arrived, env={"SUM": there.rstrip("\n")}, check=False)
    assert (run.returncode == 0) == (arrived == b"the copy")
    assert (tmp_path / "jupyterhub.sqlite").read_bytes() == after


def test_a_copy_of_postgresql_comes_back_into_what_a_newer_hub_has_added_to(engine):
    """By the guide's three commands, for a user who owns the database and nothing else."""
    commands = re.findall(r"\b((?:pg_dump|psql|pg_restore) [^`&]*hub\.?(?:dump| CASCADE'))", GUIDE)
    dump, *restore = [
        re.sub(r"postgresql://\S+", "postgresql://course:x@127.0.0.1:$PORT/course", command)
        for command in commands
    ]
    assert [command.split()[0] for command in (dump, *restore)] == ["pg_dump", "psql", "pg_restore"]
    server = Postgres(engine)
    try:
        server.start()
        server.run("""psql -c "CREATE ROLE course LOGIN PASSWORD 'x'" """)
        server.run('psql -c "CREATE DATABASE course OWNER course"')
        own = "psql postgresql://course:x@127.0.0.1:$PORT/course"
        server.run(f'{own} -c "CREATE TABLE users (name text PRIMARY KEY)"')
        server.run(f"{own} -c \"INSERT INTO users VALUES ('ada')\"")
        server.run(dump)
        server.run(f'{own} -c "CREATE TABLE shares (name text REFERENCES users)"')
        for command in restore:
            server.run(command.replace("BY hub", "BY course"))
        assert server.run(f'{own} -Atc "SELECT name FROM users"') == "ada\n"
        assert "shares" not in server.run(f"{own} -c '\\d'")
    finally:
        server.remove()
