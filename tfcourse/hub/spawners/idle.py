"""When a learner's server counts as idle, and what stops it, wherever it runs but on the laptop."""

from __future__ import annotations

import sys
from typing import Any

from tfcourse.hub import settings


def configure(c: Any) -> None:
    """Set after how long servers and kernels that do nothing are stopped (COURSE_IDLE_MINUTES).

    Also behind a tab that is left open. One that computes is not: see `front.proxy.Proxy`, and
    tfcourse/prefix/etc/jupyter/jupyter_server_config.py.
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
    # How often servers tell the hub.
    c.Spawner.environment = {"JUPYTERHUB_ACTIVITY_INTERVAL": str(often)}
