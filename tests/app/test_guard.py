"""Hostile requests to the whole server, page included: other sites' pages, wrong names, keys, paths, lengths."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from app import guard
from app.errors import EaselError
from app.guard import Access, read_access
from app.profiles import PROFILES
from app.serve import build_app, known_here
from app.store import Store
from tests.app.browser import serving
from tests.app.fakes import FakeModels

KEY = "0123456789abcdef-one"
HELLO = {"messages": [{"role": "user", "content": "hello"}]}
OPEN = Access()
STORYBOOK = PROFILES["storybook"]
Clients = Callable[..., TestClient]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store(tmp_path_factory.mktemp("data"))
    yield store
    store.close()


@pytest.fixture(scope="module")
def client(store: Store) -> Iterator[Clients]:
    """A server for each kind of access, all over one store: building the page takes seconds."""
    apps: dict[Access, FastAPI] = {}

    def make(access: Access = OPEN, url: str = "http://127.0.0.1:7860", peer: str = "127.0.0.1") -> TestClient:
        if access not in apps:
            apps[access] = build_app(STORYBOOK, store, FakeModels(), access)  # type: ignore[arg-type]
        return TestClient(apps[access], base_url=url, client=(peer, 50_000), raise_server_exceptions=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(store.folder / "uploads"))
        patch.setattr("app.streams.LINGER", 0.3)  # streams are read to their end
        yield make


def refused(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["type"] == ("invalid_request_error" if status < 500 else "server_error")
    return error["message"]


# Names and other sites' pages


@pytest.mark.parametrize(
    "url", ["http://localhost:7860", "http://[::1]:7860", "http://192.168.1.7", "http://app.localhost"]
)
def test_names_of_this_server(client: Clients, url: str) -> None:
    http = client(url=url)
    assert http.get("/health").status_code == 200
    reply = http.post("/v1/images/generations", json={"prompt": "a fox"}).json()
    assert reply["data"][0]["url"].startswith(f"{url}/v1/pictures/")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil.example", "127.0.0.1@evil.example",
     "evil.example/127.0.0.1", "0x7f.1", "localhost:7860, evil.example", "", "[::1", "127.0.0.1:port"],
)  # fmt: skip
def test_a_rebound_name_reads_nothing(client: Clients, host: str) -> None:
    http = client()
    for path in ("/", "/config", "/health", "/v1/models", "/gradio_api/info"):
        assert "--allow-host" in refused(http.get(path, headers={"Host": host}), 403)
    refused(http.post("/v1/chat/completions", json=HELLO, headers={"Host": host}), 403)


def test_further_names(client: Clients) -> None:
    access = known_here(Access(hosts=frozenset({"easel.example"})), "0.0.0.0")
    http = client(access)
    for name in ("easel.example", "EASEL.example:8443", "easel.example.", socket.gethostname()):
        assert http.get("/health", headers={"Host": name}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://localhost:3000", "https://127.0.0.1:7861", "http://127.0.0.1:7860.evil.example",
     "http://127.0.0.1", "file://", "garbage"],
)  # fmt: skip
@pytest.mark.parametrize("url", ["http://127.0.0.1:7860", "http://192.168.1.7:7860"])
def test_other_sites_pages_are_refused(client: Clients, origin: str, url: str) -> None:
    http = client(url=url)
    headers = {"Origin": origin}
    join = {"data": [], "fn_index": 0, "session_hash": "x"}
    answers = [
        http.get("/config", headers=headers),
        http.get("/v1/models", headers=headers),
        http.post("/v1/chat/completions", json=HELLO, headers=headers),
        http.post("/gradio_api/queue/join", json=join, headers=headers),
        http.post("/gradio_api/upload", files={"files": b"x"}, headers=headers),
        http.options("/v1/chat/completions", headers={**headers, "Access-Control-Request-Method": "POST"}),
    ]
    for answer in answers:
        assert "--allow-origin" in refused(answer, 403)
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_the_servers_own_pages(client: Clients) -> None:
    for url in ("http://127.0.0.1:7860", "http://localhost:7860", "http://192.168.1.7"):
        assert client(url=url).get("/config", headers={"Origin": url}).status_code == 200
    proxied = {"Host": "easel.example", "Origin": "https://easel.example"}
    assert client(Access(hosts=frozenset({"easel.example"}))).get("/health", headers=proxied).status_code == 200


def test_allowed_origins(client: Clients) -> None:
    site = "https://chat.example"
    http = client(Access((KEY,), origins=frozenset({site})))
    asks = {"Origin": site, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    answer = http.options("/v1/chat/completions", headers=asks)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, site)
    reply = http.post("/v1/chat/completions", json=HELLO, headers={"Origin": site, "Authorization": f"Bearer {KEY}"})
    assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (200, site)
    assert http.post("/v1/chat/completions", json=HELLO, headers={"Origin": site}).status_code == 401
    for path in ("/v1/models", "/config"):
        assert "access-control-allow-origin" not in http.get(path, headers={"Origin": "http://evil.example"}).headers


# Keys


def test_the_key(client: Clients) -> None:
    http = client(Access((KEY, "another-key-of-mine")))
    for given in ("", "Bearer", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x", f"Bearer {KEY[:-1]}"):
        answer = http.post("/v1/chat/completions", json=HELLO, headers={"Authorization": given} if given else {})
        assert "Authorization: Bearer KEY" in refused(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    refused(http.get("/v1/models", headers={b"authorization": "Bearer ключ".encode()}), 401)
    for key in (KEY, "another-key-of-mine"):
        assert http.get("/v1/models", headers={"Authorization": f"bearer {key}"}).status_code == 200


def test_openais_client_names_the_error(client: Clients) -> None:
    import openai

    with serving(client(Access((KEY,))).app) as url:
        with pytest.raises(openai.AuthenticationError, match="This API key is wrong"):
            openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0).models.list()
        names = [model.id for model in openai.OpenAI(base_url=f"{url}/v1", api_key=KEY).models.list()]
    assert names[0] == "easel"


def test_what_needs_no_key(client: Clients) -> None:
    """The page and the addresses of its pictures work in a browser, which has no key to send."""
    http = client(Access((KEY,)))
    drawn = http.post("/v1/images/generations", json={"prompt": "a fox"}, headers={"Authorization": f"Bearer {KEY}"})
    assert http.get(drawn.json()["data"][0]["url"]).headers["content-type"] == "image/png"
    for path in ("/", "/zh/", "/health", "/ready", "/config", "/docs", "/openapi.json"):
        assert http.get(path).status_code == 200, path
    for path in (
        "/metrics",
        "/mcp",
        "/v1/models",
        "/v1/models/easel",
        "/v1/nothing",
        "/v1/pictures",
        "/v1/pictures/../models",
    ):
        assert http.get(path).status_code in (401, 404), path
        assert "easel-" not in http.get(path).text


@pytest.mark.parametrize("peer", ["192.168.1.9", "203.0.113.5", "::ffff:192.168.1.9", "2001:db8::1", "proxy"])
def test_without_a_key_other_machines_get_the_page_alone(client: Clients, peer: str) -> None:
    http = client(url="http://192.168.1.7:7860", peer=peer)
    assert "--api-key-env" in refused(http.post("/v1/chat/completions", json=HELLO), 401)
    assert http.get("/").status_code == 200
    with_key = client(Access((KEY,)), "http://192.168.1.7:7860", peer)
    assert with_key.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_without_a_key_this_machine_is_served(client: Clients, peer: str) -> None:
    assert client(peer=peer).get("/v1/models").status_code == 200


def test_options_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EASEL_KEY", f" {KEY}  another-key-of-mine ")
    access = read_access("EASEL_KEY", ["Easel.example"], ["https://Chat.example"])
    assert access == Access(
        (KEY, "another-key-of-mine"), frozenset({"easel.example"}), frozenset({"https://chat.example"})
    )
    assert KEY not in repr(access)
    for value, message in (("", "holds no API key"), ("short", "at least 16"), ("ключ" * 9, "ASCII")):
        monkeypatch.setenv("EASEL_KEY", value)
        with pytest.raises(EaselError, match=message):
            read_access("EASEL_KEY", [], [])
    for hosts, origins in (
        (["a:80"], []),
        (["http://a"], []),
        ([], ["chat.example"]),
        ([], ["https://a/b"]),
        ([], ["*"]),
    ):
        with pytest.raises(EaselError, match="--allow-"):
            read_access(None, hosts, origins)


# Lengths


def test_a_body_that_says_it_is_too_long_is_not_read(client: Clients) -> None:
    answer = client().post("/v1/chat/completions", content=b"{}", headers={"Content-Length": str(guard.MOST_BODY + 1)})
    assert "larger than 64 MB. Send fewer or smaller pictures" in refused(answer, 413)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/images/generations", "/gradio_api/queue/join"])
def test_a_body_without_length_is_cut_off(client: Clients, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(guard, "MOST_BODY", 100_000)
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 10_000_000:
            sent += 10_000
            yield b"[" * 10_000

    answer = client().post(path, content=endless(), headers={"Content-Type": "application/json"})
    assert "Send fewer or smaller" in refused(answer, 413)


def test_on_the_wire_the_rest_is_not_awaited(client: Clients) -> None:
    with (
        serving(client().app) as url,
        socket.create_connection((httpx.URL(url).host, httpx.URL(url).port or 0), 20) as wire,
    ):
        wire.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 999999999999\r\n\r\n[")
        assert wire.recv(1000).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("name", ["x" * 65, "a b", "", "é"])
def test_sessions_have_names(client: Clients, name: str) -> None:
    answer = client().post("/gradio_api/cancel", json={"session_hash": name, "fn_index": 0, "event_id": "x"})
    assert "no name of a page's session" in refused(answer, 400)


def test_events_are_short(client: Clients) -> None:
    answer = client().post("/gradio_api/queue/join", json={"data": ["x" * 2**20], "fn_index": 0, "session_hash": "x"})
    assert "larger than 1 MB" in refused(answer, 413)


def test_uploads_of_the_page(client: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MOST_UPLOAD", 200_000)
    http = client()
    assert http.post("/gradio_api/upload", files={"files": ("a.png", bytes(100_000))}).status_code == 200
    assert http.post("/gradio_api/upload", files={"files": ("a.png", bytes(300_000))}).status_code == 413


# Paths and files, as the page's own routes serve them


@pytest.fixture(scope="module")
def drawn(client: Clients, store: Store) -> tuple[TestClient, Path]:
    return client(), store.picture_path(store.add_picture(Image.new("RGB", (8, 8), "red")))


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "{data}/easel.sqlite3", "{data}/easel.sqlite3-wal", "{data}/in-use", "{data}/pictures",
     "{data}/pictures/../easel.sqlite3", "{data}/pictures/..%2feasel.sqlite3", "{data}/uploads/../easel.sqlite3",
     "{data}/link.png", "README.md", "./README.md", "app/serve.py", "file:///etc/passwd", "http://127.0.0.1:1/",
     "HTTP://127.0.0.1:1/", "https://example.com/", "%2fetc%2fpasswd", "/proc/self/environ", "~/.ssh/id_rsa"],
)  # fmt: skip
@pytest.mark.parametrize("page", ["", "/zh"])
def test_gradio_serves_no_file_of_the_machine(
    drawn: tuple[TestClient, Path], store: Store, path: str, page: str
) -> None:
    http, _ = drawn
    link = store.folder / "link.png"
    if not link.is_symlink():
        link.symlink_to("/etc/hostname")
    answer = http.get(f"{page}/gradio_api/file={path.format(data=store.folder)}")
    assert answer.status_code in (403, 404), answer.text
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    "path",
    ["/static/%2e%2e/%2e%2e/routes.py", "/assets/..%2f..%2froutes.py", "/svelte/..%2f..%2froutes.py",
     "/v1/pictures/..%2f..%2feasel.sqlite3", "/v1/pictures/..%2f..%2feasel.sqlite3.png", "/v1/pictures/%00.png",
     "/v1/pictures/../../easel.sqlite3", "/v1/pictures/%2e%2e/x.png", "/v1/pictures/'%20OR%201=1--.png",
     "/gradio_api/proxy=http://127.0.0.1:1/", "/monitoring", "/gradio_api/vibe-code/", "/gradio_api/runs"],
)  # fmt: skip
def test_other_ways_in(drawn: tuple[TestClient, Path], path: str) -> None:
    assert drawn[0].get(path).status_code in (400, 403, 404)


Say = Callable[..., httpx.Response | str]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.png"
    path.write_bytes(b"root:x:0:0")
    return path


def sender(http: TestClient) -> Say:
    """Says something as the page's script does, with other values of its components: what comes of it, or the answer
    that refuses it."""
    config = http.get("/config").json()
    (send,) = [entry for entry in config["dependencies"] if _is_send(config, entry)]
    shown = {part["id"]: part["props"] for part in config["components"]}

    def say(text: str, **more: Any) -> httpx.Response | str:
        given = {"box": {"text": text, "files": []}, "seed": 1, "size": STORYBOOK.sizes[0], **more}
        inputs = [shown[number] for number in send["inputs"]]
        data = [given.get(props.get("elem_id"), props.get("value")) for props in inputs]
        join = {"data": data, "fn_index": send["id"], "session_hash": "x"}
        answer = http.post("/gradio_api/queue/join", json=join)
        if answer.status_code != 200:
            return answer
        return http.get("/gradio_api/queue/data", params={"session_hash": "x"}).text

    return say


def test_an_event_names_no_file_of_the_machine(store: Store, secret: Path) -> None:
    """Not as a path and not as an address, in the data that the page's script sends: neither in the message nor where a
    choice is expected, of which Gradio would make a copy that it then serves."""
    models = FakeModels()
    with TestClient(build_app(STORYBOOK, store, models), base_url="http://127.0.0.1") as http:  # type: ignore[arg-type]
        say = sender(http)
        assert '"success":true' in say("hello")  # the request is as the page sends it
        database = str(store.folder / "easel.sqlite3")
        for path in ("/etc/hostname", str(secret), database, "http://127.0.0.1:1/", "https://example.com/"):
            file = {"path": path, "meta": {"_type": "gradio.FileData"}}
            for more in ({"box": {"text": "look", "files": [file]}}, {"size": file}, {"mode": file}, {"style": [file]}):
                answer = say("look", **more)
                assert not isinstance(answer, str) and "This file does not exist here" in refused(answer, 404)
        assert len(models.dialog.asked) == 1


def test_gradio_itself_checks_the_paths_too(store: Store, secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second wall, should the first be passed."""
    monkeypatch.setattr("app.gate.Gate._check_file", lambda *_: None)
    with TestClient(build_app(STORYBOOK, store, FakeModels()), base_url="http://127.0.0.1") as http:  # type: ignore[arg-type]
        told = sender(http)("look", size={"path": str(secret), "meta": {"_type": "gradio.FileData"}})
        assert isinstance(told, str) and '"success":false' in told
        assert secret.name not in told.replace(str(secret), ""), "a copy was made"


