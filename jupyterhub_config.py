"""The course's JupyterHub on this machine (`make hub`) or in containers (`make up`).

Settings are environment variables; tfcourse/hub/settings.py lists and explains them. With
COURSE_SPAWNER=local (the default), learners' servers are processes on this machine; with `docker`,
they are containers. On a cluster, Zero to JupyterHub runs the hub (docs/kubernetes.md).

This file sets the options that all hubs share. Functions called `configure` set the other options
and explain why: first the one in tfcourse/hub/spawners/processes.py or containers.py, then the
functions that it calls.
"""

from importlib import import_module

from tfcourse.hub import settings, state
from tfcourse.hub.front import bounds, pages
from tfcourse.hub.spawners import lessons

c = get_config()

BACKENDS = {
    "local": "tfcourse.hub.spawners.processes",
    "docker": "tfcourse.hub.spawners.containers",
}
backend = import_module(BACKENDS[settings.SPAWNER()])

# Store the cookie secret, so that nobody has to log in again after a restart.
HUB = state.hub_folder()
state.cookie_secret(HUB / "cookie_secret")
c.JupyterHub.cookie_secret_file = str(HUB / "cookie_secret")

bounds.configure(c)

# --- The look of the pages. The templates override only blocks of JupyterHub's own templates

c.JupyterHub.template_paths = [str(pages.TEMPLATES)]
c.JupyterHub.logo_file = str(pages.LOGO)
c.JupyterHub.template_vars = {"course": pages.COURSE}

# --- A learner's server

# A server opens with the learner's own copy of the first lesson.
c.Spawner.default_url = f"/lab/tree/{lessons.FOLDER}/00_start_here.ipynb"

# Twenty servers that start at the same time on two cores take a minute to answer.
c.Spawner.http_timeout = 120

# --- The rest: addresses, accounts, and the kind of server

backend.configure(c, HUB)

# --- The operator's own settings come last (docs/operators.md, Your own settings)

for path in state.own_config():
    load_subconfig(str(path))
