"""Hostile names of files, links, and what is no file at all."""

from __future__ import annotations

import csv
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from flywheel import labelling
from flywheel.record import read_rows
from tests.hostile.corpus import CASES
from tests.hostile.running import Runner, runner

NAMES = [
    b"line\nbreak.txt", b"return\r.txt", b"escape\x1b[2J\x1b]0;x\x07.txt", b"bell\x07.txt", b"-rf.txt", b"--help.txt",
    b"\xff\xfe.txt", b"\\xff.txt", b"caf\xe9.txt", "bidi\u202etxt.exe.txt".encode(), "zero\u200bwidth.txt".encode(),
    b"..txt.txt", b"... .txt", b" .txt", b"a" * 251 + b".txt", b"$(touch x).txt", b"`id`.txt", b"a;b|c&d.txt",
    b"'quote\".txt", b"per%cent%00%2e%2e.txt", b"col:on:17.txt", b"star*[a]?.txt", b"{brace}.txt",
        b"[red]markup[-].txt",
    b"~.txt", b"CON.txt", b"a\x7f\xc2\x9b.txt", "😀\U000e0041.txt".encode(), b"null.txt", b"\xed\xa0\x80.txt",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with runner(tmp_path_factory.mktemp("names")) as made:
        yield made


def test_every_name_is_one_row(run: Runner) -> None:
    data = run.fresh()
    for number, name in enumerate(NAMES):
        Path(os.fsdecode(os.fsencode(data) + b"/" + name)).write_text(f"text {number}")
    result = run.ingest("files", data)
    assert result.outcomes == {"kept": len(NAMES)}
    assert (result.strays, result.asked, result.attempts) == ([], 0, [])
    for text in result.texts:
        text.encode()


def test_links_and_what_is_no_file(run: Runner) -> None:
    data = run.fresh()
    secret = run.place / "secret.txt"
    secret.write_text("a secret")
    (data / "inside").mkdir()
    (data / "inside" / "a.txt").write_text("a text")
    (data / "out.txt").symlink_to(secret)
    (data / "passwd.csv").symlink_to("/etc/passwd")
    (data / "up.txt").symlink_to("../../../../../../etc/passwd")
    (data / "loop.txt").symlink_to("loop.txt")
    (data / "dangling.txt").symlink_to("nothing")
    (data / "directory.txt").symlink_to("inside")
    (data / "elsewhere").symlink_to("/etc")
    (data / "self").symlink_to(".")
    (data / "own.txt").symlink_to("inside/a.txt")
    (data / "zero.txt").symlink_to("/dev/zero")
    os.mkfifo(data / "pipe.txt")
    (data / "closed.txt").write_text("x")
    with socket.socket(socket.AF_UNIX) as unix:
        os.chdir(data)
        unix.bind("socket.txt")
        os.chdir(run.place / "work")
        result = run.ingest("files", data)
    assert (result.strays, result.asked, result.attempts) == ([], 0, [])
    assert {name: set(found) for name, found in result.by_file.items()} == {
        "inside/a.txt": {"kept"}, "own.txt": {"kept"}, "closed.txt": {"kept"}, "out.txt": {"outside_root"},
        "passwd.csv": {"outside_root"}, "up.txt": {"outside_root"}, "zero.txt": {"outside_root"},
        "loop.txt": {"unreadable"}, "dangling.txt": {"unreadable"}, "pipe.txt": {"unreadable"},
        "socket.txt": {"unreadable"},
    }  # fmt: skip


def test_formulas_are_text_and_do_not_run_in_a_table_for_labelling(run: Runner, tmp_path: Path) -> None:
    result = run.run(csv_formulas=CASES["csv_formulas"], xlsx_formulas=CASES["xlsx_formulas"])
    assert any(text.startswith("=cmd|") for text in result.texts)
    assert any(text.startswith("=WEBSERVICE(") for text in result.texts)


def test_a_table_for_labelling_has_no_formula_however_it_is_cut_up(tmp_path: Path) -> None:
    from flywheel.record import Record, write_rows

    texts = ["=1+1", "@SUM(1)", "+1", "-1", "\t=1", "\n=1", "\uff1d1", "a;=1", "a\n=1", 'a;"=1', "fine"]
    write_rows(tmp_path / "rows.parquet", (Record(f"r{n}", text=text, origin={}) for n, text in enumerate(texts)))
    labelling.export(tmp_path / "rows.parquet", tmp_path / "batch.csv", 99)
    assert len(list(read_rows(tmp_path / "rows.parquet"))) == len(texts)
    for delimiter in ",;\t":
        with (tmp_path / "batch.csv").open(encoding="utf-8-sig", newline="") as file:
            cells = [cell for row in csv.reader(file, delimiter=delimiter) for cell in row]
        assert not [cell for cell in cells if cell.lstrip("\t\r\n ").startswith(("=", "+", "@", "-", "\uff1d"))]
