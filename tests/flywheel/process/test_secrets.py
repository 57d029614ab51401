from __future__ import annotations

import string
from random import Random

import pytest

from flywheel.process.secrets import KINDS, entropy, find_secrets, mask_secrets
from flywheel.process.secrets import drop_secrets as drop_them
from flywheel.record import Dropped, Record


def drawn(count: int, alphabet: str = string.ascii_letters + string.digits, seed: int = 0) -> str:
    """Made-up characters, so that no text of this file looks like a real secret."""
    random = Random(seed)
    return "".join(random.choice(alphabet) for _ in range(count))


HEX, UPPER = "0123456789abcdef", string.ascii_uppercase + "234567"
JWT = f"eyJ{drawn(20)}.eyJ{drawn(40)}.{drawn(43)}"
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{drawn(64)}\n{drawn(64)}\n-----END RSA PRIVATE KEY-----"
TOKENS = [
    ("aws_access_key", "AKIA" + drawn(16, UPPER)),
    ("github_token", "ghp_" + drawn(36)),
    ("github_token", "github_pat_" + drawn(82)),
    ("gitlab_token", "glpat-" + drawn(20)),
    ("slack_token", f"xoxb-{drawn(12, string.digits)}-{drawn(24)}"),
    ("google_key", "AIza" + drawn(35)),
    ("stripe_key", "sk_live_" + drawn(24)),
    ("openai_key", f"sk-proj-{drawn(24)}T3BlbkFJ{drawn(24)}"),
    ("anthropic_key", f"sk-ant-api03-{drawn(93)}AA"),
    ("huggingface_token", "hf_" + drawn(34)),
    ("npm_token", "npm_" + drawn(36)),
    ("sendgrid_key", f"SG.{drawn(22)}.{drawn(43)}"),
    ("twilio_key", "SK" + drawn(32, HEX)),
    ("jwt", JWT),
    ("private_key", PEM),
]


@pytest.mark.parametrize(("kind", "token"), TOKENS)
@pytest.mark.parametrize("place", ["{}", "key = '{}'", "use {}, please", '{{"k": "{}"}}', "a\n{}\nb"])
def test_tokens_of_issuers(kind: str, token: str, place: str) -> None:
    text = place.format(token)
    assert [(m.kind, text[m.start : m.end]) for m in find_secrets(text)] == [(kind, token)]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ('password = "tr0ub4dor&3"', "password", "tr0ub4dor&3"),
        ("DB_PASSWORD=Xk29fjw0qp", "password", "Xk29fjw0qp"),
        ("pwd: 'Secret99'", "password", "Secret99"),
        (f"api_key: str = '{drawn(24)}'", "secret", drawn(24)),
        (f'"client_secret": "{drawn(32)}",', "secret", drawn(32)),
        (f"export AUTH_TOKEN={drawn(32)}\n", "secret", drawn(32)),
        (f"aws_secret_access_key = {drawn(40)}", "secret", drawn(40)),
        ("postgresql://jo:hunter2@db:5432/shop", "password", "hunter2"),
        ("redis://:hunter2@cache:6379", "password", "hunter2"),
        (f"Authorization: Bearer {drawn(40)}", "authorization", drawn(40)),
    ],
)
def test_values_that_a_name_or_a_place_gives_away(text: str, kind: str, value: str) -> None:
    assert [(m.kind, text[m.start : m.end]) for m in find_secrets(text)] == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        "password = getpass.getpass()", 'password = os.environ["DB_PASSWORD"]', "password: str", "max_tokens: 4096",
        'label = {"password": "Password"}', "token = t[i]", 'tokenizer = "openai-community/gpt2"', "Basic principles",
        'token_url = "https://a.example/token"', "secret: ${{ secrets.DEPLOY_KEY }}", 'api_key="<YOUR_API_KEY>"',
        'api_key = "your_api_key_here_123456"', "secret of life", "sha1 da39a3ee5e6b4b0d3255bfef956018",
        "550e8400-e29b-41d4-a716-446655440000", "postgresql://${USER}:${PASS}@db/x", "token_count = 123456789012",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----", 'password = "********"', "AKIA is a prefix",
        "The password is the same as before.", 'secret_name = "projects/p1/secrets/s2"',
    ],
)  # fmt: skip
def test_leaves_alone(text: str) -> None:
    assert find_secrets(text) == []


def test_a_private_key_that_is_cut_off_ends_with_its_characters() -> None:
    body = drawn(64)
    text = f"-----BEGIN PRIVATE KEY-----\n{body}\n\u2014 rest of the page"
    [match] = find_secrets(text)
    assert text[match.end :] == "\u2014 rest of the page"


def test_mask_counts_by_kind_and_drop_names_them() -> None:
    rows = [Record(id="a", text=f"t1 = ghp_{drawn(36)}; t2 = ghp_{drawn(36, seed=1)}"), Record(id="b", text="x = 1")]
    masked, clean = mask_secrets(rows)
    assert isinstance(masked, Record)
    assert masked.text == "t1 = <GITHUB_TOKEN>; t2 = <GITHUB_TOKEN>"
    assert masked.origin == {"secrets": {"github_token": 2}}
    assert clean == rows[1]
    dropped, kept = drop_them(rows)
    assert dropped == Dropped("a", "secret", detail="github_token 2")
    assert kept == rows[1]


def test_kinds_are_in_order_of_precedence() -> None:
    assert len(set(KINDS)) == len(KINDS)
    text = f'api_key = "ghp_{drawn(36)}"'
    assert [match.kind for match in find_secrets(text)] == ["github_token"]


def test_entropy() -> None:
    assert entropy("aaaa") == 0
    assert entropy("abcd") == 2


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "unit",
    [
        "eyJ",
        "-eyJ",
        "eyJaaaaaaaaaa.",
        "password",
        "password=",
        "://a:",
        "-----BEGIN PRIVATE KEY-----é",
        "xoxb-",
        "a_live_",
        "token: ",
        "Bearer ",
    ],
)
def test_hostile_texts_take_linear_time(unit: str) -> None:
    """A quadratic search would need hours for these."""
    find_secrets(unit * (400_000 // len(unit)))
