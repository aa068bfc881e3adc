"""A cluster for tests: Kubernetes' API in memory, and a stand-in for its nodes.

No cluster was to be had. Real are the clients, KubeSpawner and kubectl, and each of their requests.
Of the API there is what they ask for: things of the kinds below, selectors, watches, and who may do
what. Where there should be nodes, a pod's server is a process of this machine, at a loopback
address of its own, with a folder for a volume. Nothing is scheduled, no policy holds, no image is
fetched.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kubernetes_validate
import psutil
import requests
import yaml
from aiohttp import ClientConnectionResetError, ClientSession, web
from hubs import ROOT, WORKER, Site, free_ports, wait_until

NAMESPACE = "course"
TOKEN = "of the hub's service account"

# Group and version, then what a kind is called in addresses.
KINDS = {
    "v1": {
        "ConfigMap": "configmaps",
        "Event": "events",
        "Namespace": "namespaces",
        "Node": "nodes",
        "PersistentVolumeClaim": "persistentvolumeclaims",
        "Pod": "pods",
        "Secret": "secrets",
        "Service": "services",
        "ServiceAccount": "serviceaccounts",
    },
    "apps/v1": {"Deployment": "deployments", "StatefulSet": "statefulsets"},
    "batch/v1": {"Job": "jobs"},
    "networking.k8s.io/v1": {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"},
    "rbac.authorization.k8s.io/v1": {"Role": "roles", "RoleBinding": "rolebindings"},
}
WITHOUT_NAMESPACE = ("namespaces", "nodes")

# As Kubernetes calls methods in a Role: of many things, and of one.
VERBS = {"GET": ("list", "get"), "POST": ("create", "create"), "PUT": ("update", "update")}
VERBS |= {"PATCH": ("patch", "patch"), "DELETE": ("deletecollection", "delete")}

Thing = dict[str, Any]


class Api:
    """Kubernetes' API, for an administrator without a token, and for the hub with its own."""

    def __init__(self) -> None:
        self.things: dict[tuple[str, str, str], Thing] = {}  # by kind, namespace and name
        self.past: list[tuple[str, str, Thing]] = []  # what happened to which kind of thing
        self.news = asyncio.Condition()
        self.asked: set[tuple[str, str]] = set()  # by the hub
        self.refusals: dict[tuple[str, str], str] = {}  # what may not be done, and why
        documents = yaml.safe_load_all((ROOT / "kubernetes" / "hub.yaml").read_text())
        (role,) = [document for document in documents if document["kind"] == "Role"]
        self.allowed = {
            (verb, resource)
            for rule in role["rules"]
            for verb, resource in itertools.product(rule["verbs"], rule["resources"])
        }

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""
        root, *parts = request.path.strip("/").split("/")
        version = "/".join(parts[: {"api": 1, "apis": 2}.get(root, 0)])
        rest = parts[version.count("/") + 1 :]
        if version not in KINDS or not rest:
            found = discovery(request.path)
            return web.json_response(found) if found else failure(404, "There is no such page.")
        namespace = rest[1] if rest[0] == "namespaces" and len(rest) > 2 else ""
        resource, name, part = [*rest[2 if namespace else 0 :], "", ""][:3]
        if refusal := self.refusal(request, namespace, resource, name):
            return failure(403, refusal)
        if "watch" in request.query:
            return await self.watch(request, namespace, resource)
        if not (name or request.method == "POST"):
            kind = kind_of(version, resource)
            found = self.select(request, namespace, resource)
            metadata = {"resourceVersion": str(len(self.past))}
            items = {"metadata": metadata, "items": found}
            return web.json_response({"kind": f"{kind}List", "apiVersion": version} | items)
        return await self.about_one(request, (resource, namespace, name), part)

    async def about_one(
        self, request: web.Request, key: tuple[str, str, str], part: str
    ) -> web.Response:
        """Answer a request about one thing."""
        body = yaml.safe_load(await request.text()) if request.can_read_body else {}
        resource, namespace, name = key
        if part == "eviction":
            await self.keep("DELETED", key, self.things[key])
            return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"})
        if request.method == "POST":
            if request.query.get("fieldValidation") == "Strict":
                try:
                    kubernetes_validate.validate(body, "1.37", strict=True)
                except kubernetes_validate.ValidationError as error:
                    return failure(400, str(error), "BadRequest")
            name = body["metadata"]["name"]
            key = resource, namespace, name
            if key in self.things:
                return failure(409, f'{resource} "{name}" already exists', "AlreadyExists")
            body["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
            if namespace:
                body["metadata"]["namespace"] = namespace
            if resource == "pods":
                body["status"] = {"phase": "Pending"}
            return web.json_response(await self.keep("ADDED", key, body), status=201)
        if key not in self.things:
            return failure(404, f'{resource} "{name}" not found', "NotFound")
        thing = self.things[key]
        if request.method == "DELETE":
            await self.keep("DELETED", key, thing)
        elif request.method in ("PUT", "PATCH"):
            thing = await self.keep("MODIFIED", key, merged(thing, body))
        return web.json_response(scale(thing) if part == "scale" else thing)

    def refusal(self, request: web.Request, namespace: str, resource: str, name: str) -> str:
        """Return why a request may not be made, mostly nothing."""
        verb = "watch" if "watch" in request.query else VERBS[request.method][bool(name)]
        if request.headers.get("Authorization") == f"Bearer {TOKEN}":
            self.asked.add((verb, resource))
            if namespace != NAMESPACE or (verb, resource) not in self.allowed:
                return f"the hub cannot {verb} {resource} in {namespace!r}"
        return self.refusals.get((verb, resource), "")

    def select(self, request: web.Request, namespace: str, resource: str) -> list[Thing]:
        """Return what there is of what a request asks for."""
        return [
            thing
            for (kind, where, _), thing in self.things.items()
            if (kind, where) == (resource, namespace or where) and selected(thing, request.query)
        ]

    async def watch(self, request: web.Request, namespace: str, resource: str) -> web.Response:
        """Tell what happens to what a request asks for, after a list that it has had."""
        reply = web.StreamResponse()
        await reply.prepare(request)
        seen = int(request.query.get("resourceVersion") or len(self.past))
        while True:
            async with self.news:
                while len(self.past) <= seen:
                    await self.news.wait()
            news, seen = self.past[seen:], len(self.past)
            for kind, what, thing in news:
                here = thing["metadata"].get("namespace", "")
                if (kind, here) == (resource, namespace or here) and selected(thing, request.query):
                    event = json.dumps({"type": what, "object": thing})
                    with contextlib.suppress(ClientConnectionResetError):  # they have gone
                        await reply.write(event.encode() + b"\n")

    async def keep(self, what: str, key: tuple[str, str, str], thing: Thing) -> Thing:
        """Keep a thing, or its end, as the latest that happened."""
        metadata = thing["metadata"] | {"resourceVersion": str(len(self.past) + 1)}
        thing = controlled(thing | {"metadata": metadata})
        async with self.news:
            if what == "DELETED":
                del self.things[key]
            else:
                self.things[key] = thing
            self.past.append((key[0], what, thing))
            self.news.notify_all()
        return thing


def discovery(path: str) -> Thing | None:
    """Return what the API says of itself, which clients ask first."""
    groups = [version for version in KINDS if "/" in version]
    about: dict[str, Thing] = {
        "/version": {"major": "1", "minor": "37", "gitVersion": "v1.37.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {
            "kind": "APIGroupList",
            "groups": [
                {"name": version.split("/")[0], "versions": [a], "preferredVersion": a}
                for version in groups
                for a in [{"groupVersion": version, "version": "v1"}]
            ],
        },
    }
    for version, kinds in KINDS.items():
        about[address(version)] = {
            "kind": "APIResourceList",
            "groupVersion": version,
            "resources": [
                {
                    "name": plural,
                    "singularName": kind.lower(),
                    "kind": kind,
                    "namespaced": plural not in WITHOUT_NAMESPACE,
                    "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
                }
                for kind, plural in kinds.items()
            ],
        }
        # That it looks at fields itself.
        group = version.rpartition("/")[0]
        parameters = [{"name": "fieldValidation", "in": "query"}]
        about[f"/openapi/v3{address(version)}"] = {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": "1.37"},
            "paths": {
                f"/{plural}": {
                    "patch": {
                        "parameters": parameters,
                        "x-kubernetes-group-version-kind": {
                            "group": group,
                            "version": "v1",
                            "kind": kind,
                        },
                    }
                }
                for kind, plural in kinds.items()
            },
        }
    about["/openapi/v3"] = {
        "paths": {
            address(version)[1:]: {"serverRelativeURL": f"/openapi/v3{address(version)}"}
            for version in KINDS
        }
    }
    evictions = {"name": "pods/eviction", "kind": "Eviction", "group": "policy", "version": "v1"}
    about["/api/v1"]["resources"].append(evictions | {"namespaced": True, "verbs": ["create"]})
    return about.get(path)


def address(version: str) -> str:
    """Return where the kinds of a group and version are."""
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def kind_of(version: str, resource: str) -> str:
    """Return the kind of what is called so in addresses."""
    return next(kind for kind, plural in KINDS[version].items() if plural == resource)


def failure(status: int, message: str, reason: str = "Forbidden") -> web.Response:
    """Return an error as the API does."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status}
    return web.json_response(body | {"message": message, "reason": reason}, status=status)


def merged(first: Any, second: Any) -> Any:
    """Return the first with the second on top (RFC 7396); Kubernetes merges some lists, too."""
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return second
    both = first | {key: merged(first.get(key), value) for key, value in second.items()}
    return {key: value for key, value in both.items() if value is not None}


def controlled(thing: Thing) -> Thing:
    """Return the thing with what the cluster's controllers say when they are done with it."""
    if thing.get("kind") in ("Deployment", "StatefulSet"):
        names = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
        counts = dict.fromkeys(names, thing["spec"]["replicas"])
        generation = int(thing["metadata"]["resourceVersion"])
        metadata = thing["metadata"] | {"generation": generation}
        thing = thing | {
            "metadata": metadata,
            "status": counts | {"observedGeneration": generation},
        }
    if thing.get("kind") == "Job":
        thing = thing | {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    return thing


def scale(thing: Thing) -> Thing:
    """Return how many there are of a thing, as the API says it."""
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": thing["metadata"],
        "spec": {"replicas": thing["spec"]["replicas"]},
    }


def now() -> str:
    """Return the time as the API writes it."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def selected(thing: Thing, query: Any) -> bool:
    """Tell whether labels and fields are those that a request asks for; only = is known."""
    for pair in filter(None, query.get("labelSelector", "").split(",")):
        key, _, value = pair.partition("=")
        if thing["metadata"].get("labels", {}).get(key) != value:
            return False
    for pair in filter(None, query.get("fieldSelector", "").split(",")):
        path, _, value = pair.partition("=")
        found: Any = thing
        for key in path.split("."):
            found = (found or {}).get(key)
        if found != value:
            return False
    return True


class Cluster:
    """An API, and nodes, in a thread of their own."""

    networks = itertools.count()

    def __init__(self, folder: Path):
        self.folder, self.port = folder, free_ports()
        self.url = f"http://127.0.0.1:{self.port}"
        self.running: dict[str, subprocess.Popen[bytes]] = {}  # by the pods' uids
        self.has_room = True
        self.waiting: set[str] = set()  # pods that have been looked at
        network = f"127.{10 + WORKER}.{next(self.networks)}"
        self.addresses = (f"{network}.{number}" for number in itertools.count(2))
        self.is_over = threading.Event()

    def start(self) -> None:
        """Return when it answers."""
        ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.run(ready)))
        self.thread.start()
        assert ready.wait(30)

    def stop(self) -> None:
        """End it, and what runs in it."""
        self.is_over.set()
        self.thread.join(30)
        for process in self.running.values():
            process.kill()
            process.wait()

    async def run(self, ready: threading.Event) -> None:
        """Be a cluster until `stop`."""
        self.api = Api()
        runner = web.ServerRunner(web.Server(self.api.answer), shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        ready.set()
        async with ClientSession(self.url) as self.session:
            while not self.is_over.is_set():
                await self.look_after_pods()
                await asyncio.sleep(0.1)
        await runner.cleanup()

    def all(self, resource: str) -> dict[str, Thing]:
        """Return all that there are of a kind (`pods`), by name."""
        things = list(self.api.things.items())
        return {name: thing for (kind, _, name), thing in things if kind == resource}

    def add(self, kind: str, thing: Thing) -> None:
        """Make a thing of a kind (`Pod`), as an administrator does."""
        version = next(version for version, kinds in KINDS.items() if kind in kinds)
        resource = KINDS[version][kind]
        where = "" if resource in WITHOUT_NAMESPACE else f"/namespaces/{NAMESPACE}"
        url = f"{self.url}{address(version)}{where}/{resource}"
        body = {"apiVersion": version, "kind": kind} | thing
        requests.post(url, json=body, timeout=30).raise_for_status()

    async def look_after_pods(self) -> None:
        """Start and end what pods say."""
        # By their uids: meanwhile one may have been deleted, and another made with its name.
        pods = {pod["metadata"]["uid"]: pod for pod in self.all("pods").values()}
        self.waiting &= pods.keys()
        for uid in self.running.keys() - pods.keys():
            process = self.running.pop(uid)
            process.terminate()
            await asyncio.to_thread(process.wait)
        for uid, pod in pods.items():
            name, process = pod["metadata"]["name"], self.running.get(uid)
            if process is None and pod["status"]["phase"] == "Pending":
                if self.has_room:
                    await self.report(name, self.begin(pod))
                elif uid not in self.waiting:
                    await self.tell(name, "FailedScheduling", "0/3 nodes are available")
                self.waiting.add(uid)
            elif process and process.poll() is not None and pod["status"]["phase"] == "Running":
                ended = {"exitCode": process.returncode, "reason": "Error"}
                await self.report(name, status("Failed", pod["status"]["podIP"], terminated=ended))

    def begin(self, pod: Thing) -> Thing:
        """Start a pod's server; return the pod's status."""
        (container,) = pod["spec"]["containers"]
        (claim,) = [
            volume["persistentVolumeClaim"]["claimName"]
            for volume in pod["spec"]["volumes"]
            if "persistentVolumeClaim" in volume
        ]
        assert claim in self.all("persistentvolumeclaims")
        home = self.folder / claim
        home.mkdir(exist_ok=True)
        address = next(self.addresses)
        environment = {item["name"]: item["value"] for item in container["env"]}
        port = container["ports"][0]["containerPort"]
        # In a pod it listens on all addresses, which here are everybody's.
        url = environment["JUPYTERHUB_SERVICE_URL"].replace("0.0.0.0", address)
        own = {"JUPYTERHUB_SERVICE_URL": url, "HOME": str(home), "PATH": os.environ["PATH"]}
        command, *arguments = container["args"]
        root = ["--allow-root"] if os.geteuid() == 0 else []
        with open(self.folder / f"{pod['metadata']['name']}.log", "a") as log:
            self.running[pod["metadata"]["uid"]] = subprocess.Popen(
                [str(Path(sys.executable).with_name(command)), *arguments, *root],
                cwd=home,
                env=environment | own,
                stdout=log,
                stderr=log,
            )
        assert port == 8888
        return status("Running", address, running={})

    async def tell(self, name: str, reason: str, message: str) -> None:
        """Write an event about a pod."""
        event = {
            "metadata": {"name": f"{name}.{uuid.uuid4().hex}"},
            "involvedObject": {"kind": "Pod", "name": name},
            "type": "Warning",
            "reason": reason,
            "message": message,
            "lastTimestamp": now(),
        }
        await self.send("POST", "events", event)

    async def report(self, name: str, found: Thing) -> None:
        """Tell the API how a pod is."""
        await self.send("PATCH", f"pods/{name}/status", {"status": found})

    async def send(self, method: str, path: str, body: Thing) -> None:
        """Send the API something, as a node does."""
        path = f"/api/v1/namespaces/{NAMESPACE}/{path}"
        async with self.session.request(method, path, json=body) as reply:
            assert reply.ok, await reply.text()


def status(phase: str, address: str, **state: Thing) -> Thing:
    """Return what a kubelet says of a pod with one container."""
    ready = phase == "Running"
    container = {"name": "notebook", "ready": ready, "state": state, "restartCount": 0}
    return {"phase": phase, "podIP": address, "containerStatuses": [container]}


# Our own settings, and what a pod has of its cluster.
CONFIG = """
from pathlib import Path

from tfcourse.hub.spawners import pods

pods.NOT_HERE = ()  # here there are other ports
pods.SERVICE = "127.0.0.1"
pods.API = {api!r}
pods.ACCOUNT = Path({account!r})
load_subconfig({own!r})
c.KubeSpawner.namespace = {namespace!r}
# Nobody else shall come in.
c.JupyterHub.hub_bind_url = c.Spawner.hub_connect_url
{more}
"""


class ClusterHub(Site):
    """Our own hub with its proxy, as in their pod (kubernetes/hub.yaml), but processes of ours."""

    def __init__(self, folder: Path, api: str, more: str = "", **environment: str):
        super().__init__(free_ports())
        self.folder = folder
        clean = {k: v for k, v in os.environ.items() if not k.startswith("COURSE_")}
        self.environment = clean | {
            "COURSE_SPAWNER": "kubernetes",
            "COURSE_IMAGE": "registry.example.org/tensorflow-course/1.0",
            "COURSE_STATE": str(folder),
            "COURSE_SECRETS": str(folder),
            "COURSE_PORT": str(self.port),
            "PYTHONPATH": str(ROOT),
            "KUBECONFIG": str(folder / "kubeconfig"),
            **environment,
        }
        account = write_account(folder / "account")
        write_kubeconfig(folder / "kubeconfig", api, TOKEN)
        own, account_ = str(ROOT / "jupyterhub_config.py"), str(account)
        text = CONFIG.format(api=api, account=account_, own=own, namespace=NAMESPACE, more=more)
        (folder / "config.py").write_text(text)
        self.processes: dict[str, psutil.Process] = {}

    def launch(self, what: str, *command: str) -> None:
        """Start a process, with a log of its own."""
        with open(self.folder / f"{what}.log", "a") as log:
            self.processes[what] = psutil.Popen(
                [sys.executable, *command],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    def start(self) -> None:
        """Start both; return when the hub answers."""
        self.launch("proxy", "-m", "tfcourse.hub.front.proxy")
        self.start_hub()

    def start_hub(self) -> None:
        """Start the hub alone; return when it answers."""
        self.launch("hub", "-m", "jupyterhub", "-f", "config.py")
        wait_until(self.answers, f"the hub answers; see {self.folder}/hub.log", 300)

    def kill_hub(self) -> None:
        """Kill it as a container ends, with all that it has started."""
        hub = self.processes["hub"]
        for process in (*hub.children(recursive=True), hub):
            process.kill()
        hub.wait(30)

    def stop(self) -> None:
        """End what was started here."""
        for process in reversed(self.processes.values()):
            if isinstance(process, psutil.Popen):
                process.terminate()
                process.wait(60)


def write_account(folder: Path) -> Path:
    """Write what a pod with the hub's service account finds; return where."""
    folder.mkdir()
    for name, content in {"token": TOKEN, "namespace": NAMESPACE, "ca.crt": ""}.items():
        (folder / name).write_text(content)
    return folder


def write_kubeconfig(path: Path, api: str, token: str = "") -> None:
    """Name a cluster by the address of its API."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "stand-in", "cluster": {"server": api}}],
        "users": [{"name": "somebody", "user": {"token": token} if token else {}}],
        "contexts": [{"name": "here", "context": {"cluster": "stand-in", "user": "somebody"}}],
        "current-context": "here",
    }
    path.write_text(yaml.safe_dump(config))
