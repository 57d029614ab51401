"""Texts that look as if they held personal identifiers and hold none, and identifiers in forms that are hard to find."""

# ruff: noqa: E501, RUF001, SIM905 -- the lines are data

from __future__ import annotations

import string
from collections.abc import Callable
from random import Random

from pii_values import BASE58, MAKERS, UPPER, american, digits, grouped, luhn_digit


def _bad_card(random: Random) -> str:
    while True:
        body = digits(random, 15)
        digit = digits(random, 1)
        if digit != luhn_digit(body):
            return grouped(random, body + digit, (4, 4, 4), ("", " ", "-"))


def _isbn(random: Random) -> str:
    group, publisher, title = digits(random, 1), digits(random, 3), digits(random, 5)
    ten = f"{group}-{publisher}-{title}-{random.choice(string.digits + 'X')}"
    return random.choice([f"ISBN {ten}", f"ISBN-13: 978-{ten}", f"978{ten.replace('-', '').replace('X', '4')}"])


def _version(random: Random) -> str:
    numbers = [random.randint(0, 40) for _ in range(4)]
    dotted = ".".join(map(str, numbers))
    return random.choice([
        f"version {dotted}", f"v{dotted}", f"Version: {dotted}", f"upgrade to release {dotted} today", f"Chrome/{random.randint(80, 130)}.0.0.0 Safari/537.36",
        f"libfoo-{dotted}.tar.gz", f"pkg=={dotted}", f"firmware {dotted}", f"AssemblyVersion(\"{dotted}\")", f"Build {dotted}", f"<version>{dotted}</version>",
        f'"version": "{dotted}"', f"see section {dotted} of the manual", f"driver version {dotted} or later", f"{dotted}-beta2", f"OID 1.3.6.1.4.1.{dotted}",
        f"ver. {dotted}", f"Upgraded from {dotted} to {numbers[0] + 1}.0.1.{numbers[3]}", f"{dotted}.{random.randint(0, 9)}", f"foo@{numbers[0]}.{numbers[1]}.{numbers[2]}",
    ])  # fmt: skip


def _timestamp(random: Random) -> str:
    seconds = random.randint(1_500_000_000, 1_790_000_000)
    y, mo, d = random.randint(1990, 2026), random.randint(1, 12), random.randint(1, 28)
    return random.choice([
        f"ts={seconds}", f"{seconds}{digits(random, 3)}", f'"timestamp": {seconds}.{digits(random, 6)}', f"{y}-{mo:02}-{d:02}T10:11:12.{digits(random, 6)}Z",
        f"{y}{mo:02}{d:02}101112", f"{d:02}.{mo:02}.{y} 10:11", f"on {mo:02}/{d:02}/{y}", f"{y}-{mo:02}-{d:02} {random.randint(10, 23)}-30-15", f"from {y} - {y + 3}",
        f"({y}-{y + 1})", f"{d:02}-{mo:02}-{y} 08:30:00", f"IMG_{y}{mo:02}{d:02}_{digits(random, 6)}.jpg", f"{seconds}{digits(random, 9)} ns", f"uptime {seconds % 100000}.{digits(random, 4)}",
        f"due {y}/{mo:02}/{d:02}", f"May {d}, {y}", f"{random.randint(0, 23):02}:{random.randint(0, 59):02}:{random.randint(0, 59):02}.{digits(random, 3)}", f"{d} June {y}",
        f"founded on {d:02}.{mo:02}.{y}", f"Call for papers ends {y}-{mo:02}-{d:02}", f"Tel Aviv, {d:02}.{mo:02}.{y}", f"call on {y}-{mo:02}-{d:02} 14:30",
    ])  # fmt: skip


def _identifier(random: Random) -> str:
    return random.choice([
        f"order {digits(random, 10, '123456789')}", f"Order no. {digits(random, 3)}-{digits(random, 7)}-{digits(random, 7)}", f"invoice INV-{digits(random, 4)}-{digits(random, 6)}",
        f"ticket #{digits(random, 8)}", f"SKU {digits(random, 5)}-{digits(random, 4)}", f"part no. {digits(random, 3)}-{digits(random, 4)}-{digits(random, 2)}",
        f"tracking 1Z{digits(random, 3)}AA{digits(random, 10)}", f"ISSN {digits(random, 4)}-{digits(random, 4)}", f"PMID: {digits(random, 8)}", f"case {digits(random, 2)}-{digits(random, 5)}",
        f"EAN 40{digits(random, 11)}", f"serial {random.choice(UPPER)}{digits(random, 9)}", f"GTIN {digits(random, 14, '01')}", f"article {digits(random, 3)}.{digits(random, 3)}.{digits(random, 2)}",
        f"user_id={digits(random, 9, '123456789')}", f"https://example.com/item/{digits(random, 12)}", f"patent US{digits(random, 8)}B2", f"ZIP {digits(random, 5)}-{digits(random, 4)}",
        f"batch {digits(random, 6)} {digits(random, 6)}", f"VAT DE{digits(random, 9)}", f"flight LH{digits(random, 4)}", f"CVE-2021-{digits(random, 5)}", f"RFC {digits(random, 4)}",
        f"Call number QA{digits(random, 2)}.{digits(random, 2)} .B{digits(random, 3)}", f"reference {digits(random, 12)}", f"{digits(random, 5)} {digits(random, 5)} {digits(random, 5)}",
        f"asset tag {digits(random, 4)} {digits(random, 4)} {digits(random, 4)}", f"commit {random.getrandbits(28):07x}", f"call order {digits(random, 9)} ready", f"account ending {digits(random, 4)}",
        f"phone case model {digits(random, 6)}", f"model {random.choice(UPPER)}{random.choice(UPPER)}-{digits(random, 6)}", f"EIN {digits(random, 2)}-{digits(random, 7)}",
    ])  # fmt: skip


