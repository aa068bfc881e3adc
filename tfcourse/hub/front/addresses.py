"""Find a request's client address, even behind one or more proxies."""

from __future__ import annotations

import ipaddress

from tornado.httputil import HTTPServerRequest

from tfcourse.hub import settings

# The IP addresses of the hub's own proxy, if it runs on another host (spawners/pods.py).
own_proxies: set[str] = set()


def address_of(request: HTTPServerRequest) -> str:
    """Return a request's client address, ignoring headers that the client can forge.

    For an IPv6 address, return its /64 network, because one client can usually use all addresses in
    that network.

    The proxy appends the visitor's address to X-Forwarded-For. The visitor can forge X-Real-Ip and
    all earlier entries in X-Forwarded-For, so those entries are ignored. A request that does not
    come from the proxy's address has bypassed the proxy.
    """
    peer = request.connection.context._orig_remote_ip
    stream = request.connection.stream
    if stream.closed() or peer not in {stream.socket.getsockname()[0], *own_proxies}:
        return network(peer)
    forwarded = request.headers.get("X-Forwarded-For", "").split(",")
    # Skip the addresses of other proxies, such as the HTTPS proxy.
    outside = [address.strip() for address in forwarded if not is_proxy(address.strip())]
    return network(outside[-1] if outside else peer)


def network(address: str) -> str:
    """Return an IPv4 address unchanged, or the /64 network of an IPv6 address."""
    try:
        found = parsed(address)
    except ValueError:
        return address
    return str(found if found.version == 4 else ipaddress.ip_network((found, 64), strict=False))


def parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Parse an address; convert IPv4-mapped IPv6 addresses such as ::ffff:127.0.0.1 to IPv4.

    Raises
    ------
    ValueError
        If the text is not an address.
    """
    found = ipaddress.ip_address(address)
    return (found.version == 6 and found.ipv4_mapped) or found


def is_proxy(address: str) -> bool:
    """Return whether the address is a loopback address or belongs to a trusted proxy.

    Proxies at such addresses forward visitors' requests.
    """
    try:
        found = parsed(address)
    except ValueError:
        return not address
    return found.is_loopback or any(found in trusted for trusted in settings.TRUSTED_PROXIES())
