"""The hub's settings: one table with the name, type, default and explanation of each.

All other code reads settings through this module. `python3 -m tfcourse.hub.settings` prints
docker/.env.example. Tests check docker/.env.example, compose.yaml and the guides against the table.
No other module in tfcourse/hub reads environment variables. This module imports only the standard
library, because `make up` checks the settings before anything is installed.
"""

from __future__ import annotations

import argparse
import ipaddress
import math
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

MIB, GIB = 2**20, 2**30  # bytes

DOCKER_FOLDER = Path(__file__).resolve().parents[2] / "docker"
HOST_PART = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"  # one part of a host name
# OpenID Connect claims that users can edit themselves. If user names came from such a claim, anyone
# could enter the administrator's name and gain administrator rights.
SELF_CHOSEN_CLAIMS = {"name", "given_name", "family_name", "middle_name", "nickname"}


@dataclass(frozen=True)
class Setting(Generic[T]):
    """A setting. Calling it returns the setting's value.

    Attributes
    ----------
    name
        The environment variable.
    parse
        A function that converts the text to a value, or raises a ValueError that describes valid
        text.
    default
        The text that is used if the variable is unset or empty.
    given_to
        The programs that receive the setting: services in compose.yaml (`hub`, `proxy`, `https`,
        `prometheus`, `grafana`), Compose itself (`compose`), the hub that `make hub` starts
        (`laptop`), the hub that Zero to JupyterHub runs from our image (`chart`), and commands such
        as `make up` (`commands`). Our image itself sets the settings for `image`.
    about
        The explanation in docker/.env.example. It is empty if the previous setting's explanation
        also covers this setting, or if this setting does not appear in that file.
    example
        The value that docker/.env.example shows, if it is not the default.
    secret
        Whether to keep the value out of messages.
    """

    name: str
    parse: Callable[[str], T]
    default: str = ""
    given_to: str = "hub"
    about: str = ""
    example: str = ""
    secret: bool = False

    @property
    def text(self) -> str:
        """The environment variable's text without leading and trailing spaces, or the default."""
        return os.environ.get(self.name, "").strip() or self.default

    @property
    def is_set(self) -> bool:
        """Whether the environment variable is set and not empty."""
        return bool(os.environ.get(self.name, "").strip())

    def __call__(self) -> T:
        """Return the value; exit with a message if it is invalid."""
        try:
            return self.parse(self.text)
        except ValueError as error:
            says = "" if self.secret else f" is {self.text!r}, but it"
            sys.exit(f"{self.name}{says} {error}.")

    def set(self, text: str) -> None:
        """Set the variable for this process and its child processes."""
        os.environ[self.name] = text


# --- Types


def switch(text: str) -> bool:
    """Return True for `on` and False for `off`."""
    return one_of("off", "on")(text) == "on"


def one_of(*values: str) -> Callable[[str], str]:
    """Return a parser that accepts only these values."""

    def parse(text: str) -> str:
        if text not in values:
            raise ValueError(f"has to be {' or '.join(map(repr, values))}")
        return text

    return parse


def port(highest: int = 65535) -> Callable[[str], int]:
    """Return a parser for a port number."""

    def parse(text: str) -> int:
        if not (text.isdecimal() and 1 <= int(text) <= highest):
            raise ValueError(f"has to be a number from 1 to {highest}")
        return int(text)

    return parse


def number(positive: bool = False) -> Callable[[str], float | None]:
    """Return a parser for a number, which converts an empty string to None.

    With `positive`, the parser rejects 0.
    """

    def parse(text: str) -> float | None:
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf or (positive and not value):
            raise ValueError(f"has to be a number, {'more than 0' if positive else '0 or more'}")
        return value

    return parse


def memory(text: str) -> int | None:
    """Return an amount of memory in bytes, or None for an empty string."""
    if not text:
        return None
    found = re.fullmatch(r"([1-9][0-9]*(?:\.[0-9]+)?)([MG])", text)
    if not found:
        raise ValueError("has to be like 3G or 1500M")
    return int(float(found[1]) * {"M": MIB, "G": GIB}[found[2]])


