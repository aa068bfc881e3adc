"""Learners' pods of our own hub and of the chart's, rendered by KubeSpawner without a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import kubernetes_validate
import pods
import pytest
import yaml
from cluster import Cluster, write_account
from kubernetes_asyncio.client import ApiException
from kubespawner import KubeSpawner
from tornado import web
from traitlets.config import Config, PyFileConfigLoader

from tfcourse.hub import database, state
from tfcourse.hub.front import proxy
from tfcourse.hub.operations import values
from tfcourse.hub.settings import GIB, check_names
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
    """Return the values of a site with GPUs, as the chart's hub reads them from YAML."""
    own = yaml.safe_load((values.FOLDER / "site.example.yaml").read_text())
    own["course"]["gpus"] = True
    own["ingress"]["ingressClassName"] = "traefik"
    site = tmp_path / "site.yaml"
    site.write_text(yaml.safe_dump(own))
    return yaml.safe_load(yaml.dump(values.make("class", IMAGE, site), Dumper=values.Dumper))


async def of_own_hub(*chosen):
    pod = pods.spawner(PodSpawner, pods.own_hub())
    for profile in chosen:
        pods.choose(pod, profile)
        await pod.load_user_options()
    return await pods.manifests(pod)


async def of_chart(made, *chosen):
    pod = pods.spawner(KubeSpawner, pods.chart(made))
    for profile in chosen:
        pod.user_options = {"profile": profile.slug}
        await pod.load_user_options()
    return await pods.manifests(pod)


@pytest.fixture(params=["our own hub", "the chart"])
def render(request, with_gpus):
    """Return a function that renders pod and claim after these profiles were chosen in turn."""
    if request.param == "our own hub":
        return lambda *chosen: asyncio.run(of_own_hub(*chosen))
    return lambda *chosen: asyncio.run(of_chart(with_gpus, *chosen))


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
    assert environment["CPU_LIMIT"] == str(float(profile.cpus))  # start-course reads it
    assert environment["MEM_LIMIT"] == str(profile.memory)


def test_the_images_own_entry_runs(render):
    """It brings the lessons; a `command` would replace it."""
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
    """A spawner is used again, and KubeSpawner merges a profile's maps into what is there."""
    assert "nvidia.com/gpu" in json.dumps(render(GPU))
    assert "nvidia.com/gpu" not in json.dumps(render(GPU, CPU))
    assert render(GPU, CPU)[0] == render(CPU)[0]


def test_it_may_run_on_nodes_for_learners_and_with_a_gpu_on_those_for_gpus(render):
    learners = ["hub.jupyter.org/dedicated", "hub.jupyter.org_dedicated"]
    for profile, keys in ((CPU, learners), (GPU, [*learners, "nvidia.com/gpu"])):
        found = render(profile)[0]["spec"]["tolerations"]
        assert [toleration["key"] for toleration in found] == keys
        assert {toleration["effect"] for toleration in found} == {"NoSchedule"}


def test_our_own_hub_prefers_nodes_for_learners():
    """The chart does so by a setting of its own, scheduling.userPods.nodeAffinity."""
    pod, _ = asyncio.run(of_own_hub(CPU))
    affinity = pod["spec"]["affinity"]["nodeAffinity"]
    (preferred,) = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    (nodes,) = preferred["preference"]["matchExpressions"]
    assert (nodes["key"], nodes["values"]) == ("hub.jupyter.org/node-purpose", ["user"])


# --- Our own hub


def documents(*names: str) -> list[dict]:
    texts = [(ROOT / "kubernetes" / name).read_text() for name in names or ["hub.yaml"]]
    return [document for text in texts for document in yaml.safe_load_all(text)]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_our_hub_consists_of_is_what_kubernetes_takes(version):
    for document in documents("hub.yaml", "recover.yaml"):
        kubernetes_validate.validate(document, version, strict=True)


def test_running_servers_are_reached_while_the_hub_is_away():
    """A pod is ready only if all of it is, and what is not ready a Service does not lead to."""
    assert of_kind("Service")["spec"]["publishNotReadyAddresses"] is True
    proxy, _ = of_kind("Deployment")["spec"]["template"]["spec"]["containers"]
    for probe in ("readinessProbe", "livenessProbe"):
        assert proxy[probe]["httpGet"]["path"] == "/_chp_healthz"


