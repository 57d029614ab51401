"""Problems as they are published, pass@k by hand, and programs that are run."""

import gzip
import inspect
import json
from collections.abc import Sequence
from fractions import Fraction
from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel import arguments
from flywheel.errors import RecipeError, SandboxError, SourceError
from flywheel.metrics.base import Exam
from flywheel.metrics.problems import HUMANEVAL_STOP, read
from flywheel.metrics.programs import estimate, measured, pass_at_k
from flywheel.metrics.table import METRICS
from flywheel.runtimes.base import Sampling
from flywheel.sandbox import Limits, Outcome, Program, Sandbox
from tests.sandboxes import sandbox_or_skip

PROBLEMS = Path(__file__).parent / "problems"
FILES = sorted(path.name for path in PROBLEMS.iterdir())


@pytest.fixture(scope="module")
def sandbox():
    return sandbox_or_skip()


@pytest.mark.parametrize(
    ("samples", "correct", "k", "value"),
    [
        (1, 0, 1, Fraction(0)),
        (1, 1, 1, Fraction(1)),
        (5, 2, 1, Fraction(2, 5)),
        (5, 2, 2, 1 - Fraction(3, 10)),  # C(3, 2) / C(5, 2)
        (5, 2, 4, Fraction(1)),  # four of five cannot all be wrong
        (10, 3, 5, 1 - Fraction(21, 252)),  # C(7, 5) / C(10, 5)
        (20, 1, 10, Fraction(1, 2)),
        (200, 1, 100, Fraction(1, 2)),
        (200, 10, 10, 1 - Fraction(comb(190, 10), comb(200, 10))),
        (200, 0, 100, Fraction(0)),
        (200, 200, 100, Fraction(1)),
    ],
)
def test_pass_at_k_by_hand(samples, correct, k, value):
    assert estimate(samples, correct, k) == pytest.approx(float(value), abs=1e-15, rel=1e-12)


@given(st.integers(1, 300), st.data())
def test_pass_at_k_is_the_ratio_of_combinations(samples, data):
    correct, k = data.draw(st.integers(0, samples)), data.draw(st.integers(1, samples))
    exact = 1 - Fraction(comb(samples - correct, k), comb(samples, k))
    assert estimate(samples, correct, k) == pytest.approx(float(exact), abs=1e-12)


def test_a_mean_over_problems_with_what_each_adds():
    outcomes = [[Outcome("passed", compiled=True), Outcome("failed")], [Outcome("timeout", compiled=True)] * 2]
    one, two, compiled = measured(["a", "b"], outcomes, [2, 1])
    assert (one.name, one.value, two.name, two.value) == ("pass_at_1", 0.25, "pass_at_2", 0.5)
    assert (compiled.name, compiled.value) == ("compile_rate", 0.75)
    assert one.scores.ids == ("a", "b")
    assert one.scores.parts[:, 0].tolist() == [0.5, 0.0]
    assert one.low <= one.value <= one.high
    assert one.detail["outcomes"] == {"failed": 1, "passed": 1, "timeout": 2}


@pytest.mark.parametrize("file", FILES)
def test_published_solutions_pass(file, sandbox):
    outcomes = list(sandbox.run_many([p.solved() for p in read(PROBLEMS / file).problems], workers=2))
    assert [(o.status, o.compiled) for o in outcomes] == [("passed", True)] * len(outcomes), outcomes


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "wrong", ["    return 10 ** 6\n", "    pass\n", "    raise ValueError\n", "    import sys; sys.exit()\n"]
)
def test_wrong_solutions_fail(file, wrong, sandbox):
    problems = read(PROBLEMS / file).problems
    programs = [p.program(wrong if p.head else f"def {p.entry[0]}(*_):\n{wrong}") for p in problems]
    assert {o.status for o in sandbox.run_many(programs, workers=2)} == {"failed"}


