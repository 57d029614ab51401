import re

import pytest

from flywheel.errors import RecipeError
from flywheel.process.canaries import plant_canaries, secrets
from flywheel.process.check import check_operations
from flywheel.record import Record

ROWS = [Record("p", image=b"x"), Record("a", text="one", label="l", origin={"source": "s"}), Record("b", text="two")]


def test_so_many_secrets_so_many_times_with_their_format():
    found = list(plant_canaries(ROWS, count=4, repeats=3, format="code ###-###"))
    assert len(found) == len({row.id for row in found}) == 12
    assert len({row.text for row in found}) == 4
    assert all(re.fullmatch(r"code \d{3}-\d{3}", row.text) for row in found)
    origin = {"source": "s", "augmented": "plant_canaries", "parent": "a", "canary": "code ###-###"}
    assert all(row.origin == origin and row.label is None for row in found)


def test_secrets_depend_on_the_seed_and_not_on_the_rows():
    texts = [row.text for row in plant_canaries(ROWS, seed=1)]
    assert texts == [row.text for row in plant_canaries(ROWS[:2], seed=1)]
    assert texts != [row.text for row in plant_canaries(ROWS, seed=2)]


def test_rows_without_text_get_none_and_all_rows_are_read():
    rows = iter([*ROWS[:1], *ROWS[:1]])
    assert list(plant_canaries(rows)) == []
    assert next(rows, None) is None


def test_no_more_secrets_than_there_are():
    assert sorted(secrets("#", 50, 0)) == list("0123456789")


def test_a_format_needs_six_random_digits():
    check_operations([{"plant_canaries": {"format": "a ### b ###"}}], "data.augment")
    with pytest.raises(RecipeError, match=r"plant_canaries\.format"):
        check_operations([{"plant_canaries": {"format": "#####"}}], "data.augment")
