"""The course's JupyterHub, on this machine (`make hub`) or in containers (`make up`).

Environment variables:

COURSE_SPAWNER  what a learner's server is: `local`, a process on this machine (the default), or
                `docker`, a container
COURSE_STATE    the folder for accounts and the hub's log (by default `.course` in the clone)
COURSE_PORT     the port of the address (8000); the next two are used as well
COURSE_ADMIN    the name of a user who may see and stop all servers (local: by default nobody;
                docker: by default `instructor`)

Of `local`:

KERAS_HOME      where `tf.keras.datasets` finds its files (by default `keras` in COURSE_STATE)

Of `docker`, as docker/.env.example explains:

COURSE_NAME, COURSE_IMAGE, COURSE_SIGNUP, COURSE_MEMORY, COURSE_CPUS, COURSE_IDLE_MINUTES
"""

import os
import sys
from functools import partial
from math import ceil

from tfcourse.hub import lessons, local, profiles, state

c = get_config()

BACKEND = os.environ.get("COURSE_SPAWNER") or "local"
if BACKEND not in ("local", "docker"):
    sys.exit(f"COURSE_SPAWNER is {BACKEND!r}, but it has to be 'local' or 'docker'.")

STATE = state.state_folder()
HUB = state.private_folder(STATE / "hub")
PORT, HUB_PORT, PROXY_PORT = state.ports()

# --- Files

# Kept, so that a second start knows the accounts and nobody has to log in again.
c.JupyterHub.db_url = f"sqlite:///{HUB / 'jupyterhub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(HUB / "cookie_secret")

# --- Who may come in

# The name becomes a folder or a volume: no dots in front, no slashes. \Z: all of it has to match.
c.Authenticator.username_pattern = r"[a-z0-9][a-z0-9_.-]{0,31}\Z"

# --- What they start

# The picker. The same check answers forms, links (/hub/spawn?profile=...) and the REST API.
offered = profiles.offered(BACKEND)
unavailable = {}
if BACKEND == "docker":
    from tfcourse.hub import accounts, containers, gpus  # which take a while

    docker = containers.engine()
    gpu_ids, reason = gpus.probe(docker, f"{profiles.IMAGE}:gpu")
    if not gpu_ids:
        unavailable["tensorflow-gpu"] = reason
c.Spawner.options_form = profiles.render_form(offered, unavailable)
c.Spawner.options_from_form = "simple"
c.Spawner.apply_user_options = partial(
    profiles.apply_user_options, backend=BACKEND, profiles=offered, unavailable=unavailable
)

# The learner's own copies of the lessons; the first one opens at once.
c.Spawner.default_url = f"/lab/tree/{lessons.FOLDER}/00_start_here.ipynb"

# Twenty learners who start at once on two cores wait for a minute.
c.Spawner.http_timeout = 120

if BACKEND == "local":
    # --- Processes have no walls between them: nobody but this machine's users may come in

    c.JupyterHub.bind_url = f"http://127.0.0.1:{PORT}"
    c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{HUB_PORT}"
    c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{PROXY_PORT}"

    # Proxy and servers end with the hub, even if it is killed: the next start finds its ports free.
    c.ConfigurableHTTPProxy.command = [*local.DIE_WITH_PARENT, *local.proxy_command()]

    # The hub would end whatever process has the number in a file left by a killed run.
    c.ConfigurableHTTPProxy.pid_file = str(HUB / "proxy.pid")
    (HUB / "proxy.pid").unlink(missing_ok=True)

    # One generated password for all: enough for people who share a machine; no one else gets in.
    c.JupyterHub.authenticator_class = local.LocalAuthenticator
    c.LocalAuthenticator.user_password = state.password(HUB / "password")
    c.Authenticator.allow_all = True
    if os.environ.get("COURSE_ADMIN"):
        c.Authenticator.admin_users = {os.environ["COURSE_ADMIN"]}
        # At least 32 characters: JupyterHub insists.
        c.LocalAuthenticator.admin_password = state.password(HUB / "admin-password", length=32)

    homes = str(state.private_folder(STATE / "homes"))
    c.JupyterHub.spawner_class = local.LocalSpawner
    c.LocalSpawner.home_dir_template = homes.replace("{", "{{").replace("}", "}}") + "/{username}"
    c.Spawner.pre_spawn_hook = partial(lessons.copy_to_home, source=state.ROOT / "notebooks")
    c.Spawner.cmd = [*local.DIE_WITH_PARENT, f"{sys.prefix}/bin/jupyterhub-singleuser"]

    # Without it Jupyter refuses to run as root, as it must in many containers.
    c.Spawner.args = ["--allow-root"] if os.geteuid() == 0 else []

    # The rest of the environment is JupyterHub's choice (`env_keep`), not all that the hub runs in.
    c.Spawner.environment = {
        "KERAS_HOME": os.path.abspath(os.environ.get("KERAS_HOME") or STATE / "keras"),
        # `!pip` in a notebook and `python` in a terminal mean the course's.
        "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
    }