def test_the_keys_tell_the_format():
    assert [(file, read(PROBLEMS / file).format) for file in FILES] == [
        ("humaneval.jsonl", "humaneval"),
        ("mbpp.jsonl", "mbpp"),
        ("sanitized-mbpp.json", "mbpp"),
    ]


def test_a_compressed_file_reads_the_same(tmp_path):
    path = tmp_path / "HumanEval.jsonl.gz"
    path.write_bytes(gzip.compress((PROBLEMS / "humaneval.jsonl").read_bytes()))
    assert read(path) == read(PROBLEMS / "humaneval.jsonl")


def test_mbpp_is_asked_by_a_docstring_with_its_tests():
    first = read(PROBLEMS / "mbpp.jsonl").problems[0]
    assert first.prompt == (
        '"""\nWrite a python function to add two numbers.\nassert sum(1, 2) == 3\nassert sum(-1, 1) == 0\n'
        'assert sum(0, 0) == 0\n"""\n'
    )
    assert first.entry == ("sum",)


def test_only_checks_that_need_objects_share_the_process():
    assert [p.shared for p in read(PROBLEMS / "mbpp.jsonl").problems] == [False, True, False]


@pytest.mark.parametrize("stop", HUMANEVAL_STOP)
def test_a_completion_ends_at_a_stop_sequence(stop):
    problem = read(PROBLEMS / "humaneval.jsonl").problems[0]
    assert problem.cut(f"    return 1\n{stop} more\ndef f(): pass") == "    return 1\n"
    assert problem.cut("    return 1\n") == "    return 1\n"


def rows(path: Path, *found: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in found))
    return path


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"task_id": "1", "prompt": "x", "entry_point": "f"}, ["rows.jsonl:2", "no test "]),
        ({"task_id": 1, "text": "x", "code": "y"}, ["rows.jsonl:2", "no test_list"]),
        ({"prompt": "x"}, ["rows.jsonl:2", "no tests"]),
        ({"prompt": "x", "tests": 3}, ["rows.jsonl:2: tests", "3"]),
        ({"task_id": 1, "text": None, "code": "y", "test_list": []}, ["rows.jsonl:2: text", "None"]),
        ({"prompt": "x", "tests": ["assert f()"], "task_id": "a"}, ["'a' twice"]),
        ([1], ["rows.jsonl:2"]),
        ('{"prompt": ', ["rows.jsonl:2"]),
    ],
)
def test_a_wrong_row_is_named(row, words, tmp_path):
    path = rows(tmp_path / "rows.jsonl", {"prompt": "def f():\n", "tests": "assert f()", "task_id": "a"}, row)
    with pytest.raises(SourceError) as error:
        read(path)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"\x1f\x8b"])
