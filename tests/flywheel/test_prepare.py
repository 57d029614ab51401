from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel import prepare as preparing
from flywheel.errors import RecipeError, SourceError
from flywheel.recipe import Recipe
from flywheel.record import Record, read_rows, write_rows
from flywheel.shards import Cache, read_left
from tests.mapping import in_process


def recipe(process: list[Any], finetune: list[Any] | None = None, **split: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "objective": {"metric": "bits_per_byte"},
            "data": {"sources": [{"type": "code", "path": "stdlib"}], "process": process, "split": split},
            "model": {"modality": "code"},
            "finetune": None if finetune is None else {"process": finetune},
        }
    )


def prepare(recipe: Recipe, rows: Path, out: Path) -> dict[str, Any]:
    return preparing.prepare(recipe, rows, out, Cache(rows.parent / "shards"), in_process)


def module(number: int) -> str:
    body = " + ".join(f"value_{number}_{n}" for n in range(40))
    return f'def total_{number}():\n    """Add up the values of number {number}."""\n    return {body}\n'


def code_rows(count: int) -> list[Record]:
    return [Record(id=f"{n:04x}", text=module(n), origin={"group": f"m{n}", "path": f"m{n}.py"}) for n in range(count)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


def test_rows_are_cleaned_split_and_paired(tmp_path: Path, out: Path) -> None:
    rows = code_rows(30)
    rows += [Record(id="dup", text=module(3), origin={"group": "m3", "path": "m3_copy.py"})]
    rows += [Record(id="crlf", text=module(4).replace("\n", "\r\n"), origin={"group": "m4"})]
    rows += [Record(id="near", text=module(5) + "x = 1\n", origin={"group": "m5"})]
    write_rows(tmp_path / "rows.parquet", rows)
    process = ["normalize_newlines", "exact_dedup", {"near_dedup": {"threshold": 0.8}}]
    summary = prepare(recipe(process, ["docstring_pairs"], heldout=0.2), tmp_path / "rows.parquet", out)

    train, heldout = (list(read_rows(out / f"{side}")) for side in ("train", "heldout"))
    assert (summary["read"], summary["kept"]) == (33, 30)
    assert summary["dropped"] == {"exact_duplicate": 2, "near_duplicate": 1}
    assert (summary["train"], summary["heldout"]) == (len(train), len(heldout)) == (24, 6)
    assert summary["bytes"] == sum(len(row.text or "") for row in (*train, *heldout))
    assert not {r.origin["group"] for r in train} & {r.origin["group"] for r in heldout}
    assert {r.id for r in train} | {r.id for r in heldout} == {r.id for r in rows[:30]}

    pairs = list(read_rows(out / "finetune_heldout"))
    assert summary["finetune_heldout"] == len(pairs) == 6
    assert {p.origin["path"] for p in pairs} == {r.origin["path"] for r in heldout}
    assert all(p.prompt and p.completion and p.completion not in p.prompt for p in pairs)
    counts = summary["finetune_operations"]["train"][0]
    assert counts == {"operation": "docstring_pairs", "read": 24, "made": 24, "dropped": {}, "quarantined": {}}

    dropped = {row.id: row for row in read_left(out / "left.jsonl")}
    assert {i: row.reason for i, row in dropped.items()} == {
        "dup": "exact_duplicate",
        "crlf": "exact_duplicate",
        "near": "near_duplicate",
    }
    assert dropped["dup"].path == "m3_copy.py"


def test_no_near_duplicate_stands_on_both_sides(tmp_path: Path, out: Path) -> None:
    rows = [
        Record(id=f"{n}{copy}", text=module(n) + f"x = {copy}\n", origin={"group": f"{n}{copy}"})
        for n in range(40)
        for copy in range(2)
    ]
    write_rows(tmp_path / "rows.parquet", rows)
    summary = prepare(recipe([], heldout=0.2), tmp_path / "rows.parquet", out)
    train, heldout = ({r.id[:-1] for r in read_rows(out / f"{side}")} for side in ("train", "heldout"))
    assert not train & heldout
    assert summary["dropped"]["near_heldout"] > 0
    assert summary["kept"] + sum(summary["dropped"].values()) == summary["read"] == 80
    assert summary["heldout"] == 16


def test_pairs_leak_neither(tmp_path: Path, out: Path) -> None:
    shared = module(999)
    rows = [r.with_fields(text=(r.text or "") + (shared if n % 2 else "")) for n, r in enumerate(code_rows(40))]
    write_rows(tmp_path / "rows.parquet", rows)
    summary = prepare(recipe([], ["docstring_pairs"], heldout=0.3), tmp_path / "rows.parquet", out)
    train, heldout = ({r.prompt for r in read_rows(out / f"finetune_{side}")} for side in ("train", "heldout"))
    assert not train & heldout
    assert summary["finetune_left"]["dropped"]["near_heldout"] == 1
    assert summary["finetune_left"]["dropped"]["exact_duplicate"] > 10


def test_equal_rows_and_recipe_give_equal_bytes(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", code_rows(20))
    outputs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        summary = prepare(recipe(["exact_dedup"], ["docstring_pairs"]), tmp_path / "rows.parquet", tmp_path / name)
        outputs.append(
            (summary, {str(p.relative_to(tmp_path / name)): p.read_bytes() for p in (tmp_path / name).rglob("*.*")})
        )
    assert outputs[0] == outputs[1]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(alphabet="ab \n", max_size=12), max_size=20))
def test_kept_and_dropped_add_up_to_read(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    out = tmp_path_factory.mktemp("out")
    write_rows(out / "rows.parquet", [Record(id=str(n), text=t, origin={"group": str(n)}) for n, t in enumerate(texts)])
    process = ["normalize_newlines", "exact_dedup", "near_dedup", {"length_filter": {"max": 10}}]
    try:
        summary = prepare(recipe(process), out / "rows.parquet", out)
    except SourceError:
        return
    assert summary["kept"] + sum(summary["dropped"].values()) == summary["read"] == len(texts)
    assert summary["train"] + summary["heldout"] == summary["kept"]


def test_nothing_left_is_an_error_with_the_reasons(tmp_path: Path, out: Path) -> None:
    write_rows(tmp_path / "rows.parquet", code_rows(5))
    with pytest.raises(SourceError, match=r"(?s)prepared rows.*too_long"):
        prepare(recipe([{"length_filter": {"max": 3}}]), tmp_path / "rows.parquet", out)
    with pytest.raises(SourceError, match=r"(?s)fine-tune.*no_pairs"):
        prepare(recipe([], [{"docstring_pairs": {"min_words": 99}}]), tmp_path / "rows.parquet", out)
    with pytest.raises(RecipeError, match="did you mean exact_dedup"):
        prepare(recipe(["exact_dedupe"]), tmp_path / "rows.parquet", out)