@pytest.mark.parametrize("subdomains", ["off", "on"])
def test_the_ingress_reaches_the_proxy(tmp_path, monkeypatch, subdomains):
    """As the manifest starts it, for the names that the hub has."""
    proxied, _ = of_kind("Deployment")["spec"]["template"]["spec"]["containers"]
    given = {"COURSE_SECRETS": str(tmp_path), **of_kind("ConfigMap")["data"]}
    given |= {item["name"]: item["value"] for item in proxied["env"]}
    for name, value in (given | {"COURSE_SUBDOMAINS": subdomains}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(state, "port_error", lambda *_: None)  # of this machine
    said = []
    monkeypatch.setattr(os, "execve", lambda _, command, __: said.extend(command))
    proxy.main()
    assert {"--ip=0.0.0.0", "--port=8000", "--api-ip=127.0.0.1"} <= set(said)
    assert ("--host-routing" in said) == (subdomains == "on")


def test_the_ingress_can_have_learners_names():
    """What is commented out in the manifest, for COURSE_SUBDOMAINS."""
    text = (ROOT / "kubernetes" / "hub.yaml").read_text()
    text = text.replace("# - {host:", "- {host:")
    (found,) = [one for one in yaml.safe_load_all(text) if one["kind"] == "Ingress"]
    kubernetes_validate.validate(found, VERSIONS[-1], strict=True)
    first, second = found["spec"]["rules"]
    assert (first["host"], second["host"]) == ("hub.example.org", "*.hub.example.org")
    assert first["http"] == second["http"]


def test_there_are_never_two_hubs_with_one_database():
    assert of_kind("Deployment")["spec"]["strategy"] == {"type": "Recreate"}


def test_a_busy_hub_is_not_killed():
    """In a rush its thread is busy for seconds, and to end the proxy cuts all connections."""
    for container in of_kind("Deployment")["spec"]["template"]["spec"]["containers"]:
        probe = container["livenessProbe"]
        assert probe["timeoutSeconds"] >= 3
        assert probe["failureThreshold"] * 10 >= 300  # of seconds, by Kubernetes' default period


def test_what_our_hub_consists_of_may_run_where_pods_are_restricted():
    """As the guide has the namespace enforce."""
    for kind in (of_kind("Deployment"), *documents("recover.yaml")):
        assert pods.forbidden(kind["spec"]["template"]["spec"]) == []


def test_the_hub_may_do_no_more_than_look_after_learners_pods():
    found = {
        (resource, verb)
        for rule in of_kind("Role")["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    looks = {"get", "list", "watch"}
    assert found == {
        *((resource, verb) for resource in ("pods", "events") for verb in looks),
        *(("persistentvolumeclaims", verb) for verb in looks),
        *(
            (resource, verb)
            for resource in ("pods", "persistentvolumeclaims")
            for verb in ("create", "delete")
        ),
    }


def test_only_the_hub_has_the_token_of_the_cluster():
    """The proxy beside it is for everybody."""
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    mounts = [(c["name"], m) for c in pod["containers"] for m in c["volumeMounts"]]
    ((container, mount),) = [m for m in mounts if m[1]["mountPath"] == str(our_pods.ACCOUNT)]
    assert container == "hub"
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]
    assert {"token", "ca.crt", "namespace"} <= set(re.findall(r"[\w.]+", json.dumps(volume)))


def test_accounts_are_recovered_where_the_hub_has_them():
    """In its volume, by its image, as its user."""
    (job,) = documents("recover.yaml")
    ours, hubs = (kind["spec"]["template"]["spec"] for kind in (job, of_kind("Deployment")))
    (recover,) = ours["containers"]
    (hub,) = [container for container in hubs["containers"] if container["name"] == "hub"]
    assert ours["securityContext"] == hubs["securityContext"]
    assert ours["volumes"][0] == hubs["volumes"][0]
    assert recover["volumeMounts"][0] == hub["volumeMounts"][0]
    for same in ("image", "env", "securityContext"):
        assert recover[same] == hub[same]


def of_kind(kind: str, name: str = "course-hub") -> dict:
    (found,) = [
        document
        for document in documents()
        if document["kind"] == kind and document["metadata"]["name"] == name
    ]
    return found


def test_learners_find_hub_and_proxy_where_the_manifests_have_them():
    service = of_kind("Service", our_pods.SERVICE)
    pod = of_kind("Deployment")["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    ports = {
        port["name"]: port["containerPort"]
        for container in pod["spec"]["containers"]
        for port in container["ports"]
    }
    # The first two of `settings.ports`; the third, the proxy's API, is on the loopback address.
    assert ports == {"http": 8000, "api": 8001}
    assert {port["name"]: port["port"] for port in service["spec"]["ports"]}["api"] == 8001


def test_hub_and_proxy_which_start_together_agree_on_their_token(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_SECRETS", str(tmp_path))
    opened, both = os.open, threading.Barrier(2)

    def together(*arguments):
        with contextlib.suppress(threading.BrokenBarrierError):  # the other one has to wait
            both.wait(1)
        return opened(*arguments)

    monkeypatch.setattr(os, "open", together)
    with ThreadPoolExecutor(2) as pool:
        assert len({*pool.map(lambda _: state.proxy_token(), range(2))}) == 1
    assert [path.name for path in tmp_path.glob("*token*")] == ["proxy-token"]


def test_learners_are_kept_from_each_other_and_from_the_world():
    """By what Kubernetes says that policies mean; no network was at hand that obeys them."""
    pod, _ = asyncio.run(of_own_hub(CPU))
    (port,) = pod["spec"]["containers"][0]["ports"]
    learner = "course", pod["metadata"]["labels"]
    hub = "course", of_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    dns = "kube-system", {"k8s-app": "kube-dns"}
    beside = "course", {"app": "something"}
    ingress = "ingress", {"app": "ingress"}
    world = None, {}
    everybody = learner, hub, beside, dns, ingress, world
    at = port["containerPort"]
    assert [peer for peer in everybody if leads(peer, learner, "TCP", at)] == [hub]
    assert [peer for peer in everybody if leads(learner, peer, "UDP", 53)] == [dns]
    assert not [peer for peer in everybody if leads(learner, peer, "TCP", 443)]
    assert [peer for peer in everybody if leads(peer, hub, "TCP", 8001)] == [learner]
    assert [peer for peer in everybody if not leads(peer, hub, "TCP", 8000)] == [learner]
    assert not [peer for peer in everybody if leads(peer, hub, "TCP", 8002)]


Who = tuple[str | None, dict[str, str]]  # a pod's namespace, None for an address, and its labels


def leads(source: Who, target: Who, protocol: str, port: int) -> bool:
    """Tell whether the policies of hub.yaml let one of them connect to the other."""
    policies = [d["spec"] for d in documents() if d["kind"] == "NetworkPolicy"]
    named = "kubernetes.io/metadata.name"

    def chosen(selector: dict, labels: dict) -> bool:
        return selector.get("matchLabels", {}).items() <= labels.items()

    def is_peer(peer: dict, who: Who) -> bool:
        assert peer.keys() <= {"podSelector", "namespaceSelector"}  # no address is let through
        namespace = peer.get("namespaceSelector", {"matchLabels": {named: "course"}})
        inside = who[0] and chosen(namespace, {named: who[0]})
        return bool(inside) and chosen(peer.get("podSelector", {}), who[1])

    def is_open(way: str, direction: str, who: Who, other: Who) -> bool:
        about = [
            policy
            for policy in policies
            if way in policy["policyTypes"]
            and who[0] == "course"
            and chosen(policy["podSelector"], who[1])
        ]
        return not about or any(
            {"protocol": protocol, "port": port} in rule["ports"]
            and (direction not in rule or any(is_peer(peer, other) for peer in rule[direction]))
            for policy in about
            for rule in policy[way.lower()]
        )

    return is_open("Egress", "to", source, target) and is_open("Ingress", "from", target, source)


def test_every_setting_in_the_manifests_and_in_the_image_is_one_of_ours():
    """Also those that are commented out: the hub would not start with them."""
    texts = [ROOT / "kubernetes" / "hub.yaml", ROOT / "docker" / "Dockerfile"]
    found = re.findall(r"\bCOURSE_[A-Z_]+\b", "".join(path.read_text() for path in texts))
    check_names("a manifest", found)


def test_the_plan_follows_from_what_a_pod_is_guaranteed():
    """Of a node, half a processor and an eighth of its memory are its own."""
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


@pytest.fixture
def cluster_with_work(tmp_path, monkeypatch) -> Iterator[Cluster]:
    """A stand-in for a cluster, with a learner's volume as KubeSpawner makes it."""
    found = Cluster(tmp_path)
    found.start()
    _, claim = asyncio.run(of_own_hub(CPU))
    found.add("PersistentVolumeClaim", claim)
    monkeypatch.setattr(our_pods, "API", found.url)
    monkeypatch.setattr(our_pods, "ACCOUNT", write_account(tmp_path / "account"))
    yield found
    found.stop()


def test_the_hub_knows_whose_work_is_there(cluster_with_work):
    """Who signs up under such a name waits for the instructor."""
    assert our_pods.has_home("ada.lovelace")
    assert not our_pods.has_home("grace")
    assert our_pods.homes() == ["ada.lovelace"]
    # As itself: the stand-in notes what comes with the token of the hub's account.
    assert cluster_with_work.api.asked == {("list", "persistentvolumeclaims")}


def test_a_volume_that_lost_its_labels_is_still_somebodys(cluster_with_work):
    """As one that was made of a snapshot: who signs up under the name must not find the work."""
    for claim in cluster_with_work.all("persistentvolumeclaims").values():
        claim["metadata"] |= {"labels": {}, "annotations": {}}
    assert our_pods.homes() == []
    assert our_pods.has_home("ada.lovelace")
    assert not our_pods.has_home("grace")


def test_the_hub_is_set_up_for_one_pod_and_its_learners(cluster_with_work, tmp_path, monkeypatch):
    """By jupyterhub_config.py as a whole, with traits that exist."""
    for name, value in {
        "COURSE_SPAWNER": "kubernetes",
        "COURSE_IMAGE": IMAGE,
        "COURSE_HOST": "hub.example.org",
        "COURSE_STATE": str(tmp_path / "state"),
        "COURSE_SECRETS": str(tmp_path),
        "COURSE_HOME_SIZE": "9Gi",
        "COURSE_HOME_CLASS": "fast",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(our_pods, "homes", lambda **_: [])  # a new hub
    monkeypatch.setattr(database.rounds, "regularly", lambda *_, **__: None)
    c = PyFileConfigLoader("jupyterhub_config.py", path=str(ROOT)).load_config()

    known = values.classes("tfcourse.hub.accounts.native.CourseAuthenticator")
    for kind, traits in c.items():
        assert set(traits) <= set(known[kind].class_traits(config=True)), kind

    # Hub and proxy talk over the pod's loopback address; learners find the hub by its Service.
    assert c.JupyterHub.hub_bind_url == "http://0.0.0.0:8001"
    assert c.JupyterHub.hub_connect_url == "http://127.0.0.1:8001"
    assert c.ConfigurableHTTPProxy.api_url == "http://127.0.0.1:8002"
    assert c.JupyterHub.public_url == "https://hub.example.org/"

    async def render():
        here = "http://127.0.0.1:8001/hub/api"
        return await pods.manifests(pods.spawner(c.JupyterHub.spawner_class, c, here))

    pod, claim = asyncio.run(render())
    environment = {e["name"]: e.get("value") for e in pod["spec"]["containers"][0]["env"]}
    assert environment["JUPYTERHUB_API_URL"] == pods.HUB
    assert claim["spec"]["resources"]["requests"]["storage"] == "9Gi"
    assert claim["spec"]["storageClassName"] == "fast"


def test_without_its_database_the_hub_does_not_start_where_there_are_homes(
    cluster_with_work, tmp_path, monkeypatch
):
    """They would be for whoever signs up first under their names."""
    monkeypatch.setenv("COURSE_IMAGE", IMAGE)
    with pytest.raises(SystemExit, match="but there was one"):
        our_pods.configure(Config(), tmp_path)


def refused(status: int, body: str | None) -> ApiException:
    error = ApiException(status, "Forbidden")
    error.body = body
    return error


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (refused(403, '{"message": "exceeded quota: course"}'), "says: exceeded quota: course"),
        (refused(403, "<html>"), "says: Forbidden"),
        (refused(403, None), "says: Forbidden"),
        (TimeoutError("pod did not start"), "There was no room for your server"),
    ],
)
def test_what_the_cluster_refuses_is_a_sentence_for_the_learner(monkeypatch, error, sentence):
    async def fail(self):
        raise error

    async def start():
        await pods.spawner(PodSpawner, pods.own_hub()).start()

    monkeypatch.setattr(KubeSpawner, "_start", fail)
    with pytest.raises(web.HTTPError) as refusal:
        asyncio.run(start())
    assert refusal.value.status_code == 503
    assert sentence in refusal.value.jupyterhub_message


def test_outside_a_cluster_the_hub_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_IMAGE", IMAGE)
    monkeypatch.setattr(our_pods, "ACCOUNT", tmp_path)
    with pytest.raises(SystemExit, match="cannot ask its cluster") as end:
        our_pods.configure(None, tmp_path)
    assert "service account" in end.value.code


def test_without_an_image_the_hub_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_IMAGE", "")
    with pytest.raises(SystemExit, match="COURSE_IMAGE is empty"):
        our_pods.configure(None, tmp_path)


@pytest.mark.parametrize("variable", our_pods.NOT_HERE)
def test_a_setting_that_would_do_nothing_ends_the_start(tmp_path, monkeypatch, variable):
    monkeypatch.setenv("COURSE_IMAGE", IMAGE)
    monkeypatch.setenv(variable, "on")
    with pytest.raises(SystemExit, match=f"{variable} is for a hub on one server"):
        our_pods.configure(None, tmp_path)


def test_a_misspelt_setting_ends_the_start(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_HOME_SIZ", "9Gi")
    sentence = (
        "ConfigMap or Secret course-hub: there is no setting COURSE_HOME_SIZ. Is it COURSE_HOME"
    )
    with pytest.raises(SystemExit, match=sentence):
        our_pods.configure(None, tmp_path)


def test_gpus_are_offered_where_there_are_some(monkeypatch):
    monkeypatch.delenv("COURSE_GPUS", raising=False)
    assert list(our_pods.unavailable()) == [GPU.slug]
    monkeypatch.setenv("COURSE_GPUS", "on")
    assert our_pods.unavailable() == {}
