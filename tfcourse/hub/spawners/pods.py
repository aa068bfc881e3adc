"""Define learners' pods on a cluster, and add the course's features to the cluster's hub.

On a cluster, the Helm chart Zero to JupyterHub runs the hub. `make values` (operations/values.py)
writes the pods' traits to the chart's values. If the chart's hub runs our hub image, it loads
kubernetes/jupyterhub_config.d/course.py, which calls `configure`.
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
from tfcourse.hub.accounts import setup as accounts
from tfcourse.hub.classroom import progress
from tfcourse.hub.front import addresses, bounds, compression, pages
from tfcourse.hub.spawners import listening, profiles
from tfcourse.hub.spawners.homes import UID

GPU = "nvidia.com/gpu"

# Tolerations for the chart's taints on learners' nodes. Some clouds do not allow a slash in a key.
DEDICATED = [
    {"key": key, "operator": "Equal", "value": "user", "effect": "NoSchedule"}
    for key in ("hub.jupyter.org/dedicated", "hub.jupyter.org_dedicated")
]
# Nodes with GPUs usually have another taint, so that nothing else runs on them.
GPU_NODES = {"key": GPU, "operator": "Exists", "effect": "NoSchedule"}

# KubeSpawner traits for all learners' pods.
POD: dict[str, Any] = {
    # The image's entry point (docker/start-course) runs before this command and updates the
    # lessons.
    "cmd": ["jupyterhub-singleuser"],
    "uid": UID,
    "gid": UID,
    "fs_gid": UID,  # the group that can write to new volumes, which root owns
    # Do not change file owners at each start, which takes minutes for a hundred thousand files.
    "pod_security_context": {"fsGroupChangePolicy": "OnRootMismatch"},
    "allow_privilege_escalation": False,
    "container_security_context": {
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    # Otherwise, a learner might reach other learners' pods through the cluster's API.
    "automount_service_account_token": False,
    # An image's name contains the version, so a name always refers to the same image.
    "image_pull_policy": "IfNotPresent",
}

# Messages for waiting learners, keyed by the reason of the cluster's last event for the pod.
EVENT_MESSAGES = {
    "FailedScheduling": "There is no room for your server yet. The cluster may be adding a "
    "machine, which takes a few minutes.",
    "FailedAttachVolume": "Your files are being moved to another machine. This takes a minute "
    "or so.",
    "Pulling": "Your server's machine is downloading the course for the first time. This takes a "
    "few minutes.",
}
EVENT_MESSAGES["TriggeredScaleUp"] = EVENT_MESSAGES["FailedScheduling"]

# KubeSpawner's label on learners' volumes.
VOLUMES = "component=singleuser-storage"

# The address at which pods reach the cluster's API, and the folder with a pod's credentials.
API = "https://kubernetes.default.svc"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def configure(c: Any) -> None:
    """Add the course's pages and accounts to the configuration of the chart's hub."""
    ours = [name for name in settings.for_a_program() if name.startswith("COURSE_")]
    settings.check_names("hub.extraEnv", ours)
    hub = state.private_folder(state.state_folder() / "hub")
    bounds.configure(c)
    compression.configure(c)

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
    listening.configure()
    environment = c.KubeSpawner.get("environment", {})
    c.KubeSpawner.environment = {**environment, **progress.environment()}
    # If the operator has configured other profiles, keep KubeSpawner's own profile picker.
    chosen = {profile.get("slug") for profile in c.KubeSpawner.profile_list}
    offered = [profile for profile in profiles.PROFILES if profile.slug in chosen]
    if len(offered) == len(chosen):
        profiles.configure(c, nothing, offered, {})

    # Keep any authenticator that the operator has set in the chart's values. Replace the chart's
    # default, which admits everyone.
    if c.JupyterHub.get("authenticator_class", "dummy") == "dummy":
        accounts.configure(c, hub, has_home)
        # The chart's proxy runs in a pod, whose address changes when the pod is replaced.
        rounds.regularly(find_proxy, seconds=10)


def traits_of(profile: profiles.Profile) -> dict[str, Any]:
    """Return the spawner traits for the profile.

    No trait limits the number of processes. Only a node's kubelet can do that (podPidsLimit).
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
    """Return the volume for /dev/shm; files in it count towards the pod's memory limit."""
    # Give the size as a string, because Helm would write a number as 2.68435456e+08.
    limit = f"{size // settings.MIB}Mi"
    return {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": limit}}


def has_home(username: str) -> bool:
    """Return whether a volume for this user name exists.

    Recognise volumes by their names, because restored volumes may lack labels.
    """
    label = safe_slug(username, is_valid=is_valid_label)  # as KubeSpawner writes it
    name = f"metadata.name=claim-{safe_slug(username, max_length=48)}"
    volumes = "persistentvolumeclaims"
    marked = ask(volumes, labelSelector=f"{VOLUMES},hub.jupyter.org/username={label}")
    return username in map(owner, marked) or bool(ask(volumes, fieldSelector=name))


def owner(claim: dict[str, Any]) -> str:
    """Return the volume owner's name from KubeSpawner's annotation."""
    return claim["metadata"].get("annotations", {}).get("hub.jupyter.org/username", "")


def find_proxy() -> None:
    """Update `addresses.own_proxies` with the addresses of the chart's proxy pods."""
    found = ask("pods", labelSelector="component=proxy")
    addresses.own_proxies = {pod["status"]["podIP"] for pod in found if "podIP" in pod["status"]}


def ask(kind: str, **options: str) -> list[dict[str, Any]]:
    """Return objects of this kind from the hub's namespace, filtered by the options."""
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
    """The chart's spawner, which shows messages for learners instead of the cluster's events."""

    # Accept any JSON from REST requests; `profiles.apply_user_options` rejects invalid options.
    user_options = traitlets.Any({})

    async def progress(self) -> AsyncIterator[dict[str, object]]:
        """Yield the progress of a server's start, with messages instead of the cluster's events."""
        async for event in pages.progress(self):
            last = self.events[-1].get("reason") if self.events else None
            yield {**event, "message": EVENT_MESSAGES.get(last, event["message"])}

    async def start(self) -> tuple[str, int]:
        """Start the pod; convert a cluster error to a message for the learner."""
        try:
            # Give up slightly before JupyterHub, whose error message would be only "Timeout".
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
                "There was no room for your server, or its image could not be pulled. Try again "
                "in a few minutes."
            ) from None


def reason(error: ApiException) -> str:
    """Return the cluster's own explanation of an error, such as an exceeded quota."""
    try:
        return json.loads(error.body)["message"]
    except (KeyError, TypeError, ValueError):
        return str(error.reason)
