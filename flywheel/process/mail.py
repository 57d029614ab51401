"""Removal of what surrounds the body of a mail: its headers and its signature.

Heuristics on plain text: they know the words of English, and the headers of German, French and Spanish programs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from flywheel.process.text import change_texts
from flywheel.record import Outcomes, Record

_NAMES = (
    "From|To|Cc|Bcc|Subject|Date|Sent|Reply-To|Sender|Message-ID|In-Reply-To|References|Return-Path|Received|"
    "Delivered-To|MIME-Version|Content-[A-Za-z-]+|X-[A-Za-z0-9-]+|List-[A-Za-z-]+|ARC-[A-Za-z-]+|DKIM-Signature|"
    "Authentication-Results|Received-SPF|User-Agent|Thread-[A-Za-z]+|Importance|Priority|Organization|Attachments|"
    "Von|An|Gesendet|Datum|Betreff|De|À|Envoyé|Objet|Para|Enviado|Asunto"
)
_QUOTED = "(?:>[ ]?)*"
# Two header fields at least (RFC 5322, section 2.2), with their folded lines and the line that announces them.
_HEADERS = re.compile(
    rf"^(?:{_QUOTED}"
    r"(?:-{2,}[ ]?[A-Z][A-Za-z ]{3,40}[ ]?-{2,}|Begin forwarded message:|_{10,}|From [^\s:]+@[^\n]*)"
    rf"[ \t]*\n(?:{_QUOTED}[ \t]*\n){{0,2}})?"
    rf"(?>(?:{_QUOTED}\*?(?:{_NAMES})[ \t]*:[^\n]*(?:\n|\Z)(?:[ \t]+\S[^\n]*(?:\n|\Z))*){{2,}})(?:{_QUOTED}[ \t]*\n)*",
    re.MULTILINE | re.IGNORECASE,
)
_ATTRIBUTION = re.compile(
    rf"^{_QUOTED}(?:On [^\n]{{5,120}}(?:\n[^\n]{{0,80}})?wrote|Am [^\n]{{5,160}}schrieb[^\n]{{0,80}}|"
    rf"Le [^\n]{{5,160}}a écrit[ ]?|El [^\n]{{5,160}}escribió):[ \t]*(?:\n|\Z)",
    re.MULTILINE,
)

_TAIL = 2_000
"""Characters at the end of a text in which a signature is looked for."""
_LINES, _WIDTH = 8, 70
"""Lines of a signature at most, and their length."""
_DELIMITER = re.compile(r"^--[ ]?$", re.MULTILINE)
_DEVICE = re.compile(
    r"^(?:Sent from (?:my |Mail|Outlook|Yahoo|Gmail|ProtonMail)|Get Outlook for |Von meinem |Envoyé de mon |"
    r"Enviado desde mi )[^\n]{0,60}\s*\Z",
    re.MULTILINE,
)
_CLOSING = re.compile(
    r"(?:(?:(?:with )?(?:(?:best|kind|kindest|warm|warmest) )?(?:regards|wishes))|all the best|best|cheers|"
    r"(?:yours |very )*(?:sincerely|truly|faithfully|respectfully)(?: yours)?|cordially|"
    r"(?:many )?thanks(?: again| in advance| and regards)?|thank you)[ ]?[,.!]?",
    re.IGNORECASE,
)


def remove_email_headers(rows: Iterable[Record]) -> Outcomes:
    """Remove blocks of two or more header lines, at the start and in forwarded mail, and lines `On ... wrote:`."""
    return change_texts(rows, without_headers)


def remove_signatures(rows: Iterable[Record]) -> Outcomes:
    """Remove the signature of a mail from the end of a text.

    It starts at the delimiter `-- ` (RFC 3676, section 4.3), at `Sent from my ...`, or at a closing such as
    `Best regards,` with at most 8 short lines below it that are no sentences.
    """
    return change_texts(rows, without_signature)


def without_headers(text: str) -> str:
    """A text without mail headers."""
    if ":" not in text:
        return text
    return _ATTRIBUTION.sub("", _HEADERS.sub("", text))


def without_signature(text: str) -> str:
    """A text without a mail signature at its end; looks at its last 2,000 characters."""
    start = max(0, len(text) - _TAIL)
    tail = text[start:]
    body = _without_closing(_DEVICE.sub("", _without_delimited(tail)).rstrip())
    if body == tail.rstrip():
        return text
    return text[:start] + body + "\n" * text.endswith("\n")


def _without_delimited(text: str) -> str:
    found = list(_DELIMITER.finditer(text))
    if found and text.count("\n", found[-1].end()) <= 2 * _LINES:
        return text[: found[-1].start()]
    return text


def _without_closing(text: str) -> str:
    lines = text.split("\n")
    for position in range(len(lines) - 1, max(-1, len(lines) - 2 - _LINES), -1):
        line = lines[position].strip()
        if _CLOSING.fullmatch(line):
            return "\n".join(lines[:position]).rstrip()
        if len(line) > _WIDTH or (line.endswith((".", "?", "!", ":", ";")) and len(line.split()) > 3):
            return text
    return text
