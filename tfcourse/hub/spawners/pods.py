"""Define a learner's pod on a cluster, and add the course's parts to the hub there.

On a cluster, the hub comes from Zero to JupyterHub, a Helm chart. `make values`
(operations/values.py) writes the pod's traits into the chart's values. If the chart's hub runs our
hub image, it loads kubernetes/jupyterhub_config.d/course.py, which calls `configure`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import requests
import traitlets
from kubernetes_asyncio.client import ApiException
from kubespawner import KubeSpawner
from kubespawner.slugs import is_valid_label, safe_slug

from tfcourse.hub import rounds, settings, state
from tfcourse.hub.accounts import addresses
from tfcourse.hub.accounts import setup as accounts
from tfcourse.hub.front import bounds, pages
from tfcourse.hub.spawners import profiles
from tfcourse.hub.spawners.homes import UID

GPU = "nvidia.com/gpu"

# Tolerations for the chart's taints on learners' nodes. Some clouds allow no slash in a key.
DEDICATED = [
    {"key": key, "operator": "Equal", "value": "user", "effect": "NoSchedule"}
    for key in ("hub.jupyter.org/dedicated", "hub.jupyter.org_dedicated")
]
# Nodes with GPUs are usually tainted, too, so that nothing else runs on them.
GPU_NODES = {"key": GPU, "operator": "Exists", "effect": "NoSchedule"}

# KubeSpawner's traits for every learner's pod.
POD: dict[str, Any] = {
    # The image's own entry point runs first and updates the lessons (docker/start-course).
    "cmd": ["jupyterhub-singleuser"],
    "uid": UID,
    "gid": UID,
    "fs_gid": UID,  # the group of new volumes, which belong to root
    # Do not change owners at each start: with a hundred thousand files, that takes minutes.
    "pod_security_context": {"fsGroupChangePolicy": "OnRootMismatch"},
    "allow_privilege_escalation": False,
    "container_security_context": {
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    # If a pod could use the cluster's API, a learner might reach other learners' pods.
    "automount_service_account_token": False,
    # The version is part of an image's name, so the same name always means the same image.
    "image_pull_policy": "IfNotPresent",
}

# Messages for a waiting learner, keyed by the reason in the cluster's last event about the pod.
EVENT_MESSAGES = {
    "FailedScheduling": "There is no room for your server yet. The cluster may be adding a "
    "machine, which takes a few minutes.",
    "FailedAttachVolume": "Your files are on their way to another machine. This takes a minute "
    "or so.",
    "Pulling": "Your server's machine is fetching the course for the first time. This takes a few "
    "minutes.",
}
EVENT_MESSAGES["TriggeredScaleUp"] = EVENT_MESSAGES["FailedScheduling"]

# KubeSpawner's label on learners' volumes.
VOLUMES = "component=singleuser-storage"

# The address of the cluster's API in a pod, and the folder with the pod's credentials.
API = "https://kubernetes.default.svc"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def configure(c: Any) -> None:
    """Add the course's pages and accounts to the chart's configuration."""
    ours = [name for name in settings.for_a_program() if name.startswith("COURSE_")]
    settings.check_names("hub.extraEnv", ours)
    hub = state.private_folder(state.state_folder() / "hub")
    bounds.configure(c)

    # The operator's own templates take precedence.
    c.JupyterHub.template_paths = [
        *c.JupyterHub.get("template_paths", []),
        str(pages.TEMPLATES),
    ]
    c.JupyterHub.logo_file = str(pages.LOGO)
    c.JupyterHub.template_vars = {
        **c.JupyterHub.get("template_vars", {}),
        "course": pages.COURSE,
        "idle_minutes": round(settings.IDLE_MINUTES()),
    }
    c.JupyterHub.spawner_class = PodSpawner
    # If the operator lists other profiles, keep KubeSpawner's own picker.
    chosen = {profile.get("slug") for profile in c.KubeSpawner.profile_list}
    offered = [profile for profile in profiles.PROFILES if profile.slug in chosen]
    if len(offered) == len(chosen):
        profiles.configure(c, nothing, offered, {})

    # If the operator names an authenticator in the chart's values, keep it. Replace the chart's
    # default, which lets everybody in.
    if c.JupyterHub.get("authenticator_class", "dummy") == "dummy":
        accounts.configure(c, hub, has_home)
        # The chart's proxy is a pod whose address changes when it is replaced.
        rounds.regularly(find_proxy, seconds=10)


def traits_of(profile: profiles.Profile) -> dict[str, Any]:
    """Return the spawner's traits that the profile sets.

    No trait limits the number of processes: only a node can do that (the kubelet's podPidsLimit).
    """
    return {
        "mem_limit": profile.memory,
        "mem_guarantee": profile.guaranteed_memory,
        "cpu_limit": profile.cpus,
        "cpu_guarantee": profile.guaranteed_cpus,
        "extra_resource_limits": {GPU: "1"} if profile.gpu else {},
        "tolerations": [*DEDICATED, GPU_NODES] if profile.gpu else DEDICATED,
    }


def nothing(_: profiles.Profile) -> dict[str, Any]:
    """Return no traits, because KubeSpawner itself applies the profile in the chart's values."""
    return {}


def shared_memory(size: int) -> dict[str, Any]:
    """Return the volume for /dev/shm, whose contents count as the pod's memory."""
    # Write the size as text, because Helm would write the number as 2.68435456e+08.
    limit = f"{size // settings.MIB}Mi"
    return {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": limit}}


def has_home(username: str) -> bool:
    """Return whether a volume for this user name exists.

    A volume that was restored without its labels is recognised by its name.
    """
    label = safe_slug(username, is_valid=is_valid_label)  # as KubeSpawner writes it
    name = f"metadata.name=claim-{safe_slug(username, max_length=48)}"
    volumes = "persistentvolumeclaims"
    marked = ask(volumes, labelSelector=f"{VOLUMES},hub.jupyter.org/username={label}")
    return username in map(owner, marked) or bool(ask(volumes, fieldSelector=name))


def owner(claim: dict[str, Any]) -> str:
    """Return the name of the volume's owner, according to KubeSpawner's annotation."""
    return claim["metadata"].get("annotations", {}).get("hub.jupyter.org/username", "")


def find_proxy() -> None:
    """Tell `accounts.addresses` the addresses of the pods that run the chart's proxy."""
    found = ask("pods", labelSelector="component=proxy")
    addresses.own_proxies = {pod["status"]["podIP"] for pod in found if "podIP" in pod["status"]}


def ask(kind: str, **options: str) -> list[dict[str, Any]]:
    """Return the objects of this kind in the hub's namespace that the options select."""
    namespace = (ACCOUNT / "namespace").read_text().strip()
    answer = requests.get(
        f"{API}/api/v1/namespaces/{namespace}/{kind}",
        params=options,
        # Read the token each time, because it is valid for only an hour.
        headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}"},
        verify=str(ACCOUNT / "ca.crt"),
        timeout=10,
    )
    answer.raise_for_status()
    return answer.json()["items"]


class PodSpawner(KubeSpawner):
    """The chart's spawner, with messages for learners instead of the cluster's events."""

    # A REST request can contain any JSON; `profiles.apply_user_options` refuses invalid options.
    user_options = traitlets.Any({})

    async def progress(self) -> AsyncIterator[dict[str, object]]:
        """Yield a start's progress. KubeSpawner itself would show the cluster's events."""
        async for event in pages.progress(self):
            last = self.events[-1].get("reason") if self.events else None
            yield {**event, "message": EVENT_MESSAGES.get(last, event["message"])}

    async def start(self) -> tuple[str, int]:
        """Start the pod; turn the cluster's refusal into a message for the learner."""
        try:
            # Give up a little sooner than JupyterHub, which would say only "Timeout".
            return await asyncio.wait_for(super().start(), self.start_timeout - 2)
        except ApiException as error:
            self.log.error("The cluster refused %s: %s", self.pod_name, error)
            raise pages.refusal(
                "The cluster did not accept your server. Try again; if that does not help, tell "
                f"your instructor what it said: {reason(error)}"
            ) from None
        except aiohttp.ClientError as error:
            self.log.error("The cluster does not answer: %s", error)
            raise pages.refusal(
                "The hub cannot reach its cluster. Try again in a minute; if that does not help, "
                "tell your instructor."
            ) from None
        except TimeoutError as error:
            self.log.error("%s did not start: %s", self.pod_name, error)
            raise pages.refusal(
                "There was no room for your server, or its image could not be fetched. Try again "
                "in a few minutes."
            ) from None


def reason(error: ApiException) -> str:
    """Return the cluster's own explanation, such as an exceeded quota."""
    try:
        return json.loads(error.body)["message"]
    except (KeyError, TypeError, ValueError):
        return str(error.reason)
