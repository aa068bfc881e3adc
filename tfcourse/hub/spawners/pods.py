"""A hub for a university: each learner's server is a pod, on whatever node has room for it.

Two ways lead there, and both take from here what a pod is: Zero to JupyterHub, a chart with a hub
of its own (values.py), and our own hub (`COURSE_SPAWNER=kubernetes`; kubernetes/hub.yaml).
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import requests
import traitlets
from kubernetes_asyncio.client import ApiException
from kubespawner import KubeSpawner
from kubespawner.slugs import is_valid_label, safe_slug

from tfcourse.hub import database, settings
from tfcourse.hub.accounts import setup as accounts
from tfcourse.hub.front import https, pages, proxy
from tfcourse.hub.spawners import idle, profiles

HOME = "/home/jovyan"
UID = 1000  # jovyan's, in our images
GPU = "nvidia.com/gpu"

# Nodes for learners, by the chart's names. Some clouds allow no slash in a taint's key.
NODES = {"key": "hub.jupyter.org/node-purpose", "operator": "In", "values": ["user"]}
DEDICATED = [
    {"key": key, "operator": "Equal", "value": "user", "effect": "NoSchedule"}
    for key in ("hub.jupyter.org/dedicated", "hub.jupyter.org_dedicated")
]
GPU_NODES = {"key": GPU, "operator": "Exists", "effect": "NoSchedule"}

# How pods find the hub: by its Service (kubernetes/hub.yaml).
SERVICE = "course-hub"

# What holds for every learner's pod, as traits of KubeSpawner.
POD: dict[str, Any] = {
    # The image's own entry comes before it, which brings the lessons (docker/start-course).
    "cmd": ["jupyterhub-singleuser"],
    "uid": UID,
    "gid": UID,
    "fs_gid": UID,  # a new volume belongs to root, and to this group
    # Not at each start: a home with a hundred thousand files would take minutes.
    "pod_security_context": {"fsGroupChangePolicy": "OnRootMismatch"},
    "allow_privilege_escalation": False,
    "container_security_context": {
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    # A pod that could talk to the cluster would be a way to other learners' pods.
    "automount_service_account_token": False,
    # An image is called by its version: what a name means does not change.
    "image_pull_policy": "IfNotPresent",
    # A node that was added for it has to start, and to fetch 2 GB of image.
    "start_timeout": 600,
}

# What a cluster says last of a pod that does not run yet, in words for its learner.
MEANWHILE = {
    "FailedScheduling": "There is no room for your server yet. If your cluster can, it is adding a "
    "machine, which takes some minutes.",
    "FailedAttachVolume": "Your files are on their way to another machine. This takes a minute "
    "or so.",
    "Pulling": "Your server is new on its machine, which fetches the course. This takes a few "
    "minutes.",
}
MEANWHILE["TriggeredScaleUp"] = MEANWHILE["FailedScheduling"]

# Settings of a hub on one server that would do nothing here, or the wrong thing.
NOT_HERE = (
    "COURSE_ACME_DIRECTORY",
    "COURSE_ACME_ROOT",
    "COURSE_ADDRESS",
    "COURSE_CERTIFICATE",
    "COURSE_HTTP_PORT",
    "COURSE_KEY",
    "COURSE_MONITOR",
    "COURSE_NAME",
    "COURSE_PORT",  # kubernetes/hub.yaml knows those that there are
)

# What KubeSpawner writes on learners' volumes.
HOMES = "component=singleuser-storage"

# Where a pod finds out how to talk to its cluster.
API = "https://kubernetes.default.svc"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def configure(c: Any, hub: Path) -> None:
    """Set up our hub in a pod, beside its proxy; `hub` is the folder of what is the hub's."""
    ours = [name for name in settings.for_a_program() if name.startswith("COURSE_")]
    settings.check_names("ConfigMap or Secret course-hub", ours)
    if not settings.IMAGE.is_set:
        sys.exit(
            "COURSE_IMAGE is empty, but nodes fetch the learners' image from a registry:\n"
            "say where it is, like registry.example.org/tensorflow-course/1.0."
        )
    for variable in NOT_HERE:
        if settings.TABLE[variable].text not in ("", "off", settings.TABLE[variable].default):
            sys.exit(
                f"{variable} is for a hub on one server. Here the cluster does what it is about,\n"
                "or nobody does: see docs/kubernetes.md, and leave it empty."
            )
    try:
        somebody = homes(limit="1")
    except (OSError, requests.RequestException) as error:
        sys.exit(
            f"The hub cannot ask its cluster for learners' volumes: {error}.\n"
            "It has to run in a pod with the service account of kubernetes/hub.yaml."
        )
    database.configure(c, hub, somebody)

    # --- Addresses. Proxy and hub are in one pod, so what is between them stays on its loopback

    port, hub_port, _ = settings.ports()
    c.JupyterHub.bind_url = f"http://127.0.0.1:{port}"
    c.JupyterHub.hub_bind_url = f"http://0.0.0.0:{hub_port}"
    c.JupyterHub.hub_connect_url = f"http://127.0.0.1:{hub_port}"  # the proxy's way
    c.Spawner.hub_connect_url = f"http://{SERVICE}:{hub_port}"  # learners'
    https.configure(c)

    proxy.configure(c)

    accounts.configure(c, hub, has_home)

    # --- A learner's pod

    c.JupyterHub.spawner_class = PodSpawner
    profiles.configure(c, traits_of, profiles.PROFILES, unavailable())
    configure_pods(c)

    # How many pods may be on their way at once; the others wait for a moment, with a sentence.
    c.JupyterHub.concurrent_spawn_limit = 100

    idle.configure(c)


