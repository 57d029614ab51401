"""URLs that try to reach what is not public. The connector here records where a socket would go, and refuses: nothing
is ever sent to such an address, not even by a failing test. Names are resolved from a table, not by the system's DNS.
"""

import socket
from contextlib import suppress
from pathlib import Path

import httpcore
import pytest

from flywheel.errors import FetchError
from flywheel.recipe_sources import RestSource, WebSource
from flywheel.sources import crawl, rest
from flywheel.sources.addresses import is_public
from flywheel.sources.http import Client, Limits, open_stream
from tests.flywheel.sources.web_server import Answer, serve

PUBLIC, PUBLIC6 = "8.8.8.8", "2606:4700:4700::1111"
NAMES = {
    "public.example": [PUBLIC],
    "public6.example": [PUBLIC6],
    "localhost": ["127.0.0.1"],
    "localhost6": ["::1"],
    "loop.example": ["127.0.0.1"],
    "metadata.example": ["169.254.169.254"],
    "nat64.example": ["64:ff9b::7f00:1"],
    "both.example": [PUBLIC, "10.0.0.1"],
    "both6.example": [PUBLIC, "::ffff:10.0.0.1"],
    "zone.example": ["fe80::1%1"],
    "nothing.example": [],
}
SHAPES = [
    # loopback, as it is written
    "http://127.0.0.1/", "http://127.0.0.1:6379/", "http://127.8.8.8/", "https://127.0.0.1/", "http://localhost/",
    "http://LOCALHOST/", "http://localhost./", "http://loop.example/", "http://[::1]/", "http://localhost6/",
    "http://[0:0:0:0:0:0:0:1]/",
    # IPv4 in the spellings of inet_aton
    "http://2130706433/", "http://017700000001/", "http://0x7f000001/", "http://0x7f.0.0.1/", "http://0x7f.1/",
    "http://0177.0.0.1/", "http://0177.0x0.0.1/", "http://127.1/", "http://127.0.1/", "http://0/", "http://0.0.0.0/",
    "http://0300.0250.0.1/", "http://3232235521/", "http://2852039166/",
    # IPv4 inside of IPv6
    "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[::127.0.0.1]/", "http://[::ffff:0:127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/", "http://[64:ff9b::10.0.0.1]/", "http://[64:ff9b:1::7f00:1]/",
    "http://[2002:7f00:1::]/", "http://[2002:a00:1::1]/", "http://[2001:0:7f00:1::]/",
    "http://[2606:4700::5efe:127.0.0.1]/", "http://nat64.example/",
    # private, shared, link-local, special
    "http://10.0.0.1/", "http://172.16.0.1/", "http://172.31.255.255/", "http://192.168.1.1/", "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/", "http://100.100.100.200/", "http://168.63.129.16/",
    "http://192.0.0.192/", "http://metadata.example/", "http://198.18.0.1/", "http://192.0.2.1/", "http://224.0.0.1/",
    "http://240.0.0.1/", "http://255.255.255.255/", "http://192.88.99.1/", "http://[fe80::1]/", "http://[fe80::1%25lo]/",
    "http://zone.example/", "http://[fd00:ec2::254]/", "http://[fc00::1]/", "http://[ff02::1]/", "http://[::]/",
    "http://[2001:db8::1]/", "http://[100::1]/", "http://[fec0::1]/",
    # names that have a public address and another
    "http://both.example/", "http://both6.example/", "http://nothing.example/",
    # a host that is not the one it seems to be
    "http://public.example@127.0.0.1/", "http://public.example:80@127.0.0.1/", "http://127.0.0.1\\@public.example/",
    "http://public.example\\@127.0.0.1/", "http://127.0.0.1%00.public.example/", "http://%31%32%37.0.0.1/",
    "http://127.0.0.1:80:80/", "http:127.0.0.1/", "http:///127.0.0.1/", "//127.0.0.1/", "http://127.0.0.1\t/",
    "http://127.0.0.1\r\nHost: public.example/", " http://127.0.0.1/", "http://public.example:0/",
    "http://public.example:99999/",
    # digits, dots and letters of other scripts, and what cannot be seen
    "http://127.0.0.1/", "http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/", "http://local\u200bhost/",
    "http://127.0.0.1\u200b/", "http://ⓛocalhost/", "http://127.0.0.1./", "http://ʟocalhost/",
    # other schemes
    "file:///etc/passwd", "FILE:///etc/passwd", "gopher://127.0.0.1:6379/_INFO", "data:text/html,hello",
    "ftp://127.0.0.1/", "dict://127.0.0.1:11211/stat", "jar:http://127.0.0.1!/", "unix:///var/run/docker.sock",
    "javascript:alert(1)", "", "127.0.0.1", "localhost:80",
]  # fmt: skip


