import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from infra import seals
from infra.errors import RegistryError
from infra.registry import Candidate, fetch, models, register, resolve, set_alias
from infra.tracking import client, lifecycle_run


@pytest.fixture
def bundle(tmp_path) -> Path:
    directory = tmp_path / "bundle"
    (directory / "fp32").mkdir(parents=True)
    (directory / "manifest.json").write_text('{"runtime": "decoder"}')
    (directory / "fp32" / "model.onnx").write_bytes(b"weights" * 1000)
    return directory


@pytest.fixture
def candidate(settings, bundle, request):
    """A function that makes candidates of a model named after the test, so that tests can share a server."""
    name = request.node.originalname.replace("_", "-")[:60]

    with lifecycle_run(settings, name, "0123456789", tags={}, params={}) as run:
        yield lambda fingerprint="f1", **changes: Candidate(
            **{
                "name": name,
                "bundle": bundle,
                "run_id": run.id,
                "fingerprint": fingerprint,
                "kind": "text",
                "card": "---\nlicense: other\n---\n\n# A model",
                "tags": {"data": "abc"},
                "metrics": {"bits_per_byte": 1.6},
                **changes,
            }
        )


def test_a_fingerprint_is_one_version(settings, candidate):
    first = register(settings, candidate())
    again = register(settings, candidate())
    other = register(settings, candidate("f2", kind="image"))
    assert (first.version, again.version, other.version) == (1, 1, 2)
    assert first.tags.items() >= {"data": "abc", "flywheel.fingerprint": "f1"}.items()


def test_the_page_of_the_run_and_the_table_of_models_show_it(settings, candidate):
    made = candidate()
    version = register(settings, made)
    api = client(settings)
    (output,) = api.get_run(made.run_id).outputs.model_outputs
    model = api.get_logged_model(output.model_id)
    assert model.status == "READY"
    assert [(m.key, m.value) for m in model.metrics] == [("bits_per_byte", 1.6)]
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": made.name, "version": version.version}]
    assert api.get_model_version(made.name, "1").description == "# A model"


def test_names_aliases_and_numbers_resolve(settings, candidate):
    name = register(settings, candidate()).name
    register(settings, candidate("f2"))
    set_alias(settings, name, "champion", 1)
    set_alias(settings, name, "challenger", 2)
    found = [resolve(settings, f"{name}{rest}").version for rest in ("", "@champion", "@challenger", "/2")]
    assert found == [1, 1, 2, 2]
    set_alias(settings, name, "champion", 2)
    assert resolve(settings, f"models:/{name}@champion").aliases == ("challenger", "champion")
    assert [(v.version, v.aliases) for v in models(settings, name)] == [(2, ("challenger", "champion")), (1, ())]


@pytest.mark.parametrize("reference", ["nothing", "NAME", "NAME@champion", "NAME/99", "NAME/x", "", "NAME@@", "a'b/1"])
def test_an_unknown_reference_says_what_there_is(settings, candidate, reference):
    name = register(settings, candidate()).name
    with pytest.raises(RegistryError, match="expected") as caught:
        resolve(settings, reference.replace("NAME", name))
    assert name in caught.value.found or "NAME" not in reference


def test_an_alias_needs_a_version(settings, candidate):
    with pytest.raises(RegistryError):
        set_alias(settings, register(settings, candidate()).name, "champion", 9)


def test_files_come_back_byte_for_byte(settings, candidate, bundle, tmp_path):
    fetched = fetch(settings, register(settings, candidate()), tmp_path / "cache" / "model")
    for file in (p for p in bundle.rglob("*") if p.is_file()):
        assert (fetched / file.relative_to(bundle)).read_bytes() == file.read_bytes()
    assert (fetched / "README.md").read_text().endswith("# A model")
    assert "python_function" not in (fetched / "MLmodel").read_text()
    assert "prompt" in (fetched / "MLmodel").read_text()


def test_weights_are_stored_once(local, bundle):
    with lifecycle_run(local, "once", "0123", tags={}, params={}) as run:
        register(local, Candidate("once", bundle, run.id, "f1", "text", "card"))
    assert len(list(Path(local.artifact_root).rglob("*.onnx"))) == 1


def damage_weights(directory):
    (directory / "fp32" / "model.onnx").write_bytes(b"Weights" * 1000)


def damage_and_reseal(directory):
    damage_weights(directory)
    (directory / "MANIFEST.json").write_text(json.dumps({"files": seals.digests(directory)}))


def add_a_file(directory):
    (directory / "extra.py").write_text("import os")


def link_the_weights(directory):
    weights = directory / "fp32" / "model.onnx"
    weights.rename(directory.parent / "moved")
    weights.symlink_to(directory.parent / "moved")


DAMAGE = [damage_weights, damage_and_reseal, add_a_file, link_the_weights]


@pytest.mark.parametrize("harm", DAMAGE)
def test_damaged_files_are_refused(local, bundle, tmp_path, harm):
    with lifecycle_run(local, "damaged", "0123", tags={}, params={}) as run:
        version = register(local, Candidate("damaged", bundle, run.id, "f1", "text", "card"))
    harm(fetch(local, version, tmp_path / "unused"))
    with pytest.raises(RegistryError, match="files of model damaged/1"):
        fetch(local, version, tmp_path / "unused")


def test_a_damaged_download_is_fetched_again(server, bundle, tmp_path):
    with lifecycle_run(server, "downloaded", "0123", tags={}, params={}) as run:
        version = register(server, Candidate("downloaded", bundle, run.id, "f1", "text", "card"))
    into = fetch(server, version, tmp_path / "cache")
    damage_weights(into)
    assert (fetch(server, version, into) / "fp32" / "model.onnx").read_bytes() == b"weights" * 1000


MOMENTS = [
    "create_logged_model",
    "log_model_artifacts",
    "log_batch",
    "finalize_logged_model",
    "log_outputs",
    "create_registered_model",
    "create_model_version",
    "set_logged_model_tags",
]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupted_registration_is_finished_by_the_next(local, bundle, monkeypatch, moment, after):
    """The process stops right before or after one call to MLflow; the same call again doubles nothing."""
    original = getattr(MlflowClient, moment)

    def stop(*args, **kwargs):
        if after:
            original(*args, **kwargs)
        raise KeyboardInterrupt

    with lifecycle_run(local, "stopped", "0123", tags={}, params={}) as run:
        made = Candidate("stopped", bundle, run.id, "f1", "text", "card", metrics={"loss": 1.0})
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, moment, stop)
            with pytest.raises(KeyboardInterrupt):
                register(local, made)
        version = register(local, made)
    api = client(local)
    assert [v.version for v in models(local)] == [version.version] == [1]
    (model,) = api.search_logged_models([run.experiment_id])
    assert (model.status, len(model.metrics)) == ("READY", 1)
    assert len(api.get_run(run.id).outputs.model_outputs) == 1
    assert len(list(Path(local.artifact_root).rglob("*.onnx"))) == 1
    assert fetch(local, version, Path("unused")).is_dir()


def test_a_long_card_is_whole_beside_the_model(local, bundle):
    card = "# A model\n" * 1000
    with lifecycle_run(local, "long", "0123", tags={}, params={}) as run:
        version = register(local, Candidate("long", bundle, run.id, "f1", "text", card))
    assert (fetch(local, version, Path("unused")) / "README.md").read_text() == card
    assert len(client(local).get_model_version("long", "1").description) == 5000
