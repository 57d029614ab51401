"""S3 through boto3: what lies below a prefix, and a copy of it as plain files.

Endpoint, region and credentials are found as boto3 finds them: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_PROFILE, ...
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from infra.errors import MissingError, StorageError
from infra.settings import Settings

INDEX = Path(".mirror", ".index.json")
"""Beside the files of a mirror, written last: name → identity."""
AT_ONCE = 8
"""Objects that are downloaded side by side."""
CHUNK = 1 << 20
ATTEMPTS = 5
"""How often a download that breaks off is taken up where it stopped."""
LONGEST = 255
"""Bytes of a file name."""

_ESCAPED = re.compile(r"[\x00-\x1f\x7f\\]|%(?=[0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class _Object:
    key: str
    etag: str
    size: int

    @property
    def identity(self) -> str:
        return f"{self.etag}:{self.size}"


def listing(settings: Settings, uri: str) -> dict[str, str]:
    """Name → identity (ETag and size) of every object below `s3://bucket/prefix`, or of the one object of that key.

    Names are relative to the prefix and safe as paths of files. Raises StorageError where there is none.
    """
    with closing(_client()) as client:
        return {name: found.identity for name, found in _objects(client, uri).items()}


def mirror(settings: Settings, uri: str, into: Path, previous: Path | None, most: int | None = None) -> dict[str, Any]:
    """Copy everything below `s3://bucket/prefix`, or the `most` first objects by name, into the directory `into`.

    Returns `files`, `bytes` and `downloaded`.

    What is unchanged since the mirror in `previous` is linked, not fetched. Each file appears whole or not at all, and
    none outside of `into`: a part of a key that no file may have as its name (`..`, control characters) is
    percent-encoded. Raises StorageError.
    """
    held = _index(previous)
    into.mkdir(parents=True, exist_ok=True)
    with (
        closing(_client()) as client,
        tempfile.TemporaryDirectory(dir=into.parent, prefix=f".{into.name}.") as scratch,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        found = dict(islice(_objects(client, uri).items(), most))
        missing = []
        for name, item in found.items():
            target = into / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if previous is None or held.get(name) != item.identity or not _link(previous / name, target, item.size):
                missing.append((item, target))
        bucket = _parts(uri)[0]
        jobs = [
            pool.submit(_download, client, bucket, item, Path(scratch, str(number)), target)
            for number, (item, target) in enumerate(missing)
        ]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    _write_index(into, {name: item.identity for name, item in found.items()})
    return {"files": len(found), "bytes": sum(item.size for item in found.values()), "downloaded": len(missing)}


# ---------------------------------------------------------------- objects


def _client() -> Any:
    import boto3
    from botocore.config import Config

    options = {"retries": {"mode": "standard", "max_attempts": ATTEMPTS}, "connect_timeout": 10, "read_timeout": 60}
    session = boto3.Session()  # the shared one would keep credentials that have changed since
    client = session.client("s3", config=Config(max_pool_connections=2 * AT_ONCE, **options))
    if "amazonaws.com" in (urlsplit(client.meta.endpoint_url).hostname or ""):
        return client
    # Other servers seldom have a host name for every bucket.
    return session.client("s3", config=client.meta.config.merge(Config(s3={"addressing_style": "path"})))


def _objects(client: Any, uri: str) -> dict[str, _Object]:
    """Objects by the name of their file, in the order of names."""
    bucket, prefix = _parts(uri)
    with _explained(uri):
        keys = dict(_keys(client, bucket, prefix))
    if prefix in keys:
        return {_safe(prefix.rsplit("/", 1)[-1], False): keys[prefix]}
    if not keys:
        raise MissingError(
            uri,
            found="no object",
            expected="at least one object of this key, or below it",
            remedy="correct the bucket or the prefix",
        )
    names = {key.removeprefix(prefix).removeprefix("" if prefix[-1:] in ("", "/") else "/"): key for key in keys}
    directories = {name[:at] for name in names for at, letter in enumerate(name) if letter == "/"}
    return dict(sorted((_safe(name, name in directories), keys[key]) for name, key in names.items()))


def _keys(client: Any, bucket: str, prefix: str) -> Iterator[tuple[str, _Object]]:
    """The object of this key, and those below it; `data` is not a prefix of `database/a.csv`."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", ()):
            key = item["Key"]
            below = prefix[-1:] in ("", "/") or key == prefix or key.startswith(f"{prefix}/")
            if below and not (key.endswith("/") and item["Size"] == 0):
                yield key, _Object(key, item["ETag"].strip('"'), item["Size"])


