import io
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import docx
import pypdf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.sources import formats
from flywheel.sources.parsed import Bad, Found, Options


def read(path: Path, content: bytes | str | None = None, encoding: str = "utf-8") -> list[Found | Bad]:
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    parse = formats.parser(path.name)
    assert parse is not None
    return list(parse(path, Options(encoding)))


def one(path: Path, content: bytes | str | None = None, encoding: str = "utf-8") -> str:
    """The text of a file with one row, or the reason why there is none."""
    (row,) = read(path, content, encoding)
    return row.cells["text"] if isinstance(row, Found) else row.reason


# ---------------------------------------------------------------- plain text


def test_a_long_text_is_cut_at_blank_lines_and_nothing_is_lost(tmp_path: Path) -> None:
    play = "".join(f"Speaker {n}:\r\n{'word ' * 30}\n\n" for n in range(5_000))
    rows = read(tmp_path / "a.txt", play)
    parts = [row.cells["text"] for row in rows if isinstance(row, Found)]
    assert "".join(parts) == play
    assert len(parts) == len(rows) > 50
    assert all(part.endswith("\n\n") for part in parts)
    assert [row.position for row in rows] == [str(sum(map(len, parts[:n]))) for n in range(len(parts))]


def test_a_short_text_is_one_row_as_it_is(tmp_path: Path) -> None:
    assert one(tmp_path / "a.md", "\ufeff# Title\r\n\n one\n") == "# Title\r\n\n one\n"
    assert one(tmp_path / "a.txt", "") == ""
    assert one(tmp_path / "a.txt", "é".encode("latin-1")) == "undecodable"
    assert one(tmp_path / "a.txt", "é".encode("latin-1"), "latin-1") == "é"
    assert one(tmp_path / "a.txt", "é", "rot13") == "bad_encoding"
    assert one(tmp_path / "a.txt", b"\x89PNG\r\n") == "wrong_format"


def test_undecodable_bytes_cost_one_part_of_a_long_text(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.txt", b"word \n\n" * 20_000 + b"\xff" + b"word \n\n" * 20_000)
    assert [row.reason for row in rows if isinstance(row, Bad)] == ["undecodable"]
    assert len(rows) > 10


# ---------------------------------------------------------------- HTML


def test_text_of_a_page(tmp_path: Path) -> None:
    page = """<!doctype html><html><head><title>A &amp; B</title><style>p {}</style><script>a < b</script></head>
    <body><nav>Home</nav><h1>One  <b>two</b></h1><p>First<br>line &lt;3 <i>in</i>side<p>Second<!-- no -->
    <table><tr><td>a<td>b</tr><tr><td>c<td>d</table><pre>  x\n   y</pre><ul><li>i<li>ii</ul>tail<footer>bye</footer>"""
    (row,) = read(tmp_path / "a.html", page)
    assert isinstance(row, Found)
    assert row.origin == {"title": "A & B"}
    assert row.cells == {
        "text": "One two\n\nFirst\nline <3 inside\n\nSecond\n\na\tb\nc\td\n\n  x\n   y\n\ni\nii\n\ntail",
    }


def test_main_text_wins_over_the_rest(tmp_path: Path) -> None:
    assert one(tmp_path / "a.html", "<div>Menu</div><main><p>Text</main><div>Ads</div>") == "Text"
    assert one(tmp_path / "a.html", "<div>Menu</div><article>Text</article>") == "Text"
    assert one(tmp_path / "a.html", "<p>Intro</p><article>A</article><article>B</article>") == "Intro\n\nA\n\nB"


@pytest.mark.parametrize("head", ["<meta charset=windows-1251>", '<?xml version="1.0" encoding="windows-1251"?>'])
def test_a_page_says_its_encoding(tmp_path: Path, head: str) -> None:
    assert one(tmp_path / "a.html", f"{head}<p>Привет".encode("cp1251")) == "Привет"
    assert one(tmp_path / "a.html", f"\ufeff{head}<p>Привет".encode("utf-16")) == "Привет"
    assert one(tmp_path / "a.html", "<p>Привет".encode("cp1251")) == "undecodable"


def test_hostile_pages_are_read_in_linear_time(tmp_path: Path) -> None:
    assert one(tmp_path / "a.html", "<div>" * 50_000 + "x") == "too_deep"
    assert one(tmp_path / "a.html", "<!--" * 3_000_000) == ""
    assert one(tmp_path / "a.html", "<a" + " b=1" * 200_000 + ">x") == "x"
    assert one(tmp_path / "a.html", "<b><p>" * 900 + "x") == "x"
    assert one(tmp_path / "a.html", "a\0b") == "a\ufffdb"


# ---------------------------------------------------------------- PDF


def pdf(*pages: bytes, extra: bytes = b"") -> bytes:
    """A PDF file with one content stream for each page."""
    kids = " ".join(f"{3 + 2 * n} 0 R" for n in range(len(pages))).encode()
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[%b]/Count %d>>" % (kids, len(pages))]
    font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
    for n, stream in enumerate(pages):
        place = 4 + 2 * n
        about = b"/Parent 2 0 R/MediaBox[0 0 99 99]/Resources<</Font<</F %b>>>>" % font
        objects.append(b"<</Type/Page%b/Contents %d 0 R>>" % (about, place))
        packed = zlib.compress(stream, 9)
        objects.append(b"<</Length %d/Filter/FlateDecode>>stream\n%b\nendstream" % (len(packed), packed))
    body, offsets = b"%PDF-1.4\n", []
    for n, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj%b endobj\n" % (n, content)
    table = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    table += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return (
        body
        + table
        + b"trailer<</Size %d/Root 1 0 R%b>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, extra, len(body))
    )


def said(text: str) -> bytes:
    return f"BT /F 12 Tf 1 1 Td ({text}) Tj ET".encode()


def locked(content: bytes, password: str) -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(content))
    writer.encrypt(password, "owner", algorithm="AES-256")
    target = io.BytesIO()
    writer.write(target)
    return target.getvalue()


