"""The course's JupyterHub: on this machine (`make hub`), in containers (`make up`), in a cluster.

Environment variables:

COURSE_SPAWNER  what a learner's server is: `local`, a process on this machine (the default),
                `docker`, a container, or `kubernetes`, a pod
COURSE_STATE    the folder for accounts and the hub's log (by default `.course` in the clone)
COURSE_PORT     the port of the address (8000); the next two are used as well
COURSE_ADMIN    the name of a user who may see and stop all servers (local: by default nobody;
                docker: by default `instructor`, or nobody where COURSE_ACCOUNTS is not `native`)
COURSE_CPUS     how many processors a server may use (2); local: how many threads TensorFlow starts

Of `local`:

KERAS_HOME      where `tf.keras.datasets` finds its files (by default `keras` in COURSE_STATE)

Of `docker`, as docker/.env.example explains:

COURSE_NAME, COURSE_IMAGE, COURSE_MEMORY, COURSE_GPU_MEMORY, COURSE_GPU_CPUS,
COURSE_IDLE_MINUTES, COURSE_MONITOR,
COURSE_HOST, COURSE_HTTPS_PORT, COURSE_SUBDOMAINS,
COURSE_ACCOUNTS, COURSE_SIGNUP, COURSE_CLASS_CODE, COURSE_TRUSTED_PROXIES,
COURSE_OAUTH_ISSUER, COURSE_OAUTH_AUTHORIZE_URL, COURSE_OAUTH_TOKEN_URL, COURSE_OAUTH_USERINFO_URL,
COURSE_OAUTH_CLIENT_ID, COURSE_OAUTH_CLIENT_SECRET, COURSE_OAUTH_ALLOWED, COURSE_OAUTH_NAME,
COURSE_OAUTH_SCOPES,
COURSE_LTI_ISSUER, COURSE_LTI_CLIENT_ID, COURSE_LTI_AUTHORIZE_URL, COURSE_LTI_KEYS_URL,
COURSE_LTI_NAME,
COURSE_DATABASE

Of `kubernetes`, as kubernetes/hub.yaml explains: those of `docker` but COURSE_NAME, COURSE_MONITOR
and what is about certificates, and

COURSE_GPUS, COURSE_HOME_SIZE, COURSE_HOME_CLASS

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
backend = import_module(BACKENDS[settings.choice("COURSE_SPAWNER", *BACKENDS)])

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
