"""Made-up personal identifiers, each with the places in which people write it.

Written from the formats' own definitions (issuers' check digits, the `phonenumbers` metadata, RFCs, BIPs) and from how
people write them, not from Flywheel's patterns.
"""

# ruff: noqa: E501, RUF001, SIM905 -- the lines are data

from __future__ import annotations

import hashlib
import ipaddress
import string
from collections.abc import Callable
from random import Random

import phonenumbers
from phonenumbers import PhoneNumberFormat, PhoneNumberType

DIGITS, UPPER = string.digits, string.ascii_uppercase
FIRST = "anna ben carla dmitri elif farid grace hiro ines jonas kemal lucia maria noah olga pedro quinn rosa sven tara".split()
LAST = "schmidt garcia rossi novak okafor tanaka dubois khan silva jensen o'brien kowalski nguyen muller ivanov".split()
HOSTS = "gmail.com yahoo.co.uk example.org mail.ru web.de uni-koeln.de corp.internal.net proton.me firma.at qq.com acme.io".split()
HOSTS += ["sub.dept.bigbank.com", "startup.technology", "xn--mller-kva.de", "a1.museum", "3com.net"]


# ---------------------------------------------------------------- places

ANYWHERE = [
    "{}", "{}.", "({})", "[{}]", "\"{}\"", "'{}'", "“{}”", "NAME, {}, Berlin", "NAME;{};active", "- {}", "* {}\n",
    "NAME\t{}\t2021", "> {}", "`{}`", "<td>{}</td>", "I think it was {}, but ask NAME.", "NAME <{}>", "{}\n", "{}; {x}",
    '{"id": 7, "value": "{}", "ok": true}', "value='{}'", "key: {}", "see {}!", "{}?", "id|{}|x", "NAME – {} – Madrid",
    "{} is what NAME gave us.", "Please use {} from now on.", "INSERT INTO t VALUES (3, '{}', 'NAME');", "x = \"{}\"  # NAME",
    "2023-11-05 10:22:31,114 INFO user={} action=login", "Received {} from NAME at 10:45.", "1. {}", "{}, {2}", "…{}…",
]  # fmt: skip


def cued(*words: str) -> list[str]:
    """Places that name what follows."""
    places = []
    for word in words:
        key = word.lower().replace(" ", "_").replace(".", "").replace("'", "")
        places += [
            f"{word}: {{}}", f"{word} {{}}", f"{word} is {{}}.", f"{word}: {{}}\n", f"NAME ({word}: {{}})", f"{word}\t{{}}",
            f"{word} = {{}}", f'{{"{key}": "{{}}", "a": 1}}', f"{key}={{}}", f"<b>{word}:</b> {{}}", f"{word} - {{}}",
            f"**{word}**: {{}}", f"{key}: '{{}}'", f"My {word} is {{}}, thanks.", f"{word}#: {{}}",
        ]  # fmt: skip
    return places


Made = tuple[str, list[str]]


def digits(random: Random, count: int, first: str = DIGITS) -> str:
    return random.choice(first) + "".join(random.choice(DIGITS) for _ in range(count - 1))


def grouped(random: Random, text: str, sizes: tuple[int, ...], separators: tuple[str, ...]) -> str:
    separator, parts, at = random.choice(separators), [], 0
    for size in sizes:
        parts.append(text[at : at + size])
        at += size
    return separator.join(part for part in [*parts, text[at:]] if part)


SPACES = (" ", "\u00a0", "\u202f", "\u2009")
DASHES = ("-", "\u2011", "\u2013")

# ---------------------------------------------------------------- identifiers


def email(random: Random) -> Made:
    first, last, host = (
        random.choice(FIRST),
        random.choice(LAST).replace("'", random.choice(["'", ""])),
        random.choice(HOSTS),
    )
    local = random.choice([
        f"{first}.{last}", f"{first[0]}{last}", f"{first}_{last}{random.randint(1, 99)}", f"{first}+news", f"{last}-{first}",
        first, f"{first}.{last}".upper(), f"{random.randint(100, 99999)}", f"{first}.{last[0]}.x", f"x{first}__", f"josé.{last}",
    ])  # fmt: skip
    if random.random() < 0.1:
        host = host.upper()
    written = f"{local}@{host}"
    if random.random() < 0.04:
        written = written.replace("@", random.choice([" [at] ", "(at)", "[at]", " (at) ", "%40"]))
    places = [*ANYWHERE, "From: NAME <{}>", "To: {}, bob", "mailto:{}?subject=Hi", '<a href="mailto:{}">', "Cc:{}\r\n"]
    places += [
        "Author: NAME <{}>",
        "git log --author={}",
        "E-Mail:{}",
        "Contact me at {}or call",
        "user={}&x=1",
        "@NAME {}",
        "({}),",
    ]
    places.remove('x = "{}"  # NAME')
    return written, [place for place in places if "{}or" not in place]


