"""Check that kubectl and Helm accept the commands in the Kubernetes guide.

These tests run without a cluster. A command that needs a cluster fails because it cannot connect;
the tests check that this is its only error.
"""

import json
import os
import re
import shutil
import subprocess

import kubernetes_validate
import pods
import pytest
from hubs import ROOT
from pods import write_kubeconfig
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

# This script runs a block of commands. If a command fails only because it cannot reach a cluster,
# the script treats it as successful.
SHELL = r"""
set -eu
make() { :; }
understood() {
    local nothing="refused|unreachable|cannot be reached|repo jupyterhub not found"
    if "$@" </dev/null >said 2>&1 || grep -qE "$nothing" said; then
        return 0
    fi
    cat said >&2
    return 1
}
kubectl() { understood "$KUBECTL" "$@"; }
helm() { understood "$HELM" "$@"; }
"""


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("#")[0].strip()[:60])
def test_a_step_of_the_guide_is_understood(block, tmp_path):
    write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:9")
    certificate = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=hub"]
    certificate += ["-keyout", "key.pem", "-out", "certificate.pem"]
    subprocess.run(certificate, cwd=tmp_path, check=True, capture_output=True)
    secrets = ["secret.yaml", "password.txt", "class-code.txt", "registry.txt"]
    for name in [*secrets, "jupyterhub.sqlite"]:
        (tmp_path / name).touch()
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "claim-ada"}}
    (tmp_path / "claim-ada.yaml").write_text(json.dumps(claim))
    (tmp_path / "registry.json").write_text('{"auths": {}}')
    (tmp_path / ".course").mkdir()
    (tmp_path / ".course" / "values.yaml").write_text("{}")
    run = subprocess.run(
        ["bash", "-c", SHELL + block],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "KUBECONFIG": str(tmp_path / "kubeconfig"),
            "KUBECTL": shutil.which("kubectl") or "kubectl",
            "HELM": shutil.which("helm") or "true",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    if "helm" in block and not shutil.which("helm"):
        pytest.skip("helm is not on PATH, so its commands in this block were not checked")


def test_the_guide_speaks_of_what_there_is():
    """Some commands silently ignore a selector or a name that matches nothing."""
    learners = {
        "component=singleuser-server",
        our_pods.VOLUMES,
    }  # KubeSpawner's labels; see test_kubernetes.py
    charts = {"component=hub"}
    assert set(re.findall(r"--selector (\S+?)[\s`)]", GUIDE)) == learners | charts
    assert set(re.findall(r"--version (\S+)", GUIDE)) == {values.CHART}
    assert f"JupyterHub {values.CHART}" in (values.CHART_FOLDER / "values.yaml").read_text()
    settings.check_names("the guide", re.findall(r"\bCOURSE_\w+", GUIDE))


@pytest.fixture
def restore():
    """Return the spec of the pod that restores the chart's database."""
    (found,) = re.findall(r"--overrides '(.*?)' <", GUIDE, re.S)
    return json.loads(re.sub(r"""'"\$\(.*?\)"'""", "SUM", found))["spec"]


def test_the_pod_that_restores_the_database_has_only_fields_that_there_are(restore):
    """`kubectl run` silently drops unknown fields."""
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": restore}
    kubernetes_validate.validate(pod, "1.37", strict=True)
    assert pods.forbidden(restore) == []


@pytest.mark.parametrize(("arrived", "after"), [(b"the copy", b"the copy"), (b"the", b"as it was")])
def test_a_copy_that_does_not_arrive_as_a_whole_replaces_nothing(restore, tmp_path, arrived, after):
    """The pod's command cannot distinguish a broken connection from the end of the file."""
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
    """Run the guide's three commands as a database user who owns only one database."""
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
