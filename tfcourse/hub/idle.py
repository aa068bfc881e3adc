"""When a learner's server counts as idle, and what stops it, wherever it runs but on the laptop."""

from __future__ import annotations

import sys
from typing import Any

from jupyterhub.proxy import ConfigurableHTTPProxy

from tfcourse.hub import state


def configure(c: Any) -> None:
    """Set after how long servers and kernels that do nothing are stopped (COURSE_IDLE_MINUTES).

    Also behind a tab that is left open. One that computes is not: see `Proxy`, and
    tfcourse/prefix/etc/jupyter/jupyter_server_config.py.
    """
    idle = round(60 * state.number("COURSE_IDLE_MINUTES", 60))  # seconds
    often = max(1, idle // 10) if idle else 300
    c.JupyterHub.template_vars["idle_minutes"] = round(idle / 60)
    if idle:
        culler = {
            "name": "idle-culler",
            "command": [
                *(sys.executable, "-m", "jupyterhub_idle_culler"),
                *(f"--timeout={idle}", f"--cull-every={often}"),
            ],
        }
        scopes = ["list:users", "read:users:activity", "read:servers", "delete:servers"]
        role = {"name": "idle-culler", "scopes": scopes, "services": ["idle-culler"]}
        c.JupyterHub.services.append(culler)
        c.JupyterHub.load_roles.append(role)
    c.Spawner.args.extend(
        [
            f"--MappingKernelManager.cull_idle_timeout={idle}",
            f"--MappingKernelManager.cull_interval={often}",
            "--MappingKernelManager.cull_connected=True",
        ]
    )
    # How often servers tell the hub.
    c.Spawner.environment = {"JUPYTERHUB_ACTIVITY_INTERVAL": str(often)}


class Proxy(ConfigurableHTTPProxy):
    """JupyterHub's proxy, which does not say when somebody was active.

    It would count every request, and a tab that is left open sends one every few seconds. What a
    learner does is known to the learner's server, which tells the hub.
    """

    async def get_all_routes(self, client: Any = None) -> dict[str, Any]:
        """Return where each address leads."""
        routes = await super().get_all_routes(client=client)
        for route in routes.values():
            route["data"].pop("last_activity", None)
        return routes
