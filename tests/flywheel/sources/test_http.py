import gzip
import pickle
import socket
import ssl
import threading
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from flywheel.errors import FetchError
from flywheel.sources.http import AGENT, Client, Limits, inflate, retry_after
from tests.flywheel.sources.web_server import Answer, Server, serve

LIMITS = Limits(bytes=100_000, attempts=3)


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def client(server: Server, slept: list[float]) -> Iterator[Client]:
    with Client(server.allowed, LIMITS, sleep=slept.append) as made:
        yield made


def reason(client: Client, url: str) -> str:
    with pytest.raises(FetchError) as error:
        client.get(url)
    return error.value.reason


def test_says_who_asks_and_sends_no_cookies_back(server: Server, client: Client) -> None:
    server.routes["/"] = Answer("hello", headers={"Set-Cookie": "a=b"})
    for _ in range(2):
        assert client.get(server.url + "/?q=1#part").body == b"hello"
    assert server.paths == ["/?q=1", "/?q=1"]
    assert server.asked[1].headers["User-Agent"] == AGENT
    assert "Cookie" not in server.asked[1].headers


def test_the_environments_proxy_is_not_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    server.routes["/"] = "hello"
    with Client(server.allowed, LIMITS) as client:
        assert client.get(server.url).body == b"hello"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again(server: Server, client: Client, slept: list[float], status: int) -> None:
    answers = [Answer("later", status)] * 2 + [Answer("now")]
    server.routes["/"] = lambda _: answers.pop(0)
    assert client.get(server.url).body == b"now"
    assert 0.25 <= slept[0] <= 0.5 <= slept[1] <= 1


def test_the_last_answer_of_a_busy_server_is_returned(server: Server, client: Client, slept: list[float]) -> None:
    server.routes["/"] = Answer("later", 503)
    assert client.get(server.url).status == 503
    assert (len(server.asked), len(slept)) == (3, 2)


def test_pauses_are_drawn_from_the_seed(server: Server) -> None:
    server.routes["/"] = Answer("later", 503)
    pauses: list[list[float]] = [[], [], []]
    for seed, slept in zip((1, 1, 2), pauses, strict=True):
        with Client(server.allowed, LIMITS, seed=seed, sleep=slept.append) as client:
            client.get(server.url)
    assert pauses[0] == pauses[1] != pauses[2]


def test_retry_after_is_kept_to_and_capped(server: Server, client: Client, slept: list[float]) -> None:
    waits = ["7", "999999"]
    server.routes["/"] = lambda _: Answer("later", 429, {"Retry-After": waits.pop(0)}) if waits else Answer("now")
    assert client.get(server.url).status == 200
    assert slept == [7.0, LIMITS.wait]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0), ("120", 120), ("Fri, 31 Dec 1999 23:59:59 GMT", 0), ("soon", None), ("", None), ("-1", None)],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after(value) == seconds


def test_retry_after_as_a_date() -> None:
    found = retry_after(format_datetime(datetime.now(UTC) + timedelta(hours=10), usegmt=True))
    assert found is not None
    assert 35_000 < found <= 36_000


def test_a_broken_connection_is_tried_again(slept: list[float]) -> None:
    with serve() as server:
        gone = server.url
    with Client(server.allowed, LIMITS, sleep=slept.append) as client:
        assert reason(client, gone) == "unreachable"
    assert len(slept) == 2


def test_an_answer_cut_short_is_tried_again(server: Server, client: Client, slept: list[float]) -> None:
    server.routes["/"] = Answer("half", headers={"Content-Length": "100", "Connection": "close"})
    assert reason(client, server.url) == "unreachable"
    assert len(server.asked) == 3


def test_a_slow_drip_ends_at_the_deadline() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        Client(frozenset((f"127.0.0.1:{listening.getsockname()[1]}",)), Limits(seconds=0.2, attempts=1)) as client,
    ):
        stop = threading.Event()

        def drip() -> None:
            connection, _ = listening.accept()
            with connection:
                while not stop.wait(0.02):
                    try:
                        connection.sendall(b"H")
                    except OSError:
                        return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        assert reason(client, f"http://127.0.0.1:{listening.getsockname()[1]}/") == "timeout"
        stop.set()
        thread.join()


def test_redirects_are_followed_up_to_a_number(server: Server, client: Client) -> None:
    server.routes |= {f"/{i}": Answer(status=302, headers={"Location": f"{i + 1}"}) for i in range(20)}
    server.routes["/20"] = "end"
    assert client.get(f"{server.url}/15").url == f"{server.url}/20"
    assert reason(client, f"{server.url}/14") == "too_many_redirects"
    assert client.get(f"{server.url}/0", follow=False).status == 302


