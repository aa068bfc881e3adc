"""Wait until the containerised hub is ready, then print how to log in.

`make up` runs this module in the hub's container: `python -m tfcourse.hub.operations.ready`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import sys
import time

import docker
from jupyterhub import orm
from nativeauthenticator.orm import UserInfo

from tfcourse.hub import database, say, settings, state
from tfcourse.hub.accounts import passwords
from tfcourse.hub.accounts import setup as accounts
from tfcourse.hub.front import https

TIMEOUT = 120  # seconds; the first start creates the database and probes for GPUs


def main() -> None:
    """Wait for the hub; exit with a message if it takes too long or cannot start."""
    address = settings.ADDRESS() or ("0.0.0.0" if https.host() else "127.0.0.1")  # noqa: S104
    everywhere = address in ("0.0.0.0", "::")  # noqa: S104
    deadline = time.monotonic() + TIMEOUT
    while not answers("127.0.0.1" if everywhere else address):
        if problem := trouble():
            sys.exit(problem)
        if time.monotonic() > deadline:
            sys.exit("The hub does not answer. `make logs` shows why.")
        time.sleep(0.5)
    here = socket.gethostname() if everywhere else address
    here = f"[{here}]" if ":" in here else here  # an IPv6 address
    url = https.public_url() if https.host() else f"http://{here}:{settings.ports()[0]}"
    metrics = f"\n  Metrics   {url}/services/grafana/" if settings.MONITOR() else ""
    say(f"""
JupyterHub is ready.

  Address   {url}{metrics}
{how_to_come_in()}
`make logs` shows what is happening. `make down` stops the hub; accounts and work are kept.""")


def how_to_come_in() -> str:
    """Return log-in instructions for the administrator and the learners."""
    name = settings.ADMIN()
    if accounts.kind() != "native":
        learners = {
            "oauth": "Learners log in at that address with their usual account.",
            "lti": "Learners open the course in your learning platform.",
        }
        warning = ""
        if accounts.kind() == "oauth":
            from tfcourse.hub.accounts import oauth  # slow to import

            with contextlib.suppress(SystemExit):  # the provider has just failed to respond
                warning = oauth.doubt(oauth.endpoints())
        known = f"  Admin     {name or 'nobody (COURSE_ADMIN)'}\n\n{learners[accounts.kind()]}"
        return f"{known}\n\n{warning}" if warning else known
    name = name or "instructor"
    with orm.new_session_factory(database.url(state.state_folder() / "hub"))() as db:
        info = UserInfo.find(db, name)
    if info is None or has_own_authenticator():
        return "Your own settings (docker/jupyterhub_config.d) determine how people log in.\n"
    password = accounts.first_password(state.state_folder() / "hub", name)
    if passwords.matches(password.encode(), info.password):
        known = f"  Password  {password} (until you change it)"
    else:
        known = f"            (forgotten the password? `make password NAME={name}`)"
    learners = "Learners sign up at that address"
    if not accounts.open_signup():
        with_code = ", with the class code" if accounts.class_code() else ""
        learners += f'{with_code}; approve them on the "Who may come in" page'
    return f"  Admin     {name}\n{known}\n\n{learners}."


def has_own_authenticator() -> bool:
    """Return whether the operator's own settings configure an authenticator."""
    setting = re.compile(r"^[^#\n]*authenticator_class", re.MULTILINE)
    return any(setting.search(path.read_text()) for path in state.own_config())


def answers(address: str) -> bool:
    """Return whether the hub responds to a browser's request at this address."""
    port = https.web_ports()[0] if https.host() else settings.ports()[0]
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.connect()
        if https.host():
            # Accept any certificate here, because browsers verify it.
            context = ssl._create_unverified_context()  # noqa: S323
            connection.sock = context.wrap_socket(connection.sock, server_hostname=https.host())
        connection.request("GET", "/hub/health", headers={"Host": https.host() or address})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def trouble() -> str | None:
    """Return an error message if the hub cannot become ready, or None."""
    labels = {"label": f"com.docker.compose.project={settings.NAME()}"}
    for container in docker.from_env().containers.list(filters=labels, ignore_removed=True):
        service = container.labels["com.docker.compose.service"]
        # Ignore monitoring services, which normally restart until the hub has written their
        # settings.
        if container.status == "restarting" and service in ("hub", "proxy", "https"):
            return f"The service `{service}` exits as soon as it starts. Its log is below."
        if service == "https" and (reason := why_no_certificate(container.logs().decode())):
            return (
                f"There is no certificate for {https.host()}: {reason}\n"
                "Check that this name points to this server, and that firewalls allow access to\n"
                "its ports 80 and 443. Then run `make down` and `make up`."
            )
    return None


def why_no_certificate(log: str) -> str | None:
    """Return the last certificate error in Caddy's log, or None."""
    for line in reversed(log.splitlines()):
        # Each line of Caddy's log has a time, level, logger, message and fields.
        parts = line.split("\t")
        if parts[2:4] == ["tls.obtain", "could not get certificate from issuer"]:
            return json.loads(parts[4])["error"]
    return None


if __name__ == "__main__":
    main()
