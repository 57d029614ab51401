"""Hostile PDF and Parquet files."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

from tests.hostile.cases import MARK, Case, case, deflated, made

# ---------------------------------------------------------------- PDF


def pdf(objects: list[bytes], trailer: bytes = b"", root: int = 1) -> bytes:
    """A PDF file of these objects, numbered from 1, with a correct table of them."""
    out, places = io.BytesIO(), []
    out.write(b"%PDF-1.7\n")
    for number, body in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    table = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.write(b"".join(b"%010d 00000 n \n" % place for place in places))
    out.write(b"trailer\n<</Size %d/Root %d 0 R %s>>\n" % (len(objects) + 1, root, trailer))
    out.write(b"startxref\n%d\n%%%%EOF\n" % table)
    return out.getvalue()


def stream(data: bytes, about: bytes = b"") -> bytes:
    return b"<</Length %d %s>>stream\n%s\nendstream" % (len(data), about, data)


_FONT = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
_SHOWN = b"BT /F 12 Tf 72 700 Td (%s) Tj ET" % MARK.encode()


def page(content: bytes = stream(_SHOWN), resources: bytes = b"/Font<</F 5 0 R>>", *more: bytes) -> list[bytes]:
    return [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<<%s>>>>" % resources,
        content,
        _FONT,
        *more,
    ]


def _flate(raw: bytes, filters: bytes = b"/FlateDecode", about: bytes = b"") -> bytes:
    """A stream of raw deflate in zlib's frame, without its checksum."""
    return stream(b"\x78\xda" + raw, b"/Filter %s %s" % (filters, about))


def _deflated_again(size: int, times: int) -> bytes:
    data = b"\x78\xda" + deflated(size)
    for _ in range(times - 1):
        data = zlib.compress(data)
    return stream(data, b"/Filter[%s]" % (b"/FlateDecode" * times))


