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
import pytest
from cluster import Cluster, write_kubeconfig
from hubs import ROOT
from postgres import Postgres

GUIDE = (ROOT / "docs" / "kubernetes.md").read_text()
BLOCKS = [
    block
    for block in re.findall(r"^```sh\n(.*?)^```", GUIDE, re.M | re.S)
    if "kubectl" in block or "helm" in block
] + re.findall(r"`(kubectl -{0,2}\w[^`]+)`", GUIDE)

# What is there before a command that does not make it itself.
THERE = (
    "Namespace course",
    "Secret course-hub",
    "Secret hub",
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

# Runs a block. What needs a container, a registry or the chart is only given to the program. What
# makes something is made in two steps: the first would send it in a form that the stand-in cannot
# read, and `run` would wait for the container.
SHELL = r"""
set -eu
make() { :; }
docker() { :; }
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
        made = rf"create {kind} (generic )?{name}\b"
        made += {"course-hub": "|hub.yaml", "course-recover": "|recover.yaml"}.get(name, "")
        if re.search(made, block, re.I) and f"delete {kind.lower()} {name}" not in block:
            continue
        cluster.add(kind, {"metadata": {"name": name}, "spec": {"replicas": 1, "template": {}}})


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("#")[0].strip()[:60])
def test_a_step_of_the_guide_does_and_prints_what_it_says(block, cluster, tmp_path):
    prepare(cluster, block)
    write_kubeconfig(tmp_path / "kubeconfig", cluster.url)
    (tmp_path / "kubernetes").symlink_to(ROOT / "kubernetes")
    certificate = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=hub"]
    certificate += ["-keyout", "key.pem", "-out", "certificate.pem"]
    subprocess.run(certificate, cwd=tmp_path, check=True, capture_output=True)
    for name in ("secret.yaml", "jupyterhub.sqlite", "password.txt", "secret.txt"):
        (tmp_path / name).touch()
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "claim-ada"}}
    (tmp_path / "claim-ada.yaml").write_text(json.dumps(claim))
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text('{"auths": {}}')
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
    for line in re.findall(r"# (\S+/\S+ \w+ed|\S+ \"\S+\" deleted.*)$", block, re.M):
        assert line in run.stdout
    # What was made for the test was not made by `apply`, which says so.
    warnings = [line for line in run.stderr.splitlines() if "arning" in line]
    assert not [line for line in warnings if "last-applied-configuration" not in line]


def test_the_pod_that_restores_the_database_has_only_fields_that_there_are():
    """Other fields `kubectl run` leaves out, and says nothing."""
    (found,) = re.findall(r"--overrides '(.*?)'", GUIDE, re.S)
    pod = {"apiVersion": "v1", "kind": "Pod", **json.loads(found)}
    kubernetes_validate.validate(pod, "1.37", strict=True)


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
