import csv
import datetime
import io
import json
import math
import tempfile
import zipfile
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.sources import decoding, formats, json_tables
from flywheel.sources.parsed import MAX_CELL, Bad, Found, Options


def read(path: Path, content: bytes | str | None = None, encoding: str = "utf-8") -> list[Found | Bad]:
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    parse = formats.parser(path.name)
    assert parse is not None
    return list(parse(path, Options(encoding)))


def cells(rows: list[Found | Bad]) -> list[object]:
    """The cells of what was found, and the reasons for what was not."""
    return [dict(row.cells) if isinstance(row, Found) else row.reason for row in rows]


# ---------------------------------------------------------------- CSV


def test_rows_of_csv_have_the_names_of_the_header(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.csv", b'\xef\xbb\xbfid,text,text\r\n1,"two\r\nlines",x\r\n2\r\n\r\n3,"a ""word""",\r\n')
    assert cells(rows) == [
        {"id": "1", "text": "two\r\nlines", "text.1": "x"},
        {"id": "2"},
        {"id": "3", "text": 'a "word"', "text.1": ""},
    ]
    assert [row.position for row in rows] == ["2", "3", "5"]


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ";"), ("a.csv", "\t"), ("a.csv", "|"), ("a.tsv", "\t")])
def test_delimiters(tmp_path: Path, name: str, mark: str) -> None:
    assert cells(read(tmp_path / name, f'a{mark}b\n1{mark}"x,y"\n')) == [{"a": "1", "b": "x,y"}]


@pytest.mark.parametrize(
    ("encoding", "codec"),
    [("utf-8", "utf-16"), ("utf-8", "utf-8-sig"), ("latin-1", "latin-1"), ("utf-8", "utf-32"), ("auto", "cp1252")],
)
@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl"])
def test_encodings(tmp_path: Path, name: str, encoding: str, codec: str) -> None:
    text = "Les élèves préfèrent étudier près de la fenêtre, où la lumière est très agréable."
    source = {"a.csv": f'text\n"{text}"\n', "a.json": json.dumps([{"text": text}], ensure_ascii=False)}
    source["a.jsonl"] = json.dumps({"text": text}, ensure_ascii=False) + "\n"
    assert cells(read(tmp_path / name, source[name].encode(codec), encoding)) == [{"text": text}]


def test_only_the_row_with_undecodable_bytes_is_lost(tmp_path: Path) -> None:
    assert cells(read(tmp_path / "a.csv", b"text\none\n\xff\xfe\n\xed\xa0\x80\nlast\n")) == [
        {"text": "one"},
        "undecodable",
        "undecodable",
        {"text": "last"},
    ]


def test_an_open_quote_costs_one_row(tmp_path: Path) -> None:
    good = [f"{n},row {n}" for n in range(50)]
    rows = read(tmp_path / "a.csv", "\n".join(["id,text", *good[:10], '10,"open', *good[11:], '50,"mis"fit', "51,x"]))
    assert [row.reason for row in rows if isinstance(row, Bad)] == ["bad_csv", "bad_csv"]
    found = [row.cells["id"] for row in rows if isinstance(row, Found)]
    assert found == [str(n) for n in range(52) if n not in (10, 50)]
    assert len({row.position for row in rows}) == len(rows)


def test_a_row_with_more_cells_than_names_is_bad(tmp_path: Path) -> None:
    assert cells(read(tmp_path / "a.csv", "a,b\n1,2,\n1,2,3\n")) == [{"a": "1", "b": "2"}, "bad_csv"]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_line_without_end_is_skipped(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_CELL", 1_000)
    monkeypatch.setattr(decoding, "BLOCK", 300)
    one, last = ("text\none", "last") if name == "a.csv" else ('{"text": "one"}', '{"text": "last"}')
    rows = read(tmp_path / name, "\n".join([one, "x" * 5_000, last]))
    assert cells(rows) == [{"text": "one"}, "too_long", {"text": "last"}]


def test_a_cell_over_the_limit_is_too_long_wherever_it_stands(tmp_path: Path) -> None:
    big = "x" * (MAX_CELL + 1)
    assert cells(read(tmp_path / "a.csv", f"text\n{big}\nlast\n")) == ["too_long", {"text": "last"}]
    assert cells(read(tmp_path / "a.json", json.dumps([{"text": big}]))) == ["too_long"]


# ---------------------------------------------------------------- JSON


def test_every_line_of_json_lines_is_accounted_for(tmp_path: Path) -> None:
    lines = {
        b'{"a": 1}': {"a": 1},
        b"{broken": "bad_json",
        b'["a"]': "bad_json",
        b'{"a": "\\ud800"}': "undecodable",
        b"\xff": "undecodable",
        b"": "empty",
        b"[" * 60_000: "bad_json",
        b'{"a": NaN}': {"a": None},
        b'{"a": 2}\r': {"a": 2},
    }
    rows = read(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + b"\n".join(lines) + b"\n")
    assert cells(rows) == list(lines.values())
    assert [row.position for row in rows] == [str(n) for n in range(1, 10)]


def test_layouts_of_json(tmp_path: Path) -> None:
    rows = [{"a": 1}, {"a": [1, 2]}]
    for text in (
        json.dumps(rows),
        json.dumps({"version": "1", "data": rows}),
        "\n".join(map(json.dumps, rows)),
        " \n[ " + " ,\n ".join(map(json.dumps, rows)) + " ]\n",
    ):
        assert cells(read(tmp_path / "a.json", text)) == rows
    assert cells(read(tmp_path / "a.json", '{"a": [1], "b": [2]}\n\n')) == [{"a": [1], "b": [2]}]
    assert cells(read(tmp_path / "a.json", '[{"a": "\\ud83d\\ude00"}, {"a": "\\ud83d"}]')) == [
        {"a": "😀"},
        "undecodable",
    ]
    assert cells(read(tmp_path / "a.json", "[]")) == ["empty"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[{"a": 1}, {"a"', [{"a": 1}, "bad_json"]),
        ('[{"a": 1} {"a": 2}]', [{"a": 1}, "bad_json"]),
        ('[{"a": 1}]]', [{"a": 1}, "bad_json"]),
        ('[{"a": 1}, "b", 3]', [{"a": 1}, "bad_json", "bad_json"]),
        ("[" * 50_000, ["bad_json"]),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, ["bad_json"]),
        ('{"a": 1', ["bad_json"]),
        ("", ["empty"]),
        ('[{"a": 1', ["bad_json"]),
    ],
)
def test_broken_json(tmp_path: Path, text: str, found: list[object]) -> None:
    assert cells(read(tmp_path / "a.json", text)) == found


def test_a_list_is_streamed_and_a_single_object_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": "word " * (n % 700), "n": n} for n in range(1_000)]
    monkeypatch.setattr(json_tables, "BLOCK", 512)
    monkeypatch.setattr(json_tables, "MAX_OBJECT", 10_000)
    assert cells(read(tmp_path / "a.json", json.dumps(rows, indent=1))) == rows
    assert cells(read(tmp_path / "a.json", json.dumps({"data": rows}, indent=1))) == ["too_long"]


# ---------------------------------------------------------------- Parquet


def test_parquet_cells_keep_their_types(tmp_path: Path) -> None:
    day = datetime.datetime(2024, 1, 2, 3, 4)
    table = pa.table(
        {
            "text": ["one", None],
            "n": [1, 2],
            "x": [0.5, math.nan],
            "b": [b"\x00\xff", b""],
            "t": [day, None],
            "m": [[{"role": "user", "content": "hi"}], []],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert cells(read(tmp_path / "a.parquet")) == [
        {"text": "one", "n": 1, "x": 0.5, "b": b"\x00\xff", "t": "2024-01-02T03:04:00", "m": table["m"][0].as_py()},
        {"text": None, "n": 2, "x": None, "b": b"", "t": None, "m": []},
    ]


def test_damaged_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["word " * 100] * 5_000}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    for damage in (whole[:-20], whole[: len(whole) // 2], b"", b"PAR1" * 10, whole[:40] + b"\x00" * 50 + whole[90:]):
        assert cells(read(tmp_path / "a.parquet", damage))[-1] in ("bad_parquet", "too_long")


# ---------------------------------------------------------------- Excel


def test_rows_of_every_sheet(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "One"
    for place, value in {
        "B3": "name",
        "C3": "n",
        "D3": "when",
        "B4": "x",
        "C4": 3,
        "D4": datetime.date(2024, 1, 2),
    }.items():
        sheet[place] = value
    sheet["B6"], sheet["C6"], sheet["D6"] = True, 2.5, datetime.datetime(2024, 1, 2, 3, 4)
    book.create_sheet("Empty")
    other = book.create_sheet("Two")
    for row in (["q", "a"], ["=1+1", "plain"]):
        other.append(row)
    book.save(tmp_path / "a.xlsx")
    rows = read(tmp_path / "a.xlsx")
    assert [row.position for row in rows] == ["One!4", "One!6", "Two!2"]
    assert cells(rows) == [
        {"name": "x", "n": 3, "when": "2024-01-02"},
        {"name": True, "n": 2.5, "when": "2024-01-02T03:04:00"},
        {"q": None, "a": "plain"},
    ]


def excel(path: Path, sheet: str, extra: bytes = b"") -> Path:
    """A workbook with the XML of one sheet."""
    openpyxl.Workbook().save(path)
    with zipfile.ZipFile(path) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    head = (
        '<?xml version="1.0"?><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
    )
    parts["xl/worksheets/sheet1.xml"] = f"{head}{sheet}</sheetData></worksheet>".encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in parts.items():
            target.writestr(name, content)
        target.writestr("extra.bin", extra)
    return path


def test_a_stray_cell_at_the_far_corner_is_a_bomb_only_where_it_says_something(tmp_path: Path) -> None:
    stray = '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"{}</row>'
    assert cells(read(excel(tmp_path / "a.xlsx", stray.format("><v>1</v></c>")))) == ["bomb"]
    assert cells(read(excel(tmp_path / "b.xlsx", stray.format('s="1"/>')))) == ["empty"]


def test_workbooks_that_are_none(tmp_path: Path) -> None:
    assert cells(read(excel(tmp_path / "a.xlsx", "", bytes(70 << 20)))) == ["bomb"]
    assert cells(read(tmp_path / "b.xlsx", b"\xd0\xcf\x11\xe0" + bytes(600))) == ["encrypted"]
    whole = excel(tmp_path / "c.xlsx", '<row r="1"><c r="A1"><v>1</v></c></row>').read_bytes()
    for damage in (b"", whole[:100], whole[:-30], whole[:300] + b"\xff" * 40 + whole[340:]):
        assert cells(read(tmp_path / "d.xlsx", damage)) == ["bad_xlsx"]


# ---------------------------------------------------------------- any content


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x1a"), max_size=30)
ROWS = st.lists(st.fixed_dictionaries({"text": TEXT, "b": TEXT}), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.sampled_from(["csv", "tsv", "jsonl", "json"]))
def test_rows_that_were_written_are_read(rows: list[dict[str, str]], kind: str) -> None:
    if kind in ("csv", "tsv"):
        target = io.StringIO()
        table = csv.DictWriter(target, ["text", "b"], delimiter="," if kind == "csv" else "\t", quoting=csv.QUOTE_ALL)
        table.writeheader()
        table.writerows(rows)
        content = target.getvalue()
    else:
        content = json.dumps(rows) if kind == "json" else "".join(json.dumps(row) + "\n" for row in rows)
    with tempfile.TemporaryDirectory() as directory:
        assert cells(read(Path(directory, f"a.{kind}"), content)) == rows


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([".csv", ".tsv", ".json", ".jsonl", ".parquet", ".xlsx"]),
    st.one_of(
        st.binary(max_size=300),
        st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass")),
        st.text('[]{}",:\\\n\r 1aé', max_size=80).map(str.encode),
    ),
    st.sampled_from(["utf-8", "latin-1", "utf-16", "auto", "rot13", "shift_jis"]),
)
def test_arbitrary_bytes_are_found_or_bad(ending: str, content: bytes, encoding: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        rows = read(Path(directory, f"a{ending}"), content, encoding)
    assert rows
    assert all(isinstance(row, Found | Bad) for row in rows)
    assert len({row.position for row in rows}) == len(rows)