if BACKEND == "docker":
    # --- Addresses. Proxy and hub are in the host's network: see containers.WALLS

    NAME = os.environ.get("COURSE_NAME") or "tensorflow-course"
    gateway = containers.learners_network(docker, NAME)
    c.JupyterHub.bind_url = f"http://127.0.0.1:{PORT}"
    c.JupyterHub.hub_bind_url = f"http://{gateway}:{HUB_PORT}"

    # The proxy is a container of its own: learners work on while the hub is restarted, and the hub
    # finds their servers again.
    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{PROXY_PORT}"
    c.ConfigurableHTTPProxy.auth_token = state.proxy_token()
    c.JupyterHub.cleanup_proxy = False
    c.JupyterHub.cleanup_servers = False

    # A restarted proxy knows no routes until the hub looks.
    c.JupyterHub.last_activity_interval = 5  # seconds

    # --- Accounts

    c.JupyterHub.authenticator_class = accounts.CourseAuthenticator
    c.Authenticator.admin_users = {os.environ.get("COURSE_ADMIN") or "instructor"}
    c.JupyterHub.template_paths = accounts.TEMPLATES
    c.CourseAuthenticator.admin_password = state.password(HUB / "admin-password")
    # Who has signed up and is approved may come in: NativeAuthenticator sees to that.
    c.Authenticator.allow_all = True
    c.Authenticator.auth_refresh_age = 30  # seconds until who was shut out is logged out
    c.NativeAuthenticator.open_signup = os.environ.get("COURSE_SIGNUP") == "open"
    c.NativeAuthenticator.minimum_password_length = 10
    c.NativeAuthenticator.check_common_password = True
    c.NativeAuthenticator.allowed_failed_logins = 5
    c.NativeAuthenticator.seconds_before_next_try = 60

    # --- A learner's container

    c.JupyterHub.spawner_class = containers.ContainerSpawner
    c.ContainerSpawner.gpu_ids = gpu_ids
    c.DockerSpawner.prefix = NAME
    c.DockerSpawner.network_name = NAME
    c.DockerSpawner.use_internal_ip = True
    c.DockerSpawner.cmd = ["jupyterhub-singleuser"]

    # A new one at each start, so that a new image counts at once. What is kept is in the volume.
    c.DockerSpawner.remove = True
    c.DockerSpawner.volumes = {"{prefix}-home-{username}": "/home/jovyan"}

    # The spawner's own default would look on Docker's hub for an image that is missing here.
    c.DockerSpawner.pull_policy = "ifnotpresent" if os.environ.get("COURSE_IMAGE") else "never"

    MEMORY = state.memory("COURSE_MEMORY", "3G")
    CPUS = state.number("COURSE_CPUS", 2, positive=True)
    c.DockerSpawner.mem_limit = MEMORY
    c.DockerSpawner.cpu_limit = CPUS
    c.DockerSpawner.extra_host_config = {
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "memswap_limit": MEMORY,  # no swap: a learner short of memory must not slow down the others
        "pids_limit": 1024,  # threads count, and a kernel with TensorFlow has a hundred
        "shm_size": "256M",  # by default 64 MB, too little for data loaders of several processes
        "log_config": {"Type": "local", "Config": {"max-size": "5m", "max-file": "2"}},
    }

    # Servers and kernels that do nothing are stopped, also behind a tab that is left open. One that
    # computes is not (tfcourse/prefix/etc/jupyter/jupyter_server_config.py).
    IDLE = round(60 * state.number("COURSE_IDLE_MINUTES", 60))  # seconds
    OFTEN = max(1, IDLE // 10)
    if IDLE:
        c.JupyterHub.services = [
            {
                "name": "idle-culler",
                "command": [
                    *(sys.executable, "-m", "jupyterhub_idle_culler"),
                    *(f"--timeout={IDLE}", f"--cull-every={OFTEN}"),
                ],
            }
        ]
        scopes = ["list:users", "read:users:activity", "read:servers", "delete:servers"]
        c.JupyterHub.load_roles = [
            {"name": "idle-culler", "scopes": scopes, "services": ["idle-culler"]}
        ]
    c.Spawner.args = [
        f"--MappingKernelManager.cull_idle_timeout={IDLE}",
        f"--MappingKernelManager.cull_interval={OFTEN}",
        "--MappingKernelManager.cull_connected=True",
    ]

    # TensorFlow would start a thread for each core of the machine, whatever the limit is.
    threads = str(ceil(CPUS))
    c.Spawner.environment = {
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
        "OMP_NUM_THREADS": threads,
        "JUPYTERHUB_ACTIVITY_INTERVAL": str(OFTEN),  # how often servers tell the hub
    }
