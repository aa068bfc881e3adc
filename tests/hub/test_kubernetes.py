"""Test the learners' pods that KubeSpawner renders from the chart's values."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Iterator
from types import SimpleNamespace

import aiohttp
import kubernetes_validate
import pods
import pytest
import yaml
from chart import Cluster
from kubernetes_asyncio.client import ApiException
from kubespawner import KubeSpawner
from tornado import web

from tfcourse.hub.front import addresses
from tfcourse.hub.operations import values
from tfcourse.hub.settings import GIB
from tfcourse.hub.spawners import pods as our_pods
from tfcourse.hub.spawners.pods import PodSpawner
from tfcourse.hub.spawners.profiles import PROFILES
from tfcourse.hub.state import ROOT

CPU, GPU = PROFILES
cluster = pods.cluster  # a fixture
VERSIONS = ["1.30", "1.32", "1.34", "1.36", "1.37"]
IMAGE = "registry.example.org/tensorflow-course/1.0"


pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture
def with_gpus(tmp_path):
    """Return the chart's values for a site with GPUs, after a round trip through YAML."""
    own = yaml.safe_load((values.CHART_FOLDER / "site.example.yaml").read_text())
    own["course"]["gpus"] = True
    own["ingress"]["ingressClassName"] = "traefik"
    site = tmp_path / "site.yaml"
    site.write_text(yaml.safe_dump(own))
    return yaml.safe_load(yaml.dump(values.make("class", IMAGE, site), Dumper=values.Dumper))


@pytest.fixture
def render(with_gpus):
    """Return a function that selects profiles in turn, then renders the pod and volume claim."""

    async def render(*chosen):
        pod = pods.spawner(KubeSpawner, pods.chart(with_gpus))
        for profile in chosen:
            pod.user_options = {"profile": profile.slug}
            await pod.load_user_options()
        return await pods.manifests(pod)

    return lambda *chosen: asyncio.run(render(*chosen))


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.slug)
def test_pods_are_what_kubernetes_takes(render, profile):
    for manifest in render(profile):
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.slug)
def test_a_pod_has_walls(render, profile):
    pod, _ = render(profile)
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"] == {
        "fsGroup": 1000,
        "fsGroupChangePolicy": "OnRootMismatch",
    }
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert not spec.get("initContainers")
    assert pods.forbidden(spec) == []


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.slug)
def test_a_pod_has_the_limits_of_its_profile(render, profile):
    pod, _ = render(profile)
    (container,) = pod["spec"]["containers"]
    assert container["image"].endswith(f":{profile.tag}")
    gpu = {"nvidia.com/gpu": "1"} if profile.gpu else {}
    assert container["resources"] == {
        "limits": {"memory": profile.memory, "cpu": profile.cpus, **gpu},
        "requests": {"memory": profile.guaranteed_memory, "cpu": profile.guaranteed_cpus},
    }
    environment = {item["name"]: item.get("value") for item in container["env"]}
    assert environment["CPU_LIMIT"] == str(float(profile.cpus))  # start-course reads this
    assert environment["MEM_LIMIT"] == str(profile.memory)


def test_the_images_own_entry_runs(render):
    """A `command` in the pod would bypass the image's entry point, which copies the lessons."""
    (container,) = render(CPU)[0]["spec"]["containers"]
    assert "command" not in container
    assert container["args"][0] == "jupyterhub-singleuser"


