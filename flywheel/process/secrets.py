"""Keys, tokens and passwords in code and text: by their issuers' formats, and by what they are assigned to.

Formats as their issuers document them; the rules for assignments (a telling name, a value that is neither a word nor a
template) are those of common secret scanners. A secret without a format, a name or a header is not found.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from flywheel.process.spans import Match, disjoint, drop_rows, mask_rows
from flywheel.record import Outcomes, Record


class Format(NamedTuple):
    """A kind, texts of which each secret of it has one, and what it looks like; group 1, if any, is the secret."""

    kind: str
    parts: tuple[str, ...]
    pattern: re.Pattern[str]


def _format(kind: str, parts: str, pattern: str, guard: str = "(?<![0-9A-Za-z])") -> Format:
    return Format(kind, tuple(parts.split()), re.compile(f"{guard}(?:{pattern})"))


_END = r"(?![0-9A-Za-z_])"
FORMATS = (
    _format("aws_access_key", "AKIA ASIA ABIA ACCA", rf"A(?:KI|SI|BI|CC)A[A-Z0-9]{{16}}{_END}"),
    _format("github_token", "ghp_ gho_ ghu_ ghs_ ghr_", rf"gh[pousr]_[0-9A-Za-z]{{36,255}}{_END}"),
    _format("github_token", "github_pat_", rf"github_pat_[0-9A-Za-z_]{{22,255}}{_END}"),
    _format("gitlab_token", "glpat-", r"glpat-[0-9A-Za-z_.-]{20,255}"),
    _format("slack_token", "xox", r"xox[abeoprs]-[0-9A-Za-z-]{10,250}"),
    _format("slack_token", "xapp-", r"xapp-[0-9]-[0-9A-Z]{8,20}-[0-9]{8,20}-[0-9a-f]{32,128}"),
    _format(
        "slack_webhook",
        "hooks.slack.com",
        r"hooks\.slack\.com/services/(T[0-9A-Z]{6,12}/B[0-9A-Z]{6,12}/[0-9A-Za-z]{16,32})",
    ),
    _format("google_key", "AIza", rf"AIza[0-9A-Za-z_-]{{35}}{_END}"),
    _format("google_key", "GOCSPX-", r"GOCSPX-[0-9A-Za-z_-]{28}"),
    _format("google_key", "ya29.", r"ya29\.[0-9A-Za-z_-]{20,255}"),
    _format("stripe_key", "_live_ _test_", rf"[rs]k_(?:live|test)_[0-9A-Za-z]{{16,255}}{_END}"),
    _format("stripe_key", "whsec_", rf"whsec_[0-9A-Za-z]{{24,64}}{_END}"),
    _format("openai_key", "T3BlbkFJ", r"sk-[0-9A-Za-z_-]{20,160}"),
    _format("anthropic_key", "sk-ant-", r"sk-ant-[0-9a-z]{3,10}-[0-9A-Za-z_-]{24,128}"),
    _format("huggingface_token", "hf_", rf"hf_[0-9A-Za-z]{{34}}{_END}"),
    _format("npm_token", "npm_", rf"npm_[0-9A-Za-z]{{36}}{_END}"),
    _format("pypi_token", "pypi-AgE", r"pypi-AgE[0-9A-Za-z_-]{50,255}"),
    _format("sendgrid_key", "SG.", rf"SG\.[0-9A-Za-z_-]{{22}}\.[0-9A-Za-z_-]{{43}}{_END}"),
    _format("twilio_key", "SK", rf"SK[0-9a-f]{{32}}{_END}"),
    _format("digitalocean_token", "dop_v1_ doo_v1_ dor_v1_", rf"do[opr]_v1_[0-9a-f]{{64}}{_END}"),
    _format("shopify_token", "shpat_ shpss_ shpca_ shppa_", rf"shp(?:at|ss|ca|pa)_[0-9a-fA-F]{{32}}{_END}"),
    _format("telegram_token", ":AA", rf"[0-9]{{8,10}}:AA[0-9A-Za-z_-]{{33}}{_END}"),
    _format("azure_key", "AccountKey=", r"AccountKey=([0-9A-Za-z+/]{40,88}={0,2})"),
    _format("jwt", "eyJ", r"(?<![_-])eyJ[0-9A-Za-z_-]{10,2048}\.eyJ[0-9A-Za-z_-]{10,8192}\.[0-9A-Za-z_-]{10,1024}"),
    _format("authorization", "earer ", r"[Bb]earer (?=[A-Za-z_.~+/-]{0,2048}[0-9])([0-9A-Za-z_.~+/-]{20,2048}={0,2})"),
    _format(
        "authorization",
        "uthorization UTHORIZATION",
        r"(?i:authorization)[\"']?\s{0,2}[:=,]\s{0,2}[\"']?(?:Basic|Token|token) ([0-9A-Za-z+/]{12,512}={0,2})",
    ),
    _format(
        "password",
        "://",
        r"://(?<=[0-9A-Za-z]...)[^\s/?#@\"'<>`:]{0,128}:([^\s/?#\"'<>`@]{1,128})@(?=[\w\[])",
        guard="",
    ),
)
_PEM = re.compile(r"-----(?P<side>BEGIN|END) [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_KEY_BODY = re.compile(r"(?:[0-9A-Za-z+/=\s:,\-]|\\[nr])*")

_NAME_PARTS = (
    "passw",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "api_key",
    "apikey",
    "api-key",
    "access_key",
    "auth_key",
    "private_key",
)
_ASSIGNED = re.compile(
    r"(?i)(?:(?P<word>passw(?:or)?d|passphrase|pwd)|secret|token|api[_-]?key|access[_-]?key|auth[_-]?key|private[_-]?key)"
    r"(?P<rest>[\w-]{0,24})[\"']?\]?\s{0,3}(?::\s{0,2}str\s{0,2})?(?:=>|:=|==?|:)\s{0,3}"
    r"(?:[rbfu]?(?P<quote>[\"'`])(?P<quoted>[^\s\"'`]{6,512})(?P=quote)|(?P<bare>[0-9A-Za-z+/=_!@#%^&*~-]{8,512})(?=[\s,;&]|$))"
)
_OTHER_NAME = re.compile(
    r"(?i)^(?:s$|i[sz]|[_-]?(?:type|ur[il]|name|field|path|file|id|count|len|limit|size|endpoint|exp|ttl|hint|label|env|var|regex|pattern))"
)
_PLACEHOLDER = re.compile(
    r"(?i)^[<\[{$%(]|^\*+$|^x+$|^\.+$|\$\{|\{\{|%\(|://|example|changeme|change_me|placeholder|redacted|dummy|your[_-]?|^none$|^null$"
    r"|^(?:true|false|string|secret|password|token)$|^(?:os|process|env|settings|config|self)[.\[]|\(\)?$"
)

KINDS = ("private_key", *dict.fromkeys(form.kind for form in FORMATS), "secret")
"""In the order of precedence; `secret` is what only its name gives away."""
_RANK = {kind: position for position, kind in enumerate(KINDS)}


def find_secrets(text: str) -> list[Match]:
    """Secrets in order, without overlaps. Of a URL or an assignment only the secret part. Linear in the length."""
    found: list[Match] = []
    underscored = "_" in text
    for kind, parts, pattern in FORMATS:
        if (underscored or "_" not in parts[0]) and any(part in text for part in parts):
            found += [Match(kind, *match.span(match.re.groups)) for match in pattern.finditer(text)]
    found = [
        match for match in found if not _PLACEHOLDER.search(text[match.start : match.end]) or match.kind != "password"
    ]
    if "PRIVATE KEY" in text:
        found += _private_keys(text)
    lower = text.lower()
    if any(part in lower for part in _NAME_PARTS):
        found += _assigned(text)
    return disjoint(found, _RANK) if found else []


def mask_secrets(rows: Iterable[Record]) -> Outcomes:
    """Replace secrets by their kind, `<GITHUB_TOKEN>`; `origin["secrets"]` counts them by kind."""
    return mask_rows(rows, find_secrets, "secrets")


def drop_secrets(rows: Iterable[Record]) -> Outcomes:
    """Drop rows that hold a secret: `secret`."""
    return drop_rows(rows, find_secrets, "secret")


def _private_keys(text: str) -> Iterator[Match]:
    """PEM blocks; one that is cut off ends with the last character that a key can have."""
    marks, done = list(_PEM.finditer(text)), 0
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        if mark["side"] == "END" or mark.start() < done:
            continue
        if following is not None and following["side"] == "END":
            done = following.end()
        else:
            body = _KEY_BODY.match(text, mark.end())
            done = body.end() if body else mark.end()
        yield Match("private_key", mark.start(), done)


def _assigned(text: str) -> Iterator[Match]:
    for match in _ASSIGNED.finditer(text):
        group = "quoted" if match["quoted"] else "bare"
        value = match[group]
        if _OTHER_NAME.match(match["rest"]) or _PLACEHOLDER.search(value):
            continue
        if _telling(value, word=bool(match["word"]), quoted=group == "quoted"):
            yield Match("password" if match["word"] else "secret", match.start(group), match.end(group))


def _telling(value: str, word: bool, quoted: bool) -> bool:
    """Whether it can be a secret: a quoted password mixes two kinds of characters; all else looks random."""
    kinds = [re.search(kind, value) is not None for kind in ("[a-z]", "[A-Z]", "[0-9]", r"[^\w.-]")]
    if word and quoted:
        return sum(kinds) >= 2
    long_enough = len(value) >= (8 if word else 16)
    return long_enough and kinds[2] and (kinds[0] or kinds[1]) and entropy(value) >= (2.5 if word else 3.0)


def entropy(text: str) -> float:
    """Shannon entropy in bits for each character."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())