def configure_pods(c: Any) -> None:
    """Set what holds for every pod, and its volumes."""
    for trait, value in POD.items():
        setattr(c.KubeSpawner, trait, value)
    c.KubeSpawner.node_affinity_preferred = [
        {"weight": 100, "preference": {"matchExpressions": [NODES]}}
    ]
    c.KubeSpawner.volume_mounts = {
        "home": {"name": "home", "mountPath": HOME},
        "shm": {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - the volume of `traits_of`
    }

    # The volume with a learner's work. It stays when an administrator deletes the account: that is
    # done in a second, and cannot be undone.
    c.KubeSpawner.storage_pvc_ensure = True
    c.KubeSpawner.delete_pvc = False
    c.KubeSpawner.storage_access_modes = ["ReadWriteOnce"]
    c.KubeSpawner.storage_capacity = settings.HOME_SIZE()
    c.KubeSpawner.storage_class = settings.HOME_CLASS() or None


def traits_of(profile: profiles.Profile) -> dict[str, Any]:
    """Return what the profile sets of the spawner.

    Processes are missing: only a node can limit those of a pod (the kubelet's podPidsLimit).
    """
    return {
        "image": profile.image,
        "mem_limit": profile.memory,
        "mem_guarantee": profile.guaranteed_memory,
        "cpu_limit": profile.cpus,
        "cpu_guarantee": profile.guaranteed_cpus,
        "extra_resource_limits": {GPU: "1"} if profile.gpu else {},
        # Nodes with GPUs are usually tainted, too, so that nothing else takes their place.
        "tolerations": [*DEDICATED, GPU_NODES] if profile.gpu else DEDICATED,
        "volumes": {
            "home": {"name": "home", "persistentVolumeClaim": {"claimName": "{pvc_name}"}},
            "shm": shared_memory(profile.shared_memory),
        },
    }


def shared_memory(size: int) -> dict[str, Any]:
    """Return the volume for /dev/shm. What is in it counts as the pod's memory."""
    # As a text: Helm would write the number as 2.68435456e+08.
    limit = f"{size // settings.MIB}Mi"
    return {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": limit}}


def unavailable() -> dict[str, str]:
    """Return which profiles cannot be chosen, and why: by COURSE_GPUS, as nodes come and go."""
    if settings.GPUS():
        return {}
    reason = "Not available: this cluster has no GPUs for learners."
    return {profile.slug: reason for profile in profiles.PROFILES if profile.gpu}


def has_home(username: str) -> bool:
    """Tell whether there is work under this user name.

    A volume that was restored without its labels is known by its name.
    """
    label = safe_slug(username, is_valid=is_valid_label)  # as KubeSpawner has it on the volume
    marked = claims(labelSelector=f"{HOMES},hub.jupyter.org/username={label}")
    return username in map(owner, marked) or bool(
        claims(fieldSelector=f"metadata.name=claim-{safe_slug(username, max_length=48)}")
    )


def homes(**options: str) -> list[str]:
    """Return whose volumes there are."""
    return [owner(claim) for claim in claims(labelSelector=HOMES, **options)]


def owner(claim: dict[str, Any]) -> str:
    """Return whose volume it is, by KubeSpawner's note on it."""
    return claim.get("annotations", {}).get("hub.jupyter.org/username", "")


def claims(**options: str) -> list[dict[str, Any]]:
    """Return what the cluster knows about the volumes that are asked for."""
    namespace = (ACCOUNT / "namespace").read_text().strip()
    answer = requests.get(
        f"{API}/api/v1/namespaces/{namespace}/persistentvolumeclaims",
        params=options,
        # Read anew each time: it is good for an hour.
        headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}"},
        verify=str(ACCOUNT / "ca.crt"),
        timeout=10,
    )
    answer.raise_for_status()
    return [claim["metadata"] for claim in answer.json()["items"]]


class PodSpawner(KubeSpawner):
    """A pod for each learner, by the picker that all our hubs have."""

    # As in `local.LocalSpawner`: a REST request may bring any JSON, `apply_user_options` refuses.
    user_options = traitlets.Any({})

    async def load_user_options(self) -> None:
        """Do nothing: `apply_user_options` has set the chosen profile up.

        KubeSpawner's own profiles, of which there are none here, would have the same field.
        """

    async def progress(self) -> AsyncIterator[dict[str, object]]:
        """Yield how far a start has come; KubeSpawner itself would show the cluster's log."""
        async for event in pages.progress(self):
            last = self.events[-1].get("reason") if self.events else None
            yield {**event, "message": MEANWHILE.get(last, event["message"])}

    async def start(self) -> tuple[str, int]:
        """Start the pod; what the cluster refuses becomes a sentence for the learner."""
        try:
            # A little sooner than JupyterHub, which would say "Timeout" and no more.
            return await asyncio.wait_for(super().start(), self.start_timeout - 2)
        except ApiException as error:
            self.log.error("The cluster refused %s: %s", self.pod_name, error)
            raise pages.refusal(
                "The cluster did not take your server. Try again; if that does not help, tell your "
                f"instructor what it says: {reason(error)}"
            ) from None
        except TimeoutError as error:
            self.log.error("%s did not start: %s", self.pod_name, error)
            raise pages.refusal(
                "There was no room for your server, or its image could not be fetched. Try again "
                "in some minutes."
            ) from None


def reason(error: ApiException) -> str:
    """Return the cluster's own words: a quota that is used up, say."""
    try:
        return json.loads(error.body)["message"]
    except (KeyError, TypeError, ValueError):
        return str(error.reason)
