"""docs/sources.md shows what the schema takes and names every reason that the readers give."""

import re
from pathlib import Path

import yaml
from pydantic import TypeAdapter

from flywheel.recipe_sources import Source
from flywheel.sources.base import READERS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "sources.md").read_text()
GIVEN = re.compile(r'(?:Bad\([^"\n]*|Undecodable\(|_Unfit\(|leave_out\(|_dropped\([^"\n]*|\breason ?= ?)"([a-z_]+)"')


def test_every_type_has_a_snippet_that_the_schema_takes() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    sources = TypeAdapter(list[Source]).validate_python(
        [source for block in blocks for source in yaml.safe_load(block)]
    )
    assert {source.type for source in sources} == set(READERS)


def test_every_reason_is_told() -> None:
    files = [*(ROOT / "flywheel" / "sources").glob("*.py"), ROOT / "flywheel" / "media.py"]
    given = {reason for file in files for reason in GIVEN.findall(file.read_text())}
    assert len(given) > 20
    assert {reason for reason in given if f"`{reason}`" not in PAGE} == set()
