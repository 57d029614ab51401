import gzip
import io
import random
import stat
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.sources import archives, formats
from flywheel.sources.parsed import Bad, Found, Options

CSV, TEXT = b"text\none\ntwo\n", b"a note\n"
Members = Mapping[str, bytes]


def read(path: Path) -> list[Found | Bad]:
    parse = formats.parser(path.name)
    assert parse is not None
    return list(parse(path, Options()))


def outcome(path: Path) -> dict[str, str]:
    """Position → text or reason."""
    rows = read(path)
    found = {row.position: row.cells["text"] if isinstance(row, Found) else row.reason for row in rows}
    assert len(found) == len(rows)
    return found


def zipped(members: Members) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


def tarred(members: Members, *others: tarfile.TarInfo) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in others:
            archive.addfile(info)
    return target.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def gzipped_tar(members: Members) -> bytes:
    return gzip.compress(tarred(members))


MAKERS = {"a.zip": zipped, "a.tar": tarred, "a.tgz": gzipped_tar, "a.tar.gz": gzipped_tar}


@pytest.mark.parametrize("name", MAKERS)
def test_members_are_read_by_their_endings(tmp_path: Path, name: str) -> None:
    lines = gzip.compress(b'{"text": "three"}\n')
    members = {"d/rows.csv": CSV, "NOTE.TXT": TEXT, "x.bin": b"\0", "d/rows.jsonl.gz": lines}
    assert outcome(write(tmp_path / name, MAKERS[name](members))) == {
        "d/rows.csv:2": "one",
        "d/rows.csv:3": "two",
        "NOTE.TXT": "a note\n",
        "x.bin": "unknown_format",
        "d/rows.jsonl.gz:1": "three",
    }


def test_a_gzip_file_is_its_only_member(tmp_path: Path) -> None:
    assert outcome(write(tmp_path / "rows.csv.gz", gzip.compress(CSV))) == {"2": "one", "3": "two"}
    assert formats.parser("rows.bin.gz") is None


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    "member", ["../a.txt", "d/../../a.txt", "/etc/a.txt", "C:\\a.txt", "..\\a.txt", "\\\\host\\a.txt"]
)
def test_names_that_lead_out_of_an_archive(tmp_path: Path, name: str, member: str) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    path = write(inside / name, MAKERS[name]({member: TEXT, "b.txt": TEXT}))
    assert list(outcome(path).values()) == ["unsafe_member", "a note\n"]
    assert sorted(p.name for p in tmp_path.rglob("*")) == sorted(["in", name])


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_file(tmp_path: Path, kind: bytes) -> None:
    link = tarfile.TarInfo("link.txt")
    link.type, link.linkname = kind, "/etc/passwd"
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    path = write(tmp_path / "a.tar", tarred({"a.txt": TEXT}, link, folder))
    assert outcome(path) == {"a.txt": "a note\n", "link.txt": "unsafe_member"}