def _number_text(random: Random) -> str:
    return random.choice([
        f"${digits(random, 3, '123456789')},{digits(random, 3)},{digits(random, 3)}.{digits(random, 2)}", f"{digits(random, 3, '123456789')} {digits(random, 3)} {digits(random, 3)} inhabitants",
        f"3.14159265358979{digits(random, 6)}", f"x = {random.random():.12f}, y = {random.random():.12f}", f"[{random.random():.6f}, {random.random():.6f}]", f"1e+{digits(random, 2)}",
        f"{digits(random, 4)} + {digits(random, 4)} = {digits(random, 5)}", f"EUR {digits(random, 2)}.{digits(random, 3)}.{digits(random, 3)},00", f"pp. {digits(random, 4)}-{digits(random, 4)}",
        f"{digits(random, 2)} {digits(random, 2)} {digits(random, 2)} {digits(random, 2)} {digits(random, 2)} {digits(random, 2)} lottery", f"{digits(random, 20)}",
        "score 3-2, 6-4, 7-6", f"45({random.randint(1, 12)}), {digits(random, 4)}–{digits(random, 4)}", f"0.{digits(random, 16)}", f"-{digits(random, 3)}.{digits(random, 5)}e-{digits(random, 2)}",
        f"tensor([{', '.join(f'{random.gauss(0, 1):.4f}' for _ in range(6))}])", f"rgb({random.randint(0, 255)}, {random.randint(0, 255)}, {random.randint(0, 255)})", f"{digits(random, 3)}x{digits(random, 3)}x{digits(random, 3)}",
        f"{random.randint(1, 9)}.{digits(random, 3)}.{digits(random, 3)} Einwohner", f"0x{random.getrandbits(32):08x} 0x{random.getrandbits(64):016x}", f"viewBox=\"0 0 {digits(random, 4)} {digits(random, 4)}\"",
        f"d=\"M{random.uniform(0, 99):.3f} {random.uniform(0, 99):.3f}L{random.uniform(0, 99):.3f} {random.uniform(0, 99):.3f}\"", f"a[{digits(random, 3)}::{random.randint(2, 9)}]", f"{digits(random, 2)}%-{digits(random, 2)}%",
        f"Latitude is measured in degrees; {random.random():.2f} radians", f"00 01 02 03 04 05 06 07 {random.getrandbits(8):02x} 09", f"1,2,3,4,5,6,7,8,9,10,{digits(random, 2)}", f"{digits(random, 4)}/{digits(random, 4)} passed",
    ])  # fmt: skip


def _code(random: Random) -> str:
    return random.choice([
        f"{random.getrandbits(128):032x}", f"sha1 {random.getrandbits(160):040x}", f"sha256:{random.getrandbits(256):064x}", _uuid(random), "@app.route('/users/<id>')", "std::vector<int> a; a::b();",
        "def f(a: int) -> str: ...", "@NAME thanks!", "foo@bar", "npm i react@17.0.2", "img/logo@2x.png", "git@github.com:org/repo.git", "x @ w.T + b", "https://example.com/@user/12", "ssh://git@host.xz/repo.git",
        "use std::collections::HashMap;", "x[1::2]", "::before { content: '' }", "a::b::c", "time 12:30:45:10", "http://localhost:8080/", "127.0.0.1", "0.0.0.0:80", "255.255.255.0", "::1", "mask 255.255.240.0",
        ":".join(f"{random.getrandbits(8):02x}" for _ in range(16)), "10:20:30:40:50", f"doi:10.{digits(random, 4)}/s{digits(random, 5)}-{digits(random, 3)}-{digits(random, 4)}-{digits(random, 1)}", "https://${USER}:${PASS}@host/x",
        f"arXiv:{digits(random, 4)}.{digits(random, 5)}", "f32::MAX, u8::from(3)", "T::default()", f"#{random.getrandbits(24):06x}", "dead::beef()", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "user:pass syntax", "{{ a.b@c }}",
        f"{random.choice(BASE58)}" + "".join(random.choice(BASE58) for _ in range(30)), "".join(random.choice(string.ascii_letters + string.digits) for _ in range(40)), "passport control is on floor 3", "John was born in 1985 in Rome",
        "born to run", "the birth of a nation (1915)", "his passport was stolen in 2019", "My phone has 128 GB", "call 911", "dial 112", "Tel. 110", "IMEI stands for International Mobile Equipment Identity", "0x" + f"{random.getrandbits(256):064x}",
        "email: n/a", "name@", "@example.com", "a@b", "1@2.3", "matmul A@B.T", "SSN 000-12-3456", "666-45-1234", "sin(123456789)", "CPF 111.111.111-11", "IBAN DE00 1234 5678 9012 3456 78", "GB is a country, 82 WEST street",
    ])  # fmt: skip