def _forms(levels: int, width: int) -> list[bytes]:
    """Forms that draw forms that draw forms: the billion laughs."""
    found = page(stream(b"/X Do " * width), b"/Font<</F 5 0 R>>/XObject<</X 6 0 R>>")
    for level in range(levels):
        deeper = b"/XObject<</X %d 0 R>>" % (7 + level) if level + 1 < levels else b""
        body = b"/X Do " * width if deeper else _SHOWN
        found.append(
            stream(body, b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</Font<</F 5 0 R>>%s>>" % deeper)
        )
    return found


def _deep_tree(depth: int) -> list[bytes]:
    kids = [b"<</Type/Pages/Kids[%d 0 R]/Count 1/Parent %d 0 R>>" % (n + 3, n + 1) for n in range(depth)]
    last = b"<</Type/Page/Parent %d 0 R/MediaBox[0 0 9 9]>>" % (depth + 1)
    return [b"<</Type/Catalog/Pages 2 0 R>>", *kids, last]


def _mapped(lines: bytes) -> list[bytes]:
    """A page whose font has this table of characters."""
    table = b"/CIDInit /ProcSet findresource begin begincmap\n%s\nendcmap end" % lines
    found = page(stream(_SHOWN), b"/Font<</F 6 0 R>>")
    font = b"<</Type/Font/Subtype/Type0/BaseFont/A/Encoding/Identity-H/DescendantFonts[5 0 R]/ToUnicode 7 0 R>>"
    return [*found, font, stream(table)]


def _encrypted() -> bytes:
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf(page()))))
    writer.encrypt("secret", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def _previous_loop() -> bytes:
    made = pdf(page(), b"/Prev 999999")
    return made.replace(b"/Prev 999999", b"/Prev %6d" % made.index(b"xref\n"))


_FORM = b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X 6 0 R>>>>"
_ACTIONS = b"""/OpenAction<</S/URI/URI(@URL@/a)>>/AA<</O<</S/Launch/F(/bin/sh)>>>>/Names<</JavaScript<</Names[(a)
<</S/JavaScript/JS(app.launchURL('@URL@/j'))>>]>>/EmbeddedFiles<</Names[(f)<</F(../../x)/EF<</F 4 0 R>>>>]>>>>>>"""

PDF: dict[str, Case] = {
    "pdf_bomb": case("a.pdf", made(lambda: pdf(page(_flate(deflated(1 << 30, b" "))))), "bad_pdf", "no_text",
        "too_long",
                     "bomb"),
    "pdf_bomb_text": case("a.pdf", made(lambda: pdf(page(_flate(deflated(70 << 20, b"(aaaaaaaa) Tj ",
        b"BT /F 1 Tf "))))),
                          "bad_pdf", "no_text", "too_long", "kept", large=True),
    "pdf_bomb_filters": case("a.pdf", made(lambda: pdf(page(_deflated_again(1 << 30, 5)))), "bad_pdf", "no_text"),
    "pdf_filters": case("a.pdf", made(lambda: pdf(page(stream(b"00>", b"/Filter[%s]" % (b"/AHx" * 50_000))))),
        "bad_pdf",
                        "no_text"),
    "pdf_predictor": case("a.pdf", made(lambda: pdf(page(_flate(deflated(
        1 << 20), about=b"/DecodeParms<</Predictor 12/Columns 999999999/Colors 99/BitsPerComponent 16>>")))), "bad_pdf",
        "no_text"),
    "pdf_run_length": case("a.pdf", made(lambda: pdf(page(stream(b"\x81 " * 4_000_000, b"/Filter/RunLengthDecode")))),
                           "bad_pdf", "no_text", "too_long"),
    "pdf_lzw": case("a.pdf", made(lambda: pdf(page(stream(b"\x80\x0b\x60\x50\x22\x0c\x0c\x85\x01" * 99_999,
                    b"/Filter/LZWDecode")))), "bad_pdf", "no_text", "kept"),
    "pdf_jbig2": case("a.pdf", made(lambda: pdf(page(stream(b"\0" * 99, b"/Filter/JBIG2Decode")))), "bad_pdf",
        "no_text"),
    "pdf_page_loop": case("a.pdf", made(lambda: pdf([b"<</Type/Catalog/Pages 2 0 R>>",
                          b"<</Type/Pages/Kids[2 0 R 2 0 R]/Count 2/Parent 2 0 R>>"])), "bad_pdf", "too_deep"),
    "pdf_page_tree": case("a.pdf", made(lambda: pdf(_deep_tree(5_000))), "bad_pdf", "no_text", "too_deep"),
    "pdf_page_doubling": case("a.pdf", made(lambda: pdf([b"<</Type/Catalog/Pages 2 0 R>>", *(
        b"<</Type/Pages/Kids[%d 0 R %d 0 R]/Count 2>>" % (n, n) for n in range(3, 33)),
        b"<</Type/Page/MediaBox[0 0 9 9]>>"])), "bad_pdf", "no_text", "too_long", "parser_timeout", "too_deep",
        large=True),
    "pdf_count_lies": case("a.pdf", made(lambda: pdf(page()).replace(b"/Count 1", b"/Count 9")), "kept", "bad_pdf"),
    "pdf_pages": case("a.pdf", made(lambda: pdf([b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[%s]/Count 11000>>"
                      % (b"3 0 R " * 11_000), b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>"])), "too_long"),
    "pdf_form_loop": case("a.pdf", made(lambda: pdf(page(stream(b"/X Do " + _SHOWN),
                          b"/Font<</F 5 0 R>>/XObject<</X 6 0 R>>", stream(b"/X Do", _FORM)))), "kept", "bad_pdf"),
    "pdf_form_laughs": case("a.pdf", made(lambda: pdf(_forms(12, 10))), "kept", "bad_pdf", "too_long", "no_text",
                            "parser_timeout", large=True),
    "pdf_length_loop": case("a.pdf", made(lambda: pdf(page(b"<</Length 4 0 R>>stream\nx\nendstream"))), "bad_pdf",
                            "no_text", "too_deep"),
    "pdf_reference_loop": case("a.pdf", made(lambda: pdf([b"1 0 R", b"3 0 R", b"2 0 R"])), "bad_pdf", "too_deep"),
    "pdf_previous_loop": case("a.pdf", made(_previous_loop), "kept", "bad_pdf"),
    "pdf_object_stream_loop": case("a.pdf", made(lambda: pdf(page()) + b"9 0 obj<</Type/XRef/Size 9/W[1 2 2]/Index[0 9]"
        b"/Root 1 0 R/Length 45>>stream\n" + b"\2\0\x09\0\0" * 9 + b"\nendstream endobj\nstartxref\n%d\n%%%%EOF" % len(
        pdf(page()))), "bad_pdf", "kept", "too_deep"),
    "pdf_xref_size": case("a.pdf", made(lambda: pdf(page()).replace(b"0 6\n", b"0 999999999999\n")), "kept", "bad_pdf"),
    "pdf_xref_index": case("a.pdf", made(lambda: b"%PDF-1.5\n1 0 obj<</Type/XRef/Size 9/W[0 0 0]/Index[0 99999999999]"
        b"/Root 1 0 R/Length 0>>stream\n\nendstream endobj\nstartxref\n9\n%%EOF"), "bad_pdf", "parser_timeout",
        "too_long", large=True),
    "pdf_length_lies": case("a.pdf", made(lambda: pdf(page()).replace(b"/Length ", b"/Length 99999999999")), "kept",
                            "bad_pdf", "no_text"),
    "pdf_deep_array": case("a.pdf", made(lambda: pdf([b"<</Type/Catalog/Pages 2 0 R/X %s>>" % (b"[" * 50_000)])),
        "bad_pdf",
                           "too_deep"),
    "pdf_deep_dictionary": case("a.pdf", made(lambda: pdf([b"<</X " * 50_000])), "bad_pdf", "too_deep"),
    "pdf_deep_content": case("a.pdf", made(lambda: pdf(page(stream(b"[" * 50_000 + _SHOWN)))), "bad_pdf", "no_text",
                             "too_deep"),
    "pdf_saved_states": case("a.pdf", made(lambda: pdf(page(stream(b"q " * 500_000 + _SHOWN)))), "kept"),
    "pdf_inline_image": case("a.pdf", made(lambda: pdf(page(stream(b"BI /W 9 /H 9 ID " + b"x" * 999_999)))), "bad_pdf",
                             "no_text"),
    "pdf_comment": case("a.pdf", b"%PDF-1.7\n" + b"%" * (4 << 20), "bad_pdf"),
    "pdf_spaces": case("a.pdf", b"%PDF-1.7\n" + b" " * (4 << 20) + b"\nstartxref\n0\n%%EOF", "bad_pdf"),
    "pdf_objects": case("a.pdf", b"%PDF-1.7\n" + b"1 0 obj\n" * 200_000, "bad_pdf", "too_deep"),
    "pdf_names": case("a.pdf", made(lambda: pdf([b"<</Type/Catalog/Pages 2 0 R%s>>" % b"".join(
        b"/N%d 1" % n for n in range(100_000)), *page()[1:]])), "bad_pdf"),
    "pdf_string": case("a.pdf", made(lambda: pdf(page(stream(b"BT /F 1 Tf (" + b"(" * 100_000 + b"a" + b")" * 100_000
                       + b") Tj ET")))), "kept", "bad_pdf", "no_text"),
    "pdf_map": case("a.pdf", made(lambda: pdf(_mapped(b"1 beginbfrange\n<0000> <FFFFFFFF> <0041>\nendbfrange"))),
        "kept",
                    "bad_pdf", "no_text", "parser_memory", "too_long", "parser_timeout", large=True),
    "pdf_map_wide": case("a.pdf", made(lambda: pdf(_mapped(b"1 beginbfrange\n<%s> <%s> <0041>\nendbfrange" % (
        b"0" * 9_999, b"F" * 9_999)))), "kept", "bad_pdf", "no_text", "parser_memory", "too_long", "parser_timeout",
        large=True),
    "pdf_half_pairs": case("a.pdf", made(lambda: pdf(_mapped(b"1 beginbfrange\n<0000> <FFFF> <D800>\nendbfrange"))),
        "kept",
                           "bad_pdf", "no_text"),
    "pdf_actions": case("a.pdf", made(lambda: pdf([b"<</Type/Catalog/Pages 2 0 R" + _ACTIONS, *page()[1:]])), "kept"),
    "pdf_file_stream": case("a.pdf", made(lambda: pdf(page(stream(b"", b"/F(/etc/passwd)")))), "no_text", "bad_pdf"),
    "pdf_remote_stream": case("a.pdf", made(lambda: pdf(page(stream(b"", b"/F<</FS/URL/F(@URL@/s)>>")))), "no_text",
                              "bad_pdf"),
    "pdf_title": case("a.pdf", made(lambda: pdf([*page(), b"<</Title(%s)>>" % (b"t\x1b" * 500_000)], b"/Info 6 0 R")),
                      "kept"),
    "pdf_title_loop": case("a.pdf", made(lambda: pdf([*page(), b"<</Title 6 0 R>>"], b"/Info 6 0 R")), "kept",
        "bad_pdf"),
    "pdf_encrypted": case("a.pdf", made(_encrypted), "encrypted"),
    "pdf_encrypt_lies": case("a.pdf", made(lambda: pdf(page(), b"/Encrypt<</Filter/Standard/V 99/R 99/O()/U()/P 1>>")),
                             "encrypted", "bad_pdf"),
    "pdf_encrypt_loop": case("a.pdf", made(lambda: pdf([*page(), b"6 0 R"], b"/Encrypt 6 0 R")), "encrypted", "bad_pdf",
                             "too_deep", "kept"),
    "pdf_header_alone": case("a.pdf", b"%PDF-1.7", "bad_pdf"),
}  # fmt: skip

# ---------------------------------------------------------------- Parquet


def parquet(columns: dict[str, Any], **more: Any) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, **more)
    return out.getvalue()


def _repeated(size: int, rows: int) -> bytes:
    """A long text many times, which takes no room in the file: it is a dictionary of one."""
    import pyarrow as pa

    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * size]))
    return parquet({"text": column})


def _nulls(rows: int) -> bytes:
    import pyarrow as pa

    return parquet({"text": pa.nulls(rows, pa.string())})


def _nested(depth: int) -> bytes:
    import pyarrow as pa

    value: Any = pa.array([1])
    for _ in range(depth):
        value = pa.StructArray.from_arrays([value], ["a"])
    return parquet({"text": value})


def _length_of_footer(length: int) -> Callable[[], bytes]:
    return lambda: parquet({"text": ["a"]})[:-8] + struct.pack("<I", length) + b"PAR1"


def _in_footer(old: bytes, new: bytes) -> Callable[[], bytes]:
    def make() -> bytes:
        data = parquet({"text": [f"{MARK} {n}" for n in range(100)]}, compression="none", use_dictionary=False)
        length = struct.unpack("<I", data[-8:-4])[0]
        footer = data[-8 - length :]
        return data[: -8 - length] + footer.replace(old, new)

    return make


PARQUET: dict[str, Case] = {
    "parquet_repeated": case("a.parquet", made(lambda: _repeated(1 << 20, 100_000)), "parser_memory", "too_long",
        "kept"),
    "parquet_repeated_long": case("a.parquet", made(lambda: _repeated(31 << 20, 1_000)), "parser_memory", "too_long",
                                  "kept", "bad_parquet"),
    "parquet_too_long": case("a.parquet", made(lambda: _repeated(40 << 20, 2)), "too_long", "bad_parquet"),
    "parquet_nulls": case("a.parquet", made(lambda: _nulls(100_000)), "empty"),
    "parquet_columns": case("a.parquet", made(lambda: parquet({f"c{n}": [1] for n in range(5_000)})), "missing_column"),
    "parquet_column_names": case("a.parquet", made(lambda: parquet({"text": ["a"], "te\0xt": ["b"],
        "../\u202e": ["c"]})),
                                 "kept"),
    "parquet_nested": case("a.parquet", made(lambda: _nested(90)), "not_text", "bad_parquet"),
    "parquet_invalid_utf8": case("a.parquet", made(lambda: parquet({"text": [MARK]}, compression="none").replace(
        MARK.encode(), b"\xff" * len(MARK))), "bad_parquet", "undecodable", "kept"),
    "parquet_rows_lie": case("a.parquet", made(_in_footer(b"\x16\xc8\x01", b"\x16\xfe\x7f")), "bad_parquet", "kept"),
    "parquet_rows_negative": case("a.parquet", made(_in_footer(b"\x16\xc8\x01", b"\x16\xc7\x01")), "bad_parquet",
        "kept",
                                  "empty"),
    "parquet_footer_huge": case("a.parquet", made(_length_of_footer(0x7FFFFFFF)), "bad_parquet"),
    "parquet_footer_empty": case("a.parquet", made(_length_of_footer(0)), "bad_parquet"),
    "parquet_footer_whole": case("a.parquet", b"PAR1" + b"\xff" * 9_999 + struct.pack("<I", 9_999) + b"PAR1",
                                 "bad_parquet"),
    "parquet_encrypted": case("a.parquet", made(lambda: parquet({"text": ["a"]})[:-4] + b"PARE"), "bad_parquet"),
    "parquet_not": case("a.parquet", b"PAR1PAR1", "bad_parquet"),
    "parquet_empty": case("a.parquet", made(lambda: parquet({"text": []})), "empty", "bad_parquet"),
    "parquet_extremes": case("a.parquet", made(lambda: parquet({"text": ["a"], "when": _extreme()})), "kept",
                             "bad_parquet"),
}  # fmt: skip


def _extreme() -> Any:
    import pyarrow as pa

    return pa.array([2**63 - 1], pa.timestamp("ms"))


DOCUMENTS = {**PDF, **PARQUET}
