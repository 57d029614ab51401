import io

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from flywheel.recipe_sources import SklearnSource
from flywheel.record import Record
from flywheel.sources.sklearn import reader


def test_digits_are_the_pictures_of_scikit_learn() -> None:
    digits = reader(SklearnSource(type="sklearn"), "sklearn", None)
    (entry,) = digits.entries()
    rows = [row for row in digits.read(entry) if isinstance(row, Record)]
    truth = load_digits()
    pictures = np.stack([np.asarray(Image.open(io.BytesIO(row.image or b""))) for row in rows])
    np.testing.assert_array_equal(pictures, np.round(truth.images * 255 / 16).astype(np.uint8))
    assert [row.label for row in rows] == [str(label) for label in truth.target]
    assert len({row.id for row in rows}) == len(rows) == 1797
    assert rows[0].origin["path"] == "digits.csv.gz"