def test_the_callers_headers_stay_with_their_origin(server: Server) -> None:
    with serve({"/": "other"}) as other, Client(server.allowed | other.allowed, LIMITS) as client:
        server.routes |= {
            "/away": Answer(status=307, headers={"Location": other.url}),
            "/here": Answer(status=307, headers={"Location": "/there"}),
            "/there": "same",
        }
        for path in ("/away", "/here"):
            client.get(server.url + path, {"Authorization": "Bearer secret", "X-Api-Key": "secret"})
    assert "secret" not in str(other.asked[0].headers)
    assert [one.headers["X-Api-Key"] for one in server.asked] == ["secret"] * 3


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b"hello")),
        ("x-gzip", gzip.compress(b"hel") + gzip.compress(b"lo")),
        ("deflate", zlib.compress(b"hello")),
        ("deflate", zlib.compress(b"hello")[2:-4]),
        ("identity", b"hello"),
    ],
)
def test_bodies_are_decoded(server: Server, client: Client, encoding: str, body: bytes) -> None:
    server.routes["/"] = Answer(body, headers={"Content-Encoding": encoding})
    assert client.get(server.url).body == b"hello"


@pytest.mark.parametrize(
    ("encoding", "body", "expected"),
    [
        ("gzip", gzip.compress(bytes(10_000_000)), "too_large"),
        ("gzip", gzip.compress(b"") * 4_000 + gzip.compress(bytes(10_000_000)), "too_large"),
        ("deflate", zlib.compress(bytes(10_000_000)), "too_large"),
        ("gzip", gzip.compress(b"hello")[:-9], "bad_encoding"),
        ("gzip", b"hello", "bad_encoding"),
        ("deflate", b"\x78", "bad_encoding"),
        ("br", b"hello", "bad_encoding"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"hello")), "bad_encoding"),
        ("", bytes(100_001), "too_large"),
    ],
)
def test_bombs_and_damage(server: Server, client: Client, encoding: str, body: bytes, expected: str) -> None:
    server.routes["/"] = Answer(body, headers={"Content-Encoding": encoding})
    assert reason(client, server.url) == expected
    assert len(server.asked) == 1


def test_an_endless_body_is_cut(server: Server, client: Client) -> None:
    chunk = b"8000\r\n" + bytes(0x8000) + b"\r\n"
    server.routes["/"] = Answer(chunk * 200, headers={"Transfer-Encoding": "chunked"})
    assert reason(client, server.url) == "too_large"


def test_an_unwanted_body_is_not_read(server: Server, client: Client) -> None:
    server.routes["/"] = Answer(bytes(1_000_000), headers={"Content-Type": "video/mp4"})
    found = client.get(server.url, wanted=lambda status, headers: "video" not in headers["content-type"])
    assert (found.status, found.body) == (200, b"")


def test_inflate_makes_no_more_than_its_limit() -> None:
    assert inflate(gzip.compress(bytes(10)), "gzip", 10) == bytes(10)
    with pytest.raises(OverflowError):
        inflate(gzip.compress(bytes(11)), "gzip", 10)


def test_messages_hold_no_secrets_and_survive_pickling(client: Client, server: Server) -> None:
    server.routes["/"] = Answer(status=302, headers={"Location": "/?key=hush"})
    for url, headers in (
        (f"{server.url}/?key=hush", {}),
        ("http://me:hush@public.example/", {}),
        (server.url, {"Authorization": "hush\nhush"}),
        (server.url, {"Authorization": "hush\u2026"}),
    ):
        with pytest.raises(FetchError) as error:
            client.get(url, headers)
        assert "hush" not in repr(error.value) + str(error.value)
        again = pickle.loads(pickle.dumps(error.value))  # noqa: S301
        assert (again.reason, str(again)) == (error.value.reason, str(error.value))


def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(tmp_path))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(HTTPServer):
        def handle_error(self, *_: object) -> None:
            pass

    with Quiet(("127.0.0.1", 0), Handler) as http:
        http.socket = context.wrap_socket(http.socket, server_side=True)
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        place = f"localhost:{http.server_port}"
        once = Limits(attempts=1)
        with Client(frozenset((place,)), once, resolve=lambda *_: ["127.0.0.1"]) as client:
            assert reason(client, f"https://{place}/") == "unreachable"
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "pair.pem"))
        with Client(frozenset((place,)), once, resolve=lambda *_: ["127.0.0.1"]) as client:
            assert client.get(f"https://{place}/").body == b"hello"
        http.shutdown()
        thread.join()


def _certificate(directory: Path) -> Path:
    """A certificate for localhost, signed by itself, and its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = directory / "pair.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path
