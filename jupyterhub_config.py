"""The course's JupyterHub. `make hub` starts it; so does `jupyterhub -f jupyterhub_config.py`.

Environment variables:

COURSE_SPAWNER  what a learner's server is: `local`, a process on this machine (the default)
COURSE_STATE    the folder for accounts, work and the hub's log (by default `.course` in the clone)
COURSE_PORT     the address is http://127.0.0.1:COURSE_PORT (8000); the next two are used as well
COURSE_ADMIN    the name of a user who may see and stop all servers (by default nobody)
KERAS_HOME      where `tf.keras.datasets` finds its files (by default `keras` in COURSE_STATE)
"""

import os
import sys
from functools import partial

from tfcourse.hub import lessons, local, profiles, state

c = get_config()

BACKEND = os.environ.get("COURSE_SPAWNER") or "local"
if BACKEND != "local":
    sys.exit(f"COURSE_SPAWNER is {BACKEND!r}, but the only value so far is 'local'.")

STATE = state.state_folder()
HUB = state.private_folder(STATE / "hub")
HOMES = state.private_folder(STATE / "homes")
PORT, HUB_PORT, PROXY_PORT = state.ports()

# --- Addresses and files

# Local processes have no walls between them, so nobody but this machine's users may come in.
c.JupyterHub.bind_url = f"http://127.0.0.1:{PORT}"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{HUB_PORT}"
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{PROXY_PORT}"

# Kept, so that a second start knows the accounts and nobody has to log in again.
c.JupyterHub.db_url = f"sqlite:///{HUB / 'jupyterhub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(HUB / "cookie_secret")

# Proxy and servers end with the hub, even if that is killed: the next start finds its ports free.
c.ConfigurableHTTPProxy.command = [*local.DIE_WITH_PARENT, *local.proxy_command()]

# The hub would end whatever process has the number in a file left by a killed run.
c.ConfigurableHTTPProxy.pid_file = str(HUB / "proxy.pid")
(HUB / "proxy.pid").unlink(missing_ok=True)

# --- Who may come in

# One generated password for all: enough for people who share a machine, and no one else gets in.
c.JupyterHub.authenticator_class = local.LocalAuthenticator
c.LocalAuthenticator.user_password = state.password(HUB / "password")
c.Authenticator.allow_all = True

# The name becomes a folder below `homes`: no dots in front, no slashes. \Z: all of it has to match.
c.Authenticator.username_pattern = r"[a-z0-9][a-z0-9_.-]{0,31}\Z"

if os.environ.get("COURSE_ADMIN"):
    c.Authenticator.admin_users = {os.environ["COURSE_ADMIN"]}
    # At least 32 characters: JupyterHub insists.
    c.LocalAuthenticator.admin_password = state.password(HUB / "admin-password", length=32)

# --- What they start

c.JupyterHub.spawner_class = local.LocalSpawner
c.LocalSpawner.home_dir_template = str(HOMES).replace("{", "{{").replace("}", "}}") + "/{username}"
c.Spawner.cmd = [*local.DIE_WITH_PARENT, f"{sys.prefix}/bin/jupyterhub-singleuser"]

# Without it Jupyter refuses to run as root, as it must in many containers.
c.Spawner.args = ["--allow-root"] if os.geteuid() == 0 else []

# Twenty learners who start at once on two cores wait for a minute.
c.Spawner.http_timeout = 120

# The picker. The same check answers forms, links (/hub/spawn?profile=...) and the REST API.
c.Spawner.options_form = profiles.render_form()
c.Spawner.options_from_form = "simple"
c.Spawner.apply_user_options = partial(profiles.apply_user_options, backend=BACKEND)

# Their own copies of the lessons, which nothing overwrites; the first one opens at once.
c.Spawner.pre_spawn_hook = partial(lessons.copy_to_home, source=state.ROOT / "notebooks")
c.Spawner.default_url = f"/lab/tree/{lessons.FOLDER}/00_start_here.ipynb"

# The rest of the environment is JupyterHub's choice (`env_keep`), not all that the hub runs in.
c.Spawner.environment = {
    "KERAS_HOME": os.path.abspath(os.environ.get("KERAS_HOME") or STATE / "keras"),
    # `!pip` in a notebook and `python` in a terminal mean the course's.
    "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
}
