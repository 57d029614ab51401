"""One recipe over ten kinds of sources, all with known defects, ends in one dataset whose counts add up.

What becomes of every row is written down here, by source and reason, and owes nothing to the code that counts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
import yaml

from flywheel.record import Record, read_rows
from tests import postgres
from tests.e2e.conftest import Run
from tests.e2e.sources import local, remote
from tests.e2e.sources.prose import english
from tests.flywheel.sources.web_server import Server, serve
from tests.recipes import code_recipe


class Expected(NamedTuple):
    read: int
    kept: int
    dropped: Mapping[str, int]
    quarantined: Mapping[str, int]


PII = 'expect_column_values_to_be_in_set(column="has_pii", value_set=[false])'
EXPECTED = {
    "csv": Expected(
        24,
        12,
        {"empty": 2, "exact_duplicate": 2, "near_duplicate": 1, "language": 1, "too_short": 1},
        {"undecodable": 1, "bad_csv": 2, PII: 2},
    ),
    "excel": Expected(15, 11, {"empty": 2, "exact_duplicate": 1}, {"not_text": 1}),
    "pdf": Expected(6, 3, {}, {"bad_pdf": 1, "encrypted": 1, "no_text": 1}),
    "docx": Expected(6, 3, {"empty": 1}, {"bad_docx": 1, "encrypted": 1}),
    "html": Expected(10, 4, {"empty": 1, "excluded": 2}, {"wrong_format": 1, "too_deep": 1, "undecodable": 1}),
    "sqlite": Expected(14, 8, {"empty": 2, "exact_duplicate": 1, "language": 2}, {"undecodable": 1}),
    "postgres": Expected(10, 7, {"empty": 1, "exact_duplicate": 1}, {PII: 1}),
    "rest": Expected(14, 9, {"empty": 1, "exact_duplicate": 1}, {"missing_column": 1, "bad_json": 1, "undecodable": 1}),
    "web": Expected(
        11, 5, {"robots": 1, "noindex": 1, "redirect": 1, "content_type": 1, "excluded": 1}, {"http_404": 1}
    ),
    "s3": Expected(14, 9, {"excluded": 1}, {"bad_json": 1, "unsafe_member": 1, "unknown_format": 1, "bad_zip": 1}),
    "s3-pictures": Expected(4, 2, {}, {"missing_file": 1, "corrupt_image": 1}),
}
"""Source → what becomes of its rows."""
REMOTE = ("postgres", "rest", "web", "s3", "s3-pictures")


@dataclass
class World:
    """Everything that the recipe reads."""

    root: Path
    recipe: Path
    variables: dict[str, str]
    tickets: remote.Tickets
    web: Server
    absent: dict[str, str]
    """Source → why it is left out here."""


@pytest.fixture(scope="module")
def world(home: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    root = home / "data"
    root.mkdir()
    with ExitStack() as servers:
        sources = _local(root)
        tickets, api, web = remote.Tickets(), servers.enter_context(serve()), servers.enter_context(serve())
        api.routes["/v1/tickets"] = tickets
        web.routes |= remote.site(web.url)
        variables = {"FLYWHEEL_ALLOWED_HOSTS": f"{api.address},{web.address}", "TICKETS_TOKEN": remote.TOKEN}
        sources |= _served(api, web)
        absent: dict[str, str] = {}
        try:
            url = servers.enter_context(postgres.running())
        except pytest.skip.Exception as skipped:
            absent["postgres"] = str(skipped)
        else:
            remote.questions(url)
            variables["FAQ_PASSWORD"] = postgres.PASSWORD
            sources["postgres"] = _faq(url.replace(quote(postgres.PASSWORD, safe=""), "${FAQ_PASSWORD}"))
        try:
            variables |= request.getfixturevalue("s3_server")
        except pytest.skip.Exception as skipped:
            absent |= {"s3": str(skipped), "s3-pictures": str(skipped)}
        else:
            remote.bucket(_client(variables))
            sources |= _bucket()
        recipe = home / "mixed.yaml"
        recipe.write_text(yaml.safe_dump(_recipe(sources), sort_keys=False))
        yield World(root, recipe, variables, tickets, web, absent)


def _local(root: Path) -> dict[str, dict[str, Any]]:
    local.reviews(root / "reviews.csv")
    local.ledger(root / "ledger.xlsx")
    local.papers(root / "papers")
    local.letters(root / "letters")
    local.pages(root / "pages")
    local.notes(root / "notes.sqlite")
    query = "select body as text from notes where shelf = :shelf order by id"
    return {
        "csv": {"type": "files", "path": f"{root}/reviews.csv", "columns": {"text": "review"}, "license": "CC0-1.0"},
        "excel": {"type": "files", "path": f"{root}/ledger.xlsx", "columns": {"text": "note"}},
        "pdf": {"type": "files", "path": f"{root}/papers", "license": "CC-BY-4.0"},
        "docx": {"type": "files", "path": f"{root}/letters"},
        "html": {"type": "files", "path": f"{root}/pages", "exclude": ["drafts/**"]},
        "sqlite": {
            "type": "sql", "url": f"sqlite:///{root}/notes.sqlite", "query": query, "parameters": {"shelf": "open"},
        },
    }  # fmt: skip


def _served(api: Server, web: Server) -> dict[str, dict[str, Any]]:
    rest = {
        "type": "rest",
        "url": f"{api.url}/v1/tickets",
        "headers": {"Authorization": "Bearer ${TICKETS_TOKEN}"},
        "records": "items",
        "pagination": {"style": "page"},
        "columns": {"text": "body"},
    }
    return {"rest": rest, "web": {"type": "web", "urls": [f"{web.url}/"], "exclude": ["/drafts/**"], "delay": 0}}


def _faq(url: str) -> dict[str, Any]:
    query = "select question, answer from faq where shelf = :shelf order by id"
    columns = {"prompt": "question", "completion": "answer"}
    return {"type": "sql", "url": url, "query": query, "parameters": {"shelf": "a"}, "columns": columns}


def _client(variables: Mapping[str, str]) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )


def _bucket() -> dict[str, dict[str, Any]]:
    place = f"s3://{remote.BUCKET}"
    return {
        "s3": {"type": "files", "path": f"{place}/docs", "exclude": ["old/**"]},
        "s3-pictures": {"type": "imagefolder", "path": f"{place}/pictures", "license": "CC0-1.0"},
    }


def _recipe(sources: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    recipe = code_recipe(Path(), name="mixed")
    return recipe | {
        "model": recipe["model"] | {"modality": "text_causal"},
        "data": {
            "sources": [{"name": name, **source} for name, source in sources.items()],
            "process": [
                "fix_unicode",
                "normalize_whitespace",
                {"length_filter": {"min": 20}},
                {"language_filter": {"keep": ["en"]}},
                "exact_dedup",
                "near_dedup",
            ],
            "split": {"heldout": 0.2},
            "validate": {
                "max_quarantined": 0.2,
                "expectations": [{"expect_column_values_to_be_in_set": {"column": "has_pii", "value_set": [False]}}],
            },
        },
    }


@pytest.fixture(scope="module")
def report(flywheel: Run, world: World) -> dict[str, Any]:
    return _check(flywheel, world)


@pytest.mark.parametrize("source", EXPECTED)
def test_every_row_of_a_source_is_where_it_belongs(report: dict[str, Any], world: World, source: str) -> None:
    if source in world.absent:
        pytest.skip(world.absent[source])
    assert _counts(report["sources"][source]) == EXPECTED[source]


def test_the_whole_adds_up(report: dict[str, Any], world: World) -> None:
    here = [expected for name, expected in EXPECTED.items() if name not in world.absent]
    dropped, quarantined = Counter[str](), Counter[str]()
    for expected in here:
        dropped.update(expected.dropped)
        quarantined.update(expected.quarantined)
    total = Expected(sum(e.read for e in here), sum(e.kept for e in here), dropped, quarantined)
    assert _counts(report) == total
    for count in (report, *report["sources"].values()):
        assert count["kept"] + sum(count["dropped"].values()) + sum(count["quarantined"].values()) == count["read"]
    assert report["rows"]["train"] + report["rows"]["heldout"] == report["kept"]


def _counts(found: Mapping[str, Any]) -> Expected:
    return Expected(*(found[name] for name in ("read", "kept", "dropped", "quarantined")))


def test_every_kept_row_says_where_it_came_from(report: dict[str, Any], world: World, home: Path) -> None:
    licenses = {"csv": {"CC0-1.0"}, "pdf": {"CC-BY-4.0"}, "s3-pictures": {"CC0-1.0"}, "web": {"unknown", "CC-BY-4.0"}}
    rows = _kept(report, home)
    assert len({row.id for row in rows}) == len(rows) == report["kept"]
    assert Counter(row.origin["source"] for row in rows) == {n: c["kept"] for n, c in report["sources"].items()}
    for name in report["sources"]:
        own = [row for row in rows if row.origin["source"] == name]
        assert {row.origin["license"] for row in own} == licenses.get(name, {"unknown"})
        assert len({row.origin["path"] for row in own}) == len(own)
    assert not any(str(world.root) in json.dumps(dict(row.origin)) for row in rows)


def test_what_a_row_says_of_its_place(report: dict[str, Any], world: World, home: Path) -> None:
    places = {(row.origin["source"], row.origin["path"]) for row in _kept(report, home)}
    assert {("csv", "reviews.csv:2"), ("excel", "ledger.xlsx:south!4"), ("pdf", "paper0.pdf")} <= places
    assert {("web", f"{world.web.url}/guide/four"), ("rest", "rows-00000.jsonl:1")} <= places
    if "s3" not in world.absent:
        assert {("s3", "bundle.zip:sub/y.txt"), ("s3", "rows.jsonl.gz:5"), ("s3-pictures", "two.png")} <= places


def test_no_row_that_was_left_out_is_among_the_kept(report: dict[str, Any], home: Path) -> None:
    steps = [home / "store" / s["name"] / s["fingerprint"] / "left.jsonl" for s in report["steps"][:2]]
    left = [json.loads(line) for file in steps for line in file.read_text().splitlines()]
    assert not {row["id"] for row in left} & {row.id for row in _kept(report, home)}
    aside = sum(number for reason, number in report["quarantined"].items() if reason.startswith("expect_"))
    assert len(left) + aside == report["read"] - report["kept"]


def test_the_crawl_and_the_api_were_asked_politely(report: dict[str, Any], world: World) -> None:
    assert not [path for path in world.web.paths if path.startswith(("/private/", "/drafts/"))]
    assert world.web.paths[0] == "/robots.txt"
    assert len(world.web.paths) == len(set(world.web.paths))
    assert world.tickets.refused == 1


def test_secrets_are_written_nowhere(report: dict[str, Any], world: World, home: Path) -> None:
    secrets = [world.variables[n].encode() for n in ("TICKETS_TOKEN", "FAQ_PASSWORD") if n in world.variables]
    files = [p for p in home.rglob("*") if p.is_file() and world.root not in p.parents]
    assert len(files) > 50
    assert not [p for p in files for secret in secrets if secret in p.read_bytes()]


def test_a_second_check_makes_nothing_again(report: dict[str, Any], flywheel: Run, world: World, home: Path) -> None:
    asked, before = len(world.web.paths), _shards(home)
    again = _check(flywheel, world)
    assert all(step["cached"] and not step["reason"] for step in again["steps"])
    assert {**again, "steps": 0, "seconds": 0} == {**report, "steps": 0, "seconds": 0}
    assert len(world.web.paths) == 2 * asked
    assert _shards(home) == before


def test_a_changed_source_costs_itself_alone(report: dict[str, Any], flywheel: Run, world: World, home: Path) -> None:
    (text,) = english("one more", 1)
    (world.root / "pages" / "more.html").write_text(f"<p>{text}</p>")
    before = _shards(home)
    planned = json.loads(flywheel("plan", str(world.recipe), "--json", **world.variables).stdout)["steps"][:3]
    assert planned[0]["reason"] == "file html/ (list of files) changed, file html/more.html added"
    changed = _check(flywheel, world)
    assert [(s["cached"], s["reason"]) for s in changed["steps"]] == [(False, s["reason"]) for s in planned]
    assert (changed["read"], changed["kept"]) == (report["read"] + 1, report["kept"] + 1)
    assert {n: c for n, c in changed["sources"].items() if n != "html"} == {
        n: c for n, c in report["sources"].items() if n != "html"
    }
    made = [facts for key, facts in _shards(home).items() if key not in before and "counts" in facts]
    read = [facts for facts in made if "operations" not in facts]
    processed = [facts for facts in made if facts.get("operations")]
    assert [list(facts["counts"]["sources"]) for facts in (*read, *processed)] == [["html"], ["html"]]


def _check(flywheel: Run, world: World) -> dict[str, Any]:
    done = flywheel("data", "check", str(world.recipe), "--json", **world.variables)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _kept(report: Mapping[str, Any], home: Path) -> list[Record]:
    made = home / "store" / "validate" / report["steps"][-1]["fingerprint"]
    return [row for side in ("train", "heldout") for row in read_rows(made / f"{side}.parquet")]


def _shards(home: Path) -> dict[str, Any]:
    """Key → what the maker of a shard says of it."""
    return {p.parent.name: json.loads(p.read_text()) for p in (home / "store" / ".shards").glob("*/shard.json")}
