from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.process.privacy import KINDS, find_pii, mask_pii
from flywheel.process.spans import masked
from flywheel.record import Dropped, Record

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"

FOUND = [
    ("email", "Write to <jo.li+x@mail.example.org>.", "jo.li+x@mail.example.org"),
    ("email", "müller@exämple.de", "müller@exämple.de"),
    ("email", "jo (at) example (dot) org", "jo (at) example (dot) org"),
    ("email", "?user=jo%40example.org&x", "jo%40example.org"),
    ("url_credentials", "git clone https://jo:hunter2@git.example.org/x", "jo:hunter2"),
    ("phone", "Call +44 (0)20 7946 0958 now", "+44 (0)20 7946 0958"),
    ("phone", "(415) 555-2671 ext. 12,", "(415) 555-2671 ext. 12"),
    ("phone", "Paris 01 42 68 53 00.", "01 42 68 53 00"),
    ("phone", "mobile: 7808007092", "7808007092"),
    ("phone", "+1\u202f415\u2011555\u20112671", "+1\u202f415\u2011555\u20112671"),
    ("credit_card", "card 4111 1111 1111 1111 exp 09/27", "4111 1111 1111 1111"),
    ("credit_card", "'378282246310005'", "378282246310005"),
    ("iban", "to GB82 WEST 1234 5698 7654 32 by Friday", "GB82 WEST 1234 5698 7654 32"),
    ("iban", "DE89370400440532013000", "DE89370400440532013000"),
    ("us_ssn", "his 536-90-4399", "536-90-4399"),
    ("us_ssn", "SSN 536904399", "536904399"),
    ("uk_nino", "AB 12 34 56 C", "AB 12 34 56 C"),
    ("uk_nhs", "NHS no. 943 476 5919", "943 476 5919"),
    ("de_tax_id", "Steuer-ID: 86 095 742 719", "86 095 742 719"),
    ("fr_nir", "2 55 08 14 168 025 38", "2 55 08 14 168 025 38"),
    ("es_nif", "DNI 12345678Z", "12345678Z"),
    ("es_nif", "X1234567L", "X1234567L"),
    ("it_fiscal_code", "RSSMRA85T10A562S", "RSSMRA85T10A562S"),
    ("nl_bsn", "BSN 111222333", "111222333"),
    ("pl_pesel", "PESEL 44051401359", "44051401359"),
    ("br_cpf", "111.444.777-35", "111.444.777-35"),
    ("in_aadhaar", "Aadhaar: 2341 2341 2346", "2341 2341 2346"),
    ("ca_sin", "SIN 046 454 286", "046 454 286"),
    ("cn_resident_id", "身份证11010519491231002X", "11010519491231002X"),
    ("imei", "IMEI 490154203237518", "490154203237518"),
    ("passport", "Reisepass Nr. C01X00T47", "C01X00T47"),
    ("date_of_birth", "geboren am 12. März 1985 in Rom", "12. März 1985"),
    ("date_of_birth", '{"dob": "1985-03-12"}', "1985-03-12"),
    ("coordinates", "GPS 52.520008, 13.404954", "52.520008, 13.404954"),
    ("coordinates", "48°51'24\"N 2°21'03\"E", "48°51'24\"N 2°21'03\"E"),
    ("mac", "ether 3c:22:fb:0a:1b:9e", "3c:22:fb:0a:1b:9e"),
    ("mac", "3C22.FB0A.1B9E", "3C22.FB0A.1B9E"),
    ("ipv6", "http://[2a02:8109::1f]:80/", "2a02:8109::1f"),
    ("ipv6", "::ffff:93.184.216.34 ", "::ffff:93.184.216.34"),
    ("ipv4", "93.184.216.34 - - [10/Oct/2023]", "93.184.216.34"),
    ("bitcoin", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
    ("bitcoin", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
    ("ethereum", "0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045", "0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045"),
]

NOTHING = [
    "version 1.2.3.4 and 2.0.0.1-beta", "Chrome/120.0.0.0", "127.0.0.1 and 255.255.255.0", "order 4111111111111112",
    "ISBN 978-3-16-148410-0", "2023-10-05T10:11:12.123456Z", "550e8400-e29b-41d4-a716-446655440000", "x[1::2]; a::b",
    "@app.route('/a')", "icon@2x.png", "git@github.com:a/b.git", "react@17.0.2", "doi:10.1038/s41586-020-2649-2",
    "3.14159265358979323846", "00:00:00:00:00:00", "born to run in 1985", "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "666-12-3456", "DE00 3704 0044 0532 0130 00", "https://${USER}:${PASS}@host/", "passport control", "1,234,567,890",
    "00 01 02 03 04 05 06 07 08 09", "tensor([0.123456, 0.654321])", "(2019) 1234-5678", "12:30:45:10", "pp. 1234-5678",
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "value"), FOUND)
def test_finds(kind: str, text: str, value: str) -> None:
    assert [(m.kind, text[m.start : m.end]) for m in find_pii(text)] == [(kind, value)]


@pytest.mark.parametrize("text", NOTHING)
def test_leaves_alone(text: str) -> None:
    assert find_pii(text) == []


def test_recall_and_precision_by_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from pii_corpus import make

    real, covered, claimed, right = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for sample in make(3_000, seed=77):
        found = find_pii(sample.text)
        for kind, start, end in sample.spans:
            real[kind] += 1
            covered[kind] += any(m.kind == kind and m.start <= start and m.end >= end for m in found)
        for match in found:
            claimed[match.kind] += 1
            right[match.kind] += any(k == match.kind and s < match.end and e > match.start for k, s, e in sample.spans)
    assert set(real) == set(KINDS)
    assert {kind: covered[kind] / real[kind] for kind in KINDS if covered[kind] < 0.95 * real[kind]} == {}
    assert {kind: right[kind] / claimed[kind] for kind in KINDS if right[kind] < 0.9 * claimed[kind]} == {}


def test_masks_every_text_and_counts_by_kind() -> None:
    row = Record(
        id="a",
        prompt="Who is jo@example.org?",
        messages=[{"role": "user", "content": "Call +1 415 555 2671 or jo@example.org"}],
        origin={"source": "s"},
    )
    [out] = mask_pii([row])
    assert isinstance(out, Record)
    assert out.prompt == "Who is <EMAIL>?"
    assert out.messages == [{"role": "user", "content": "Call <PHONE> or <EMAIL>"}]
    assert out.origin == {"source": "s", "pii": {"email": 2, "phone": 1}}
    assert row.origin == {"source": "s"}


def test_a_second_pass_changes_nothing_and_counts_add_up() -> None:
    rows = [Record(id="a", text="jo@example.org at 93.184.216.34")]
    [first] = mask_pii(rows, kinds=["ipv4"])
    assert isinstance(first, Record)
    [second] = mask_pii([first])
    assert isinstance(second, Record)
    assert second.text == "<EMAIL> at <IPV4>"
    assert second.origin["pii"] == {"ipv4": 1, "email": 1}
    assert list(mask_pii([second])) == [second]


def test_clean_rows_and_pictures_pass_as_they_are() -> None:
    rows = [Record(id="a", text="Nothing here, version 1.2.3.4."), Record(id="b", image=b"\x89PNG")]
    assert list(mask_pii(rows)) == rows


def test_drop_names_kinds_and_never_the_text() -> None:
    [out] = mask_pii([Record(id="a", text="jo@example.org", origin={"source": "s", "path": "f:1"})], action="drop")
    assert out == Dropped("a", "pii", "f:1", "s", "email 1")


def test_only_the_kinds_asked_for() -> None:
    text = "jo@example.org, card 4111 1111 1111 1111, 93.184.216.34"
    assert [m.kind for m in find_pii(text, ["email", "ipv4"])] == ["email", "ipv4"]
    assert find_pii("4111 1111 1111 1111", ["phone"]) == []


@pytest.mark.timeout(100)
@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "@",
        "1",
        "1 ",
        "a.",
        "1.",
        "x@a.",
        "::",
        "aa-",
        "://a:",
        "+1",
        "1A",
        "bc1",
        "born 12.1.",
        "AA11 ",
        "%40",
        "(at)",
        "1.2.3.4 ",
        "0x",
        "°1'",
    ],
)
def test_hostile_texts_take_linear_time(unit: str) -> None:
    """A quadratic search would need hours for these."""
    find_pii(unit * (400_000 // len(unit)) + "@")


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.sampled_from("0123456789 .-/:@()+abcfxDE\n\u00a0\u2011é°NpborntelIP"), max_size=120))
def test_matches_are_in_order_disjoint_and_within_the_text(text: str) -> None:
    matches = find_pii(text)
    places = [place for m in matches for place in (m.start, m.end)]
    assert places == sorted(places)
    assert all(0 <= m.start < m.end <= len(text) for m in matches)
    assert all(f"<{m.kind.upper()}>" in masked(text, matches) for m in matches)


def test_operation_arguments() -> None:
    from flywheel.process.check import check_operations

    check_operations([{"mask_pii": {"kinds": ["email", "phone"], "action": "drop"}}, "mask_secrets", "drop_secrets"])
    wrong: Any = {"mask_pii": {"kinds": ["e-mail"]}}
    with pytest.raises(Exception, match="mask_pii"):
        check_operations([wrong])
