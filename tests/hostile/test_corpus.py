"""Every hostile file ends in rows and reasons: the parent lives, nothing is written elsewhere, nobody is asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.corpus import CASES, SOUND, flipped, truncated
from tests.hostile.running import Result, Runner, runner

BATCH = 12
MEMORY, SECONDS = 1 << 30, 30.0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with runner(tmp_path_factory.mktemp("hostile")) as made:
        yield made
        assert len(made.pool._all) == 1, "a worker died"


def harmless(result: Result) -> None:
    assert result.strays == []
    assert result.asked == 0
    assert result.peak_bytes <= MEMORY
    assert result.seconds <= SECONDS
    assert result.outcomes, "a file without a row or a reason"
    assert not any("root:x:0" in text for text in result.texts)


def _batches() -> Iterator[list[str]]:
    """Names of small files of one type of source, a few together: starting a parser takes longer than most files."""
    for kind in dict.fromkeys(case.source for case in CASES.values()):
        names = [name for name, case in CASES.items() if case.source == kind and not case.large]
        yield from (names[at : at + BATCH] for at in range(0, len(names), BATCH))


@pytest.mark.parametrize("names", _batches(), ids=lambda names: names[0])
def test_hostile_files(run: Runner, names: list[str]) -> None:
    result = run.run(**{name: CASES[name] for name in names})
    harmless(result)
    assert result.attempts == []
    for name in names:
        found = {
            what
            for file, outcomes in result.by_file.items()
            if file.startswith((f"{name}/", f"{name}.html"))
            for what in outcomes
        }
        assert found, name
        assert found <= CASES[name].outcomes, name


@pytest.mark.parametrize("ending", SOUND)
def test_damaged_files(run: Runner, ending: str) -> None:
    """Files cut off anywhere, and with bytes changed: a reason for each, and never one that no parser gave."""
    data, kind = run.fresh(), SOUND[ending][0]
    names = []
    for number, content in enumerate((*truncated(ending, 30), *flipped(ending, 100))):
        names.append(f"{number:04d}.{ending}")
        (data / names[-1]).write_bytes(content)
    result = run.ingest(kind, data)
    harmless(result)
    assert result.attempts == []
    assert set(names) <= result.by_file.keys()
    assert not [reason for reason in result.outcomes if reason.startswith("parser_")]