def test_a_file_without_problems_is_refused(content, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(SourceError):
        read(tmp_path / "rows.jsonl")


class Coder:
    """Knows the solutions; every second draw of a prompt is wrong, and the last problem it gets always wrong."""

    def __init__(self, solutions: dict[str, str]) -> None:
        self.solutions, self.asked = solutions, list[Sampling]()

    def complete(self, prompts: Sequence[str], sampling: Sampling) -> list[str]:
        self.asked.append(sampling)
        hard = list(self.solutions)[-1]
        return [self.solutions[p] if i % 2 == 0 and p != hard else "  retu rn" for i, p in enumerate(prompts)]


def test_a_recipe_measures_a_model(sandbox):
    path = PROBLEMS / "humaneval.jsonl"
    coder = Coder({p.prompt: p.solution + "\ndef more(): pass" for p in read(path).problems})
    exam = Exam([], [], 8, Sampling(max_new_tokens=64), seed=3, speaker=coder)
    one, two, compiled = pass_at_k(exam, problems=str(path), k=[1, 2], n=2)
    assert (one.value, two.value, compiled.value) == pytest.approx((0.4, 0.8, 0.4))
    assert (coder.asked[0].temperature, coder.asked[0].stop, coder.asked[0].max_new_tokens) == (0.2, HUMANEVAL_STOP, 64)
    assert one.detail["outcomes"] == {"failed": 6, "passed": 4}
    assert one.detail["problems"] == 5
    np.testing.assert_array_equal(two.scores.parts[:, 0], [1, 1, 1, 1, 0])


def test_fewer_problems_and_too_few_samples(sandbox):
    path = PROBLEMS / "humaneval.jsonl"
    exam = Exam([], [], 8, Sampling(), 0, Coder({p.prompt: p.solution for p in read(path).problems}))
    assert len(pass_at_k(exam, problems=str(path), limit=2)[0].scores) == 2
    with pytest.raises(RecipeError, match="at least the largest k, 10"):
        pass_at_k(exam, problems=str(path), k=[10], n=5)


@pytest.mark.parametrize("given", [{"k": [0]}, {"k": []}, {"seconds": 0}, {"n": "3"}, {"memory_mb": 1}, {"nn": 1}])
def test_arguments_are_checked_before_anything_runs(given):
    function = METRICS["pass_at_k"].function("pass_at_k")
    arguments.check("here", "pass_at_k", function, {"problems": __file__, "k": [1, 10]})
    with pytest.raises(RecipeError):
        arguments.check("here", "pass_at_k", function, {"problems": __file__} | given)
    assert next(iter(inspect.signature(function).parameters)) == "exam"


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.fractions()
    | st.decimals(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(VALUES)
def test_plain_values_come_back_as_they_were(value):
    from flywheel.sandboxed import decode, encode

    found = decode(json.loads(json.dumps(encode(value))))
    assert found == value
    assert type(found) is type(value)


def test_values_of_other_types(sandbox):
    source = (
        "import re, collections, enum\n"
        "Point = collections.namedtuple('Point', 'x y')\n"
        "class Colour(enum.IntEnum):\n    RED = 1\n"
        "def many():\n"
        "    counts = collections.Counter('aab')\n"
        "    return [Point(1, 2), Colour.RED, counts, {1, 2}, frozenset({3}), range(3), 9 ** 9999]\n"
        "def items(): return (i * i for i in range(4))\n"
        "def match(text): return re.search('a', text)\n"
        "limit = 3\n"
    )
    checks = (
        "assert many() == [(1, 2), 1, {'a': 2, 'b': 1}, {1, 2}, frozenset({3}), range(3), 9 ** 9999]\n"
        "assert list(items()) == [0, 1, 4, 9]\n"
        "assert match('a') and not match('b') and match('a') != True\n"
        "assert limit == 3 and re.escape('a') == 'a'\n"
    )
    outcome = sandbox.run(Program(source, checks))
    assert outcome.status == "passed", outcome


def test_scripts_are_judged_by_their_exit_code(sandbox):
    script = "import sys\nif __name__ == '__main__':\n    sys.exit(len(input()))\n"
    found = list(sandbox.run_many([Program(script, stdin=b"\n"), Program(script, stdin=b"abc\n")], Limits(), workers=2))
    assert [(o.status, o.exit_code) for o in found] == [("passed", 0), ("failed", 3)]


def test_the_failed_check_is_named(sandbox):
    outcome = sandbox.run(Program("def f(x):\n    return x\n", "assert f(1) == 1\nassert f(2) == 3, 'two'\n"))
    assert (outcome.status, outcome.detail) == ("failed", "AssertionError: two: assert f(2) == 3, 'two'")


def test_without_bubblewrap_nothing_is_run(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match="no bwrap on this machine") as error:
        pass_at_k(Exam([], [], 1, Sampling(), 0), problems="absent.jsonl")
    assert "install bubblewrap" in error.value.remedy


def test_a_bubblewrap_that_does_not_work_is_no_sandbox(monkeypatch, tmp_path):
    (tmp_path / "prlimit").symlink_to("/usr/bin/prlimit")
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match="No permissions to create new namespace"):
        Sandbox()