def _uuid(random: Random) -> str:
    text = f"{random.getrandbits(128):032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


NEGATIVES: list[Callable[[Random], str]] = [
    _bad_card,
    _isbn,
    _version,
    _timestamp,
    _identifier,
    _identifier,
    _number_text,
    _number_text,
    _code,
    _code,
]

# ---------------------------------------------------------------- hard forms: kind, text before, the identifier, text after


def _hard_phone(random: Random) -> dict[str, tuple[str, str, str]]:
    written, _ = american(random)
    number = "".join(letter for letter in written if letter.isdigit())[-10:]
    words = "zero one two three four five six seven eight nine".split()
    return {
        "phone: bare digits, no word before": ("NAME ", number, " Boston"),
        "phone: in a column whose header says so": (
            f"name,phone,city\nNAME,{digits(random, 10, '23456789')},Rome\nNAME,",
            number,
            ",Oslo",
        ),
        "phone: over two lines": ("Call ", f"{number[:3]}-{number[3:6]}-\n{number[6:]}", " today"),
        "phone: full-width digits": ("電話 ", "".join(chr(ord(d) + 0xFEE0) for d in number), "。"),
        "phone: in words": ("Call ", " ".join(words[int(d)] for d in number), "."),
        "phone: letters for digits": ("Call ", f"1-{number[:3]}-FLOWERS", " now"),
    }


def _hard_email(random: Random) -> dict[str, tuple[str, str, str]]:
    local, host = (
        f"NAME{random.randint(1, 99)}".replace("NAME", random.choice(["anna", "jo.li", "k_z"])),
        random.choice(["web.de", "x.example.org"]),
    )
    return {
        "email: spaces around the signs": ("write to ", f"{local} @ {host.replace('.', ' . ')}", " please"),
        "email: at and dot in words": ("write to ", f"{local} at {host.replace('.', ' dot ')}", " please"),
        "email: full-width at": ("E-Mail: ", f"{local}＠{host}", "\n"),
        "email: zero-width space inside": ("E-Mail: ", f"{local}@\u200b{host}", "\n"),
        "email: HTML entity": ("<p>", f"{local}&#64;{host}", "</p>"),
    }


def _hard_number(random: Random) -> dict[str, tuple[str, str, str]]:
    card = "".join(filter(str.isdigit, MAKERS["credit_card"](random)[0]))
    iban = "".join(filter(str.isalnum, MAKERS["iban"](random)[0]))
    ssn = "".join(filter(str.isdigit, MAKERS["us_ssn"](random)[0]))
    address = [str(random.randint(11, 200)) for _ in range(4)]
    return {
        "credit_card: in pairs": ("card ", " ".join(card[i : i + 2] for i in range(0, len(card), 2)), ""),
        "credit_card: over two lines": ("card ", f"{card[:8]}\n{card[8:]}", " exp 01/27"),
        "credit_card: mixed separators": ("card ", f"{card[:4]}-{card[4:8]} {card[8:12]}-{card[12:]}", ""),
        "iban: lower case": ("iban ", iban.lower(), ""),
        "iban: over two lines": ("IBAN: ", f"{iban[:12]}\n{iban[12:]}", ""),
        "us_ssn: nine digits, no word before": ("NAME ", ssn, " Boston"),
        "ipv4: as one number": ("host ", str(sum(int(part) << 8 * (3 - i) for i, part in enumerate(address))), ""),
        "ipv4: defanged": ("from ", "[.]".join(address), ""),
        "passport: no word before": ("NAME, ", MAKERS["passport"](random)[0], ", Rome"),
        "date_of_birth: word after the date": (
            "",
            f"{random.randint(10, 28)}.03.{random.randint(1950, 2005)}",
            " (born)",
        ),
        "date_of_birth: in words": ("born on the ", "twelfth of March nineteen eighty-five", ""),
    }


HARD: list[Callable[[Random], dict[str, tuple[str, str, str]]]] = [_hard_phone, _hard_email, _hard_number]