def docker_name(text: str) -> str:
    """Return a name that Docker and Compose accept unchanged."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,40}", text):
        raise ValueError("has to consist of lowercase letters, digits, - and _")
    return text


def host_name(text: str) -> str:
    """Return a host name in lower case, or an empty string."""
    # Reject IP addresses, because certificates are for host names.
    if text and not re.fullmatch(rf"({HOST_PART}\.)*(?=[0-9-]*[a-z]){HOST_PART}", text.lower()):
        raise ValueError("has to be just a host name, like hub.example.org")
    return text.lower()


def web_address(text: str) -> str:
    """Return a web address, or an empty string.

    The address has to use HTTPS, so that nobody else can read the traffic. HTTP is allowed only for
    an address on this machine.
    """
    parts = urlsplit(text)
    here = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    if text and (not parts.hostname or not (here or parts.scheme == "https")):
        raise ValueError("has to start with https://")
    return text


def networks(text: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Return the networks in a comma-separated list."""
    found = []
    for part in filter(None, text.split(",")):
        try:
            found.append(ipaddress.ip_network(part.strip()))
        except ValueError as error:
            raise ValueError(
                "has to be a comma-separated list of addresses or networks, like\n"
                f"10.244.7.0/24,192.0.2.7: {error}"
            ) from None
        if not found[-1].prefixlen:
            raise ValueError(
                "has to be narrower: it covers every address, so any visitor could claim any other"
            )
    return found


def class_code(text: str) -> str:
    """Return a class code, or an empty string."""
    if text.strip() and len(text.strip()) < 8:
        raise ValueError("has to have at least 8 characters")
    return text.strip()


def allowed(text: str) -> set[str]:
    """Return the groups and domains in a comma-separated list."""
    entries = {entry.strip() for entry in text.split(",")} - {""}
    entries = {entry.lower() if entry.startswith("@") else entry for entry in entries}
    if text and (not entries or ("*" in entries and len(entries) > 1)):
        raise ValueError(
            "has to be a list of groups and domains,\n"
            "such as 'students,@example.org', or just '*', for everyone with an account there"
        )
    return entries


def absolute_path(text: str) -> str:
    """Return an absolute path that Docker can mount, or an empty string."""
    if text and not re.fullmatch(r"/[\w./@+-]*[\w@+-]", text):
        raise ValueError("has to be an absolute path of letters, digits and - _ . @ + /")
    return text


def claim(text: str) -> str:
    """Return the name of a claim that users cannot edit themselves."""
    if text in SELF_CHOSEN_CLAIMS:
        raise ValueError(
            "has to be a claim that people cannot choose themselves, such as\n"
            "email or sub; otherwise, anyone could choose the administrator's name"
        )
    return text


# --- The table, in the order of docker/.env.example

