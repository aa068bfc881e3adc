"""Render learners' pods from the chart's values with KubeSpawner, without a cluster."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from kubernetes_asyncio.client import ApiClient
from kubespawner import KubeSpawner
from traitlets.config import Config

HUB = "http://hub:8081/hub/api"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure a nonexistent cluster, because KubeSpawner cannot render pods without one.

    Also delete the environment variables for the hub's settings, which `make` exports.
    """
    for variable in [name for name in os.environ if name.startswith("COURSE_")]:
        monkeypatch.delenv(variable)
    write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:9")
    # Setting KUBECONFIG here would be too late, because kubernetes_asyncio reads it on import.
    default = "kubernetes_asyncio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
    monkeypatch.setattr(default, str(tmp_path / "kubeconfig"))


def spawner(
    kind: type[KubeSpawner], config: Config, api_url: str = HUB, **attributes: Any
) -> KubeSpawner:
    """Return a spawner like those that a hub creates. KubeSpawner needs a running event loop."""
    name = "ada.lovelace"
    user = SimpleNamespace(name=name, id=1, url=f"/user/{name}/", admin=False)
    hub = SimpleNamespace(
        api_url=api_url, base_url="/hub/", public_host="", routespec="/", cookie_options={}
    )
    made = kind(config=config, user=user, hub=hub, _mock=True)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def chart(values: dict[str, Any]) -> Config:
    """Return the part of the chart's configuration that affects learners' pods.

    This function is based on the chart's documentation, because the chart itself cannot be
    installed from a package registry.
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
    """Return the parts of a pod's spec that the "restricted" Pod Security Standard forbids."""
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


async def manifests(pod: KubeSpawner) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the manifests of the pod and its volume claim, as the cluster would receive them."""
    async with ApiClient() as client:
        made = await pod.get_pod_manifest(), pod.get_pvc_manifest()
        return tuple(client.sanitize_for_serialization(manifest) for manifest in made)


def write_kubeconfig(path: Path, api: str) -> None:
    """Write a kubeconfig file that contains the URL of a cluster's API."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "stand-in", "cluster": {"server": api}}],
        "users": [{"name": "somebody", "user": {}}],
        "contexts": [{"name": "here", "context": {"cluster": "stand-in", "user": "somebody"}}],
        "current-context": "here",
    }
    path.write_text(yaml.safe_dump(config))
