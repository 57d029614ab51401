"""E-mail addresses, passwords in URLs, IP and MAC addresses: each looked for only around the sign that it must have."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

import regex

from flywheel.process.spans import Match

_LOCAL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}")
_DOMAIN = re.compile(r"(?:(?!-)[\w-]{1,63}\.){1,8}(?:xn--[A-Za-z0-9-]{2,59}|[^\W\d_]{2,24})(?![\w-])")
_FILES = {"png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "ts", "html", "tgz", "gz", "zip", "pdf"}
_WRITTEN_AT = re.compile(r"%40|&#64;|\uff20|[(\[](?:at|AT)[)\]] ?")
_WRITTEN_DOMAIN = re.compile(r"(?:[\w-]{1,63}(?:\.| ?[\[(]\s?(?:dot|DOT)\s?[\])] ?)){1,6}[^\W\d_]{2,24}(?![\w-])")


def emails(text: str) -> Iterator[Match]:
    """Addresses as `a.b+c@d.org`, `a%40d.org` in URLs, `a&#64;d.org` in HTML and `a [at] d [dot] org`."""
    if "@" in text:
        for sign in re.finditer("@", text):
            yield from _email(text, sign.start(), sign.end(), _DOMAIN)
    if not _has_written_sign(text):
        return
    for sign in _WRITTEN_AT.finditer(text):
        spaced = sign[0][0] in "([" and text[sign.start() - 1 : sign.start()] == " "
        yield from _email(text, sign.start() - spaced, sign.end(), _WRITTEN_DOMAIN)


def _has_written_sign(text: str) -> bool:
    """The single characters are fast to look for and rare, so they come first."""
    bracketed = ("(" in text and ("(at)" in text or "(AT)" in text)) or (
        "[" in text and ("[at]" in text or "[AT]" in text)
    )
    return bracketed or ("%" in text and "%40" in text) or ("&" in text and "&#64;" in text) or "\uff20" in text


def _email(text: str, start: int, end: int, domains: re.Pattern[str]) -> Iterator[Match]:
    """The address around the sign from `start` to `end`; not `git@host:path` and not the name of a file."""
    local, domain = _local_part(text, start), domains.match(text, end)
    if not local or domain is None or domain[0].rsplit(".", 1)[-1].lower() in _FILES:
        return
    if local not in ("git", "hg", "svn") or text[domain.end() : domain.end() + 1] not in (":", "/"):
        yield Match("email", start - len(local), domain.end())


def _local_part(text: str, end: int) -> str:
    """What stands before the sign, without the quotes and marks around it; empty where it cannot be a local part."""
    backwards = _LOCAL.match(text[max(0, end - 65) : end][::-1])
    if backwards is None or len(backwards[0]) > 64:
        return ""
    local = re.split(r"[/={}`|?&]", backwards[0][::-1])[-1].lstrip("'.*#!~^$%-+")
    return "" if local.endswith(".") or ".." in local else local


_USERINFO = re.compile(r"://([^\s/?#@\"'<>`:]{1,128}:[^\s/?#\"'<>`@]{1,128})@(?=[\w\[])")


def url_credentials(text: str) -> Iterator[Match]:
    """`user:password` in `scheme://user:password@host`, unless it is a template such as `${USER}:${PASS}`."""
    if "://" not in text or "@" not in text:
        return
    for match in _USERINFO.finditer(text):
        if not re.search(r"[{}$]|%s|\*\*", match[1]):
            yield Match("url_credentials", match.start(1), match.end(1))


_COLONS = re.compile(r":(?::|[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4}:)")
_V6 = re.compile(
    r"[0-9A-Fa-f:]{2,45}(?:(?<=:)[0-9]{1,3}(?:\.[0-9]{1,3}){3}|(?<=[0-9])\.[0-9]{1,3}(?:\.[0-9]{1,3}){2})?"
)
_MAC = re.compile(r"(?<![\w:-])(?:[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2})(?![\w:-]|\1[0-9A-Fa-f])")
_MAC_DOTS = re.compile(r"(?<![\w.])[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}(?![\w]|\.\w)")
_DOTTED = re.compile(r"\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}")
_DASHED = re.compile(r"-[0-9A-Fa-f]{2}-[0-9A-Fa-f]{2}-")


def hardware(text: str) -> Iterator[Match]:
    """IPv6 and MAC addresses."""
    position, hook = 0, _COLONS.search(text)
    while hook is not None:
        start = _hex_start(text, position, hook.start())
        token = _V6.match(text, start)
        position = max(token.end() if token else 0, hook.end())
        yield from _colon_token(text, start)
        hook = _COLONS.search(text, position)
    for pattern, whole, back in ((_DASHED, _MAC, 2), (_DOTTED, _MAC_DOTS, 4)):
        for hook in pattern.finditer(text):
            match = whole.match(text, max(0, hook.start() - back))
            if match and not _is_empty(match[0]):
                yield Match("mac", match.start(), match.end())


def _hex_start(text: str, low: int, colon: int) -> int:
    """Where the hexadecimal digits and colons around a colon begin, at most 45 characters before it."""
    before = text[max(low, colon - 45) : colon]
    return colon - len(before) + len(before.rstrip("0123456789abcdefABCDEF:"))


def _colon_token(text: str, start: int) -> Iterator[Match]:
    mac = _MAC.match(text, start)
    if mac is not None:
        if not _is_empty(mac[0]):
            yield Match("mac", mac.start(), mac.end())
        return
    token = _V6.match(text, start)
    if token is None or (start and (text[start - 1].isalnum() or text[start - 1] in "_.")):
        return
    written = token[0] if token[0].endswith("::") else token[0].rstrip(":")
    end = start + len(written)
    if not text[end : end + 1].isalnum() and text[end : end + 1] != "_" and _is_address(written):
        slice_ = text[start - 1 : start] == "[" and text[end : end + 1] == "]" and len(written) < 9
        if not slice_:
            yield Match("ipv6", start, end)


def _is_empty(mac: str) -> bool:
    return len(set(re.sub(r"[:.-]", "", mac).lower())) == 1


def _is_address(text: str) -> bool:
    """Global and private unicast, link-local and mapped IPv4: not loopback, multicast, or C++'s `a::b`."""
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return False
    first = address.packed[0]
    unicast = 0x20 <= first <= 0x3F and text.find(":") == 4
    return unicast or 0xFC <= first <= 0xFD or address.is_link_local or address.ipv4_mapped is not None


