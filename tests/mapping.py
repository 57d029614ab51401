"""A mapper that runs requests in the test's own process, as a worker would."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from flywheel.confinement import Answer, run
from flywheel.workers import Request


def in_process(requests: Sequence[Request]) -> Iterator[Answer]:
    for request in requests:
        argument = json.loads(json.dumps(request.argument))
        yield Answer(run({"function": request.function, "argument": argument}))
