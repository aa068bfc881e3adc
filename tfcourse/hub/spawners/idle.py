"""Stop idle servers and kernels, on every hub except the one that `make hub` starts."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from jupyterhub.app import JupyterHub
from jupyterhub.utils import utcnow

from tfcourse.hub import rounds, settings

# JupyterHub accepts activity times up to this far in the future, because clocks differ.
AHEAD = timedelta(hours=1)


def configure(c: Any) -> None:
    """Stop servers and kernels that have been idle for COURSE_IDLE_MINUTES.

    A computation keeps a server running, but an open browser tab does not (see `front.proxy.Proxy`
    and tfcourse/prefix/etc/jupyter/jupyter_server_config.py).
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
                f"--config={Path(__file__).with_name('culler_config.py')}",
            ],
        }
        scopes = ["list:users", "read:users:activity", "read:servers", "delete:servers"]
        role = {"name": "idle-culler", "scopes": scopes, "services": ["idle-culler"]}
        c.JupyterHub.services.append(culler)
        rounds.regularly(partial(rounds.in_the_hub, forget_the_future), seconds=often)
        c.JupyterHub.load_roles.append(role)
    c.Spawner.args.extend(
        [
            f"--MappingKernelManager.cull_idle_timeout={idle}",
            f"--MappingKernelManager.cull_interval={often}",
            "--MappingKernelManager.cull_connected=True",
        ]
    )
    # Set how often servers report their activity to the hub.
    c.Spawner.environment.update({"JUPYTERHUB_ACTIVITY_INTERVAL": str(often)})


def forget_the_future(app: JupyterHub) -> None:
    """Correct activity times that are in the future, which would keep idle servers running.

    Activity times are in the future if they were recorded while the clock was ahead.
    """
    now = utcnow(with_tz=False)
    for user in app.users.values():
        for noted in (user.orm_user, *user.orm_user.orm_spawners.values()):
            noted.last_activity = not_later(noted.last_activity, now)
    app.db.commit()


def not_later(moment: datetime | None, now: datetime) -> datetime | None:
    """Return the timestamp, or `now` if the timestamp is implausibly far in the future."""
    return now if moment and moment > now + AHEAD else moment
