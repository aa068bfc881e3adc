"""Learners' pods for tests, rendered by KubeSpawner itself, without a cluster."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cluster import write_kubeconfig
from kubernetes_asyncio.client import ApiClient
from kubespawner import KubeSpawner
from traitlets.config import Config

from tfcourse.hub.spawners import pods as our_pods
from tfcourse.hub.spawners import profiles
from tfcourse.hub.spawners.profiles import Profile

HUB = "http://course-hub:8001/hub/api"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name a cluster that is not there: KubeSpawner wants one before it renders anything.

    Settings of the hub are those of the test; `make` has some of its own.
    """
    for variable in [name for name in os.environ if name.startswith("COURSE_")]:
        monkeypatch.delenv(variable)
    write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:9")
    # It has read KUBECONFIG when it was imported.
    default = "kubernetes_asyncio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
    monkeypatch.setattr(default, str(tmp_path / "kubeconfig"))


def spawner(
    kind: type[KubeSpawner], config: Config, api_url: str = HUB, **attributes: Any
) -> KubeSpawner:
    """Return a spawner as a hub makes it; in a running loop, as KubeSpawner wants one."""
    name = "ada.lovelace"
    user = SimpleNamespace(name=name, id=1, url=f"/user/{name}/", admin=False)
    hub = SimpleNamespace(
        api_url=api_url, base_url="/hub/", public_host="", routespec="/", cookie_options={}
    )
    return kind(config=config, user=user, hub=hub, _mock=True, **attributes)


def own_hub() -> Config:
    """Return what our hub sets of its spawner."""
    c = Config()
    our_pods.configure_pods(c)
    return c


def chart(values: dict[str, Any]) -> Config:
    """Return what the chart's hub makes of values, as far as our pods are concerned.

    By the chart's documentation; the chart itself is not here.
    """
    c = Config()
    learners = values["singleuser"]
    storage = learners["storage"]
    c.KubeSpawner.update(
        {
            "cmd": learners["cmd"],
            "uid": learners["uid"],
            "fs_gid": learners["fsGid"],
            "allow_privilege_escalation": learners["allowPrivilegeEscalation"],
            "image": f"{learners['image']['name']}:{learners['image']['tag']}",
            "image_pull_policy": learners["image"]["pullPolicy"],
            "mem_limit": learners["memory"]["limit"],
            "mem_guarantee": learners["memory"]["guarantee"],
            "cpu_limit": learners["cpu"]["limit"],
            "cpu_guarantee": learners["cpu"]["guarantee"],
            "environment": learners["extraEnv"],
            "default_url": learners["defaultUrl"],
            "start_timeout": learners["startTimeout"],
            "storage_pvc_ensure": True,
            "storage_capacity": storage["capacity"],
            "storage_access_modes": storage["dynamic"]["storageAccessModes"],
            "volumes": {
                "home": {"name": "home", "persistentVolumeClaim": {"claimName": "{pvc_name}"}},
                **storage["extraVolumes"],
            },
            "volume_mounts": {
                "home": {"name": "home", "mountPath": storage["homeMountPath"]},
                **storage["extraVolumeMounts"],
            },
            "profile_list": learners["profileList"],
        }
    )
    for kind, traits in values["hub"]["config"].items():
        c[kind].update(traits)
    return c


def forbidden(spec: dict[str, Any]) -> list[str]:
    """Return what of a pod's spec Kubernetes' "restricted" Pod Security Standard forbids."""
    volumes = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
    found = [key for key in ("hostIPC", "hostNetwork", "hostPID") if spec.get(key)]
    for volume in spec["volumes"]:
        found += volume.keys() - volumes - {"name"}
    for container in spec["containers"] + (spec.get("initContainers") or []):
        context = (spec.get("securityContext") or {}) | container["securityContext"]
        capabilities = context.get("capabilities") or {}
        rules = {
            "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
            "capabilities": capabilities == {"drop": ["ALL"]},
            "privileged": not context.get("privileged"),
            "runAsNonRoot": context.get("runAsNonRoot") is True,
            "runAsUser": context.get("runAsUser") != 0,
            "seccompProfile": context.get("seccompProfile") == {"type": "RuntimeDefault"},
        }
        found += [rule for rule, is_obeyed in rules.items() if not is_obeyed]
    return found


def choose(pod: KubeSpawner, profile: Profile) -> None:
    """Choose a profile, as our hub does when a learner has picked it."""
    profiles.apply_user_options(
        pod,
        {profiles.FIELD: profile.slug},
        traits_of=our_pods.traits_of,
        profiles=profiles.PROFILES,
        unavailable={},
    )


async def manifests(pod: KubeSpawner) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pod and the volume's claim, as they are sent to a cluster."""
    async with ApiClient() as client:
        made = await pod.get_pod_manifest(), pod.get_pvc_manifest()
        return tuple(client.sanitize_for_serialization(manifest) for manifest in made)
