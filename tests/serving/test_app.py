"""The unmodified OpenAI client, and plain HTTP where no client would go."""

from __future__ import annotations

import base64
import json

import httpx
import pytest
from openai import BadRequestError, InternalServerError, NotFoundError, OpenAI


def error(response: httpx.Response) -> dict[str, str | None]:
    """The error of a refusal, in OpenAI's shape."""
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    return body["error"]


def test_models_are_listed_and_retrieved(openai: OpenAI) -> None:
    assert [m.id for m in openai.models.list()] == ["words", "pixel"]
    assert openai.models.retrieve("pixel").id == "pixel"
    with pytest.raises(NotFoundError, match="served are: words, pixel"):
        openai.models.retrieve("other")


def test_a_completion_with_usage(openai: OpenAI) -> None:
    answer = openai.completions.create(model="words", prompt="one two", max_tokens=3, seed=5)
    assert answer.choices[0].text == "word5-0 word5-1 word5-2 "
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (2, 3, 5)


def test_every_prompt_gets_n_answers_that_do_not_depend_on_what_stands_beside_them(openai: OpenAI) -> None:
    answer = openai.completions.create(model="words", prompt=["a", "b c"], n=2, max_tokens=1, seed=7, echo=True)
    assert [c.index for c in answer.choices] == [0, 1, 2, 3]
    assert [c.text for c in answer.choices] == ["aword7-0 ", "aword8-0 ", "b cword7-0 ", "b cword8-0 "]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 3


