"""Ingest into a file system of a few megabytes that fills up, and again once there is space. Run by test_shards.py.

Arguments: an empty directory to mount the file system on, a directory of JSON Lines.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from flywheel.errors import WorkerError
from flywheel.recipe_sources import FilesSource
from flywheel.shards import Cache
from flywheel.sources import base
from flywheel.workers import Pool

MEGABYTES = 24


def main(place: Path, corpus: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        sys.exit(77)  # as automake's tests say that they cannot run
    filler, cache = place / "filler", Cache(place / "shards")
    filler.write_bytes(bytes((MEGABYTES - 2) << 20))
    sources = [FilesSource(type="files", path=str(corpus))]
    with Pool(2) as pool:
        try:
            list(base.parsed(base.Ingest(sources, {}, cache, pool)))
        except WorkerError as error:
            print(error)
        print(sorted(p.name for p in cache.root.iterdir()))
        filler.unlink()
        print([shard.counts.as_json() for shard in base.parsed(base.Ingest(sources, {}, cache, pool))])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