HOST = Setting(
    "COURSE_HOST",
    host_name,
    given_to="hub proxy https commands chart",
    about="""
    The host name of this server, such as hub.example.org. Learners then open
    https://hub.example.org. The name must point to this server, and ports 80 and 443 must be open
    to everyone, because Let's Encrypt checks them. Let's Encrypt then issues a certificate, which
    is renewed automatically. By setting a host name, you agree to Let's Encrypt's terms. Without a
    host name, passwords are sent unencrypted, so allow only this machine to reach the hub, or put
    an HTTPS proxy in front of the hub.""",
)
CERTIFICATE = Setting(
    "COURSE_CERTIFICATE",
    str,
    given_to="hub proxy https compose commands",
    about="""
    The absolute paths of your own certificate (with its chain) and of its private key. Both have to
    be PEM files owned by root. Run `make up` after each renewal. Learners can keep working.""",
)
KEY = Setting("COURSE_KEY", str, given_to="https compose commands")
ACME_DIRECTORY = Setting(
    "COURSE_ACME_DIRECTORY",
    str,
    default="https://acme-v02.api.letsencrypt.org/directory",
    given_to="https",
    about="""
    The ACME directory URL of another certificate authority, such as your school's, and the absolute
    path of that authority's root certificate.""",
)
ACME_ROOT = Setting("COURSE_ACME_ROOT", str, given_to="https compose commands")
SUBDOMAINS = Setting(
    "COURSE_SUBDOMAINS",
    switch,
    default="off",
    given_to="hub proxy https",
    about="""
    If this is `on`, each learner's server has its own host name, such as ada.hub.example.org.
    Browsers then keep learners' JavaScript away from the hub and from other learners. We recommend
    this setting. Subdomains require a DNS record for *.hub.example.org and a certificate in
    COURSE_CERTIFICATE that covers both that name and the hub's own name. Ask learners to stop their
    servers before you change this setting.""",
)
HTTPS_PORT = Setting(
    "COURSE_HTTPS_PORT",
    port(),
    default="443",
    given_to="hub https",
    about="The ports for HTTPS and HTTP. Let's Encrypt checks only 443 and 80.",
)
HTTP_PORT = Setting("COURSE_HTTP_PORT", port(), default="80", given_to="https")
ADDRESS = Setting(
    "COURSE_ADDRESS",
    str,
    given_to="hub proxy https",
    example="127.0.0.1",
    about="""
    The address that the hub listens on. With 127.0.0.1, only this machine can reach the hub. If
    COURSE_HOST is set, the default is all addresses of this server.""",
)
PORT = Setting(
    "COURSE_PORT",
    port(highest=65533),
    default="8000",
    given_to="hub proxy https prometheus grafana laptop",
    about="""
    The hub's port if HTTPS is off, 1024 or higher. The hub also uses the next two ports, but only
    on this machine.""",
)
ACCOUNTS = Setting(
    "COURSE_ACCOUNTS",
    one_of("native", "oauth", "lti"),
    default="native",
    given_to="hub chart",
    about="""
    Where accounts are kept: in the hub (`native`), with an OpenID Connect provider (`oauth`), or in
    a learning platform such as Moodle or Canvas that supports LTI 1.3 (`lti`). Choose before the
    first learner logs in. If you change this setting later, another person might log in under a
    learner's name and get that learner's work.""",
)
ADMIN = Setting(
    "COURSE_ADMIN",
    str,
    given_to="hub laptop chart",
    example="instructor",
    about="""
    The administrator's user name, in lowercase. With oauth and lti, copy exactly either the user
    name that the hub shows or the value that the service sends (see COURSE_OAUTH_NAME and
    COURSE_LTI_NAME). With these account types, there is no administrator by default. If you change
    the name, the previous administrator keeps administrator rights until you remove them on the
    Admin page.""",
)
SIGNUP = Setting(
    "COURSE_SIGNUP",
    one_of("approval", "open"),
    default="approval",
    given_to="hub chart",
    about="""
    native: with `approval`, new learners wait until an administrator or instructor approves them.
    With `open`, new learners can log in immediately.""",
)
CLASS_CODE = Setting(
    "COURSE_CLASS_CODE",
    class_code,
    secret=True,
    given_to="hub chart",
    about="""
    native: learners who enter this code when they sign up can log in immediately. All others have
    to wait for approval. The code needs at least 8 characters.""",
)
TRUSTED_PROXIES = Setting(
    "COURSE_TRUSTED_PROXIES",
    networks,
    given_to="hub chart",
    about="""
    native: the addresses or networks, separated by commas, of proxies on other hosts in front of
    the hub, such as a load balancer. The hub limits wrong passwords, wrong codes and sign-ups per
    visitor's address, which such a proxy passes on in X-Forwarded-For. Without this setting, all
    visitors who come through such a proxy share one limit. Anyone who reaches the hub from one of
    these addresses can claim to come from any other address.""",
)
SIGN_ON_ROOT = Setting(
    "COURSE_SIGN_ON_ROOT",
    str,
    given_to="hub compose commands",
    about="""
    oauth and lti: the absolute path of a root certificate in PEM format. Set this if your school's
    own certificate authority issued the provider's or the platform's certificate.""",
)
OAUTH_ISSUER = Setting(
    "COURSE_OAUTH_ISSUER",
    web_address,
    given_to="hub chart",
    about="""
    oauth: the provider's issuer URL, exactly as the provider spells it. The hub looks up the
    provider's endpoints there. Register the hub with the provider as a client with the redirect
    address https://YOUR.HOST/hub/oauth_callback.""",
)
OAUTH_CLIENT_ID = Setting("COURSE_OAUTH_CLIENT_ID", str, given_to="hub chart")
OAUTH_CLIENT_SECRET = Setting("COURSE_OAUTH_CLIENT_SECRET", str, secret=True, given_to="hub chart")
OAUTH_AUTHORIZE_URL = Setting(
    "COURSE_OAUTH_AUTHORIZE_URL",
    web_address,
    given_to="hub chart",
    about="oauth: set these instead of the issuer if the provider does not announce its endpoints.",
)
OAUTH_TOKEN_URL = Setting("COURSE_OAUTH_TOKEN_URL", web_address, given_to="hub chart")
OAUTH_USERINFO_URL = Setting("COURSE_OAUTH_USERINFO_URL", web_address, given_to="hub chart")
OAUTH_ALLOWED = Setting(
    "COURSE_OAUTH_ALLOWED",
    allowed,
    given_to="hub chart",
    about="""
    oauth: who can log in, as a comma-separated list of groups (from the claim `groups`) and e-mail
    domains that start with @, such as students,@example.org. One match is enough. * admits everyone
    with an account at the provider.""",
)
OAUTH_NAME = Setting(
    "COURSE_OAUTH_NAME",
    claim,
    default="email",
    given_to="hub chart",
    about="""
    oauth: the claim that becomes the user name. If the value is not a valid user name, such as
    auth0|5f7c, the hub derives one from it: auth0-5f7c~ followed by 16 characters. With `email`,
    the hub accepts only addresses that the provider has verified (see COURSE_OAUTH_TRUST_EMAIL). Do
    not choose a claim that users can change, because they could take another person's name, even
    the administrator's.""",
)
OAUTH_TRUST_EMAIL = Setting(
    "COURSE_OAUTH_TRUST_EMAIL",
    switch,
    default="off",
    given_to="hub chart",
    about="""
    oauth: with `on`, the hub also accepts e-mail addresses if the provider does not say whether it
    has verified them. Microsoft Entra ID never sends this. Choose `on` only if the provider's
    administrators assign all addresses. Otherwise, people could enter someone else's address.""",
)
OAUTH_SCOPES = Setting(
    "COURSE_OAUTH_SCOPES",
    str.split,
    default="openid profile email",
    given_to="hub chart",
    about="""
    oauth: the scopes that the hub requests. Some providers send groups only if you add a scope for
    groups.""",
)
LTI_ISSUER = Setting(
    "COURSE_LTI_ISSUER",
    str,
    given_to="hub chart",
    about="""
    lti: the values that your platform shows when you register the hub as a tool. The login address
    is https://YOUR.HOST/hub/lti13/oauth_login, and the redirect address is
    https://YOUR.HOST/hub/lti13/oauth_callback. Configure the tool to open in a new window. Everyone
    who opens the course from the platform can log in.""",
)
LTI_CLIENT_ID = Setting("COURSE_LTI_CLIENT_ID", str, given_to="hub chart")
LTI_AUTHORIZE_URL = Setting("COURSE_LTI_AUTHORIZE_URL", web_address, given_to="hub chart")
LTI_KEYS_URL = Setting("COURSE_LTI_KEYS_URL", web_address, given_to="hub chart")
LTI_TOKEN_URL = Setting(
    "COURSE_LTI_TOKEN_URL",
    web_address,
    given_to="hub chart",
    about="""
    lti: the platform's access token URL. If you set this, instructors can send grades to the
    platform. In the platform's settings, enter https://YOUR.HOST/hub/lti13/keys as the tool's
    public keyset URL, and allow the tool to manage grade columns; docs/operators.md explains
    how.""",
)
LTI_NAME = Setting(
    "COURSE_LTI_NAME",
    one_of("sub", "email"),
    default="sub",
    given_to="hub chart",
    about="""
    lti: the claim that becomes the user name, either `sub`, the platform's own identifier for a
    person, or `email`. If the value is not a valid user name, the hub derives one from it,
    as with COURSE_OAUTH_NAME. Use `email` only if users of the platform cannot enter other people's
    addresses. After a launch, the hub shows your user name in the upper right corner.""",
)
MEMORY = Setting(
    "COURSE_MEMORY",
    memory,
    example="3G",
    about="""
    The memory and processor limits for each learner's server. A lesson needs 1.5 GB.""",
)
CPUS = Setting("COURSE_CPUS", number(positive=True), given_to="hub laptop", example="2")
GPU_MEMORY = Setting(
    "COURSE_GPU_MEMORY", memory, example="6G", about="The same limits for a server with a GPU."
)
GPU_CPUS = Setting("COURSE_GPU_CPUS", number(positive=True), example="2")
IDLE_MINUTES = Setting(
    "COURSE_IDLE_MINUTES",
    number(),
    default="60",
    given_to="hub chart",
    about="""
    The number of minutes without activity after which servers and kernels are stopped; 0 means
    never. Saved work is kept, and a kernel that is running code is not stopped.""",
)
PROGRESS = Setting(
    "COURSE_PROGRESS",
    switch,
    default="on",
    given_to="hub laptop chart",
    about="""
    If this is `on`, learners' servers send attempts at exercises to the hub. The Class page shows
    instructors who is stuck and which mistakes are frequent. These records are personal data. On
    the Progress page, learners can see their own records, delete them, and stop sharing.""",
)
MONITOR = Setting(
    "COURSE_MONITOR",
    switch,
    default="off",
    given_to="hub commands",
    about="""
    If this is `on`, Prometheus and Grafana also run, and administrators get a dashboard at
    /services/grafana/. Prometheus records how much memory and processor time each learner used, and
    when. These records are personal data, and are kept for 30 days. Prometheus and Grafana use the
    two ports after the hub's, on 127.0.0.1, where everyone with an account on this server can read
    the data. Run `make down` before you turn this setting off.""",
)
REGISTRY = Setting(
    "COURSE_REGISTRY",
    str,
    default="docker.io",
    given_to="compose",
    about="The registry for the images of Prometheus and Grafana: Docker Hub or a mirror of it.",
)
IMAGE = Setting(
    "COURSE_IMAGE",
    str,
    default="tensorflow-course",
    given_to="hub compose commands",
    about="""
    The name of the course's images in a registry, without the tags :cpu, :gpu and :hub. Without
    this setting, `make up` builds :cpu and :hub, and `make images` builds all three.""",
)
DATABASE = Setting(
    "COURSE_DATABASE",
    str,
    given_to="hub commands",
    secret=True,
    about="""
    The URL of a PostgreSQL database for the accounts, such as postgresql://user:password@host/name.
    By default, the accounts are stored in a file, which is enough for a class. To move accounts,
    run `make backup`, change this setting, then run `make recover`.""",
)
HOMES = Setting(
    "COURSE_HOMES",
    absolute_path,
    given_to="compose commands",
    example="/srv/tensorflow-course",
    about="""
    The folder on this server for learners' work. It contains a folder for each learner, and a
    shared folder that all learners can read. Put this folder on a separate disk, so that learners
    cannot fill the system disk. `make up` creates the folder. By default, its path is /srv/
    followed by COURSE_NAME.""",
)
HOME_QUOTA = Setting(
    "COURSE_HOME_QUOTA",
    memory,
    given_to="hub commands",
    example="5G",
    about="""
    The maximum size of each learner's home directory. COURSE_HOMES has to be on a disk with project
    quotas (XFS or ext4); docs/operators.md explains how to set up such a disk. By default, there is
    no limit.""",
)
NAME = Setting(
    "COURSE_NAME",
    docker_name,
    default="tensorflow-course",
    given_to="hub commands",
    about="""
    A name for this hub's containers, network and volumes. If you run more than one hub on this
    server, give each hub its own name.""",
)
CONFIG = Setting(
    "COURSE_CONFIG",
    str,
    given_to="compose commands laptop",
    about="""
    A folder with .py files that contain your own settings for JupyterHub itself. The hub loads
    these files last. docs/operators.md has two examples. By default, the folder is
    jupyterhub_config.d next to this file. To use another folder, give its absolute path.""",
)