REGIONS = (
    "US CA GB DE FR ES IT NL BE CH AT PL SE NO DK FI PT IE GR CZ HU RO TR RU UA IN CN JP KR AU NZ BR MX AR CL CO ZA NG KE EG "
    "IL SA AE PK ID PH VN TH MY SG HK"
).split()
PHONE_WORDS = cued(
    "Tel", "Phone", "Mobile", "Cell", "Fax", "Telefon", "Handy", "Tél", "Teléfono", "Móvil", "Call", "WhatsApp", "Telephone number",
    "Contact number", "Mob.", "Tel. no.", "Phone number", "Telefone", "Telefono", "тел.", "Hotline", "Work phone",
)  # fmt: skip
PHONE_WORDS += [
    "Call me at {} after six.",
    "You can reach me on {}.",
    "text {} for details",
    "ring {} now",
    "☎ {}",
    "📞 {}",
]


def _number(random: Random) -> phonenumbers.PhoneNumber:
    while True:
        region = random.choice(REGIONS)
        kind = random.choice([PhoneNumberType.FIXED_LINE, PhoneNumberType.MOBILE])
        example = phonenumbers.example_number_for_type(region, kind)
        if example is None:
            continue
        text = phonenumbers.national_significant_number(example)
        for _ in range(50):
            tail = random.randint(4, 6)
            number = phonenumbers.parse(f"+{example.country_code}{text[:-tail]}{digits(random, tail)}", None)
            if phonenumbers.is_valid_number(number):
                return number


def phone(random: Random) -> Made:
    """International forms and forms that carry their own mark may stand anywhere; plain national ones follow a word."""
    number = _number(random)
    style = random.random()
    if style < 0.45:
        written = phonenumbers.format_number(
            number, random.choice([PhoneNumberFormat.INTERNATIONAL] * 2 + [PhoneNumberFormat.E164])
        )
        if random.random() < 0.15:
            written = written.replace("+", "00", 1)
        elif random.random() < 0.1 and number.country_code in (44, 49, 43, 41, 61):
            written = written.replace(" ", " (0)", 1) if " " in written else written
        return _restyled(random, written), ANYWHERE + PHONE_WORDS
    if style < 0.55:
        return phonenumbers.format_number(number, PhoneNumberFormat.RFC3966)[4:], [
            "tel:{}",
            '<a href="tel:{}">ring</a>',
            "tel:{}\n",
        ]
    if style < 0.75:
        return american(random)
    written = _restyled(random, phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL))
    marked = (written.startswith("0") and not written.isdigit()) or written.startswith("(")
    return written, PHONE_WORDS + ANYWHERE if marked and sum(map(str.isdigit, written)) > 8 else PHONE_WORDS


def _restyled(random: Random, written: str) -> str:
    if random.random() < 0.2:
        written = written.replace(" ", random.choice(["-", ".", "\u00a0", "\u2009", "\u202f"]))
    if random.random() < 0.05:
        written = written.replace("-", random.choice(["\u2011", "\u2013"]))
    return written


def american(random: Random) -> Made:
    area = random.choice("212 415 617 312 713 206 404 303 720 780 646 510 416 604 800 888".split())
    exchange, line = digits(random, 3, "23456789"), digits(random, 4)
    form = random.choice([
        "({}) {}-{}", "{}-{}-{}", "{}.{}.{}", "1-{}-{}-{}", "+1 ({}) {}-{}", "1 ({}) {}-{}", "({}){}-{}", "{} {}-{}", "+1.{}.{}.{}",
        "({}) {} {}", "{}/{}-{}", "{}\u2011{}\u2011{}", "{}-{}-{} x42", "({}) {}-{} ext. 1203", "{}\u2013{}\u2013{}",
    ])  # fmt: skip
    return form.format(area, exchange, line), ANYWHERE + PHONE_WORDS


