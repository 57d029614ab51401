"""Whatever is sent: an answer or a refusal in OpenAI's shape, never a 500."""

from __future__ import annotations

import json
from urllib.parse import quote

import httpx
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.sampled_from(["a", "7"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "tool"]), "content": JSON}, optional={"name": JSON}
    ),
    max_size=3,
)
FIELDS = (
    "best_of", "echo", "frequency_penalty", "guidance_scale", "logit_bias", "logprobs", "max_completion_tokens",
    "max_tokens", "n", "num_inference_steps", "response_format", "seed", "size", "stop", "stream", "stream_options",
    "suffix", "temperature", "tool_choice", "tools", "top_k", "top_p", "user",
)  # fmt: skip
BODIES = st.fixed_dictionaries(
    {"model": st.sampled_from(["words", "pixel"]) | JSON},
    optional={"prompt": JSON, "messages": MESSAGES | JSON, **dict.fromkeys(FIELDS, JSON)},
)
ROUTES = st.sampled_from(["/v1/completions", "/v1/chat/completions", "/v1/images/generations"])
QUICK = settings(
    max_examples=200, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def sound(response: httpx.Response) -> bool:
    if response.is_success:
        return "server_error" not in response.text
    return 400 <= response.status_code < 500 and response.json()["error"]["message"] != ""


@seed(2)
@QUICK
@given(route=ROUTES, body=BODIES)
def test_any_json(http: httpx.Client, route: str, body: dict[str, object]) -> None:
    content = json.dumps(body, ensure_ascii=True)
    assert sound(http.post(route, content=content, headers={"content-type": "application/json"}))


@seed(2)
@QUICK
@given(route=ROUTES, body=st.binary(max_size=40), kind=st.sampled_from(["application/json", "text/plain", "a/b;c", ""]))
def test_any_bytes(http: httpx.Client, route: str, body: bytes, kind: str) -> None:
    assert sound(http.post(route, content=body, headers={"content-type": kind}))


@seed(2)
@QUICK
@given(path=st.text(st.characters(codec="utf-8"), max_size=20))
def test_any_model_name(http: httpx.Client, path: str) -> None:
    assert sound(http.get("/v1/models/" + quote(path, safe="")))
