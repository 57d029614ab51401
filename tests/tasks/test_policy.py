import pytest
from prefect.states import Failed

from flywheel.errors import SourceError
from infra.errors import MissingError, StorageError, TrackingError
from tasks.policy import may_pass


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (StorageError("a"), True),
        (TrackingError("a"), True),
        (OSError("a"), True),
        (MissingError("a"), False),
        (SourceError("a"), False),
    ],
)
def test_what_is_tried_again(error: Exception, again: bool) -> None:
    assert may_pass(None, None, Failed(data=error)) is again
