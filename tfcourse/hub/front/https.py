"""Run Caddy, which provides HTTPS in front of the proxy: `python -m tfcourse.hub.front.https`.

`make up` runs this module if COURSE_HOST is set. Caddy obtains and renews a certificate for that
host name, or uses the certificate in COURSE_CERTIFICATE with the key in COURSE_KEY.
docker/.env.example lists the settings.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tfcourse.hub import settings, state

# The paths at which compose.yaml mounts the operator's certificate files.
CERTIFICATE, KEY = Path("/srv/certificate.pem"), Path("/srv/key.pem")
ACME_ROOT = Path("/srv/acme-root.pem")
ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")  # unless COURSE_ACME_ROOT is set


def configure(c: Any) -> None:
    """Configure the hub's public URL if browsers reach the hub through HTTPS."""
    if not host():
        return
    # JupyterHub uses this URL for links, redirects and cookies, regardless of a request's headers.
    c.JupyterHub.public_url = f"{public_url()}/"
    # By default, JupyterHub's XSRF cookies lack the `secure` attribute. Learners' servers set this
    # attribute on their own cookies because of the public URL above (tfcourse/prefix).
    c.JupyterHub.tornado_settings.update({"xsrf_cookie_kwargs": {"secure": True}})
    # JupyterHub binds XSRF tokens to visitors' addresses, not to those of the two proxies.
    c.JupyterHub.trusted_downstream_ips = ["127.0.0.1", "::ffff:127.0.0.1"]
    if subdomains():
        c.JupyterHub.subdomain_host = public_url()
        c.JupyterHub.subdomain_hook = name_of
        # The cookie prefix prevents a learner's page from replacing the hub's cookie. Use the
        # prefix only with subdomains, because browsers send such a cookie to every server with the
        # same host name.
        c.JupyterHub.cookie_host_prefix_enabled = True


def host() -> str:
    """Return the host name that browsers use, or an empty string if HTTPS is off."""
    return settings.HOST()


def web_ports() -> tuple[int, int]:
    """Return the HTTPS port, and the HTTP port, on which Caddy redirects to HTTPS."""
    return settings.HTTPS_PORT(), settings.HTTP_PORT()


def public_url() -> str:
    """Return the hub's public URL without a trailing slash."""
    port = web_ports()[0]
    return f"https://{host()}" + (f":{port}" if port != 443 else "")


def subdomains() -> bool:
    """Return whether each learner's server gets its own host name.

    Exit with a message if the other settings do not allow subdomains.
    """
    wanted = settings.SUBDOMAINS()
    if wanted and not (host() and settings.CERTIFICATE.is_set):
        sys.exit(
            "COURSE_SUBDOMAINS is on, but that needs COURSE_HOST, and a wildcard\n"
            "certificate for its subdomains in COURSE_CERTIFICATE and COURSE_KEY."
        )
    return wanted


def name_of(name: str, domain: str, kind: str) -> str:
    """Return the host name of a learner's server, or the hub's host name for a service.

    Services are trusted programs, so they can share the hub's host name.
    """
    # Import this function here, because only the hub needs it, and the import would delay the
    # proxy's start.
    from jupyterhub.utils import subdomain_hook_idna

    return domain if kind == "service" else subdomain_hook_idna(name, domain, kind)


def names() -> list[str]:
    """Return the host names that the certificate must cover."""
    return [host(), f"*.{host()}"] if subdomains() else [host()]


def placeholders() -> dict[str, str]:
    """Return the values for the placeholders in the Caddyfile."""
    https_port, http_port = map(str, web_ports())
    return {
        "HOST": host(),
        "SITES": ", ".join(f"https://{name}" for name in names()),
        "PUBLIC_URL": public_url(),
        "HTTPS_PORT": https_port,
        "HTTP_PORT": http_port,
        "PROXY_PORT": str(settings.ports()[0]),
        "ADDRESS": settings.ADDRESS(),
        "CERTIFICATE": "given" if settings.CERTIFICATE.is_set else "automatic",
        "ACME_DIRECTORY": settings.ACME_DIRECTORY(),
        "ACME_ROOTS": str(ACME_ROOT if settings.ACME_ROOT.is_set else ROOTS),
    }


def check_certificate(certificate: Path, key: Path, wanted: list[str]) -> None:
    """Exit with a message if the certificate and key cannot be used for the `wanted` host names."""
    content = {}
    for variable, path in (("COURSE_CERTIFICATE", certificate), ("COURSE_KEY", key)):
        try:
            content[variable] = path.read_bytes()
        except OSError as error:
            sys.exit(f"{variable} cannot be read: {error.strerror}. It has to belong to root.")
    try:
        # The first certificate in the file is the server's, and the others are its chain.
        leaf = x509.load_pem_x509_certificates(content["COURSE_CERTIFICATE"])[0]
    except ValueError:
        sys.exit("COURSE_CERTIFICATE is not a certificate in PEM format.")
    try:
        private = load_pem_private_key(content["COURSE_KEY"], password=None)
    except (ValueError, TypeError):
        sys.exit("COURSE_KEY is not an unencrypted private key in PEM format.")
    if private.public_key() != leaf.public_key():
        sys.exit("COURSE_KEY does not match COURSE_CERTIFICATE: it is another certificate's key.")
    now = datetime.now(UTC)
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        sys.exit(
            f"COURSE_CERTIFICATE is valid from {leaf.not_valid_before_utc:%Y-%m-%d} to "
            f"{leaf.not_valid_after_utc:%Y-%m-%d}, but this server's clock says {now:%Y-%m-%d}.\n"
            "Renew it, or set the clock. Then run `make up`."
        )
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        covered = extension.value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        covered = []
    for name in wanted:
        # A wildcard covers exactly one label of a host name.
        if not {name, f"*.{name.partition('.')[2]}"} & set(covered):
            sys.exit(
                f"COURSE_CERTIFICATE is for {', '.join(covered) or 'no host name'}, "
                f"but it has to be for {' and '.join(wanted)}."
            )


def main() -> None:
    """Check the certificate and the ports, then replace this process with Caddy."""
    given = [settings.CERTIFICATE.is_set, settings.KEY.is_set]
    if any(given) and not all(given):
        sys.exit("COURSE_CERTIFICATE and COURSE_KEY belong together: set both or neither.")
    if all(given):
        check_certificate(CERTIFICATE, KEY, names())
    for port in web_ports():
        if error := state.port_error(port, settings.ADDRESS()):
            sys.exit(
                f"Port {port} cannot be used: {error.strerror}. Stop the program that uses it\n"
                "(another web server?), or set COURSE_HTTPS_PORT and COURSE_HTTP_PORT."
            )
    command = ["caddy", "run", "--config", str(Path(__file__).with_name("Caddyfile"))]
    environment = settings.for_a_program(**placeholders())
    os.execvpe(command[0], command, environment)  # noqa: S606 - the command is our own


if __name__ == "__main__":
    main()
