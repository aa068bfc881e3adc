"""Stop idle servers and kernels, on every hub except a laptop's."""

from __future__ import annotations

import sys
from typing import Any

from tfcourse.hub import settings


def configure(c: Any) -> None:
    """Stop servers and kernels that have been idle for COURSE_IDLE_MINUTES.

    A browser tab that is left open does not keep them running. A computation does: see
    `front.proxy.Proxy` and tfcourse/prefix/etc/jupyter/jupyter_server_config.py.
    """
    idle = round(60 * settings.IDLE_MINUTES())  # seconds
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
    # How often servers report their activity to the hub.
    c.Spawner.environment.update({"JUPYTERHUB_ACTIVITY_INTERVAL": str(often)})
