"""Where a webhook may go: https, to addresses on the public internet, looked up once and connected to.

A consumer chooses the URL and we send from inside our own network, so a name that resolves to a private
address would let it reach what it could not reach itself (SSRF). Every address that the name has is judged,
and the connection goes to a judged address, not to a second look-up.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

MOST_CHARACTERS = 2000

# Python's own `is_private` and `is_global` are not enough: 100.64.0.1 is not private to them, and NAT64 and
# 6to4 forms of loopback are global. So: our own list (IANA's special-purpose registries), and whatever
# carries an IPv4 address inside is judged by that.
_NOT_PUBLIC_4 = [
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
        "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
        "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
]  # fmt: skip
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")  # all that IANA has given out for unicast
_NOT_PUBLIC_6 = [
    ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "3ffe::/16", "3fff::/20", "5f00::/16")
]
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_6TO4 = ipaddress.IPv6Network("2002::/16")


class Forbidden(ValueError):
    """Nothing is sent there. The message says why, to whoever wrote the URL."""


class Unresolved(OSError):
    """The name has no address just now."""


@dataclass(frozen=True, slots=True)
class Target:
    """A checked URL: connect to `address`, and speak to `host` there."""

    tls: bool
    host: str  # for the certificate and the Host header
    port: int
    address: str
    path: str


def check(url: str, *, allow_private: bool) -> Target:
    """Look the name up and judge every address that it has.

    Raises:
        Forbidden: the URL, or an address of its name, is not one that we send to.
        Unresolved: the name can't be looked up now.
    """
    parts = split(url, allow_private=allow_private)
    host, tls = str(parts.hostname), parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    addresses = resolve(host, port)
    if not allow_private:
        for address in addresses:
            if not is_public(ipaddress.ip_address(address.partition("%")[0])):
                # Which address that is, is told to nobody: names inside our network are ours.
                raise Forbidden(f"{host} is not on the public internet.")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(tls, host, port, addresses[0], path)


def split(url: str, *, allow_private: bool) -> SplitResult:
    """The parts of a URL that may be sent to, as far as that can be told without looking its name up.

    Raises:
        Forbidden: it may not.
    """
    if len(url) > MOST_CHARACTERS or not url.isascii() or not url.isprintable() or " " in url:
        raise Forbidden(f"A URL has at most {MOST_CHARACTERS} visible ASCII characters.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Forbidden("This is not a URL.") from error
    if parts.scheme not in (("https", "http") if allow_private else ("https",)):
        raise Forbidden("Only https:// is sent to.")
    if not parts.hostname:
        raise Forbidden("The URL names no host.")
    if "@" in parts.netloc:
        raise Forbidden("Put no user name or password into the URL; the signature says who sends it.")
    if port is not None and not allow_private and port != 443 and not 1024 <= port <= 65535:
        raise Forbidden("Only port 443 and ports from 1024 on are sent to.")
    return parts


def resolve(host: str, port: int) -> Sequence[str]:
    """Every address of the name. Raises `Unresolved`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unresolved(f"{host} can't be looked up: {error}") from error
    return [str(entry[4][0]) for entry in found]


def is_public(address: IPAddress) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    inner = _inner(address)
    if inner is not None:
        return is_public(inner)
    return address in _PUBLIC_6 and not any(address in network for network in _NOT_PUBLIC_6)


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that this IPv6 address leads to, if it is such a form."""
    if address in _MAPPED or address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _6TO4:
        return address.sixtofour
    return None
