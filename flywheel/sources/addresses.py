"""Which addresses are public, and which URLs may be asked at all.

`ipaddress.is_global` alone lets forms of loopback pass (NAT64, 6to4, 192.0.0.192); the tables below are IANA's
registries of special-purpose addresses (RFC 6890), whole, and what clouds keep for themselves.
"""

from __future__ import annotations

import ipaddress

import httpx

from flywheel.errors import FetchError

_IPV4 = tuple(map(ipaddress.IPv4Network, (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4",
    "168.63.129.16/32",  # Azure's host; its other metadata addresses and those of other clouds lie in ranges above
)))  # fmt: skip
_UNICAST = ipaddress.IPv6Network("2000::/3")
"""The only range of IPv6 that public hosts have: mapped, NAT64 and unique local addresses lie outside."""
_IPV6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
"""Within it: Teredo and other protocols, documentation, 6to4, documentation."""
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
"""Third quarter of an address that hides one of IPv4 in its last (RFC 5214)."""


def is_public(address: str) -> bool:
    """Whether an IP address, as `getaddrinfo` spells it, belongs to a host of the public internet."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if not ip.is_global or ip.is_multicast or ip.is_reserved:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _IPV4)
    hidden = (int(ip) >> 32) & 0xFFFF_FFFF in _ISATAP
    return ip in _UNICAST and not hidden and not any(ip in network for network in _IPV6)


def parse(url: str) -> httpx.URL:
    """A URL that may be asked, without its fragment. Raises FetchError (`address`) for any other."""
    if any(c <= " " or c in "\\\x7f" for c in url):
        raise _refused(url, "a space, backslash or control character")
    try:
        found = httpx.URL(url).copy_with(fragment=None)
        # What the operating system would resolve has no escapes; they could only hide something.
        odd = "%" in found.raw_host.decode("ascii")
    except (httpx.InvalidURL, ValueError, UnicodeError) as error:
        raise _refused(url, str(error)) from None
    if found.scheme not in ("http", "https"):
        raise _refused(url, f"the scheme `{found.scheme}`")
    if not found.host or odd:
        raise _refused(url, "no host" if not found.host else "an escaped host")
    if found.userinfo:
        raise _refused(url, "a user name before the host")
    if found.port is not None and not 0 < found.port < 65_536:
        raise _refused(url, f"port {found.port}")
    return found


def authority(url: httpx.URL) -> str:
    """`host:port`, the port always spelled out, a dot at the end of the host left out."""
    host = url.raw_host.decode("ascii").rstrip(".")
    return f"{f'[{host}]' if ':' in host else host}:{url.port or (443 if url.scheme == 'https' else 80)}"


def shown(url: str) -> str:
    """A URL for messages: without query, user name and password, which may be secrets."""
    plain = url.partition("?")[0].partition("#")[0]
    scheme, slashes, rest = plain.partition("//")
    place, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{place.rpartition('@')[2]}{slash}{path}"[:200].encode("unicode_escape").decode()


def _refused(url: str, found: str) -> FetchError:
    return FetchError(
        f"address {shown(url)}",
        reason="address",
        found=found,
        expected="http://host/path or https://host/path",
        remedy="write the address as a browser shows it",
    )
