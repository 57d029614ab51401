"""Hostile text: plain, CSV, JSON, HTML, source code."""

from __future__ import annotations

import random

from tests.hostile.cases import MARK, Case, case, line, made

GB = 1 << 30
_LATIN = "Grüße aus Köln, für 5 €\n"
_MARKS = "\u200f\u200e\u061c\u2067\u2068\u202a\u202b\u202d\u202c"
_BIDI = f"if role != '\u202e \u2066// {MARK}\u2069 \u2066': pass  # {_MARKS}\n"
_ZERO = "p\u200ba\u200cy\u200dp\u2060a\ufeffl \u00ad\u180e\U000e0041\U000e0020 \u3164\u115f ok\n"


def _mixed() -> bytes:
    return b"".join(_LATIN.encode(name) for name in ("utf-8", "cp1252", "utf-16-le", "iso8859-15", "utf-8"))


def _noise() -> bytes:
    return random.Random(0).randbytes(1 << 20)


TEXT: dict[str, Case] = {
    "txt_nul": case("a.txt", f"{MARK}\0\0 and more\n\0", "kept"),
    "txt_only_nul": case("a.txt", b"\0" * 100_000, "kept", "empty"),
    "txt_mixed_encodings": case("a.txt", made(_mixed), "undecodable"),
    "txt_latin": case("a.txt", _LATIN.encode("cp1252"), "undecodable"),
    "txt_bom_8": case("a.txt", "\ufeffhello".encode(), "kept"),
    "txt_two_boms": case("a.txt", "\ufeff\ufeffhello\ufeff".encode(), "kept"),
    "txt_bom_16_le": case("a.txt", "\ufeffhello".encode("utf-16-le"), "kept"),
    "txt_bom_16_be": case("a.txt", "\ufeffhello".encode("utf-16-be"), "kept"),
    "txt_bom_32": case("a.txt", "\ufeffhello".encode("utf-32-le"), "kept"),
    "txt_bom_32_beyond_unicode": case("a.txt", b"\xff\xfe\0\0\xff\xff\xff\x7f", "undecodable"),
    "txt_bom_16_odd": case("a.txt", "\ufeffhello".encode("utf-16-le")[:-1], "undecodable"),
    "txt_bom_alone": case("a.txt", "\ufeff".encode(), "empty"),
    "txt_half_pairs": case("a.txt", "a\ud800b", "undecodable"),
    "txt_overlong": case("a.txt", b"\xc0\xaf\xe0\x80\xaf\xf8\x88\x80\x80\x80", "undecodable"),
    "txt_bidi": case("a.txt", _BIDI, "kept"),
    "txt_zero_width": case("a.txt", _ZERO, "kept"),
    "txt_terminal": case("a.txt", "\x1b]0;title\x07\x1b[2J\x1b[31mred\x9b31m\r\b", "kept"),
    "txt_marks": case("a.txt", "e" + "\u0301" * 100_000, "kept"),
    "txt_newlines": case("a.txt", "\r\n" * 500_000, "empty"),
    "txt_noise": case("a.txt", made(_noise), "undecodable", "kept"),
    "txt_pdf_inside": case("a.txt", b"%PDF-1.7\n" + b"\xff" * 99, "wrong_format"),
    "txt_empty": case("a.txt", b"", "empty"),
    "txt_line_8_mb": case("a.txt", line(b"", 8 << 20), "kept"),
    "txt_line_1_gb": case("a.txt", line(b"", GB), "kept", large=True),
    "txt_line_1_gb_nul": case("a.txt", line(b"", GB, filler=b"\0"), "kept", "empty", large=True),
    # tables
    "csv_open_quote": case("a.csv", f'text,b\n"{MARK} never closed,1\nnext,2\n', "kept", "bad_csv"),
    "csv_open_quotes": case("a.csv", 'text,b\n"' + 'x,1\n"y' * 20_000, "kept", "bad_csv", "undecodable"),
    "csv_open_quote_25_mb": case("a.csv", line(b'text\n"', 25 << 20, filler=b"x" * 63 + b"\n"), "too_long", "kept",
                                 "bad_csv", large=True),
    "csv_line_40_mb": case("a.csv", line(b"text\n", 40 << 20, b"\nlast\n"), "too_long", "kept"),
    "csv_line_1_gb": case("a.csv", line(b"text\n", GB), "too_long", large=True),
    "csv_line_1_gb_nul": case("a.csv", line(b"text\n", GB, filler=b"\0"), "too_long", large=True),
    "csv_header_1_gb": case("a.csv", line(b"", GB, b"\nx\n"), "too_long", "kept", "ambiguous", "missing_column",
                            large=True),
    "csv_formulas": case("a.csv", "text\n\"=cmd|'/C calc'!A0\"\n@SUM(1+1)\n+1+1\n-2+3\n\"=HYPERLINK(\"\"@URL@\"\")\"\n"
                         "\"=IMPORTXML(\"\"@URL@\"\",\"\"//a\"\")\"\n\"\t=1\"\n", "kept"),
    "csv_nul": case("a.csv", "text\na\0b\n", "kept", "bad_csv"),
    "csv_columns": case("a.csv", ",".join(f"c{n}" for n in range(100_000)) + "\n" + "," * 99_999 + "\n", "ambiguous",
        "missing_column"),
    "csv_same_columns": case("a.csv", "text" + ",text" * 3_000 + "\na" + ",b" * 3_000 + "\n", "kept"),
    "csv_ragged": case("a.csv", "text,b\n1\n1,2,3,4\n\n,,,,\n", "kept", "bad_csv", "empty"),
    "csv_carriage_returns": case("a.csv", "text\ra\rb\r", "kept"),
    "csv_bidi_header": case("a.csv", "te\u202ext\nb\n", "ambiguous", "missing_column"),
    "csv_utf16": case("a.csv", "\ufefftext\ngrün\n".encode("utf-16-be"), "kept"),
    "tsv_quotes": case("a.tsv", 'text\tb\n"""""""\t"\n' * 9, "kept", "bad_csv"),
    # JSON
    "json_deep_lists": case("a.json", "[" * 50_000 + "]" * 50_000, "bad_json"),
    "json_deep_objects": case("a.json", '{"a":' * 50_000 + "1" + "}" * 50_000, "bad_json"),
    "json_deep_in_row": case("a.json", '[{"text":' + "[" * 50_000 + "]" * 50_000 + "}]", "bad_json"),
    "json_deep_open": case("a.json", '[{"a":' * 50_000, "bad_json"),
    "json_deep_text": case("a.json", '[{"messages": "' + "[" * 50_000 + '"}]', "bad_messages"),
    "json_long_number": case("a.json", '[{"text": ' + "9" * 1_000_000 + "}]", "bad_json"),
    "json_numbers": case("a.json", '[{"text": 1e999}, {"text": NaN}, {"text": -Infinity}, {"text": "a"}]', "kept",
                         "not_text", "empty"),
    "json_half_pair": case("a.json", '[{"text": "\\ud800"}]', "undecodable"),
    "json_half_pair_key": case("a.json", '[{"\\ud800": "a", "text": "a"}]', "undecodable"),
    "json_same_keys": case("a.json", '[{"text": "a", "text": "b"}]', "kept"),
    "json_many_keys": case("a.json", '[{"text": "a"' + "".join(f',"{n}":1' for n in range(200_000)) + "}]", "kept"),
    "json_many_lists": case("a.json", "[" + "[]," * 50_000 + "[]]", "bad_json"),
    "json_types": case("a.json", '[{"text": {"a": 1}}, {"messages": [[]]}, {"image": "x"}, {"text": true}]', "not_text",
                       "bad_messages", "not_bytes"),
    "json_paths": case("a.json", '[{"image": "/etc/passwd"}, {"image": {"path": "/etc/passwd"}}]', "not_bytes"),
    "json_rest": case("a.json", '[{"text": "a"}] x', "kept", "bad_json"),
    "json_string_1_gb": case("a.json", line(b'[{"text":"', GB, b'"}]'), "too_long", "bad_json", large=True),
    "json_line_1_gb_nul": case("a.json", line(b"[", GB, filler=b"\0"), "too_long", "bad_json", large=True),
    "json_spaces_1_gb": case("a.json", line(b"[", GB, b"]", filler=b" "), "bad_json", "empty", "too_long", large=True),
    "jsonl_deep": case("a.jsonl", '{"text":' * 50_000 + "\n" + '{"text": "a"}\n', "bad_json", "kept"),
    "jsonl_deep_closed": case("a.jsonl", '{"a":' * 50_000 + "1" + "}" * 50_000, "bad_json"),
    "jsonl_mixed": case("a.jsonl", b'{"text": "a"}\n\xff\n[]\nnull\n{"text": "\0"}\n{"text": "\\u0000"}\n', "kept",
                        "undecodable", "bad_json"),
    "jsonl_line_40_mb": case("a.jsonl", line(b'{"text": "', 40 << 20, b'"}\n{"text": "b"}\n'), "too_long", "kept"),
    "jsonl_line_1_gb": case("a.jsonl", line(b'{"text": "', GB, b'"}\n'), "too_long", large=True),
    "jsonl_line_1_gb_nul": case("a.jsonl", line(b"", GB, filler=b"\0"), "too_long", large=True),
    "jsonl_numbers_30_mb": case("a.jsonl", line(b'{"text": [1', 30 << 20, b"1]}\n", filler=b",1" * 8), "not_text",
                                "bad_json", "too_long", large=True),
    # HTML
    "html_deep": case("a.html", "<div>" * 50_000 + MARK + "</div>" * 50_000, "too_deep", "kept"),
    "html_deep_inline": case("a.html", "<b><i>" * 25_000 + MARK, "too_deep", "kept"),
    "html_deep_tables": case("a.html", "<table><tr><td>" * 20_000 + MARK, "too_deep", "kept"),
    "html_deep_svg": case("a.html", "<svg><g>" * 25_000 + MARK, "too_deep", "kept", "empty"),
    "html_attributes": case("a.html", "<p " + " ".join(f"a{n}=1" for n in range(200_000)) + f">{MARK}</p>", "kept",
                            "empty"),
    "html_attribute": case("a.html", f"<p title='{'x' * (12 << 20)}'>{MARK}</p>", "kept", "empty"),
    "html_open_comment": case("a.html", f"<p>{MARK}</p><!--" + "-" * (12 << 20), "kept"),
    "html_open_tag": case("a.html", f"<p>{MARK}</p>" + "<a " * 1_000_000, "kept"),
    "html_entities": case("a.html", f"<p>{MARK}" + "&amp;&#x110000;&#0;&notin;&x" * 100_000, "kept", "undecodable"),
    "html_charset_lies": case("a.html", f"<meta charset=utf-16><p>{MARK}\xe9".encode("cp1252"), "undecodable", "kept"),
    "html_charset_unknown": case("a.html", "<meta charset=x-user-defined><p>\xff".encode("cp1252"), "undecodable"),
    "html_nul": case("a.html", f"<\0p>{MARK}\0</\0p><scr\0ipt>x</script>", "kept"),
    "html_bidi": case("a.html", f"<p>&#x202e;{MARK}&#8203;</p>", "kept"),
    "html_remote": case("a.html", f"""<!DOCTYPE html SYSTEM "@URL@/x.dtd"><html><head><base href="@URL@/">
        <link rel=stylesheet href="@URL@/a.css"><meta http-equiv=refresh content="0;url=@URL@/r">
        <style>@import "@URL@/b.css"</style><script src="@URL@/a.js"></script></head><body>
        <img src="@URL@/i.png"><iframe src="@URL@/f"></iframe><object data="file:///etc/passwd"></object>
        <embed src="@URL@/e"><svg><image href="@URL@/s.svg"/><use href="@URL@/u.svg#a"/></svg><p>{MARK}</body>""",
        "kept"),
    "html_external_entity": case("a.xhtml",
        '<?xml version="1.0"?><!DOCTYPE html [<!ENTITY f SYSTEM "file:///etc/passwd">'
        f'<!ENTITY u SYSTEM "@URL@/e">]><html><body><p>{MARK} &f; &u;</p></body></html>', "kept"),
    "html_laughs": case("a.xhtml", '<?xml version="1.0"?><!DOCTYPE html [<!ENTITY a0 "ha">' + "".join(
        f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(12)) + f"]><html><p>{MARK} &a12;</p></html>", "kept"),
    "html_line_1_gb": case("a.html", line(b"<p>", GB), "too_long", large=True),
    "html_open_tags_30_mb": case("a.html", line(b"", 30 << 20, filler=b"<p><i"), "too_deep", "kept", "empty",
        large=True),
    "html_cells_25_mb": case("a.html", line(b"<table>", 25 << 20, filler=b"<tr><td>a"), "too_deep", "kept",
                             "parser_timeout", large=True),
    # source code
    "code_nul": case("a.py", f"print('{MARK}')\0\n", "kept", "undecodable", source="code"),
    "code_bidi": case("a.py", _BIDI, "kept", source="code"),
    "code_cookie_lies": case("a.py", b"# coding: utf-16\nprint()\n", "undecodable", source="code"),
    "code_cookie_utf_7": case("a.py", b"# coding: utf-7\n+AGEAYgBj-\n", "kept", "undecodable", source="code"),
    "code_cookie_no_text": case("a.py", b"# coding: zlib_codec\nprint()\n", "undecodable", source="code"),
    "code_cookie_unknown": case("a.py", b"# coding: ../../etc/passwd\nprint()\n", "undecodable", source="code"),
    "code_cookie_path": case("a.py", b"# coding: os.system\nprint()\n", "undecodable", source="code"),
    "code_line": case("a.py", "x = [" + "1, " * 150_000, "kept", "generated_table", "too_large", source="code"),
    "code_quotes": case("a.py", "\n".join(["'" * 5_000 + "\\" * 5_000] * 10), "kept", "generated_table",
                        source="code"),
    "code_strings": case("a.py", "\n".join(['"a" b"' * 8_000] * 5), "kept", "generated_table", source="code"),
    # pages of a crawl
    "page_deep": case("a.html", "<div>" * 50_000 + MARK, "too_deep", source="web"),
    "page_deep_hidden": case("a.html", "<!--" + "<div>" * 9 + "-->" + "<p><span>" * 400 + MARK, "too_deep", "kept",
                             "empty", source="web"),
    "page_nul": case("a.html", f"<p>{MARK}\0", "wrong_format", source="web"),
    "page_remote": case("a.html", f"""<html><head><base href="@URL@/"><link rel=canonical href="@URL@/c">
        <meta http-equiv=refresh content="0;url=@URL@/r"></head><body><article><p>{f'{MARK} some words here. ' * 30}
        <img src="@URL@/i.png"></article><iframe src="@URL@/f"></iframe></body></html>""", "kept", source="web"),
    "page_paragraphs": case("a.html", "<html><body>" + "<p>Some words of this page, no two alike.</p>" * 20_000, "kept",
                            source="web", large=True),
    "page_words": case("a.html", "<html><body><p>" + "a <b>b</b> " * 100_000, "kept", "empty", source="web",
        large=True),
    "page_attributes": case("a.html", "<p " + " ".join(f"a{n}=1" for n in range(50_000)) + f">{MARK}",
        "too_many_attributes",
                            source="web"),
    "page_open_tags": case("a.html", "<p>" + "<a href=" * 100_000, "too_many_attributes", source="web"),
}  # fmt: skip