def luhn_digit(digits: str) -> str:
    """The digit that makes `digits` + it pass."""
    total = sum(sum(divmod(int(d) * (2 - i % 2), 10)) for i, d in enumerate(reversed(digits)))
    return str(-total % 10)


def credit_card(random: Random) -> Made:
    prefix, length = random.choice([
        ("4", 16), ("4", 16), ("51", 16), ("55", 16), ("2221", 16), ("2720", 16), ("34", 15), ("37", 15), ("6011", 16), ("65", 16),
        ("3528", 16), ("3589", 16), ("36", 14), ("300", 14), ("622126", 16), ("644", 16),
    ])  # fmt: skip
    body = prefix + digits(random, length - len(prefix) - 1)
    number = body + luhn_digit(body)
    sizes = {16: (4, 4, 4), 15: (4, 6), 14: (4, 6)}[length]
    written = grouped(random, number, sizes, ("", "", " ", " ", "-", ".", "\u00a0", "\u2011"))
    places = (
        ANYWHERE + cued("Card number", "Visa", "CC", "Kreditkarte", "pan") + ["card {} exp 12/27 cvv 123", "{} 09/26"]
    )
    return written, places


BBANS = {
    "DE": "n18", "GB": "a4n14", "FR": "n10c11n2", "NL": "a4n10", "ES": "n20", "IT": "a1n10c12", "BE": "n12", "CH": "n5c12", "AT": "n16",
    "PL": "n24", "SE": "n20", "NO": "n11", "DK": "n14", "FI": "n14", "PT": "n21", "IE": "a4n14", "LU": "n3c13", "MT": "a4n5c18", "CZ": "n20",
    "GR": "n7c16", "TR": "n5n1c16", "SA": "n2c18", "AE": "n19", "BR": "n23a1c1", "LC": "a4c24", "UA": "n6c19", "RO": "a4c16", "IL": "n19",
}  # fmt: skip


def iban(random: Random) -> Made:
    country = random.choice(sorted(BBANS))
    bban, spec = "", BBANS[country]
    for part in spec.replace("n", " n").replace("a", " a").replace("c", " c").split():
        alphabet = {"n": DIGITS, "a": UPPER, "c": DIGITS * 2 + UPPER}[part[0]]
        bban += "".join(random.choice(alphabet) for _ in range(int(part[1:])))
    value = int("".join(str(int(letter, 36)) for letter in f"{bban}{country}00"))
    text = f"{country}{98 - value % 97:02}{bban}"
    written = grouped(random, text, (4,) * 8, ("", "", " ", " ", " ", "-", "\u00a0"))
    return written, ANYWHERE + cued("IBAN", "Account", "Konto") + ["pay to {} (BIC DEUTDEFF) by Friday"]


def us_ssn(random: Random) -> Made:
    area = random.choice([random.randint(1, 665), random.randint(667, 899)])
    number = f"{area:03}{random.randint(1, 99):02}{random.randint(1, 9999):04}"
    words = cued("SSN", "Social Security Number", "Social security no.", "soc sec")
    if random.random() < 0.75:
        return grouped(random, number, (3, 2), ("-", "-", "-", "\u2011", "\u2013")), ANYWHERE + words
    return grouped(random, number, (3, 2), (" ", "", "")), words


def ca_sin(random: Random) -> Made:
    body = digits(random, 8, "1234567")
    return grouped(random, body + luhn_digit(body), (3, 3), ("-", " ", "")), cued(
        "SIN", "Social Insurance Number", "NAS"
    )


def uk_nino(random: Random) -> Made:
    while True:
        prefix = random.choice("ABCEGHJKLMNOPRSTWXYZ") + random.choice("ABCEGHJKLMNPRSTWXYZ")
        if prefix not in ("BG", "GB", "NK", "KN", "TN", "NT", "ZZ"):
            break
    text = prefix + digits(random, 6) + random.choice("ABCD")
    written = grouped(random, text, (2, 2, 2, 2), ("", " ", " ", "\u00a0"))
    return written, ANYWHERE + cued("National Insurance", "NI number", "NINO")


