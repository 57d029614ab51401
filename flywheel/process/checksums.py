"""Check digits of identifiers. Each takes digits and upper-case letters without separators, and says if they pass."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
IBAN_LENGTHS = {
    country: int(length)
    for country, length in re.findall(
        "([A-Z]{2})([0-9]{2})",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 "
        "EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 "
        "IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 "
        "NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 "
        "SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30",
    )
}
"""ISO 13616 registry: country code to the number of characters."""

_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_VERHOEFF_CYCLE = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
_FISCAL_ODD = dict(
    zip(
        LETTERS,
        (1, 0, 5, 7, 9, 13, 15, 17, 19, 21) * 2 + (2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
        strict=True,
    )
)


def luhn(text: str) -> bool:
    """ISO/IEC 7812-1."""
    digits = [int(digit) for digit in reversed(text)]
    return (sum(digits[::2]) + sum(_DOUBLED[digit] for digit in digits[1::2])) % 10 == 0


def weighted(text: str, weights: Sequence[int], modulus: int) -> int:
    """Sum of digits times weights, modulo `modulus`."""
    return sum(int(digit) * weight for digit, weight in zip(text, weights, strict=True)) % modulus


def card(text: str) -> bool:
    """A payment card: a prefix and length of Visa, Mastercard, Amex, Discover, JCB, Diners or UnionPay, and Luhn."""
    two, four, size = int(text[:2]), int(text[:4]), len(text)
    sixteen = text[0] == "4" or 51 <= two <= 55 or 2221 <= four <= 2720 or four == 6011 or 644 <= four // 10 <= 659
    sixteen = sixteen or 3528 <= four <= 3589 or two == 62
    issued = (size in (16, 19) and sixteen) or (size == 15 and two in (34, 37))
    issued = issued or (size == 14 and (two in (36, 38, 39) or 300 <= four // 10 <= 305))
    return issued and luhn(text)


def iban(text: str) -> bool:
    """ISO 13616: length of the country, and ISO 7064 modulo 97-10."""
    if IBAN_LENGTHS.get(text[:2]) != len(text):
        return False
    return int("".join(str(LETTERS.index(letter)) for letter in text[4:] + text[:4])) % 97 == 1


def us_ssn(text: str) -> bool:
    return text[:3] not in ("000", "666") and text[0] != "9" and text[3:5] != "00" and text[5:] != "0000"


def uk_nino(text: str) -> bool:
    return text[:2] not in ("BG", "GB", "NK", "KN", "TN", "NT", "ZZ")


def uk_nhs(text: str) -> bool:
    return weighted(text, (10, 9, 8, 7, 6, 5, 4, 3, 2, 1), 11) == 0


def de_tax_id(text: str) -> bool:
    """ISO 7064 modulo 11,10; in the first ten digits one or more digits come again, none more than three times."""
    product = 10
    for digit in text[:10]:
        product = 2 * ((int(digit) + product) % 10 or 10) % 11
    return (11 - product) % 10 == int(text[10]) and 2 <= max(text[:10].count(digit) for digit in set(text[:10])) <= 3


def fr_nir(text: str) -> bool:
    """Key 97 - n mod 97; Corsica's 2A and 2B count as 19 and 18."""
    body = text[:5] + {"2A": "19", "2B": "18"}.get(text[5:7], text[5:7]) + text[7:13]
    return 97 - int(body) % 97 == int(text[13:])


def es_nif(text: str) -> bool:
    """DNI (eight digits) and NIE (X, Y or Z and seven digits), with the letter of modulo 23."""
    number = text[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == text[-1]


def it_fiscal_code(text: str) -> bool:
    even = sum(int(c) if c.isdigit() else ord(c) - 65 for c in text[1:15:2])
    return chr(65 + (sum(_FISCAL_ODD[c] for c in text[0:15:2]) + even) % 26) == text[15]


def nl_bsn(text: str) -> bool:
    return weighted(text, (9, 8, 7, 6, 5, 4, 3, 2, -1), 11) == 0


def pl_pesel(text: str) -> bool:
    return weighted(text, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1), 10) == 0 and 1 <= int(text[2:4]) % 20 <= 12


def br_cpf(text: str) -> bool:
    first = weighted(text[:9], range(10, 1, -1), 11)
    second = weighted(text[:10], range(11, 1, -1), 11)
    return len(set(text)) > 1 and text[9:] == f"{(11 - first) % 11 % 10}{(11 - second) % 11 % 10}"


def in_aadhaar(text: str) -> bool:
    """Verhoeff: multiplication in the dihedral group of order ten."""
    state = 0
    for position, symbol in enumerate(reversed(text)):
        digit = int(symbol)
        for _ in range(position % 8):
            digit = _VERHOEFF_CYCLE[digit]
        state = _dihedral(state, digit)
    return state == 0


def _dihedral(a: int, b: int) -> int:
    if a < 5:
        return (a + b) % 5 + (5 if b >= 5 else 0)
    return (a - b) % 5 + (0 if b >= 5 else 5)


def cn_resident_id(text: str) -> bool:
    """GB 11643: ISO 7064 modulo 11-2, with X for ten."""
    return "10X98765432"[weighted(text[:17], [2 ** (17 - i) % 11 for i in range(17)], 11)] == text[17]


def base58_address(text: str) -> bool:
    """A bitcoin address of the older kinds: version 0 or 5, 20 bytes and four bytes of a double SHA-256."""
    number = 0
    for symbol in text:
        number = number * 58 + BASE58.index(symbol)
    if number >> 200:
        return False
    data = number.to_bytes(25)
    return data[0] in (0, 5) and hashlib.sha256(hashlib.sha256(data[:-4]).digest()).digest()[:4] == data[-4:]


def bech32_address(text: str) -> bool:
    """A bitcoin address of BIP 173 or BIP 350, lower case, with the prefix `bc1`."""
    state = 1
    for word in (3, 3, 0, 2, 3, *(BECH32.index(symbol) for symbol in text[3:])):
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ word
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            state ^= generator if top >> bit & 1 else 0
    return state in (1, 0x2BC830A3)
