"""Simulate learners' pods for tools/load.py, because we cannot run two thousand real pods.

A single process simulates all pods. To the hub and the proxy, the process appears to be the
JupyterLab server in each pod: it authenticates the learner with JupyterHub's code, reports activity
to the hub, responds to an open tab's requests, and keeps the tab's WebSocket open. It does not run
notebooks.

`python stand_in_servers.py PORT` starts the process. The hub's StandInSpawner starts and stops
servers in this process.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from datetime import UTC, datetime
from typing import Any, ClassVar

import jupyterhub
from jupyterhub.services.auth import HubOAuth, HubOAuthCallbackHandler, HubOAuthenticated
from kubernetes_asyncio.client import ApiClient
from tornado import web, websocket
from tornado.httpclient import AsyncHTTPClient

from tfcourse.hub.front import pages
from tfcourse.hub.spawners.pods import PodSpawner

# The minimum and maximum seconds until a pod's server responds, on a node that has capacity and the
# image.
TAKES = 3, 9

# --- In the hub


class StandInSpawner(PodSpawner):
    """A spawner that renders a learner's pod manifest, but starts a simulated server instead.

    Like KubeSpawner, this spawner keeps a list of running servers, so that polling needs no
    request.
    """

    progress = pages.progress
    running: ClassVar[set[str] | None] = None

    async def start(self) -> tuple[str, int]:
        """Start a server after about as long as a pod takes to start."""
        await self.load_user_options()
        async with ApiClient() as client:
            for made in (await self.get_pod_manifest(), self.get_pvc_manifest()):
                json.dumps(client.sanitize_for_serialization(made))
        running = await self.known()
        # Wait here rather than in the stand-in process, because the hub's HTTP client limits the
        # number of pending requests.
        await asyncio.sleep(random.uniform(*TAKES))
        await call("PUT", self.user.name, self.get_env())
        running.add(self.user.name)
        return "127.0.0.1", int(os.environ["STAND_IN_PORT"])

    async def stop(self, now: bool = False) -> None:
        """Stop the server."""
        await call("DELETE", self.user.name)
        (await self.known()).discard(self.user.name)

    async def poll(self) -> int | None:
        """Return None if the server is running, or else 0."""
        return None if self.user.name in await self.known() else 0

    async def known(self) -> set[str]:
        """Return the names of learners with running servers; request the list only once."""
        if StandInSpawner.running is None:
            StandInSpawner.running = set(json.loads(await call("GET", "")))
        return StandInSpawner.running


async def call(method: str, name: str, content: Any = None) -> bytes:
    """Send a request to the stand-in process; return the response body."""
    reply = await AsyncHTTPClient().fetch(
        f"http://127.0.0.1:{os.environ['STAND_IN_PORT']}/control/{name}",
        method=method,
        body=None if content is None else json.dumps(content),
    )
    return reply.body


# --- In the stand-in process

servers: dict[str, Server] = {}


class Server:
    """A learner's simulated server, which reports activity to the hub."""

    def __init__(self, environment: dict[str, str]):
        self.environment = environment
        self.token = environment["JUPYTERHUB_API_TOKEN"]
        self.auth = HubOAuth(
            api_url=environment["JUPYTERHUB_API_URL"],
            api_token=self.token,
            base_url=environment["JUPYTERHUB_SERVICE_PREFIX"],
            hub_prefix=f"{environment['JUPYTERHUB_BASE_URL']}hub/",
            oauth_client_id=environment["JUPYTERHUB_CLIENT_ID"],
            oauth_redirect_uri=environment["JUPYTERHUB_OAUTH_CALLBACK_URL"],
            access_scopes=set(json.loads(environment["JUPYTERHUB_OAUTH_ACCESS_SCOPES"])),
        )
        self.task = asyncio.create_task(self.tell_the_hub())

    async def tell_the_hub(self) -> None:
        """Report the learner as active at the same interval as jupyterhub-singleuser."""
        await self.auth._api_request("GET", self.environment["JUPYTERHUB_API_URL"])
        while True:
            now = datetime.now(UTC).isoformat()
            activity = {"servers": {"": {"last_activity": now}}, "last_activity": now}
            try:
                await AsyncHTTPClient().fetch(
                    self.environment["JUPYTERHUB_ACTIVITY_URL"],
                    method="POST",
                    headers={"Authorization": f"token {self.token}"},
                    body=json.dumps(activity),
                )
            except OSError:  # retry, because the hub is restarting
                await asyncio.sleep(random.uniform(1, 15))
                continue
            interval = int(self.environment["JUPYTERHUB_ACTIVITY_INTERVAL"])
            await asyncio.sleep(interval * random.uniform(0.9, 1.1))


class Control(web.RequestHandler):
    """Handles the spawner's requests."""

    def get(self, name: str) -> None:
        self.write(json.dumps(list(servers)))

    async def put(self, name: str) -> None:
        servers[name] = Server(json.loads(self.request.body))

    def delete(self, name: str) -> None:
        servers.pop(name).task.cancel()


class Learners(HubOAuthenticated):
    """The base class for handlers of requests to a learner's server."""

    async def prepare(self) -> None:
        name = self.request.path.split("/")[2]
        if name not in servers:
            raise web.HTTPError(503)
        self.hub_auth = servers[name].auth
        if not isinstance(self, HubOAuthCallbackHandler):
            user = await self.hub_auth.get_user(self, sync=False)
            if user and user["name"] != name:
                raise web.HTTPError(403)
            self.known = user

    def set_default_headers(self) -> None:
        self.set_header("X-JupyterHub-Version", jupyterhub.__version__)


class Page(Learners, web.RequestHandler):
    """The JupyterLab page."""

    async def get(self) -> None:
        if self.known:
            self.write("JupyterLab")
        else:
            self.redirect(self.get_login_url())


class Rest(Learners, web.RequestHandler):
    """A handler for the API requests that an open tab repeats."""

    async def get(self) -> None:
        if not self.known:
            raise web.HTTPError(403)
        self.write(json.dumps([{"name": "python3", "path": "02_load_data.ipynb"}] * 5))


class Channels(Learners, websocket.WebSocketHandler):
    """A kernel's WebSocket, which replies to each message with several messages."""

    async def open(self) -> None:
        if not self.known:
            self.close()

    async def on_message(self, message: str | bytes) -> None:
        for _ in range(5):
            await self.write_message(message)


class Callback(Learners, HubOAuthCallbackHandler):
    """The OAuth callback, to which the hub redirects a learner after the log-in."""


async def main() -> None:
    """Handle requests until the process is killed."""
    AsyncHTTPClient.configure(None, max_clients=1000)
    own = "/user/[^/]+"
    application = web.Application(
        [
            ("/control/(.*)", Control),
            (f"{own}/oauth_callback", Callback),
            (f"{own}/lab.*", Page),
            (f"{own}/api/kernels/.*/channels", Channels),
            (f"{own}/.*", Rest),
        ],
        cookie_secret=os.urandom(32),
        websocket_ping_interval=30,
    )
    application.listen(int(sys.argv[1]), "127.0.0.1", backlog=2048)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