def uk_nhs(random: Random) -> Made:
    while True:
        body = digits(random, 9, "46")
        check = 11 - sum(int(d) * w for d, w in zip(body, range(10, 1, -1), strict=True)) % 11
        if check != 10:
            return grouped(random, body + str(check % 11), (3, 3), (" ", " ", "-", "")), cued(
                "NHS number", "NHS no.", "NHS"
            )


def de_tax_id(random: Random) -> Made:
    chosen = random.sample(DIGITS, 10)
    chosen[random.randrange(1, 10)] = chosen[0]
    random.shuffle(chosen)
    if chosen[0] == "0":
        return de_tax_id(random)
    product = 10
    for digit in chosen:
        total = (int(digit) + product) % 10 or 10
        product = 2 * total % 11
    text = "".join(chosen) + str((11 - product) % 10)
    words = cued(
        "Steuer-ID", "IdNr.", "Steueridentifikationsnummer", "Steuer-IdNr.", "Steuerliche Identifikationsnummer"
    )
    return grouped(random, text, (2, 3, 3), (" ", " ", "")), words


def fr_nir(random: Random) -> Made:
    place = random.choice(["75", "69", "13", "2A", "2B", "99", "33"])
    body = f"{random.choice('12')}{random.randint(0, 99):02}{random.randint(1, 12):02}{place}{digits(random, 6)}"
    key = (
        97 - int(body.replace("2A", "19", 1).replace("2B", "18", 1)) % 97
        if place in ("2A", "2B")
        else 97 - int(body) % 97
    )
    if place in ("2A", "2B"):
        key = 97 - int(body[:5] + {"2A": "19", "2B": "18"}[place] + body[7:]) % 97
    written = grouped(random, f"{body}{key:02}", (1, 2, 2, 2, 3, 3), (" ", " ", "", "\u00a0"))
    return written, ANYWHERE + cued("NIR", "Numéro de sécurité sociale", "N° sécu")


def es_nif(random: Random) -> Made:
    letters = "TRWAGMYFPDXBNJZSQVHLCKE"
    if random.random() < 0.7:
        body = digits(random, 8, "123456789")
        letter = letters[int(body) % 23]
        dotted = f"{body[:2]}.{body[2:5]}.{body[5:]}"
        return random.choice(
            [body + letter, f"{body}-{letter}", f"{dotted}-{letter}", f"{body} {letter}"]
        ), ANYWHERE + cued("DNI", "NIF")
    first, body = random.randrange(3), digits(random, 7)
    letter = letters[int(f"{first}{body}") % 23]
    return random.choice(["{}{}{}", "{}-{}-{}", "{}{}-{}"]).format("XYZ"[first], body, letter), ANYWHERE + cued(
        "NIE", "NIF"
    )


def it_fiscal_code(random: Random) -> Made:
    odd = dict(
        zip(
            DIGITS + UPPER,
            [1, 0, 5, 7, 9, 13, 15, 17, 19, 21] * 2 + [2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23],
            strict=True,
        )
    )
    consonants = "BCDFGLMNPRSTVZ"
    body = (
        "".join(random.choice(consonants) for _ in range(6))
        + f"{random.randint(0, 99):02}{random.choice('ABCDEHLMPRST')}"
    )
    body += f"{random.choice([random.randint(1, 31), random.randint(41, 71)]):02}{random.choice('ABCDEFGHILMZ')}{digits(random, 3)}"
    even = {letter: index for index, letter in enumerate(UPPER)} | {digit: int(digit) for digit in DIGITS}
    total = sum(odd[c] if i % 2 == 0 else even[c] for i, c in enumerate(body))
    text = body + UPPER[total % 26]
    if random.random() < 0.1:
        text = text.lower()
    return grouped(random, text, (3, 3, 5), ("", "", "", " ")), ANYWHERE + cued("Codice fiscale", "C.F.", "CF")


def nl_bsn(random: Random) -> Made:
    while True:
        body = digits(random, 8, "123456789")
        check = sum(int(d) * w for d, w in zip(body, range(9, 1, -1), strict=True)) % 11
        if check < 10:
            return grouped(random, f"{body}{check}", random.choice([(), (4, 2), (3, 3)]), ("", ".", " ")), cued(
                "BSN", "Burgerservicenummer"
            )


def pl_pesel(random: Random) -> Made:
    body = f"{random.randint(30, 99)}{random.randint(1, 12):02}{random.randint(1, 28):02}{digits(random, 4)}"
    check = -sum(int(d) * w for d, w in zip(body, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3), strict=True)) % 10
    return f"{body}{check}", cued("PESEL", "nr PESEL")


