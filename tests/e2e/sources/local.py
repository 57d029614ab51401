"""Files and a SQLite database with good rows and with known defects."""

from __future__ import annotations

import csv
import io
import sqlite3
from pathlib import Path

import docx
import openpyxl
from pypdf import PdfReader, PdfWriter

from tests.e2e.sources.prose import GERMAN, english

PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
PRIVATE = (
    "Please write to maria.gonzalez@example.org on a weekday before noon, so that we can arrange all of it in time.",
    "The bakery asks its guests to call +49 30 901820 whenever a cake for more than twenty people is wanted.",
)


def reviews(path: Path) -> None:
    """CSV whose column `review` is the text."""
    good = english("csv", 12)
    rows = [*good, "", "   ", good[0], good[5], f"{good[1]} Indeed.", GERMAN[0], "Nice.", *PRIVATE]
    lines = [_csv_line(number, text, number % 5) for number, text in enumerate(rows)]
    lines.insert(3, b"90,a review with one byte of another encoding: caf\xe9,2\n")
    lines.insert(6, b"91,one, two and three cells too many,4,5,6\n")
    lines.insert(9, b'92,"a quote that nobody closes,1\n')
    path.write_bytes(b"id,review,stars\n" + b"".join(lines))


def _csv_line(*cells: object) -> bytes:
    line = io.StringIO()
    csv.writer(line, quoting=csv.QUOTE_MINIMAL, lineterminator="\n").writerow(cells)
    return line.getvalue().encode()


def ledger(path: Path) -> None:
    """A workbook of two sheets whose column `note` is the text."""
    good, book = english("excel", 11), openpyxl.Workbook()
    north = book.active
    assert north is not None
    north.title = "north"
    for row in [["note", "amount"], *([text, 10] for text in good[:6]), [], [None, 11], [12.5, 12]]:
        north.append(row)
    south = book.create_sheet("south")
    again = english("csv", 1)[0]
    for row in [[], [], ["note", "amount"], *([text, 20] for text in good[6:]), [again, 21], ['=A4&" no value"', 22]]:
        south.append(row)
    book.save(path)


def papers(root: Path) -> None:
    """PDF files: three that can be read."""
    root.mkdir()
    for number, text in enumerate(english("pdf", 3, sentences=6)):
        (root / f"paper{number}.pdf").write_bytes(pdf([text[: len(text) // 2], text[len(text) // 2 :]]))
    (root / "broken.pdf").write_bytes(b"%PDF-1.4\n" + bytes(range(256)) * 8)
    (root / "scan.pdf").write_bytes(pdf(["", ""]))
    locked = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf(["a secret"]))))
    locked.encrypt("sesame", algorithm="RC4-128")
    locked.write(root / "locked.pdf")


def pdf(pages: list[str]) -> bytes:
    """A PDF file of lines of text in Helvetica (ISO 32000-1, 7.5): header, objects, cross-reference table, trailer."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} /MediaBox [0 0 595 842] >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        shown = " ".join(f"({line}) Tj T*" for line in _lines(text))
        content = f"BT /F1 11 Tf 14 TL 56 780 Td {shown} ET".encode() if text else b"0 0 100 100 re f"
        page = f"<< /Type /Page /Parent 2 0 R /Resources << /Font << /F1 3 0 R >> >> /Contents {5 + 2 * number} 0 R >>"
        objects += [page.encode(), b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content)]
    out, places = bytearray(b"%PDF-1.4\n"), []
    for number, item in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, item)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
    return bytes(out) + end % (len(objects) + 1, table, len(objects) + 1, len(out))


def _lines(text: str) -> list[str]:
    """Lines of about 80 characters, each ended by the space that a reader needs between two words."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) > 80:
            lines.append("")
        lines[-1] += word + " "
    return lines


def letters(root: Path) -> None:
    """DOCX files: three that can be read; in one of them the text stands in a table."""
    root.mkdir()
    for number, text in enumerate(english("docx", 3, sentences=5)):
        letter = docx.Document()
        if number == 2:
            letter.add_table(1, 2).cell(0, 1).text = text
        else:
            letter.add_paragraph(text)
        letter.save(str(root / f"letter{number}.docx"))
    docx.Document().save(str(root / "blank.docx"))
    whole = (root / "letter0.docx").read_bytes()
    (root / "torn.docx").write_bytes(whole[: len(whole) // 2])
    (root / "locked.docx").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512))


def pages(root: Path) -> None:
    """HTML files: four that can be read, two of them in an encoding that they declare; two drafts to leave out."""
    (root / "drafts").mkdir(parents=True)
    for number, text in enumerate(english("html", 4)):
        charset = "windows-1252" if number % 2 else "utf-8"
        page = f'<html><head><meta charset="{charset}"><title>Page {number}</title></head><body><p>{text} Café.</p>'
        (root / f"page{number}.html").write_bytes(page.encode(charset))
    (root / "picture.html").write_bytes(PNG_START)
    (root / "deep.html").write_text("<div>" * 3_000 + "too deep")
    (root / "bytes.html").write_bytes(b"<p>not \xff\xfe UTF-8, as nothing says what it is</p>")
    (root / "blank.html").write_text("<html><body><script>let text = 1</script></body></html>")
    for number in range(2):
        (root / "drafts" / f"draft{number}.html").write_text("<p>not ready</p>")


def notes(path: Path) -> None:
    """A SQLite database with the table `notes`."""
    good = english("sqlite", 8)
    with sqlite3.connect(path) as database:
        database.execute("create table notes (id integer primary key, body text, shelf text)")
        rows = [*good, None, "", good[3], *GERMAN[1:3]]
        database.executemany("insert into notes (body, shelf) values (?, 'open')", [(row,) for row in rows])
        database.execute("insert into notes (body, shelf) values (cast(x'6361fe' as text), 'open')")
        database.execute("insert into notes (body, shelf) values ('on another shelf', 'closed')")
    database.close()
