"""The course's JupyterHub, on this machine (`make hub`) or in containers (`make up`).

Environment variables:

COURSE_SPAWNER  what a learner's server is: `local`, a process on this machine (the default), or
                `docker`, a container
COURSE_STATE    the folder for accounts and the hub's log (by default `.course` in the clone)
COURSE_PORT     the port of the address (8000); the next two are used as well
COURSE_ADMIN    the name of a user who may see and stop all servers (local: by default nobody;
                docker: by default `instructor`, or nobody where COURSE_ACCOUNTS is not `native`)

Of `local`:

KERAS_HOME      where `tf.keras.datasets` finds its files (by default `keras` in COURSE_STATE)

Of `docker`, as docker/.env.example explains:

COURSE_NAME, COURSE_IMAGE, COURSE_MEMORY, COURSE_CPUS, COURSE_IDLE_MINUTES, COURSE_MONITOR,
COURSE_HOST, COURSE_HTTPS_PORT, COURSE_SUBDOMAINS,
COURSE_ACCOUNTS, COURSE_SIGNUP, COURSE_CLASS_CODE,
COURSE_OAUTH_ISSUER, COURSE_OAUTH_AUTHORIZE_URL, COURSE_OAUTH_TOKEN_URL, COURSE_OAUTH_USERINFO_URL,
COURSE_OAUTH_CLIENT_ID, COURSE_OAUTH_CLIENT_SECRET, COURSE_OAUTH_ALLOWED, COURSE_OAUTH_NAME,
COURSE_OAUTH_SCOPES,
COURSE_LTI_ISSUER, COURSE_LTI_CLIENT_ID, COURSE_LTI_AUTHORIZE_URL, COURSE_LTI_KEYS_URL,
COURSE_LTI_NAME,
COURSE_DATABASE
"""

import os
import sys
from functools import partial
from math import ceil
from pathlib import Path

from tfcourse.hub import database, lessons, local, pages, profiles, rounds, state

c = get_config()

BACKEND = state.choice("COURSE_SPAWNER", "local", "docker")

STATE = state.state_folder()
HUB = state.private_folder(STATE / "hub")
PORT, HUB_PORT, PROXY_PORT = state.ports()
NAME = os.environ.get("COURSE_NAME") or "tensorflow-course"  # of what is Docker's

if BACKEND == "docker":
    from tfcourse.hub import accounts, announcement, containers, gpus, https  # which take a while

    docker = containers.engine()

# --- Files

# Kept, so that a second start knows the accounts and nobody has to log in again.
homes = containers.homes(docker, NAME) if BACKEND == "docker" else ()
DATABASE = database.prepare(HUB, homes)
c.JupyterHub.db_url = DATABASE
c.JupyterHub.cookie_secret_file = str(HUB / "cookie_secret")

# Copies are kept in case that it is damaged; then the log says so within half a minute.
rounds.regularly(partial(database.look_after, DATABASE, HUB), seconds=20)

# --- Who may come in

# The name becomes a folder or a volume: no dots in front, no slashes. \Z: all of it has to match.
NAMES = r"[a-z0-9][a-z0-9_.-]{0,31}\Z"
c.Authenticator.username_pattern = NAMES

# --- What the pages look like. The templates change blocks of JupyterHub's own, no more

c.JupyterHub.template_paths = [str(pages.TEMPLATES)]
c.JupyterHub.logo_file = str(pages.LOGO)
words = c.JupyterHub.template_vars = {"course": pages.COURSE}

# --- What they start

