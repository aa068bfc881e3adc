"""JupyterHub with status messages on the terminal."""

from __future__ import annotations

import os
import signal

from jupyterhub import orm
from jupyterhub.app import JupyterHub

from tfcourse.hub import say
from tfcourse.hub.state import state_folder


class CourseHub(JupyterHub):
    """A JupyterHub that prints its address and how to log in, as soon as it is ready."""

    name = "jupyterhub"

    async def init_users(self) -> None:
        """End a new administrator's sessions, because a learner may have used that name before."""
        for user in self.db.query(orm.User).filter(~orm.User.admin):
            if user.name in self.authenticator.admin_users:
                user.cookie_id = orm.new_token()
                for token in user.api_tokens:
                    self.db.delete(token)
        self.db.commit()
        await super().init_users()

    async def start(self) -> None:
        """Start the proxy and the hub, then print the address and how to log in."""
        await super().start()
        say(f"""
JupyterHub is ready.

  Address    {self.bind_url}
  User name  learner (or any other; each name has its own folder)
  Password   {self.authenticator.user_password}""")
        for admin in self.authenticator.admin_users:
            say(f"  Admin      {admin}, password {self.authenticator.admin_password}")
        say(f"\nAccounts, work and this password are kept in {state_folder()}.")
        if os.geteuid() == 0:
            say(
                "You are root, so everyone who logs in has root privileges. Outside a container,\n"
                "start the hub as an ordinary user instead."
            )
        say("Press Ctrl-C to stop.")

    async def shutdown_cancel_tasks(self, sig: signal.Signals | None = None) -> None:
        """Print that the hub and the learners' servers are stopping, then stop them."""
        for number in (signal.SIGINT, signal.SIGTERM):  # ignore a second Ctrl-C
            signal.signal(number, signal.SIG_IGN)
        say("\nStopping JupyterHub and the learners' servers ...")
        await super().shutdown_cancel_tasks(sig)