def resolve(host: str, port: int) -> list[str]:
    if host.lower().rstrip(".") in NAMES:
        return NAMES[host.lower().rstrip(".")]
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)]


class Recorder:
    """A connector that connects to one server of the test's own, if any, and notes every other address."""

    def __init__(self, own: str = "") -> None:
        self.own, self.seen = own, list[str]()

    def __call__(self, address: str, port: int, seconds: float) -> httpcore.NetworkStream:
        if f"{address}:{port}" == self.own:
            return open_stream(address, port, seconds)
        self.seen.append(address)
        raise httpcore.ConnectError("refused by the test")


ONCE = Limits(attempts=1)


@pytest.mark.parametrize("url", SHAPES)
def test_no_socket_is_opened(url: str) -> None:
    connect = Recorder()
    with Client(limits=ONCE, connect=connect, resolve=resolve) as client, pytest.raises(FetchError):
        client.get(url)
    assert connect.seen == []


def test_no_redirect_opens_one_either() -> None:
    with serve() as server:
        connect = Recorder(server.address)
        with Client(server.allowed, ONCE, connect=connect, resolve=resolve) as client:
            for url in (shape for shape in SHAPES if shape.isprintable() and shape.isascii()):
                server.routes["/"] = Answer(status=302, headers={"Location": url})
                with suppress(FetchError):
                    client.get(server.url + "/")  # a relative address stays on this server
                assert connect.seen == [], url
    assert "/" in server.paths


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://public.example/", PUBLIC),
        ("http://public.example./", PUBLIC),
        ("http://public6.example/", PUBLIC6),
        ("http://134744072/", PUBLIC),
        ("http://127.0.0.1#@public.example/", None),
        ("http://public.example#@127.0.0.1/", PUBLIC),
        ("http://public.example/?http://127.0.0.1/", PUBLIC),
        (f"http://[{PUBLIC6}]/", PUBLIC6),
    ],
)
def test_a_public_address_is_connected_to_as_it_was_checked(url: str, address: str | None) -> None:
    connect = Recorder()
    with Client(limits=ONCE, connect=connect, resolve=resolve) as client, pytest.raises(FetchError):
        client.get(url)
    assert connect.seen == ([address] if address else [])


def test_a_name_that_changes_its_address_is_asked_for_once_a_connection() -> None:
    answers = [[PUBLIC], ["127.0.0.1"], ["127.0.0.1"]]
    connect = Recorder()
    with (
        Client(
            limits=Limits(attempts=2), connect=connect, resolve=lambda *_: answers.pop(0), sleep=lambda _: None
        ) as c,
        pytest.raises(FetchError) as error,
    ):
        c.get("http://rebind.example/")
    assert error.value.reason == "address"
    assert connect.seen == [PUBLIC]
    assert answers == [["127.0.0.1"]]


def test_only_the_named_port_and_spelling_are_allowed() -> None:
    with serve({"/": "hello"}) as server:
        with Client(server.allowed, ONCE) as client:
            assert client.get(server.url + "/").body == b"hello"
        connect = Recorder()
        with Client(server.allowed, ONCE, connect=connect, resolve=resolve) as client:
            port = server.address.partition(":")[2]
            for url in (f"http://localhost:{port}/", "http://127.0.0.1:1/", f"https://127.0.0.2:{port}/"):
                with pytest.raises(FetchError):
                    client.get(url)
        assert connect.seen == []


def test_a_rest_source_asks_no_private_server(tmp_path: Path) -> None:
    with serve({"/": "secret"}) as private:
        source = RestSource(type="rest", url=private.url)
        with pytest.raises(FetchError, match="not public"):
            rest.acquire(source, tmp_path, environment={}, allowed=frozenset())
    assert private.asked == []


def test_a_crawl_asks_no_private_server(tmp_path: Path) -> None:
    with serve({"/": "secret", "/robots.txt": "", "/sitemap.xml": ""}) as private:
        routes = {
            "/": f"<a href='{private.url}/'>x</a><a href=/r>y</a><link rel=canonical href='{private.url}/c'>",
            "/r": Answer(status=301, headers={"Location": private.url}),
            "/robots.txt": Answer(f"Sitemap: {private.url}/sitemap.xml", headers={"Content-Type": "text/plain"}),
        }
        with serve(routes) as public:
            source = WebSource(type="web", urls=(public.url,), delay=0)
            found = crawl.acquire(source, tmp_path, environment={}, allowed=public.allowed | private.allowed)
            assert found["reasons"] == {"redirect_elsewhere": 1}
    assert private.asked == []


@pytest.mark.parametrize("address", ["1.1.1.1", "9.9.9.9", "100.128.0.1", "172.32.0.1", "2600::1", "2a00:1450::1"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", ["", "example", "127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::808:808", "fe80::1%lo"])
def test_others_are_not(address: str) -> None:
    assert not is_public(address)