def test_home_is_a_volume_of_its_own_and_shared_memory_is_memory(render):
    pod, claim = render(CPU)
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    (container,) = pod["spec"]["containers"]
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert mounts.keys() == {"/home/jovyan", "/dev/shm"}
    assert mounts["/home/jovyan"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert mounts["/dev/shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "256Mi"}
    assert claim["spec"]["resources"]["requests"]["storage"] == "5Gi"


def test_who_had_a_gpu_has_none_with_the_next_profile(render):
    """Spawners are reused, and KubeSpawner merges a profile's dictionaries into existing ones."""
    assert "nvidia.com/gpu" in json.dumps(render(GPU))
    assert "nvidia.com/gpu" not in json.dumps(render(GPU, CPU))
    assert render(GPU, CPU)[0] == render(CPU)[0]


def test_it_may_run_on_nodes_for_learners_and_with_a_gpu_on_those_for_gpus(render):
    learners = ["hub.jupyter.org/dedicated", "hub.jupyter.org_dedicated"]
    for profile, keys in ((CPU, learners), (GPU, [*learners, "nvidia.com/gpu"])):
        found = render(profile)[0]["spec"]["tolerations"]
        assert [toleration["key"] for toleration in found] == keys
        assert {toleration["effect"] for toleration in found} == {"NoSchedule"}


# --- How many nodes a class needs


def test_the_plan_follows_from_what_a_pod_is_guaranteed():
    """The guide's node counts assume that a node reserves half a core and 1/8 of its memory."""
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    rows = re.findall(r"^\| ([\d,]+) \| (\d+) \| (\d+) \| ([\d,]+) GiB \|", text, re.M)
    assert len(rows) >= 4
    for learners, *nodes, memory in rows:
        count = int(learners.replace(",", ""))
        for cpus, number in zip([8, 16], nodes, strict=True):
            by_memory = cpus * 4 * GIB * 7 // 8 // CPU.guaranteed_memory
            on_one = min(by_memory, int((cpus - 0.5) / CPU.guaranteed_cpus))
            assert int(number) == math.ceil(count / on_one), (learners, cpus)
        assert int(memory.replace(",", "")) == count * CPU.guaranteed_memory / GIB


# --- Our hub image as the chart's hub (test_chart.py starts such a hub)


@pytest.fixture
def known(monkeypatch, tmp_path) -> Iterator[Cluster]:
    """Make the hub use a simulated cluster that contains one learner's volume."""
    with Cluster(tmp_path) as known:
        known.add_home("ada.lovelace")
        monkeypatch.setattr(our_pods, "API", known.url)
        monkeypatch.setattr(our_pods, "ACCOUNT", known.account)
        yield known


def test_the_hub_knows_whose_work_is_there(known):
    """Signing up under a name that already has files requires the instructor's approval."""
    assert our_pods.has_home("ada.lovelace")
    assert not our_pods.has_home("grace")


def test_a_volume_that_lost_its_labels_is_still_somebodys(known, render):
    """A restored volume might have no labels, but it must still belong to its original owner."""
    _, claim = render(CPU)
    known.claims[0] |= {"name": claim["metadata"]["name"], "labels": {}, "annotations": {}}
    assert our_pods.has_home("ada.lovelace")
    assert not our_pods.has_home("grace")


def test_the_hub_finds_the_charts_proxy(known, monkeypatch):
    monkeypatch.setattr(addresses, "own_proxies", set())
    our_pods.find_proxy()
    assert addresses.own_proxies == {"127.0.0.1"}


def refused(status: int, body: str | None) -> ApiException:
    error = ApiException(status, "Forbidden")
    error.body = body
    return error


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (refused(403, '{"message": "exceeded quota: course"}'), "it said: exceeded quota: course"),
        (refused(403, "<html>"), "it said: Forbidden"),
        (refused(403, None), "it said: Forbidden"),
        (aiohttp.ClientConnectionError(), "The hub cannot reach its cluster"),
        (TimeoutError("pod did not start"), "There was no room for your server"),
    ],
)
def test_what_the_cluster_refuses_is_a_sentence_for_the_learner(
    monkeypatch, with_gpus, error, sentence
):
    async def fail(self):
        raise error

    async def start():
        await pods.spawner(PodSpawner, pods.chart(with_gpus)).start()

    monkeypatch.setattr(KubeSpawner, "_start", fail)
    with pytest.raises(web.HTTPError) as refusal:
        asyncio.run(start())
    assert refusal.value.status_code == 503
    assert sentence in refusal.value.jupyterhub_message


@pytest.mark.parametrize(
    ("reasons", "sentence"),
    [
        ([], "Starting your server"),
        (["Scheduled", "FailedScheduling"], "There is no room for your server yet"),
        (["FailedScheduling", "Scheduled", "Pulling"], "downloading the course"),
        (["Pulling", "Pulled"], "Starting your server"),
    ],
)
def test_a_learner_is_told_what_the_cluster_is_doing(monkeypatch, with_gpus, reasons, sentence):
    monkeypatch.setattr(PodSpawner, "events", [{"reason": reason} for reason in reasons])

    async def first_message():
        orm_spawner = SimpleNamespace(started=None, server=None)
        pod = pods.spawner(PodSpawner, pods.chart(with_gpus), orm_spawner=orm_spawner)
        return (await anext(pod.progress()))["message"]

    assert sentence in asyncio.run(first_message())