def _is_send(config: dict[str, Any], entry: dict[str, Any]) -> bool:
    box = next(part["id"] for part in config["components"] if part["props"].get("elem_id") == "box")
    return [box, "submit"] in [list(target) for target in entry["targets"]]


@pytest.mark.parametrize(
    "name", ["evil.html", "evil.svg", "evil.xml", "evil.js", 'a".html', "../../evil.html", "a\r\nX-Evil: 1.html"]
)
def test_an_uploaded_file_is_never_a_page(drawn: tuple[TestClient, Path], store: Store, name: str) -> None:
    http, _ = drawn
    (path,) = http.post("/gradio_api/upload", files={"files": (name, b"<script>alert(1)</script>", "text/html")}).json()
    assert Path(path).resolve().is_relative_to((store.folder / "uploads").resolve())
    answer = http.get(f"/gradio_api/file={path}")
    assert "x-evil" not in answer.headers
    if answer.status_code == 200:
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_pages_load_nothing_from_elsewhere(client: Clients) -> None:
    for path in ("/", "/zh/"):
        policy = client().get(path).headers["content-security-policy"]
        assert "frame-ancestors 'self'" in policy
        assert "http" not in policy
        assert "*" not in policy


@pytest.mark.parametrize("path", ["/zh", "/improve", "/zh/improve"])
def test_a_page_is_found_without_its_last_slash(client: Clients, path: str) -> None:
    assert client().get(path, follow_redirects=True).url.path == f"{path}/"


