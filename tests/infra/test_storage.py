"""Against a real S3 server; keys that no file may have as its name are what other people may put into a bucket."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from infra import storage
from infra.errors import MissingError
from infra.settings import Settings

HOME = Settings.load({})
HOSTILE = [
    "../up.txt", "/etc/passwd", "a/../../up.txt", "a//b.txt", "./c.txt", "new\nline.txt", "bell\x07.txt", "..", "d",
    "d/e.txt", "100%.txt", "%2E%2E/f.txt", "back\\slash.txt", "ü 漢.txt", ".mirror/.index.json",
    "n" * 300 + ".csv", "C:/x.txt",
]  # fmt: skip


@pytest.fixture
def bucket(s3: dict[str, str]) -> Any:
    import boto3

    return boto3.Session().resource("s3").create_bucket(Bucket=f"b{uuid.uuid4().hex}")


def files(directory: Path) -> dict[str, bytes]:
    found = {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    assert found.pop(str(storage.INDEX))
    return found


def test_a_prefix_is_mirrored(bucket: Any, tmp_path: Path) -> None:
    for key in ("data/a.csv", "data/sub/b.csv", "database/c.csv", "data/", "data/empty"):
        bucket.put_object(Key=key, Body=b"" if key.endswith(("/", "empty")) else key.encode())
    uri = f"s3://{bucket.name}/data"
    counts = storage.mirror(HOME, uri, tmp_path / "m", None)
    assert files(tmp_path / "m") == {"a.csv": b"data/a.csv", "sub/b.csv": b"data/sub/b.csv", "empty": b""}
    assert counts == {"files": 3, "bytes": 24, "downloaded": 3}
    assert list(storage.listing(HOME, uri)) == ["a.csv", "empty", "sub/b.csv"]
    assert os.listdir(tmp_path) == ["m"]
    storage.mirror(HOME, f"s3://{bucket.name}/data/sub/b.csv", tmp_path / "one", None)
    assert files(tmp_path / "one") == {"b.csv": b"data/sub/b.csv"}


def test_what_is_unchanged_is_linked(bucket: Any, tmp_path: Path) -> None:
    for key in ("a", "b", "c", "gone"):
        bucket.put_object(Key=key, Body=key.encode())
    uri = f"s3://{bucket.name}"
    storage.mirror(HOME, uri, tmp_path / "old", None)
    bucket.put_object(Key="b", Body=b"B")
    bucket.Object("gone").delete()
    (tmp_path / "old" / "c").write_bytes(b"damaged")
    counts = storage.mirror(HOME, uri, tmp_path / "new", tmp_path / "old")
    assert files(tmp_path / "new") == {"a": b"a", "b": b"B", "c": b"c"}
    assert counts["downloaded"] == 2
    assert (tmp_path / "new" / "a").samefile(tmp_path / "old" / "a")
    assert (tmp_path / "old" / "b").read_bytes() == b"b"


def test_hostile_keys_stay_inside_and_none_is_lost(bucket: Any, tmp_path: Path) -> None:
    for key in HOSTILE:
        bucket.put_object(Key=f"in/{key}", Body=key.encode())
    storage.mirror(HOME, f"s3://{bucket.name}/in", tmp_path / "deep" / "m", None)
    found = files(tmp_path / "deep" / "m")
    assert sorted(found.values()) == sorted(key.encode() for key in HOSTILE)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file() and tmp_path / "deep" / "m" not in p.parents] == []
    assert {"%2E%2E/up.txt", "a/%2E%2E/%2E%2E/up.txt", "%2F/etc/passwd", "100%.txt", "d%2F", "d/e.txt"} <= found.keys()
    assert all(name.isprintable() for name in found)


NAMES = st.lists(st.text(st.sampled_from("./%2EFa\n\\"), min_size=1, max_size=8), min_size=2, max_size=2, unique=True)


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@example(["a", "a/"])
@given(NAMES)
def test_different_keys_have_different_safe_names(names: list[str]) -> None:
    first, second = (storage._safe(name, False) for name in names)
    assert first != second
    for name in (first, second):
        assert not {"", ".", ".."} & set(name.split("/"))
        assert name.isprintable()


def test_a_large_object_in_parts(bucket: Any, tmp_path: Path) -> None:
    from boto3.s3.transfer import TransferConfig

    content = os.urandom(1 << 20) * 12
    (tmp_path / "up").write_bytes(content)
    bucket.upload_file(str(tmp_path / "up"), "big", Config=TransferConfig(multipart_threshold=5 << 20))
    assert "-" in storage.listing(HOME, f"s3://{bucket.name}/big")["big"]
    storage.mirror(HOME, f"s3://{bucket.name}", tmp_path / "m", None)
    assert (tmp_path / "m" / "big").read_bytes() == content


def test_a_broken_download_goes_on_where_it_stopped(
    bucket: Any, tmp_path: Path, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(3 << 20)
    bucket.put_object(Key="big", Body=content)
    with breaking(s3["AWS_ENDPOINT_URL"], after=2 << 20) as (url, connections):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        storage.mirror(HOME, f"s3://{bucket.name}", tmp_path / "m", None)
    assert (tmp_path / "m" / "big").read_bytes() == content
    assert len(connections) == 2


@pytest.mark.parametrize("uri", ["s3://", "s3:///a", "s4://b/c"])
def test_addresses_that_are_none(uri: str) -> None:
    with pytest.raises(MissingError, match="no bucket"):
        storage.listing(HOME, uri)


def test_what_cannot_be_read_is_explained(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingError, match="no object"):
        storage.mirror(HOME, f"s3://{bucket.name}/nothing", tmp_path / "m", None)
    with pytest.raises(MissingError, match="NoSuchBucket"):
        storage.listing(HOME, "s3://nobody-has-this/a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-geheim")
    with pytest.raises(MissingError, match=r"SignatureDoesNotMatch|Forbidden|403") as error:
        storage.listing(HOME, f"s3://{bucket.name}/a")
    assert "geheim" not in str(error.value)
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(MissingError, match="no credentials"):
        storage.listing(HOME, f"s3://{bucket.name}/a")


@contextmanager
def breaking(url: str, after: int) -> Iterator[tuple[str, list[int]]]:
    """A relay on loopback that cuts each connection after so many bytes of the answer."""
    host, port = url.removeprefix("http://").split(":")
    connections: list[int] = []

    def relay(client: socket.socket) -> None:
        with client, socket.create_connection((host, int(port))) as server:
            forth = threading.Thread(target=pump, args=(client, server, 1 << 40), daemon=True)
            forth.start()
            pump(server, client, after)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            connections.append(1)
            threading.Thread(target=relay, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", connections


def pump(source: socket.socket, sink: socket.socket, most: int) -> None:
    sent = 0
    with suppress(OSError):
        while sent < most and (data := source.recv(min(65_536, most - sent))):
            sink.sendall(data)
            sent += len(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
