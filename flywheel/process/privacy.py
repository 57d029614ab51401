"""Structured personal identifiers: found by their form, their check digits and the words before them, and masked.

Names, addresses in prose, and what only their meaning gives away are not found (docs/privacy.md). Every search is
linear in the length of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Annotated, Literal, get_args

from pydantic import Field

from flywheel.process import pii_network, pii_numbers, pii_words
from flywheel.process.pii_phones import phones
from flywheel.process.pii_views import View, views
from flywheel.process.spans import Action, Match, disjoint, drop_rows, mask_rows
from flywheel.record import Outcomes, Record

Kind = Literal[
    "url_credentials",
    "email",
    "iban",
    "credit_card",
    "bitcoin",
    "ethereum",
    "cn_resident_id",
    "fr_nir",
    "it_fiscal_code",
    "es_nif",
    "br_cpf",
    "us_ssn",
    "uk_nino",
    "uk_nhs",
    "de_tax_id",
    "pl_pesel",
    "in_aadhaar",
    "ca_sin",
    "nl_bsn",
    "imei",
    "passport",
    "date_of_birth",
    "coordinates",
    "mac",
    "ipv6",
    "ipv4",
    "phone",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order of precedence: where two overlap, the earlier kind is right."""
_RANK: dict[str, int] = {kind: position for position, kind in enumerate(KINDS)}


def find_pii(text: str, kinds: Sequence[Kind] = KINDS) -> list[Match]:
    """Identifiers of the given kinds, in order, without overlaps. Positions count characters."""
    wanted, by_text, by_view = _plan(tuple(kinds))
    found: list[Match] = []
    for in_text in by_text:
        found += in_text(text)
    for view in views(text, by_view) if by_view else ():
        for in_view in by_view[view.group]:
            found += [Match(kind, start + view.offset, end + view.offset) for kind, start, end in in_view(view)]
    return [match for match in disjoint(found, _RANK) if match.kind in wanted] if found else []


def mask_pii(
    rows: Iterable[Record],
    kinds: Annotated[Sequence[Kind], Field(min_length=1)] = KINDS,
    action: Action = "mask",
) -> Outcomes:
    """Replace identifiers by their kind, `<EMAIL>`, counted in `origin["pii"]`; or drop rows that have any: `pii`."""
    find = partial(find_pii, kinds=tuple(kinds))
    return mask_rows(rows, find, "pii") if action == "mask" else drop_rows(rows, find, "pii")


InText = Callable[[str], Iterator[Match]]
InView = Callable[[View], Iterator[Match]]


@lru_cache(maxsize=64)
def _plan(kinds: tuple[str, ...]) -> tuple[frozenset[str], list[InText], dict[str, list[InView]]]:
    """The kinds, what has to look at the text to find them, and what at the views of each group."""
    wanted = frozenset(kinds)
    by_text = [finder for gives, finder in _BY_TEXT if not wanted.isdisjoint(gives)]
    by_view = {
        group: [finder for gives, finder in table if not wanted.isdisjoint(gives)] for group, table in _BY_VIEW.items()
    }
    return wanted, by_text, {group: finders for group, finders in by_view.items() if finders}


_NUMBERS = {"iban", "phone", *(identifier.kind for identifier in pii_numbers.IDENTIFIERS)}
"""Kinds that can be taken for each other, so that all are looked for if one is wanted."""
_BIRTHS = ({"date_of_birth"}, pii_words.births)
_BY_VIEW: dict[str, list[tuple[set[str], InView]]] = {
    "number": [
        (_NUMBERS, pii_numbers.identifiers),
        (_NUMBERS, pii_numbers.ibans),
        (_NUMBERS, phones),
        ({"coordinates"}, pii_words.coordinates),
        ({"passport"}, pii_words.passports),
        _BIRTHS,
    ],
    "year": [_BIRTHS],
    "wallet": [({"bitcoin", "ethereum"}, pii_numbers.wallets)],
}
_BY_TEXT: list[tuple[set[str], InText]] = [
    ({"url_credentials", "email"}, pii_network.url_credentials),
    ({"email"}, pii_network.emails),
    ({"ipv4"}, pii_network.ipv4),
    ({"mac", "ipv6"}, pii_network.hardware),
    ({"coordinates"}, pii_words.degrees),
]
