"""The data half of the wheel in the test's own process: what `flywheel data check` does, without Prefect and MLflow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import data
from flywheel import prepare, shards, validation
from flywheel.modalities.rooms import room
from flywheel.recipe import Recipe
from flywheel.record import Record, read_rows
from flywheel.sources import base
from infra import expectations
from tests.mapping import in_process
from tests.recipes import code_recipe


@dataclass
class Checked:
    """What came out."""

    report: dict[str, Any]
    rows: dict[str, list[Record]]
    """`train` and `heldout`."""

    @property
    def kept(self) -> list[Record]:
        """Rows that were read, without copies."""
        return [row for side in self.rows.values() for row in side if "augmented" not in row.origin]

    def of(self, source: str) -> list[Record]:
        return [row for row in self.kept if row.origin["source"] == source]


def check(root: Path, sources: list[dict[str, Any]], **changes: Any) -> Checked:
    """Read, prepare and validate some sources; asserts that the counts add up."""
    model = {**code_recipe(Path())["model"], "modality": "text_causal"}
    settings = {"sources": sources, "split": {"heldout": 0.25}, **changes}
    recipe = Recipe.model_validate(code_recipe(Path(), name="layouts", model=model, data=settings))
    cache, steps = shards.Cache(root / "shards"), {}
    for step in data.STEPS:
        (root / step).mkdir()
    steps["ingest"] = base.ingest(base.Ingest(recipe.data.sources, {}, cache, in_process), root / "ingest")
    steps["prepare"] = prepare.prepare(recipe, root / "ingest" / "rows", root / "prepare", cache, in_process)
    config = recipe.data.validate_
    frame = validation.facts(
        room("text_causal"), root / "prepare", "group", expectations.columns(config.expectations) | {"id"}
    )
    outcome = expectations.check(frame, config.expectations, "layouts", root / "docs", frame.attrs["columns"])
    steps["validate"] = validation.apply(root / "prepare", outcome, config, root / "validate")
    report = data.report(recipe.name, steps, [])
    for count in (report, *report["sources"].values()):
        assert count["kept"] + sum(count["dropped"].values()) + sum(count["quarantined"].values()) == count["read"]
    rows = {side: list(read_rows(root / "validate" / f"{side}.parquet")) for side in ("train", "heldout")}
    return Checked(report, rows)
