"""The packages of this environment, as a lock and as a bill of materials."""

import json
from datetime import UTC, datetime
from importlib import metadata

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement

from flywheel.packages import Package, bill, installed, lock, locked

MADE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SOME = [
    Package("a-package", "1.0", "ab" * 32, "MIT"),
    Package("torch", "2.13.0+cpu", "", "BSD-3-Clause AND (MIT OR Apache-2.0)"),
    Package("words", "3", "", "BSD License"),
]


def test_the_lock_names_every_distribution():
    versions = locked(lock(installed()))
    assert versions["torch"] == metadata.version("torch")
    assert versions["great-expectations"] == metadata.version("great-expectations")
    assert list(versions) == sorted(versions)


def test_a_lock_is_a_requirements_file():
    lines = lock(SOME).splitlines()
    assert lines[0] == f"a-package==1.0  # RECORD sha256:{'ab' * 32}"
    required = [str(Requirement(line.partition(" #")[0])) for line in lines]
    assert required == ["a-package==1.0", "torch==2.13.0+cpu", "words==3"]
    assert locked(lock(SOME)) == {"a-package": "1.0", "torch": "2.13.0+cpu", "words": "3"}


def test_the_bill_is_cyclonedx():
    """Equal packages give equal bytes."""
    written = bill(SOME, "tiny", "0123", MADE)
    assert written == bill(SOME, "tiny", "0123", MADE)
    found = json.loads(written)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    assert found["metadata"]["component"]["type"] == "machine-learning-model"
    assert [c["purl"] for c in found["components"]][1] == "pkg:pypi/torch@2.13.0%2Bcpu"
    (wanted,) = (d["dependsOn"] for d in found["dependencies"] if d["ref"] == "tiny/0123")
    assert len(wanted) == len(SOME)


def test_the_bill_of_this_environment_fits_the_schema():
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill(installed(), "tiny", "0123", MADE))
    assert found is None, found
