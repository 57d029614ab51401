from __future__ import annotations

from pathlib import Path

import pytest

from flywheel import fingerprint


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which tasks.a reaches flywheel.core, and that reaches flywheel.helper inside a function."""
    files = {
        "tasks/a.py": "import prefect\nfrom tasks import shell\nfrom flywheel import core\n",
        "tasks/shell.py": "x = 1\n",
        "flywheel/__init__.py": "",
        "flywheel/core.py": "import json\nimport numpy as np\ndef f():\n    from flywheel.helper import g\n",
        "flywheel/helper.py": "def g(): ...\n",
        "flywheel/typed.py": "",
        "flywheel/other.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from flywheel import typed\n",
        "infra/outside.py": "import yaml\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path)
    return tmp_path


def test_source_is_followed_through_imports_inside_functions(project: Path) -> None:
    found = fingerprint.of_source("tasks.a", [])
    assert {"module:tasks.a", "module:flywheel.core", "module:flywheel.helper"} <= set(found)
    assert "module:tasks.shell" not in found


def test_a_change_two_imports_away_changes_the_fingerprint_and_nothing_else(project: Path) -> None:
    before = fingerprint.of_source("tasks.a", [])
    (project / "flywheel/helper.py").write_text("def g(): return 2\n")
    after = fingerprint.of_source("tasks.a", [])
    assert {k for k in before if before[k] != after[k]} == {"module:flywheel.helper"}


def test_libraries_of_the_core_count_and_those_of_the_task_do_not(project: Path) -> None:
    found = fingerprint.of_source("tasks.a", [])
    assert "package:numpy" in found
    assert "package:prefect" not in found
    assert "package:python" in found


def test_named_modules_outside_the_core_are_followed(project: Path) -> None:
    found = fingerprint.of_source("tasks.a", ["infra.outside"])
    assert "module:infra.outside" in found
    assert "package:PyYAML" in found


def test_imports_for_type_checkers_do_not_count(project: Path) -> None:
    assert "module:flywheel.typed" not in fingerprint.of_source("tasks.a", ["flywheel.other"])


def test_leaves_of_a_value_become_ingredients() -> None:
    assert fingerprint.of_values({"a": {"b": 1}, "c": [1, 2]}, "recipe:x") == {
        "recipe:x.a.b": "1",
        "recipe:x.c": "[1, 2]",
    }


def test_order_does_not_matter_and_content_does() -> None:
    assert fingerprint.fingerprint({"a": "1", "b": "2"}) == fingerprint.fingerprint({"b": "2", "a": "1"})
    assert fingerprint.fingerprint({"a": "1"}) != fingerprint.fingerprint({"a": "2"})


def test_libraries_go_by_the_names_of_their_distributions(project: Path) -> None:
    (project / "flywheel/core.py").write_text(
        "import json\ndef f():\n    import PIL, numpy.linalg, orjson, sklearn, yaml\n"
    )
    found = {name.removeprefix("package:") for name in fingerprint.of_source("tasks.a", []) if "package:" in name}
    assert found == {"numpy", "orjson", "pillow", "python", "PyYAML", "scikit-learn"}
