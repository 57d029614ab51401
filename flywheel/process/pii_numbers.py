"""Identifiers that check digits or strict rules tell from other numbers: cards, accounts, national numbers, wallets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from flywheel.process import checksums
from flywheel.process.pii_views import View
from flywheel.process.spans import Match


class Identifier(NamedTuple):
    """A kind, how it is written, its check on the bare digits and letters, and the words that must come before it."""

    kind: str
    pattern: re.Pattern[str]
    check: Callable[[str], bool]
    cue: re.Pattern[str] | None
    digits: int


def _identifier(kind: str, digits: int, pattern: str, check: Callable[[str], bool], cue: str = "") -> Identifier:
    """A row of the table; `digits` is how many it has at least."""
    guarded = rf"(?<![0-9A-Za-z])(?<![0-9][.-])(?:{pattern})(?![0-9A-Za-z])(?![.-][0-9])"
    return Identifier(kind, re.compile(guarded), check, re.compile(cue, re.IGNORECASE) if cue else None, digits)


_FRENCH = r"[12] ?[0-9]{2} ?(?:0[1-9]|1[0-2]|[2-9][0-9]) ?(?:[0-9]{2}|2[AB]) ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}"
_FISCAL = r"[A-Za-z]{3} ?[A-Za-z]{3} ?[0-9]{2}[A-EHLMPR-Ta-ehlmpr-t][0-9]{2} ?[A-Za-z][0-9]{3} ?[A-Za-z]"
_CHINESE = r"[1-9][0-9]{5}(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{3}[0-9Xx]"
_SSN_WORDS, _CPF_WORDS = r"\bssn|social.?sec|soc.?sec", r"\bcpf\b"

IDENTIFIERS = (
    _identifier(
        "credit_card",
        14,
        r"[0-9]{4}[ .-]?[0-9]{4}[ .-]?[0-9]{4}[ .-]?[0-9]{4}(?:[ .-]?[0-9]{3})?"
        r"|[0-9]{4}(?P<b>[ .-]?)[0-9]{6}(?P=b)[0-9]{4,5}",
        checksums.card,
    ),
    _identifier("cn_resident_id", 17, _CHINESE, checksums.cn_resident_id),
    _identifier("fr_nir", 6, _FRENCH, checksums.fr_nir),
    _identifier("it_fiscal_code", 5, _FISCAL, checksums.it_fiscal_code),
    _identifier("es_nif", 7, r"[0-9]{8}[ -]?[A-Za-z]|[0-9]{1,2}\.[0-9]{3}\.[0-9]{3}[ -]?[A-Za-z]", checksums.es_nif),
    _identifier("es_nif", 7, r"[XYZxyz][ -]?[0-9]{7}[ -]?[A-Za-z]", checksums.es_nif),
    _identifier("br_cpf", 11, r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", checksums.br_cpf),
    _identifier("br_cpf", 11, r"[0-9]{11}|[0-9]{9}-[0-9]{2}", checksums.br_cpf, _CPF_WORDS),
    _identifier("us_ssn", 9, r"[0-9]{3}-[0-9]{2}-[0-9]{4}", checksums.us_ssn),
    _identifier("us_ssn", 9, r"[0-9]{3}(?P<s>[ .]?)[0-9]{2}(?P=s)[0-9]{4}", checksums.us_ssn, _SSN_WORDS),
    _identifier(
        "uk_nino",
        6,
        r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z](?P<s>[ -]?)[0-9]{2}(?P=s)[0-9]{2}(?P=s)[0-9]{2}(?P=s)[A-D]",
        checksums.uk_nino,
    ),
    _identifier("uk_nhs", 10, r"[0-9]{3}(?P<s>[ -]?)[0-9]{3}(?P=s)[0-9]{4}", checksums.uk_nhs, r"\bnhs"),
    _identifier(
        "de_tax_id",
        11,
        r"[1-9][0-9](?P<s>[ ]?)[0-9]{3}(?P=s)[0-9]{3}(?P=s)[0-9]{3}",
        checksums.de_tax_id,
        r"steuer|\bid-?nr|identifikationsn|\btax|\btin\b",
    ),
    _identifier("pl_pesel", 11, r"[0-9]{11}", checksums.pl_pesel, r"pesel"),
    _identifier(
        "in_aadhaar",
        12,
        r"[2-9][0-9]{3}(?P<s>[ -]?)[0-9]{4}(?P=s)[0-9]{4}",
        checksums.in_aadhaar,
        r"aadha+r|uidai|आधार",
    ),
    _identifier(
        "ca_sin",
        9,
        r"[0-9]{3}(?P<s>[ -]?)[0-9]{3}(?P=s)[0-9]{3}",
        checksums.luhn,
        r"\bsin(?:[^a-z(]|$)|social.?insurance|\bnas\b",
    ),
    _identifier(
        "nl_bsn",
        9,
        r"[0-9]{9}|[0-9]{4}(?P<s>[ .])[0-9]{2}(?P=s)[0-9]{3}|[0-9]{3}(?P<t>[ .])[0-9]{3}(?P=t)[0-9]{3}",
        checksums.nl_bsn,
        r"\bbsn|burgerservice|sofi",
    ),
    _identifier("imei", 15, r"[0-9]{2}(?P<s>[ -]?)[0-9]{6}(?P=s)[0-9]{6}(?P=s)[0-9]", checksums.luhn, r"\bimei"),
)


def identifiers(view: View) -> Iterator[Match]:
    """The kinds of the table, of which only those are tried that the view has digits enough for."""
    for kind, pattern, check, cue, digits in IDENTIFIERS:
        if digits > view.digits:
            continue
        for match in pattern.finditer(view.text, view.low, view.high + 4):
            start = match.start()
            if cue is not None and not cue.search(view.text, max(0, start - 32), start):
                continue
            if check(re.sub(r"[ .-]", "", match[0]).upper()):
                yield Match(kind, start, match.end())


_IBAN = re.compile(r"(?<![0-9A-Za-z])[A-Za-z]{2}[0-9]{2}(?:[ -]?[0-9A-Za-z]){11,30}")


def ibans(view: View) -> Iterator[Match]:
    """Bank accounts; the country says how long one is, so that words after it stay."""
    for match in _IBAN.finditer(view.text, view.low):
        if match.start() > view.high:
            return
        length = checksums.IBAN_LENGTHS.get(match[0][:2].upper(), 0)
        places = [place for place, letter in enumerate(match[0]) if letter.isalnum()]
        if not length or len(places) < length:
            continue
        end = places[length - 1] + 1
        inside = end < len(match[0]) and match[0][end].isalnum()
        if not inside and checksums.iban("".join(match[0][place] for place in places[:length]).upper()):
            yield Match("iban", match.start(), match.start() + end)


_WALLET = re.compile(r"(?P<bech32>bc1[a-z0-9]+)|(?P<ethereum>0x[0-9a-fA-F]{40})|[13][0-9A-Za-z]{25,34}")


def wallets(view: View) -> Iterator[Match]:
    """Bitcoin addresses with their checksums; 20 bytes in hexadecimal after `0x` for Ethereum."""
    match = _WALLET.search(view.text, view.low)
    if match is None or (match.start() and view.text[match.start() - 1].isalnum()):
        return
    if match["ethereum"]:
        yield Match("ethereum", match.start(), match.end())
    elif checksums.bech32_address(match[0]) if match["bech32"] else checksums.base58_address(match[0]):
        yield Match("bitcoin", match.start(), match.end())
