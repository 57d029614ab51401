"""The packages of a run: a lock that names every one of them, and a bill of materials for programs that look for holes.

Both are made from what is installed, and equal environments give equal bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from uuid import NAMESPACE_URL, uuid5

_SEPARATORS = re.compile(r"[-_.]+")
_LINE = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Package:
    """One installed distribution."""

    name: str
    """As PyPI spells it: lower case, dashes."""
    version: str
    sha256: str
    """Of RECORD, which lists the sha256 of every file of the distribution; empty where there is none."""
    license: str
    """An SPDX expression, or the words that the distribution has for it; may be empty."""


def installed() -> list[Package]:
    """Every distribution of this environment, by name."""
    found: dict[str, Package] = {}
    for one in metadata.distributions():
        about = one.metadata
        name = _SEPARATORS.sub("-", about["Name"] or "").lower()
        if name and name not in found:  # the first on the path is the one that is imported
            record = one.read_text("RECORD")
            digest = hashlib.sha256(record.encode()).hexdigest() if record else ""
            found[name] = Package(name, one.version, digest, _license(about))
    return [found[name] for name in sorted(found)]


def _license(about: metadata.PackageMetadata) -> str:
    """The expression, else the classifiers, else the first line of the field that may hold a whole text."""
    said = about.get_all("License-Expression") or []
    said = said or [c.rpartition(" :: ")[2] for c in about.get_all("Classifier") or [] if c.startswith("License :: ")]
    said = said or [line for line in "\n".join(about.get_all("License") or []).splitlines() if line.strip()][:1]
    return ", ".join(part for part in said if part != "UNKNOWN")[:100]


def lock(packages: Sequence[Package]) -> str:
    """`name==version` for each, as pip takes it. The sha256 of RECORD is a comment: those of pip are of archives."""
    return "".join(f"{p.name}=={p.version}{f'  # RECORD sha256:{p.sha256}' if p.sha256 else ''}\n" for p in packages)


def locked(text: str) -> Mapping[str, str]:
    """Name → version of a lock."""
    return dict(_LINE.findall(text))


def bill(packages: Sequence[Package], model: str, mark: str, made: datetime) -> str:
    """The bill of materials of a model, CycloneDX 1.6 JSON: the model, whose weights have the fingerprint `mark` and
    were made at `made`, depends on each package."""
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    licenses = LicenseFactory()
    root = Component(type=ComponentType.MACHINE_LEARNING_MODEL, name=model, version=mark, bom_ref=f"{model}/{mark}")
    parts = [
        Component(
            type=ComponentType.LIBRARY,
            name=p.name,
            version=p.version,
            purl=(url := PackageURL("pypi", None, p.name, p.version)),
            bom_ref=url.to_string(),
            licenses=[licenses.make_from_string(p.license)] if p.license else [],
        )
        for p in packages
    ]
    number = uuid5(NAMESPACE_URL, f"{model}/{mark}\n{lock(packages)}")
    bom = Bom(serial_number=number, metadata=BomMetaData(component=root, timestamp=made), components=parts)
    bom.register_dependency(root, parts)
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"