def test_a_link_in_a_zip_file(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.mkdir("folder")
    assert outcome(tmp_path / "a.zip") == {"link.txt": "unsafe_member"}


def test_encrypted_members(tmp_path: Path) -> None:
    content = bytearray(zipped({"a.txt": TEXT, "b.txt": TEXT}))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    assert outcome(write(tmp_path / "a.zip", bytes(content))) == {"a.txt": "encrypted", "b.txt": "a note\n"}


def test_archives_within_archives(tmp_path: Path) -> None:
    inner = zipped({"rows.csv": CSV})
    path = write(tmp_path / "a.zip", zipped({"in.zip": inner, "deep.tar": tarred({"in.zip": inner, "a.txt": TEXT})}))
    assert outcome(path) == {
        "in.zip/rows.csv:2": "one",
        "in.zip/rows.csv:3": "two",
        "deep.tar/in.zip": "bomb",
        "deep.tar/a.txt": "a note\n",
    }


def test_the_same_name_twice(tmp_path: Path) -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for content in (b"one", b"two"):
            info = tarfile.TarInfo("a.txt")
            info.size = 3
            archive.addfile(info, io.BytesIO(content))
    assert outcome(write(tmp_path / "a.tar", target.getvalue())) == {"a.txt": "one", "a.txt#2": "two"}


@pytest.mark.parametrize("name", ["a.zip", "a.tgz", "a.txt.gz"])
def test_bombs(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FREE", 1 << 20)
    zeros = bytes(8 << 20)
    members = {"first.txt": TEXT, "b.txt": zeros, "c.txt": TEXT}
    rows = read(write(tmp_path / name, gzip.compress(zeros) if name == "a.txt.gz" else MAKERS[name](members)))
    assert [row.reason for row in rows if isinstance(row, Bad)] == ["bomb"]
    assert len(rows) == (1 if name == "a.txt.gz" else 2)


def test_bombs_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FREE", 5 << 20)
    half = zipped({"a.txt": bytes(3 << 20)})
    rows = read(write(tmp_path / "a.zip", zipped({"1.zip": half, "2.zip": half, "3.txt": TEXT})))
    assert [row.position for row in rows if isinstance(row, Bad)] == ["2.zip/a.txt"]
    assert all(row.position.startswith("1.zip/") for row in rows[:-1])


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 5)
    rows = read(write(tmp_path / "a.zip", zipped({f"{n}.txt": TEXT for n in range(9)})))
    assert [row.reason for row in rows if isinstance(row, Bad)] == ["bomb"]
    assert len(rows) == 6


@pytest.mark.parametrize("name", [*MAKERS, "a.csv.gz"])
def test_truncated_and_damaged_archives(tmp_path: Path, name: str) -> None:
    noise = random.Random(0).randbytes(3_000).hex().encode()
    members = {"a.txt": TEXT, "b.txt": noise, "c.txt": noise}
    whole = gzip.compress(noise) if name == "a.csv.gz" else MAKERS[name](members)
    half = len(whole) // 2
    for damage in (b"", whole[:1], whole[:half], whole[:half] + b"\xff" * 700 + whole[half + 700 :]):
        bad = {row.reason for row in read(write(tmp_path / name, damage)) if isinstance(row, Bad)}
        # A tar file has no checksums of what is in it, and a gzip file of nothing has no bytes.
        assert bad
        assert bad <= {"bad_zip", "bad_tar", "bad_gzip", "truncated", "undecodable", "empty"}


def test_a_tar_file_that_ends_in_the_middle_says_so(tmp_path: Path) -> None:
    whole = tarred({"a.txt": TEXT, "b.txt": TEXT})
    assert outcome(write(tmp_path / "a.tar", whole[:1_024])) == {"a.txt": "a note\n", "": "truncated"}
    broken = whole[:1_024] + b"\xff" * 512 + whole[1_536:]
    assert outcome(write(tmp_path / "a.tar", broken)) == {"a.txt": "a note\n", "": "truncated"}


def test_names_that_cannot_be_shown_are_spelled_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", tarred({"a\u202e\n.txt": TEXT, "b" * 3_000 + ".txt": TEXT}))
    first, second = outcome(path)
    assert first == "a\\u202e\\n.txt"
    assert len(second) < 600


def test_other_tools_archives(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(CSV)
    subprocess.run(["tar", "-czf", "b.tgz", "./a.csv"], cwd=tmp_path, check=True)
    assert outcome(tmp_path / "b.tgz") == {"./a.csv:2": "one", "./a.csv:3": "two"}


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([*MAKERS, "a.txt.gz"]),
    st.one_of(
        st.binary(max_size=300),
        st.tuples(st.integers(0, 600), st.binary(min_size=1, max_size=9)),
    ),
)
def test_arbitrary_bytes_are_found_or_bad(name: str, content: bytes | tuple[int, bytes]) -> None:
    if isinstance(content, tuple):
        place, change = content
        whole = gzip.compress(TEXT) if name == "a.txt.gz" else MAKERS[name]({"a.csv": CSV, "b.txt": TEXT})
        content = whole[:place] + change + whole[place + len(change) :]
    with tempfile.TemporaryDirectory() as directory:
        rows = read(write(Path(directory, name), content))
        assert [p.name for p in Path(directory).iterdir()] == [name]
    assert rows
    assert len({row.position for row in rows}) == len(rows)
