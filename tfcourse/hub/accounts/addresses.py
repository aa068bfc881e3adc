"""Find the address that a request comes from, behind one or more proxies."""

from __future__ import annotations

import ipaddress

from tornado.httputil import HTTPServerRequest

from tfcourse.hub import settings

# The addresses of the hub's own proxy, if it runs on another machine (spawners/pods.py).
own_proxies: set[str] = set()


def address_of(request: HTTPServerRequest) -> str:
    """Return the address that a request comes from, whatever the request claims.

    For an IPv6 address, return its /64 network: a person with one address there can use them all.

    The proxy appends the address to X-Forwarded-For. Anyone can write the entries before that, and
    X-Real-Ip. A request from another machine than the proxy's did not pass the proxy.
    """
    peer = request.connection.context._orig_remote_ip
    if peer not in {request.connection.stream.socket.getsockname()[0], *own_proxies}:
        return network(peer)
    forwarded = request.headers.get("X-Forwarded-For", "").split(",")
    # Another proxy, such as the one for HTTPS, may have appended an entry, too.
    outside = [address.strip() for address in forwarded if not is_proxy(address.strip())]
    return network(outside[-1] if outside else peer)


def network(address: str) -> str:
    """Return an IPv4 address unchanged, or the network of an IPv6 address."""
    try:
        found = parsed(address)
    except ValueError:
        return address
    return str(found if found.version == 4 else ipaddress.ip_network((found, 64), strict=False))


def parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the parsed address, with ::ffff:127.0.0.1 as 127.0.0.1.

    Raises
    ------
    ValueError
        If the text is not an address.
    """
    found = ipaddress.ip_address(address)
    return (found.version == 6 and found.ipv4_mapped) or found


def is_proxy(address: str) -> bool:
    """Return whether the address is this machine's own or a trusted proxy's.

    Requests from such an address are made on behalf of others.
    """
    try:
        found = parsed(address)
    except ValueError:
        return not address
    return found.is_loopback or any(found in trusted for trusted in settings.TRUSTED_PROXIES())