def test_a_stream_joins_to_the_whole_answer(openai: OpenAI) -> None:
    asked = {"model": "words", "prompt": "a", "n": 2, "max_tokens": 4, "seed": 1, "echo": True}
    whole = openai.completions.create(**asked)
    events = list(openai.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    joined = ["", ""]
    for event in events[:-1]:
        joined[event.choices[0].index] += event.choices[0].text
    assert joined == [c.text for c in whole.choices]
    assert (events[-1].choices, events[-1].usage) == ([], whole.usage)
    assert [e.choices[0].finish_reason for e in events[:-1] if e.choices[0].finish_reason] == ["length", "length"]


def test_chat_continues_the_messages(openai: OpenAI) -> None:
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": [{"type": "text", "text": "a"}]}]
    asked = {"model": "words", "messages": messages, "max_completion_tokens": 2, "seed": -1}
    answer = openai.chat.completions.create(**asked)
    assert answer.choices[0].message.content == f"word{2**64 - 1}-0 word{2**64 - 1}-1 "
    assert answer.usage.prompt_tokens == 3
    events = list(openai.chat.completions.create(**asked, stream=True))
    assert events[0].choices[0].delta.role == "assistant"
    assert "".join(e.choices[0].delta.content or "" for e in events) == answer.choices[0].message.content
    assert events[-1].choices[0].finish_reason == "length"


def test_chat_fills_the_context_when_no_length_is_asked_for(openai: OpenAI) -> None:
    answer = openai.chat.completions.create(model="words", messages=[{"role": "user", "content": "a b c d"}])
    assert answer.usage.total_tokens == 64


def test_images(openai: OpenAI) -> None:
    answer = openai.images.generate(model="pixel", prompt="7", n=2, response_format="b64_json", extra_body={"seed": 3})
    pictures = [base64.b64decode(image.b64_json) for image in answer.data]
    assert all(p.startswith(b"\x89PNG") for p in pictures)
    assert pictures[0] != pictures[1]
    with pytest.raises(BadRequestError, match="known: 0 to 9"):
        openai.images.generate(model="pixel", prompt="cat")


def test_without_a_seed_answers_differ(openai: OpenAI) -> None:
    texts = {openai.completions.create(model="words", prompt="a").choices[0].text for _ in range(3)}
    assert len(texts) == 3


def test_a_model_of_another_kind_is_refused_with_the_route_that_fits(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="POST /v1/images/generations"):
        openai.completions.create(model="pixel", prompt="7")
    with pytest.raises(BadRequestError, match="POST /v1/completions"):
        openai.images.generate(model="words", prompt="7")


def test_a_prompt_longer_than_the_context_is_refused_with_numbers(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="the prompt has 64 tokens; the context of 'words' holds 64") as caught:
        openai.completions.create(model="words", prompt="a " * 64)
    assert caught.value.code == "context_length_exceeded"
    openai.completions.create(model="words", prompt="a " * 63)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("best_of", 2), ("frequency_penalty", 0.5), ("logit_bias", {"50256": -100}), ("logprobs", 2), ("max_tokens", 0),
        ("n", 0), ("n", 129), ("n", True), ("prompt", 3), ("prompt", []), ("prompt", [1, 2]), ("prompt", ""),
        ("seed", 2**63), ("stop", ["a"] * 5), ("stop", ""), ("suffix", "x"), ("temperature", 2.1),
        ("temperature", "1"), ("temprature", 1), ("top_p", 0), ("tools", [{}]),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(http: httpx.Client, field: str, value: object) -> None:
    response = http.post("/v1/completions", json={"model": "words", "prompt": "a", field: value})
    assert response.status_code == 400
    assert error(response)["param"] == field


@pytest.mark.parametrize("field", ["best_of", "echo", "logit_bias", "max_tokens", "n", "stop", "stream", "temperature"])
def test_null_means_the_default(http: httpx.Client, field: str) -> None:
    assert http.post("/v1/completions", json={"model": "words", "prompt": "a", field: None}).status_code == 200


def test_fields_that_say_nothing_about_the_answer_are_accepted(http: httpx.Client) -> None:
    extras = {"user": "u", "metadata": {"k": "v"}, "presence_penalty": 0.0, "logit_bias": {}, "service_tier": "auto"}
    assert http.post("/v1/completions", json={"model": "words", "prompt": "a", **extras}).status_code == 200


def test_chat_refuses_what_it_would_have_to_drop(http: httpx.Client) -> None:
    asked = {"model": "words", "messages": [{"role": "user", "content": "a"}]}
    tools = http.post("/v1/chat/completions", json={**asked, "tools": [{"type": "function"}]})
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    assert (tools.status_code, error(tools)["param"]) == (400, "tools")
    assert http.post("/v1/chat/completions", json={**asked, "messages": picture}).status_code == 400
    echoed = {"role": "assistant", "content": "b", "refusal": None, "annotations": [], "tool_calls": None}
    assert http.post("/v1/chat/completions", json={**asked, "messages": [echoed]}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/completions", 405),
        ("POST", "/v1/completions/", 404),
        ("GET", "/docs", 404),
    ],
)
def test_unknown_routes(http: httpx.Client, method: str, path: str, status: int) -> None:
    response = http.request(method, path)
    assert response.status_code == status
    assert error(response)["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b"\xff\xfe\xfd", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"model": "words", "prompt": "\\ud800"}', "application/json", 400),
        (b'{"model": "words", "prompt": "a", "\\ud800": 1}', "application/json", 400),
        (b'{"model": "\\ud800", "prompt": "a"}', "application/json", 404),
        (b'{"model": "words", "prompt": "a", "temperature": NaN}', "application/json", 400),
        (b'{"model": "words", "prompt": "a", "seed": ' + b"9" * 5000 + b"}", "application/json", 400),
        (b'{"model": "words", "prompt": "a"}', "text/plain", 400),
        (b'{"model": "words", "prompt": "a"}', "application/json; charset=latin-1", 200),
        (b" " * 1_000_001, "application/json", 413),
    ],
)
def test_hostile_bodies(http: httpx.Client, body: bytes, content_type: str, status: int) -> None:
    response = http.post("/v1/completions", content=body, headers={"content-type": content_type})
    assert response.status_code == status
    assert response.is_success or error(response)["type"] == "invalid_request_error"


def test_a_body_without_a_length_is_bounded_too(http: httpx.Client) -> None:
    pieces = (b" " * 100_000 for _ in range(12))
    response = http.post("/v1/completions", content=pieces, headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert error(response)["code"] == "request_too_large"


def test_another_host_name_is_refused(http: httpx.Client) -> None:
    response = http.get("/v1/models", headers={"host": "evil.example:80"})
    assert response.status_code == 400
    assert "loopback" in str(error(response)["message"])


def test_a_failing_model_says_nothing_of_its_inside(openai: OpenAI, http: httpx.Client) -> None:
    with pytest.raises(InternalServerError) as caught:
        openai.completions.create(model="words", prompt="fail")
    assert "inner secret" not in str(caught.value)
    lines = http.post("/v1/completions", json={"model": "words", "prompt": "fail", "stream": True}).text.split("\n\n")
    assert json.loads(lines[0].removeprefix("data: "))["error"]["type"] == "server_error"
    assert "[DONE]" not in lines
    assert openai.completions.create(model="words", prompt="still there").choices


def test_health_ready_and_the_document(http: httpx.Client) -> None:
    assert http.get("/health").json() == {"status": "ok"}
    assert http.get("/ready").json() == {"status": "ready"}
    assert {"/v1/models", "/v1/completions", "/v1/images/generations"} <= http.get("/openapi.json").json()[
        "paths"
    ].keys()
