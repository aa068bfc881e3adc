"""Configure the course's JupyterHub for `make hub` (local processes) and `make up` (containers).

Settings are read from environment variables, which tfcourse/hub/settings.py documents. If
COURSE_SPAWNER is `local` (the default), learners' servers run as processes on the host; if it is
`docker`, they run in containers. On a Kubernetes cluster, Zero to JupyterHub runs the hub
(docs/kubernetes.md).

This file sets only the options that `make hub` and `make up` share. The other options are set, and
explained, in the `configure` function of tfcourse/hub/spawners/processes.py or containers.py.
"""

from importlib import import_module

from tfcourse.hub import settings, state
from tfcourse.hub.front import bounds, compression, pages
from tfcourse.hub.spawners import lessons, listening

c = get_config()

BACKENDS = {
    "local": "tfcourse.hub.spawners.processes",
    "docker": "tfcourse.hub.spawners.containers",
}
backend = import_module(BACKENDS[settings.SPAWNER()])

# Store the cookie secret so that users stay logged in when the hub restarts.
HUB = state.hub_folder()
state.cookie_secret(HUB / "cookie_secret")
c.JupyterHub.cookie_secret_file = str(HUB / "cookie_secret")

bounds.configure(c)
compression.configure(c)

# --- Page templates, which only override blocks of JupyterHub's own templates

c.JupyterHub.template_paths = [str(pages.TEMPLATES)]
c.JupyterHub.logo_file = str(pages.LOGO)
c.JupyterHub.template_vars = {"course": pages.COURSE}

# --- A learner's server

# Open the learner's own copy of the first lesson when the server starts.
c.Spawner.default_url = f"/lab/tree/{lessons.FOLDER}/00_start_here.ipynb"

# If twenty servers start at once on two cores, they can take half a minute to respond, and slower
# machines take longer.
c.Spawner.http_timeout = 120
listening.configure()

# --- Addresses, accounts and the spawner

backend.configure(c, HUB)

# --- Load the operator's own settings last (docs/operators.md, Your own settings)

for path in state.own_config():
    load_subconfig(str(path))
state.check_own_config(c)