def br_cpf(random: Random) -> Made:
    body = digits(random, 9)
    for _ in range(2):
        total = sum(int(d) * w for d, w in zip(body, range(len(body) + 1, 1, -1), strict=True))
        body += str(total * 10 % 11 % 10)
    if random.random() < 0.7:
        return f"{body[:3]}.{body[3:6]}.{body[6:9]}-{body[9:]}", ANYWHERE + cued("CPF")
    return body, cued("CPF")


VERHOEFF_D = [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 4, 0, 6, 7, 8, 9, 5], [2, 3, 4, 0, 1, 7, 8, 9, 5, 6], [3, 4, 0, 1, 2, 8, 9, 5, 6, 7],
              [4, 0, 1, 2, 3, 9, 5, 6, 7, 8], [5, 9, 8, 7, 6, 0, 4, 3, 2, 1], [6, 5, 9, 8, 7, 1, 0, 4, 3, 2], [7, 6, 5, 9, 8, 2, 1, 0, 4, 3],
              [8, 7, 6, 5, 9, 3, 2, 1, 0, 4], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]]  # fmt: skip
VERHOEFF_P = [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 5, 7, 6, 2, 8, 3, 0, 9, 4], [5, 8, 0, 3, 7, 9, 6, 1, 4, 2], [8, 9, 1, 6, 0, 4, 3, 5, 2, 7],
              [9, 4, 5, 3, 1, 2, 6, 8, 7, 0], [4, 2, 8, 6, 5, 7, 3, 9, 0, 1], [2, 7, 9, 3, 8, 0, 6, 4, 1, 5], [7, 0, 4, 6, 9, 1, 3, 2, 5, 8]]  # fmt: skip


def in_aadhaar(random: Random) -> Made:
    body, state = digits(random, 11, "23456789"), 0
    for position, digit in enumerate(reversed(body)):
        state = VERHOEFF_D[state][VERHOEFF_P[(position + 1) % 8][int(digit)]]
    check = next(str(digit) for digit in range(10) if VERHOEFF_D[state][digit] == 0)
    return grouped(random, body + check, (4, 4), (" ", " ", "-", "")), cued("Aadhaar", "Aadhar number", "Aadhaar no.")


def cn_resident_id(random: Random) -> Made:
    region = random.choice(["110105", "310101", "440305", "510104", "330106"])
    body = (
        f"{region}{random.randint(1945, 2012)}{random.randint(1, 12):02}{random.randint(1, 28):02}{digits(random, 3)}"
    )
    check = "10X98765432"[sum(int(d) * 2 ** (17 - i) for i, d in enumerate(body)) % 11]
    return body + check, [*ANYWHERE, "身份证号：{}", "身份证{}，"]


def passport(random: Random) -> Made:
    number = random.choice([
        digits(random, 9), random.choice(UPPER) + digits(random, 8), random.choice(UPPER) + random.choice(UPPER) + digits(random, 7),
        "C01" + random.choice("FGHJKLMNPRTVWXYZ") + digits(random, 2) + random.choice("TVWXYZ") + digits(random, 2),
        digits(random, 2) + random.choice(UPPER) + random.choice(UPPER) + digits(random, 5), random.choice(UPPER) + digits(random, 7),
    ])  # fmt: skip
    return number, cued(
        "Passport", "Passport number", "Passport No.", "Reisepass", "Passeport", "Reisepassnummer", "Pasaporte"
    )


MONTHS = "January February March April May June July August September October November December".split()