def test_text_of_all_pages(tmp_path: Path) -> None:
    (row,) = read(tmp_path / "a.pdf", pdf(said("One"), said("Two"), extra=b"/Info<</Title(Two pages)>>"))
    assert isinstance(row, Found)
    assert row.cells == {"text": "One\n\nTwo"}
    assert row.origin == {"title": "Two pages", "pages": 2}


def test_pdf_files_without_text(tmp_path: Path) -> None:
    assert one(tmp_path / "a.pdf", pdf(b"1 1 m 2 2 l S")) == "no_text"
    assert one(tmp_path / "a.pdf", locked(pdf(said("One")), "secret")) == "encrypted"
    assert one(tmp_path / "a.pdf", locked(pdf(said("One")), "")) == "One"
    assert one(tmp_path / "a.pdf", b"%PDF-1.4\n") == "bad_pdf"
    assert one(tmp_path / "a.pdf", pdf(said("One"))[:200]) == "bad_pdf"


def test_a_broken_page_is_counted_and_the_others_are_read(tmp_path: Path) -> None:
    bomb = b" " * 90_000_000 + said("Boom")
    (row,) = read(tmp_path / "a.pdf", pdf(said("One"), bomb))
    assert isinstance(row, Found)
    assert row.cells == {"text": "One"}
    assert row.origin == {"pages": 2, "broken_pages": 1}


# ---------------------------------------------------------------- DOCX


def word(path: Path, body: str = "", **parts: str) -> Path:
    """A DOCX file; `body` replaces what its body holds."""
    docx.Document().save(str(path))
    with zipfile.ZipFile(path) as source:
        members = {name: source.read(name) for name in source.namelist()}
    space = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    members["word/document.xml"] = f'<w:document xmlns:w="{space}"><w:body>{body}</w:body></w:document>'.encode()
    members |= {name: text.encode() for name, text in parts.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in members.items():
            target.writestr(name, content)
    return path


def table(document: docx.document.Document, rows: Sequence[Sequence[str]]) -> None:
    made = document.add_table(len(rows), len(rows[0]))
    for row, texts in zip(made.rows, rows, strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text


def test_paragraphs_and_tables_in_order(tmp_path: Path) -> None:
    document = docx.Document()
    document.core_properties.title = "A letter"
    document.add_heading("Dear all", 1)
    document.add_paragraph("One").add_run("\ttwo\nthree").bold = True
    table(document, [["a", "b"], ["c\nc", ""]])
    document.add_paragraph("End")
    document.save(str(tmp_path / "a.docx"))
    (row,) = read(tmp_path / "a.docx")
    assert isinstance(row, Found)
    assert row.origin == {"title": "A letter"}
    assert row.cells == {"text": "Dear all\nOne\ttwo\nthree\na\tb\nc c\t\nEnd"}


def test_tracked_changes(tmp_path: Path) -> None:
    run = "<w:r><w:t>{}</w:t></w:r>"
    changes = f"<w:ins>{run.format('new')}</w:ins><w:del><w:r><w:delText>old</w:delText></w:r></w:del>"
    assert one(word(tmp_path / "a.docx", f"<w:p>{run.format('a ')}{changes}</w:p>")) == "a new"


def test_hostile_documents(tmp_path: Path) -> None:
    assert one(word(tmp_path / "a.docx", "<w:p>" * 50_000)) == "bad_docx"
    assert one(word(tmp_path / "a.docx", "<w:p/>", pad="x" * (70 << 20))) == "bomb"
    wide = '<w:tcPr><w:gridSpan w:val="999999999"/></w:tcPr><w:p><w:r><w:t>x</w:t></w:r></w:p>'
    assert one(word(tmp_path / "a.docx", f"<w:tbl><w:tr><w:tc>{wide}</w:tc></w:tr></w:tbl>")) == "x"
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    entity = f'<!DOCTYPE d [<!ENTITY e SYSTEM "{secret.as_uri()}"><!ENTITY l "lol">]>'
    space = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    body = f'{entity}<w:d xmlns:w="{space}"><w:p><w:r><w:t>a&e;b</w:t></w:r></w:p></w:d>'
    assert one(word(tmp_path / "a.docx", **{"word/document.xml": body})) in ("ab", "bad_docx")
    assert one(tmp_path / "a.docx", b"\xd0\xcf\x11\xe0" + bytes(99)) == "encrypted"
    whole = word(tmp_path / "a.docx", "<w:p/>").read_bytes()
    for damage in (b"", b"PK", whole[:200], whole[:-30]):
        assert one(tmp_path / "a.docx", damage) == "bad_docx"


# ---------------------------------------------------------------- any content


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([".txt", ".md", ".html", ".pdf", ".docx"]),
    st.one_of(
        st.binary(max_size=300),
        st.text("<>/!-pabr\"'= &;é\n", max_size=80).map(str.encode),
        st.tuples(st.integers(0, 700), st.binary(min_size=1, max_size=9)).map(
            lambda change: (whole := pdf(said("One")))[: change[0]] + change[1] + whole[change[0] + len(change[1]) :]
        ),
    ),
    st.sampled_from(["utf-8", "latin-1", "utf-16", "auto"]),
)
def test_arbitrary_bytes_are_found_or_bad(ending: str, content: bytes, encoding: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        rows = read(Path(directory, f"a{ending}"), content, encoding)
    assert len(rows) == 1
    if isinstance(rows[0], Found):
        rows[0].cells["text"].encode()
