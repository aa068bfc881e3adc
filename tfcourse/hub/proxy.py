"""Run the proxy beside a hub in containers: `python -m tfcourse.hub.proxy`.

It listens at COURSE_ADDRESS (127.0.0.1) and COURSE_PORT (8000), and lets the hub in by a token that
both of them read from the same volume. Behind HTTPS it is for this machine alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from tfcourse.hub import https, idle, local, state


def configure(c: Any) -> None:
    """Tell the hub of a proxy that runs in a container of its own.

    Learners work on while the hub is restarted, and the hub finds their servers again.
    """
    c.JupyterHub.proxy_class = idle.Proxy
    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{state.ports()[2]}"
    c.ConfigurableHTTPProxy.auth_token = state.proxy_token()
    c.JupyterHub.cleanup_proxy = False
    c.JupyterHub.cleanup_servers = False

    # A restarted proxy knows no routes until the hub looks.
    c.JupyterHub.last_activity_interval = 5  # seconds


def main() -> None:
    """Become configurable-http-proxy."""
    port, _, api_port = state.ports()
    if port < 1024:
        sys.exit(f"The port {port} is for root alone, which the proxy is not: choose a larger one.")
    # What speaks HTTPS in front of it is on this machine, other than an ingress.
    is_behind = https.host() and not state.in_a_pod()
    address = (not is_behind and os.environ.get("COURSE_ADDRESS")) or "127.0.0.1"
    for number, where in ((port, address), (api_port, "127.0.0.1")):
        # The proxy itself would go on without listening.
        if error := state.port_error(number, where):
            sys.exit(
                f"Port {number} of {where} cannot be used: {error.strerror}. Stop what uses it,\n"
                "or set another COURSE_PORT (the next two are used as well) or COURSE_ADDRESS."
            )
    os.environ["CONFIGPROXY_AUTH_TOKEN"] = state.proxy_token()
    command = [
        *local.proxy_command(),
        f"--ip={address}",
        f"--port={port}",
        "--api-ip=127.0.0.1",
        f"--api-port={api_port}",
        # What learners see while the hub does not answer.
        f"--error-path={Path(__file__).with_name('proxy_pages')}",
        "--log-level=warn",
        # Longer than what stands in front keeps a connection that is not used (nginx for a minute,
        # Caddy for two): else a form is sent on one that is being closed, and lost. Milliseconds.
        "--keep-alive-timeout=150000",
        *(["--host-routing"] if https.subdomains() else []),
    ]
    os.execv(command[0], command)  # noqa: S606 - it is our own


if __name__ == "__main__":
    main()