def date_of_birth(random: Random) -> Made:
    year, month, day = random.randint(1925, 2015), random.randint(1, 12), random.randint(1, 28)
    name = MONTHS[month - 1]
    written = random.choice([
        f"{year}-{month:02}-{day:02}", f"{day:02}/{month:02}/{year}", f"{month}/{day}/{year}", f"{day:02}.{month:02}.{year}", f"{day}.{month}.{year}",
        f"{name} {day}, {year}", f"{day} {name} {year}", f"{name[:3]} {day}, {year}", f"{day}-{name[:3]}-{year}", f"{day}th {name}, {year}",
        f"{month:02}/{day:02}/{year % 100:02}", f"{day}th of {name} {year}", f"{year}/{month:02}/{day:02}", f"{day}. {name} {year}",
    ])  # fmt: skip
    return written, [
        "DOB: {}", "D.O.B. {}", "Date of birth: {}", "NAME, born {}, lives in Rome.", "born on {}", "Birth date: {}", '{"dob": "{}"}', "Birthday: {}",
        "geboren am {}", "Geburtsdatum: {}", "né le {}", "Date de naissance : {}", "Fecha de nacimiento: {}", "birth_date={}", "date_of_birth: '{}'",
        "NAME (born {}) is an actor", "dob\t{}", "DOB {}", "Data di nascita: {}", "was born in Lyon on {}", "geb. {}", "birthdate='{}'", "My birthday is {}",
        "Data de nascimento: {}", "<dt>Date of Birth</dt><dd>{}</dd>",
    ]  # fmt: skip


def ipv4(random: Random) -> Made:
    while True:
        address = ipaddress.IPv4Address(random.getrandbits(32))
        if random.random() < 0.3:
            address = ipaddress.IPv4Address(
                random.choice(
                    [f"10.{random.randint(0, 255)}.3.{random.randint(1, 254)}", f"192.168.1.{random.randint(2, 250)}"]
                )
            )
        if not (address.is_loopback or address.is_multicast or address.is_reserved or address.packed[0] == 0):
            break
    places = ANYWHERE + cued("IP", "ip address", "host", "client", "remote addr") + [
        '{} - - [10/Oct/2023:13:55:36 +0000] "GET / HTTP/1.1" 200 2326', "ssh root@{}", "http://{}:8080/admin", "Accepted password for root from {} port 22",
        "ping {}", "{}:443", "{}/24", "X-Forwarded-For: {}, 10.1.2.33"[:20], "Failed login ({})", "inet {} netmask 255.255.255.0", "server {};", "src={} dst=x",
        "Received: from mail.x.org ([{}])", "//{}/share", "nameserver {}", "https://{}/index.html", "{}->eth0", "allow from {}",
    ]  # fmt: skip
    return str(address), places


def ipv6(random: Random) -> Made:
    head = random.choice(["2001:db8", "2a02:8109", "2607:f8b0", "fe80", "fd12:3456", "2400:cb00", "2a00:1450"])
    groups = head.split(":")
    if random.random() < 0.5:
        groups += [f"{random.getrandbits(16):x}" for _ in range(8 - len(groups))]
        text = ":".join(groups)
    else:
        tail = [f"{random.getrandbits(16):x}" for _ in range(random.randint(1, 4))]
        text = f"{head}::{':'.join(tail)}"
    if random.random() < 0.2:
        text = ipaddress.IPv6Address(text).exploded
    if random.random() < 0.1:
        text = f"::ffff:{random.randint(11, 200)}.{random.randint(1, 200)}.7.{random.randint(1, 250)}"
    if random.random() < 0.15:
        text = text.upper()
    places = (
        ANYWHERE
        + cued("IPv6", "address")
        + ["http://[{}]:8080/", "inet6 {}/64 scope global", "[{}]", "{}%eth0", "from {} port 51234", "AAAA {}", "{}/48"]
    )
    return text, places


def mac(random: Random) -> Made:
    pairs = [f"{random.getrandbits(8):02x}" for _ in range(6)]
    text = random.choice([":", ":", "-"]).join(pairs)
    if random.random() < 0.12:
        flat = "".join(pairs)
        text = f"{flat[:4]}.{flat[4:8]}.{flat[8:]}"
    return text.upper() if random.random() < 0.4 else text, ANYWHERE + cued("MAC", "ether", "HWaddr") + [
        "lladdr {} REACHABLE",
        "wlan0: {}",
    ]


def imei(random: Random) -> Made:
    body = random.choice(["35", "86", "01"]) + digits(random, 12)
    number = body + luhn_digit(body)
    written = random.choice(
        [
            number,
            number,
            f"{number[:2]}-{number[2:8]}-{number[8:14]}-{number[14]}",
            f"{number[:2]} {number[2:8]} {number[8:14]} {number[14]}",
        ]
    )
    return written, cued("IMEI", "IMEI number", "imei no.")


BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def bitcoin(random: Random) -> Made:
    payload = bytes([random.choice([0, 5])]) + random.randbytes(20)
    if random.random() < 0.4:
        return _bech32(random), ANYWHERE + cued("BTC", "bitcoin address", "wallet")
    data = payload + hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
    number, text = int.from_bytes(data), ""
    while number:
        number, index = divmod(number, 58)
        text = BASE58[index] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text, [
        *ANYWHERE,
        *cued("BTC", "bitcoin address", "wallet"),
        "bitcoin:{}?amount=0.1",
    ]


def _bech32(random: Random) -> str:
    """BIP 173 and BIP 350: witness versions 0 (20 or 32 bytes) and 1 (32 bytes)."""
    alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    version, size, constant = random.choice([(0, 20, 1), (0, 32, 1), (1, 32, 0x2BC830A3)])
    bits = "".join(f"{byte:08b}" for byte in random.randbytes(size))
    bits += "0" * (-len(bits) % 5)
    words = [version, *(int(bits[i : i + 5], 2) for i in range(0, len(bits), 5))]
    state = 1
    for word in [3, 3, 0, 2, 3, *words, 0, 0, 0, 0, 0, 0]:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ word
        for i, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            state ^= generator if top >> i & 1 else 0
    state ^= constant
    return "bc1" + "".join(alphabet[word] for word in words + [state >> 5 * (5 - i) & 31 for i in range(6)])


def ethereum(random: Random) -> Made:
    text = "".join(random.choice("0123456789abcdef") for _ in range(40))
    mixed = "".join(c.upper() if random.random() < 0.5 else c for c in text)
    return "0x" + random.choice([text, mixed]), ANYWHERE + cued("ETH", "wallet", "contract")


def coordinates(random: Random) -> Made:
    lat, lon = random.uniform(-89, 89), random.uniform(-179, 179)
    places = random.choice([5, 6, 7, 4])
    style = random.random()
    if style < 0.5:
        words = [
            *cued("GPS", "Location", "Coordinates", "Koordinaten"),
            "geo:{}",
            "https://maps.google.com/?q={}",
            "lat,lon: {}",
            "GPS position {} at 10:20",
        ]
        return f"{lat:.{places}f}{random.choice([', ', ',', ' '])}{lon:.{places}f}", [
            word for word in words if "=" not in word or "q=" in word
        ]
    ns, ew = "NS"[lat < 0], "EW"[lon < 0]
    lat, lon = abs(lat), abs(lon)
    if style < 0.75:
        return f"{lat:.{places}f}° {ns}, {lon:.{places}f}° {ew}", ANYWHERE
    parts = [
        f"{int(v)}°{int(v * 60) % 60}{m}{v * 3600 % 60:.{d}f}{s}"
        for v in (lat, lon)
        for m, s, d in [random.choice([("'", '"', 1), ("′", "″", 0), ("'", '"', 0)])]
    ]
    return f"{parts[0]}{ns} {parts[1]}{ew}", ["{}", "at {}.", "Position: {}", "({})", "found near {} by NAME"]


def url_credentials(random: Random) -> Made:
    user = random.choice(
        [random.choice(FIRST), "admin", f"{random.choice(FIRST)}.{random.choice(LAST)[:4]}", "svc-backup"]
    )
    password = random.choice(
        ["hunter2", "S3cr3t!x", "correct-horse", "p%40ss", "Tr0ub4dor", "x" + digits(random, 6), "geheim.99", "pa:ss"]
    )
    places = ["https://{}@git.example.com/x.git", "postgresql://{}@db:5432/shop", "ftp://{}@files.example.org", "curl -s http://{}@gate.corp.example:8080/api",
              "proxy = 'http://{}@proxy.corp:3128'", "<https://{}@host.tld/>", "mongodb+srv://{}@cluster0.abc.mongodb.net/?retryWrites=true", "redis://{}@cache:6379/0"]  # fmt: skip
    return f"{user}:{password}", places


MAKERS: dict[str, Callable[[Random], Made]] = {
    maker.__name__: maker
    for maker in (
        email, phone, credit_card, iban, us_ssn, ca_sin, uk_nino, uk_nhs, de_tax_id, fr_nir, es_nif, it_fiscal_code, nl_bsn, pl_pesel, br_cpf,
        in_aadhaar, cn_resident_id, passport, date_of_birth, ipv4, ipv6, mac, imei, bitcoin, ethereum, coordinates, url_credentials,
    )
}  # fmt: skip