def _parts(uri: str) -> tuple[str, str]:
    match = re.fullmatch(r"s3://([^/]+)/?(.*)", uri, re.DOTALL)
    if match is None:
        raise MissingError(uri, found="no bucket", expected="s3://bucket/prefix", remedy="correct `path`")
    return match[1], match[2]


def _safe(name: str, is_directory: bool) -> str:
    """The path of an object's file; different keys have different paths.

    `is_directory`: other keys continue this one after a slash, so that the file needs a name of its own.
    """
    parts = [_safe_part(part) for part in name.split("/")]
    if parts[0] == INDEX.parts[0]:
        parts[0] = "%2E" + parts[0][1:]
    if is_directory:
        parts[-1] += "%2F"
    return "/".join(part if len(part.encode()) <= LONGEST else _shortened(part) for part in parts)


def _safe_part(part: str) -> str:
    if part in ("", ".", ".."):
        return part.replace(".", "%2E") or "%2F"
    return _ESCAPED.sub(lambda match: f"%{ord(match[0]):02X}", part)


def _shortened(part: str) -> str:
    """The start and the ending of a name that is too long, and a hash of the whole."""
    stem, dot, ending = part.rpartition(".")
    tail = f"~{sha256(part.encode()).hexdigest()[:16]}" + (f".{ending}" if dot and len(ending.encode()) <= 16 else "")
    return (stem or part).encode()[: LONGEST - len(tail.encode())].decode(errors="ignore") + tail


# ---------------------------------------------------------------- files


def _download(client: Any, bucket: str, item: _Object, draft: Path, target: Path) -> None:
    """Fetch one object as it was listed, and put it into its place."""
    uri = f"s3://{bucket}/{item.key}"
    with draft.open("wb") as file, _explained(uri):
        _stream(client, bucket, item, file)
    if draft.stat().st_size != item.size:
        raise _changed(uri)
    os.replace(draft, target)


def _stream(client: Any, bucket: str, item: _Object, file: IO[bytes]) -> None:
    """The bytes of an object; where the connection breaks, the rest of them is asked for."""
    from botocore.exceptions import BotoCoreError

    for attempt in range(1, ATTEMPTS + 1):
        start = file.tell()
        ranged = {"Range": f"bytes={start}-"} if start else {}
        try:
            body = client.get_object(Bucket=bucket, Key=item.key, IfMatch=f'"{item.etag}"', **ranged)["Body"]
            with closing(body):
                for chunk in body.iter_chunks(CHUNK):
                    file.write(chunk)
            return
        except BotoCoreError:
            if attempt == ATTEMPTS or file.tell() >= item.size:
                raise


def _link(old: Path, new: Path, size: int) -> bool:
    """Make `new` the same file as `old`, or a copy on another file system; False where `old` is not what it was."""
    if old.is_symlink() or not old.is_file() or old.stat().st_size != size:
        return False
    try:
        os.link(old, new)
    except OSError:
        shutil.copyfile(old, new)
    return True


def _index(previous: Path | None) -> dict[str, str]:
    try:
        held = json.loads((previous / INDEX).read_bytes()) if previous else {}
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def _write_index(into: Path, index: dict[str, str]) -> None:
    path = into / INDEX
    path.parent.mkdir(exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(index, indent=0))
    os.replace(draft, path)


# ---------------------------------------------------------------- refusals


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Raise StorageError for what botocore raises."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError as error:
        remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        raise MissingError(uri, found="no credentials", expected="credentials for S3", remedy=remedy) from error
    except ClientError as error:
        if error.response["Error"]["Code"] in ("PreconditionFailed", "412", "NoSuchKey", "404"):
            raise _changed(uri) from error
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        raise _unreadable(uri, str(error), MissingError if 400 <= status < 429 else StorageError) from error
    except BotoCoreError as error:
        raise _unreadable(uri, str(error)) from error


def _changed(uri: str) -> StorageError:
    return StorageError(
        uri, found="an object that changed while it was copied", expected="one that stays", remedy="run it again"
    )


def _unreadable(uri: str, said: str, kind: type[StorageError] = StorageError) -> StorageError:
    return kind(
        uri,
        found=" ".join(said.split())[:500],
        expected="a bucket that can be listed and read",
        remedy="correct the address, the credentials or the rights; AWS_ENDPOINT_URL names a server of your own",
    )
