import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra import tracking
from infra.errors import TrackingError
from infra.settings import Settings
from infra.tracking import client, flat, lifecycle_run, metric_name, prepare_database, step_run

KEY = "0123456789abcdef"


def lifecycle(settings, name, key=KEY):
    return lifecycle_run(settings, name, key, tags={"recipe": "abc"}, params={"train": {"max_steps": 10}, "seed": 0})


def history(settings, run_id, metric="loss"):
    return [(m.step, m.value) for m in client(settings).get_metric_history(run_id, metric)]


def test_a_lifecycle_and_a_step_are_kept(settings, tmp_path):
    rows = tmp_path / "train.parquet"
    pq.write_table(pa.table({"id": ["1", "2", "3"], "text": ["a", "b", "c"]}), rows)
    with lifecycle(settings, "kept") as run:
        run.set_tags({"cached.ingest": "f00"})
        with step_run(settings, run.id, "train") as step:
            step.log_history([{"step": s, "loss": 1 / s, "note": "x"} for s in range(1, 1202)])
            step.log_metrics({"bits_per_byte": 1.6})
            step.log_params({"peft": {"r": 8}})
            step.log_text("name: kept", "recipe.yaml")
            step.log_picture(b"\x89PNG", "loss.png")
            step.log_dataset("kept/train", rows, "ab" * 32, "training")
    parent, child = (client(settings).get_run(r.id) for r in (run, step))
    assert {parent.info.status, child.info.status} == {"FINISHED"}
    assert parent.data.params == {"train.max_steps": "10", "seed": "0"}
    assert parent.data.tags.items() >= {"recipe": "abc", "cached.ingest": "f00"}.items()
    assert child.data.tags["mlflow.parentRunId"] == run.id
    assert child.data.metrics["bits_per_byte"] == 1.6
    assert child.data.params == {"peft.r": "8"}
    assert len(history(settings, step.id)) == 1201
    assert {f.path for f in client(settings).list_artifacts(step.id)} == {"recipe.yaml", "pictures"}
    picture = client(settings).download_artifacts(step.id, "pictures/loss.png", str(tmp_path))
    assert Path(picture).read_bytes() == b"\x89PNG"
    (data,) = child.inputs.dataset_inputs
    assert (data.dataset.name, data.tags[0].value) == ("kept/train", "training")
    assert '"num_rows": 3' in data.dataset.profile


def test_what_a_kill_left_open_is_continued_without_doubles(settings):
    abandoned = lifecycle(settings, "continued")
    first = abandoned.__enter__()
    abandoned_step = step_run(settings, first.id, "train")
    first_step = abandoned_step.__enter__()
    first_step.log_history([{"step": 10, "loss": 3.0}, {"step": 20, "loss": 2.0}])
    with lifecycle(settings, "continued") as run, step_run(settings, run.id, "train") as step:
        step.log_history([{"step": 10, "loss": 3.0}, {"step": 20, "loss": 2.0}, {"step": 30, "loss": 1.0}])
        step.log_metrics({"loss": 1.0}, step=30)
    assert (run.id, step.id) == (first.id, first_step.id)
    assert history(settings, step.id) == [(10, 3.0), (20, 2.0), (30, 1.0)]
    with lifecycle(settings, "continued") as later:
        assert later.id != run.id


def test_another_plan_gets_another_run(local):
    with lifecycle(local, "plans", "aaaa") as one, lifecycle(local, "plans", "bbbb") as two:
        assert one.id != two.id


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_an_exception_ends_the_runs(local, error, status):
    with pytest.raises(error), lifecycle(local, "ends") as run, step_run(local, run.id, "train") as step:
        raise error
    assert [client(local).get_run(r.id).info.status for r in (run, step)] == [status, status]


def test_a_step_that_stayed_open_ends_with_its_lifecycle(local):
    with lifecycle(local, "open") as run:
        left = step_run(local, run.id, "train")
        step = left.__enter__()
    assert client(local).get_run(step.id).info.status == "KILLED"


def test_system_metrics_are_sampled(local, monkeypatch):
    monkeypatch.setattr(tracking, "SYSTEM_METRICS_SECONDS", 0.05)
    with lifecycle(local, "system") as run, step_run(local, run.id, "train") as step:
        while "system/cpu_utilization_percentage" not in client(local).get_run(step.id).data.metrics:
            time.sleep(0.05)


def test_a_deleted_experiment_is_restored(local):
    with lifecycle(local, "deleted") as run:
        pass
    client(local).delete_experiment(run.experiment_id)
    with lifecycle(local, "deleted") as again:
        assert again.experiment_id == run.experiment_id


def test_a_kill_while_the_database_is_made_leaves_none(tmp_path):
    uri, draft = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / ".mlflow.db.new"
    code = f"from infra.tracking import prepare_database; prepare_database({uri!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    while not draft.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "mlflow.db").exists()
    prepare_database(uri)
    settings = Settings.load({"FLYWHEEL_HOME": str(tmp_path)})
    with lifecycle(settings, "whole"):
        pass
    assert not draft.exists()


def test_a_server_that_is_not_there_is_named_at_once():
    with pytest.raises(TrackingError, match=r"127\.0\.0\.1:9"):
        client(Settings.load({"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}))


def test_metrics_of_expectations_get_names_that_mlflow_takes():
    label = 'quarantined.expect_column_values_to_be_in_set(column="has_pii", value_set=[false])'
    assert metric_name(label) == "quarantined.expect_column_values_to_be_in_set column has_pii value_set false"
    assert len(metric_name("x" * 300)) == 250


def test_flat():
    assert flat({"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None}) == {"a.b.c": 1, "a.d": "[1, 2]", "e": None}


def test_files_lie_here_without_a_server_and_there_with_one(local, server):
    with lifecycle(local, "places") as here, lifecycle(server, "places") as there:
        here.log_text("x", "a.txt")
        there.log_text("x", "a.txt")
    assert list(Path(local.artifact_root, "places").rglob("a.txt"))
    assert not Path(server.artifact_root).exists()
