"""The command, with a real bundle: a diffusion model whose network predicts that everything is noise."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from flywheel.errors import ServingError
from serving.__main__ import bind, load
from serving.guard import verify
from serving.smoke import smoke, start
from tests.serving.support import Words, running


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import onnx
    from onnx import TensorProto as T
    from onnx import helper

    directory = tmp_path_factory.mktemp("bundle")
    shape = ["batch", 1, 8, 8]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["sample"], ["noise"])],
        "unet",
        [
            helper.make_tensor_value_info("sample", T.FLOAT, shape),
            helper.make_tensor_value_info("timestep", T.INT64, ["batch"]),
            helper.make_tensor_value_info("class_labels", T.INT64, ["batch"]),
        ],
        [helper.make_tensor_value_info("noise", T.FLOAT, shape)],
    )
    (directory / "fp32").mkdir()
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
        directory / "fp32/unet.onnx",
    )
    schedule = {"num_train_timesteps": 100, "beta_schedule": "linear", "beta_start": 0.01, "beta_end": 0.2}
    manifest = {"runtime": "diffusion", "default": "fp32", "precisions": ["fp32"], "labels": ["0", "7"]}
    manifest |= {"unconditional": None, "channels": 1, "sample_size": 8, "clip_sample": True, **schedule}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


def listed(directory: Path) -> dict[str, str]:
    files = (p for p in directory.rglob("*") if p.is_file())
    return {str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_serving_imports_no_training_library() -> None:
    heavy = "{'torch', 'transformers', 'mlflow', 'diffusers', 'prefect'}"
    modules = "serving.app, serving.__main__, serving.smoke, flywheel.runtimes.decoder, flywheel.runtimes.diffusion"
    code = f"import sys, {modules}; print(sorted({heavy} & sys.modules.keys()))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_real_bundle_is_served_and_the_server_ends_in_order(bundle: Path, tmp_path: Path) -> None:
    with start({"digits": bundle, "again": bundle}, log=tmp_path / "log") as server:
        found = smoke(server.url, "digits", "image", "7")
        assert smoke(server.url, "again", "image", "7")["answer"] == found["answer"]
        with pytest.raises(ServingError, match="the labels are 0, 7"):
            smoke(server.url, "digits", "image", "cat")
    assert server.process.returncode == 0
    assert server.url in server.log.read_text()


def test_a_text_answer_is_checked() -> None:
    with running({"words": Words()}) as url:
        assert smoke(url, "words", "text", "a")["answer"].startswith("word0-0 word0-1 ")
        with pytest.raises(ServingError, match="served are: words"):
            smoke(url, "other", "text", "a")
    with pytest.raises(ServingError, match="ConnectError"):
        smoke(url, "words", "text", "a")


def test_sigterm_finishes_what_was_admitted() -> None:
    code = """
from serving.__main__ import main
from tests.serving.support import Words
raise SystemExit(main(["--bundle", "words=directory", "--port", "0"], lambda directory: Words(pause=0.02)))
"""
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        asked = {"model": "words", "prompt": "a", "max_tokens": 60, "stream": True}
        with (
            httpx.stream("POST", url + "/v1/completions", json=asked, trust_env=False, timeout=60) as running,
            httpx.stream("POST", url + "/v1/completions", json=asked, trust_env=False, timeout=60) as waiting,
        ):
            process.send_signal(signal.SIGTERM)
            for response in (running, waiting):
                events = [line for line in response.iter_lines() if line]
                assert len(events) == 61
                assert events[-1] == "data: [DONE]"
    assert process.returncode == 0


def test_the_server_ends_with_the_process_that_started_it(bundle: Path) -> None:
    server = start({"digits": bundle})
    assert server.process.stdin is not None
    server.process.stdin.close()
    assert server.process.wait(60) == 0
    server.stop()


def test_a_server_that_cannot_start_says_why(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"exit status 1(.|\n)*bundle(.|\n)*No such file"):
        start({"digits": tmp_path / "nothing"})
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        with pytest.raises(ServingError, match="a free port"):
            start({"digits": bundle}, port=owner.getsockname()[1])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.com", "127.0.0.1.example.com"])
def test_addresses_that_others_reach_are_refused(host: str) -> None:
    with pytest.raises(ServingError, match="without authentication"):
        bind(host, 0)


def test_loopback_addresses_are_bound() -> None:
    for host in ("127.0.0.1", "localhost", "127.0.0.2"):
        bind(host, 0).close()


@pytest.mark.parametrize("change", ["flip", "remove", "add", "garble"])
def test_a_bundle_that_is_not_what_was_registered_is_refused(bundle: Path, tmp_path: Path, change: str) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    (copy / "MANIFEST.json").write_text(json.dumps({"files": listed(copy)}))
    verify(copy)
    assert load(copy).kind == "image"
    graph = copy / "fp32/unet.onnx"
    match change:
        case "flip":
            graph.write_bytes(graph.read_bytes()[:-1] + b"\x00")
        case "remove":
            graph.unlink()
        case "add":
            (copy / "extra.onnx").write_bytes(b"")
        case "garble":
            (copy / "MANIFEST.json").write_text("[]")
    with pytest.raises(ServingError, match="bundle"):
        load(copy)