# --- Settings whose values do not come from docker/.env

SPAWNER = Setting("COURSE_SPAWNER", one_of("local", "docker"), default="local", given_to="hub")
STATE = Setting("COURSE_STATE", str, given_to="image laptop chart")
SECRETS = Setting("COURSE_SECRETS", str, given_to="image")
MONITORING = Setting("COURSE_MONITORING", str, given_to="image")
KERAS_HOME = Setting("KERAS_HOME", str, given_to="laptop")
DOCKER = Setting("DOCKER", str, default="docker", given_to="commands")

TABLE = {value.name: value for value in list(globals().values()) if isinstance(value, Setting)}
# The settings that can be set in docker/.env.
OPERATORS = [name for name in TABLE if list(TABLE).index(name) < list(TABLE).index(SPAWNER.name)]


# --- Values derived from the settings


def ports() -> tuple[int, int, int]:
    """Return the ports of the public address, the hub's API and the proxy's API."""
    first = PORT()
    return first, first + 1, first + 2


def homes() -> str:
    """Return the path of the folder for learners' work on the server."""
    return HOMES() or f"/srv/{NAME()}"


def required(*settings: Setting) -> None:
    """If any of these settings are missing, exit with a message that names them."""
    missing = [setting.name for setting in settings if not setting.is_set]
    if missing:
        sys.exit(f"COURSE_ACCOUNTS={ACCOUNTS()} needs these settings, too: {', '.join(missing)}.")