def test_what_is_measured(client: Clients) -> None:
    http = client()
    http.get("/config")
    http.post("/mcp", content=b"x", headers={"Host": "evil.example"})
    measured = http.get("/metrics").text
    assert 'easel_requests_total{method="GET",route="page",status="200"}' in measured
    assert 'route="/mcp",status="403"' in measured


def test_what_is_not_there_is_said_in_openais_shape(client: Clients) -> None:
    http = client()
    assert "There is no DELETE /v1/models here" in refused(http.delete("/v1/models"), 404)
    assert "There is no POST /v1/embeddings here" in refused(http.post("/v1/embeddings", json={}), 404)


def test_an_unexpected_error_tells_nothing(client: Clients, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("/secret/path")

    monkeypatch.setattr(store, "add_picture", broken)
    message = refused(client().post("/v1/images/generations", json={"prompt": "a fox"}), 500)
    assert "the server's log says more" in message


def test_pictures_are_pictures(drawn: tuple[TestClient, Path]) -> None:
    http, path = drawn
    answer = http.get(f"/v1/pictures/{path.stem}.png")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert Image.open(io.BytesIO(answer.content)).size == (8, 8)


def test_gradio_adds_no_permission_of_its_own(client: Clients) -> None:
    app = client(Access(origins=frozenset({"https://chat.example"}))).app
    assert isinstance(app, FastAPI)
    with TestClient(app, base_url="http://192.168.1.7", client=("192.168.1.7", 1)) as http:
        assert "access-control-allow-origin" not in http.get("/config").headers
