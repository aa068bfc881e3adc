"""Which address a request comes from, behind one proxy or more."""

from __future__ import annotations

import ipaddress

from tornado.httputil import HTTPServerRequest

from tfcourse.hub import settings


def address_of(request: HTTPServerRequest) -> str:
    """Return the address that a request comes from, whatever it says about itself.

    Of an IPv6 address it is the network, /64: whoever has one address there has all of them.

    The proxy appends it to X-Forwarded-For. What stands before that, or in X-Real-Ip, anybody can
    write; and what does not come from this machine does not come from the proxy.
    """
    peer = request.connection.context._orig_remote_ip
    if peer != request.connection.stream.socket.getsockname()[0]:
        return network(peer)
    forwarded = request.headers.get("X-Forwarded-For", "").split(",")
    # One more proxy, for HTTPS, say, has appended its own, too.
    outside = [address.strip() for address in forwarded if not is_proxy(address.strip())]
    return network(outside[-1] if outside else peer)


def network(address: str) -> str:
    """Return an IPv4 address as it is, of an IPv6 address its network."""
    try:
        found = parsed(address)
    except ValueError:
        return address
    return str(found if found.version == 4 else ipaddress.ip_network((found, 64), strict=False))


def parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address, ::ffff:127.0.0.1 as 127.0.0.1; raise ValueError if it is none."""
    found = ipaddress.ip_address(address)
    return (found.version == 6 and found.ipv4_mapped) or found


def is_proxy(address: str) -> bool:
    """Tell whether it is this machine's own, or of a trusted proxy, which speak for others."""
    try:
        found = parsed(address)
    except ValueError:
        return not address
    return found.is_loopback or any(found in trusted for trusted in settings.TRUSTED_PROXIES())
