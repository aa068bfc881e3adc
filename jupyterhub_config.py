"""The course's JupyterHub: on this machine (`make hub`), in containers (`make up`), in a cluster.

Settings are environment variables, which tfcourse/hub/settings.py lists and explains; the first of
them, COURSE_SPAWNER, says what a learner's server is: `local`, a process on this machine (the
default), `docker`, a container, or `kubernetes`, a pod.

What is here holds for every hub. The rest is set, each with its reason, by functions called
`configure`: that of processes.py, containers.py or pods.py in tfcourse/hub/spawners, and those that
it calls.
"""

from importlib import import_module

from tfcourse.hub import settings, state
from tfcourse.hub.front import pages
from tfcourse.hub.spawners import lessons

c = get_config()

BACKENDS = {
    "local": "tfcourse.hub.spawners.processes",
    "docker": "tfcourse.hub.spawners.containers",
    "kubernetes": "tfcourse.hub.spawners.pods",
}
backend = import_module(BACKENDS[settings.SPAWNER()])

# Kept, so that after a second start nobody has to log in again.
HUB = state.private_folder(state.state_folder() / "hub")
c.JupyterHub.cookie_secret_file = str(HUB / "cookie_secret")

# --- What the pages look like. The templates change blocks of JupyterHub's own, no more

c.JupyterHub.template_paths = [str(pages.TEMPLATES)]
c.JupyterHub.logo_file = str(pages.LOGO)
c.JupyterHub.template_vars = {"course": pages.COURSE}

# --- A learner's server

# The learner's own copies of the lessons; the first one opens at once.
c.Spawner.default_url = f"/lab/tree/{lessons.FOLDER}/00_start_here.ipynb"

# Twenty learners who start at once on two cores wait for a minute.
c.Spawner.http_timeout = 120

# --- The rest: addresses, accounts, what a server is

backend.configure(c, HUB)

# --- The operator's own settings come last (docs/operators.md, Your own settings)

for path in state.own_config():
    load_subconfig(str(path))