def for_a_program(**more: str) -> dict[str, str]:
    """Return the environment for a child process, or for a program that replaces this process."""
    return {**os.environ, **more}


# --- A file of settings


def main() -> None:
    """Print docker/.env.example."""
    argparse.ArgumentParser(description=main.__doc__).parse_args()
    print(example(), end="")


def example() -> str:
    """Return the text of docker/.env.example."""
    begin = """
    Settings of the hub for a class (`make up`). Copy this file to `.env` and change what you need.
    Commented-out lines show defaults or examples. The administrator's password is not in this file,
    because the hub generates the password when it first starts. If you write secrets into the file,
    run `chmod 600 .env`."""
    lines = [comment(begin)]
    for name in OPERATORS:
        setting = TABLE[name]
        if setting.about:
            lines += ["", comment(setting.about)]
        lines.append(f"#{name}={setting.example or setting.default}")
    return "\n".join(lines) + "\n"


def comment(text: str) -> str:
    """Return the text as a comment, with lines of at most 100 characters."""
    words = " ".join(text.split())
    return textwrap.fill(
        words,
        width=100,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def load() -> None:
    """Load docker/.env into the environment without overriding existing variables."""
    for name, text in in_file().items():
        os.environ.setdefault(name, text)


def has_registry() -> bool:
    """Return whether the images come from a registry instead of being built on this machine."""
    return IMAGE() != IMAGE.default


def check() -> None:
    """Exit with a message if docker/.env has an unknown setting, or if any setting is invalid."""
    check_names("docker/.env", in_file())
    for name in OPERATORS:
        TABLE[name]()


def in_file() -> dict[str, str]:
    """Return the settings in docker/.env; exit with a message if it is not a text file."""
    file = DOCKER_FOLDER / ".env"
    try:
        text = file.read_text(encoding="utf-8-sig")  # some editors write a byte order mark
    except FileNotFoundError:
        return {}
    except OSError as error:
        sys.exit(f"docker/.env cannot be read: {error.strerror}.")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        sys.exit(f"docker/.env has to be text in UTF-8, but line {line} is not.")
    found = read(text)
    for name, value in found.items():
        if not value.isprintable():
            sys.exit(f"docker/.env: {name} has a character that cannot be seen.")
    return found


def read(text: str) -> dict[str, str]:
    """Parse a settings file as Compose does, stripping quotes and comments."""
    pattern = (
        r"""^\s*(?:export\s+)?(\w+)\s*=[ \t]*(?:"([^"\n]*)"|'([^'\n]*)'|(.*?))[ \t]*(?:\ #.*)?$"""
    )
    return {
        match[1]: match[2] or match[3] or match[4] or ""
        for match in re.finditer(pattern, text, re.MULTILINE)
        if match[1].startswith("COURSE_")
    }


def check_names(where: str, names: Iterable[str] | Mapping[str, str]) -> None:
    """Exit with a message if one of the names is not a setting.

    Without this check, a misspelt setting would be silently ignored, even if it isolates learners.
    """
    for name in names:
        if name not in TABLE:
            close = get_close_matches(name, TABLE, 1)
            meant = f" Did you mean {close[0]}?" if close else ""
            sys.exit(
                f"{where}: there is no setting {name}.{meant}\n"
                "docker/.env.example explains all settings."
            )


if __name__ == "__main__":
    main()