# The picker. The same check answers forms, links (/hub/spawn?profile=...) and the REST API.
offered = profiles.offered(BACKEND)
unavailable = {}
if BACKEND == "docker":
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

    network = containers.learners_network(docker, NAME)
    c.JupyterHub.bind_url = f"http://127.0.0.1:{PORT}"
    c.JupyterHub.hub_bind_url = f"http://{network['Gateway']}:{HUB_PORT}"

    # Without it nobody reaches the hub, and `docker network prune` removes it when nobody is on.
    rounds.regularly(partial(containers.keep_network, docker, NAME, network), seconds=5)

    if https.host():
        # Links, redirects and cookies are for this address, whatever a request says.
        c.JupyterHub.public_url = f"{https.public_url()}/"
        # JupyterHub forgets the cookie against forged forms, its own and that of learners' servers.
        secure = {"xsrf_cookie_kwargs": {"secure": True}}
        c.JupyterHub.tornado_settings = secure
        c.Spawner.args = [f"--ServerApp.tornado_settings={secure}"]
        # Logs name the address in front of both proxies.
        c.JupyterHub.trusted_downstream_ips = ["127.0.0.1", "::ffff:127.0.0.1"]
    if https.subdomains():
        c.JupyterHub.subdomain_host = https.public_url()
        c.JupyterHub.subdomain_hook = https.name_of
        # No learner's page can put a cookie of its own in place of the hub's. Only here: such
        # cookies are sent to all servers of a host name, and without subdomains there is but one.
        c.JupyterHub.cookie_host_prefix_enabled = True

    # The proxy is a container of its own: learners work on while the hub is restarted, and the hub
    # finds their servers again.
    c.JupyterHub.proxy_class = containers.Proxy
    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{PROXY_PORT}"
    c.ConfigurableHTTPProxy.auth_token = state.proxy_token()
    c.JupyterHub.cleanup_proxy = False
    c.JupyterHub.cleanup_servers = False

    # A restarted proxy knows no routes until the hub looks.
    c.JupyterHub.last_activity_interval = 5  # seconds

    # --- Accounts

    words["announcement"] = announcement.render
    ACCOUNTS = accounts.kind()

    if ACCOUNTS == "native":
        c.JupyterHub.authenticator_class = accounts.CourseAuthenticator
        words["sign_up"] = True  # for the links in the bar
        c.Authenticator.admin_users = accounts.administrators(NAMES, default="instructor")
        c.CourseAuthenticator.admin_password = state.password(HUB / "admin-password")
        c.CourseAuthenticator.class_code = accounts.class_code()
        c.CourseAuthenticator.has_home = lambda name: containers.has_home(docker, NAME, name)
        # Who has signed up and is approved may come in: the authenticator sees to that.
        c.Authenticator.allow_all = True
        c.Authenticator.auth_refresh_age = 30  # seconds until who was shut out is logged out
        c.NativeAuthenticator.open_signup = accounts.open_signup()
        c.NativeAuthenticator.minimum_password_length = 10
        c.NativeAuthenticator.check_common_password = True
    else:
        from tfcourse.hub import sign_on  # which takes a while

        # An e-mail address may be a name. The volumes' names are made from it without collisions.
        c.Authenticator.username_pattern = sign_on.NAMES
        # Nobody by default: whatever name we took could be somebody's there.
        c.Authenticator.admin_users = accounts.administrators(sign_on.NAMES)
        # Whether people still may come in is asked when they log in: at least once a day.
        c.JupyterHub.cookie_max_age_days = 1
        c.JupyterHub.token_expires_in_max_seconds = 24 * 3600

    if ACCOUNTS == "oauth":
        c.JupyterHub.authenticator_class = sign_on.CourseOAuthenticator
        c.OAuthenticator.client_id, c.OAuthenticator.client_secret = sign_on.required(
            "COURSE_OAUTH_CLIENT_ID", "COURSE_OAUTH_CLIENT_SECRET"
        )
        c.CourseOAuthenticator.allowed = sign_on.allowed()
        c.OAuthenticator.username_claim = sign_on.name_claim()
        provider = sign_on.endpoints()
        c.OAuthenticator.authorize_url = provider["authorization_endpoint"]
        c.OAuthenticator.token_url = provider["token_endpoint"]
        c.OAuthenticator.userdata_url = provider["userinfo_endpoint"]
        # By the standard those that say nothing take the secret in a header alone.
        methods = provider.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        c.OAuthenticator.basic_auth = "client_secret_post" not in methods
        scopes = os.environ.get("COURSE_OAUTH_SCOPES") or "openid profile email"
        c.OAuthenticator.scope = scopes.split()
        c.OAuthenticator.login_service = "your usual account"  # on the button, after "Sign in with"

    if ACCOUNTS == "lti":
        c.JupyterHub.authenticator_class = sign_on.CourseLTIAuthenticator
        # Whom the platform sends, signed with its key: it knows who is in the course.
        c.Authenticator.allow_all = True
        c.LTI13Authenticator.issuer, client = sign_on.required(
            "COURSE_LTI_ISSUER", "COURSE_LTI_CLIENT_ID"
        )
        c.LTI13Authenticator.client_id = {client}
        c.LTI13Authenticator.authorize_url = sign_on.web_address("COURSE_LTI_AUTHORIZE_URL")
        c.LTI13Authenticator.jwks_endpoint = sign_on.web_address("COURSE_LTI_KEYS_URL")
        # Nothing else: given names are chosen, and custom parameters are what a teacher writes.
        c.LTI13Authenticator.username_key = state.choice("COURSE_LTI_NAME", "sub", "email")

    # --- A learner's container

    c.JupyterHub.spawner_class = containers.ContainerSpawner
    c.ContainerSpawner.gpu_ids = gpu_ids
    c.DockerSpawner.prefix = NAME
    c.DockerSpawner.network_name = NAME
    c.DockerSpawner.use_internal_ip = True
    c.DockerSpawner.cmd = ["jupyterhub-singleuser"]

    # How long it may take until the hub notices that a container is gone.
    c.Spawner.poll_interval = 10  # seconds

    # A new one at each start, so that a new image counts at once. What is kept is in the volume.
    c.DockerSpawner.remove = True
    c.DockerSpawner.volumes = {containers.HOME: "/home/jovyan"}

    # And the class's folder. The administrator puts instructors into their group on the page Admin.
    c.Spawner.pre_spawn_hook = containers.mount_shared_folder
    c.JupyterHub.load_groups = {containers.INSTRUCTORS: {"users": []}}

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
    # computes is not (tfcourse/prefix/etc/jupyter/jupyter_server_config.py, containers.Proxy).
    IDLE = round(60 * state.number("COURSE_IDLE_MINUTES", 60))  # seconds
    OFTEN = max(1, IDLE // 10) if IDLE else 300
    words["idle_minutes"] = round(IDLE / 60)
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
    c.Spawner.args.extend(
        [
            f"--MappingKernelManager.cull_idle_timeout={IDLE}",
            f"--MappingKernelManager.cull_interval={OFTEN}",
            "--MappingKernelManager.cull_connected=True",
        ]
    )

    # TensorFlow would start a thread for each core of the machine, whatever the limit is.
    threads = str(ceil(CPUS))
    c.Spawner.environment = {
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
        "OMP_NUM_THREADS": threads,
        "JUPYTERHUB_ACTIVITY_INTERVAL": str(OFTEN),  # how often servers tell the hub
    }

    # --- What happens here: Prometheus asks the hub, Grafana shows it to administrators

    if state.switch("COURSE_MONITOR"):
        from tfcourse.hub import monitoring

        tokens = {
            "prometheus_token": state.password(HUB / "prometheus-token", length=32),
            "grafana_secret": state.password(HUB / "grafana-secret", length=32),
        }
        prometheus_port, grafana_port = PORT + 3, PORT + 4
        monitoring.write(
            Path(os.environ["COURSE_MONITORING"]),
            hub=f"{network['Gateway']}:{HUB_PORT}",
            prometheus_port=prometheus_port,
            grafana_port=grafana_port,
            **tokens,
        )
        monitoring.Metrics(NAME, gpu_ids).start()
        c.JupyterHub.services.extend(
            [
                {"name": "prometheus", "api_token": tokens["prometheus_token"]},
                {
                    "name": "grafana",
                    "url": f"http://127.0.0.1:{grafana_port}",
                    "api_token": tokens["grafana_secret"],
                    "oauth_redirect_uri": "/services/grafana/login/generic_oauth",
                    "oauth_no_confirm": True,
                },
            ]
        )
        c.JupyterHub.load_roles.append(
            {"name": "prometheus", "scopes": ["read:metrics"], "services": ["prometheus"]}
        )