_FOUR = regex.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_IPV4 = re.compile(
    r"(?<![0-9A-Za-z])(?<![0-9]\.)(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}"
    r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?![0-9A-Za-z])(?!\.[0-9])(?!-[A-Za-z])"
)
_OTHER_SIGN = re.compile(
    r"(?i)\bv(?:er(?:s(?:ion)?)?)?[.:= ]*$|[a-z][/-]$|[=~^<>]=\s?[\"']?$|\b[0-9](?:\.[0-9]+)+\.$"
    r"|(?:t[ée]l|phone|fax|mobile|cell)[^a-z0-9]{0,8}$"
)
_WORD = re.compile(
    r"(?i)(?P<version>version|release|firmware|build|\bdriver|upgrade|update|section|chapter|clause|paragraph|\boid\b)"
    r"|\bip(?:\b|[_v]|s\b)|host|addr|server|\bdns\b|ping|client|port|subnet|gateway|ssh|://|@$|netmask"
)


def ipv4(text: str) -> Iterator[Match]:
    """Addresses of one machine: not loopback, unspecified, multicast or a netmask, and not the version of something."""
    for four in _FOUR.finditer(text):
        match = _IPV4.match(text, four.start())
        if match is None:
            continue
        numbers = [int(part) for part in match[0].split(".")]
        if numbers[0] in (0, 127) or numbers[0] >= 224:
            continue
        before = text[max(0, match.start() - 32) : match.start()].rsplit("\n", 1)[-1]
        words = list(_WORD.finditer(before))
        named = words and not words[-1]["version"]
        doubtful = words or max(numbers) < 10
        if not _OTHER_SIGN.search(before) and (named or not doubtful):
            yield Match("ipv4", match.start(), match.end())
