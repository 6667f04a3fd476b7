"""Two users of one server: what each may do, and what neither may do with what is the other's, route by route."""

from __future__ import annotations

import base64
import inspect
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import gradio as gr
import httpx
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.accounts import Accounts, User
from app.guard import Access
from app.pictures import png_bytes
from app.profiles import PROFILES
from app.quotas import FREE_TRIES
from app.running import RunningTurns
from app.serve import build_app
from app.signin import COOKIE
from app.store import Conversation, Store, Turn
from app.texts import TEXTS
from app.visitor import Visitors
from app.web import Gaze, Page
from tests.app.events import Browser
from tests.app.fakes import FakeModels

GOOD = "a long password"
OPERATOR = "0123456789abcdef-operator"
NEIGHBOUR = "http://127.0.0.1:3000"  # a site that may use the API
STORYBOOK = PROFILES["storybook"]
HTML = {"Accept": "text/html"}
JSON = {"Accept": "application/json"}


@dataclass
class World:
    """A server with Anna, who administers it, and Ben; each has one conversation."""

    store: Store
    accounts: Accounts
    app: Any
    models: FakeModels
    portal: Any = None  # all clients share one event loop, as a server has
    anna: User = field(init=False)
    ben: User = field(init=False)
    conversations: dict[str, Conversation] = field(default_factory=dict)
    turns: dict[str, Turn] = field(default_factory=dict)

    def client(self, peer: str = "127.0.0.1") -> TestClient:
        http = TestClient(
            self.app, base_url="http://127.0.0.1", client=(peer, 50_000), raise_server_exceptions=False,
            follow_redirects=False,
        )  # fmt: skip
        http.portal = self.portal
        return http

    def signed_in(self, user: User) -> TestClient:
        http = self.client()
        http.cookies.set(COOKIE, self.accounts.begin_session(user))
        return http

    def with_key(self, user: User) -> TestClient:
        http = self.client()
        http.headers["Authorization"] = f"Bearer {self.accounts.add_key(user, 'test')}"
        return http


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    store = Store(tmp_path_factory.mktemp("data"))
    accounts, models = Accounts(store.folder), FakeModels()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(store.folder / "uploads"))
        patch.setattr("app.streams.LINGER", 0.3)  # streams are read to their end
        access = Access((OPERATOR,), origins=frozenset({NEIGHBOUR}))
        app = build_app(STORYBOOK, store, models, access, accounts=accounts)  # type: ignore[arg-type]
        world = World(store, accounts, app, models)
        world.anna, world.ben = accounts.add("anna", GOOD, admin=True), accounts.add("ben", GOOD)
        for user, colour in ((world.anna, "red"), (world.ben, "blue")):
            conversation = store.create_conversation(user.id, "storybook", STORYBOOK.settings.to_json())
            upload = store.add_picture(Image.new("RGB", (9, 9), colour))
            turn = store.begin_turn(conversation, None, f"draw a {colour} secret", (upload,), "auto", 1)
            done = {"prompt": f"A {colour} secret.", "picture": store.add_picture(Image.new("RGB", (8, 8), colour))}
            world.turns[user.name] = store.update_turn(turn.id, status="done", **done)
            store.change_conversation(conversation, title=f"{colour} secret")
            world.conversations[user.name] = store.conversation(user.id, conversation.id)
        with TestClient(app) as http:  # Gradio's and MCP's own tasks
            world.portal = http.portal
            yield world
    accounts.close()
    store.close()


@pytest.fixture(autouse=True)
def no_tries(world: World) -> None:
    """Each test begins with none."""
    for route in world.app.routes:
        people = getattr(getattr(route, "endpoint", None), "__self__", None)
        if hasattr(people, "tries"):
            people.tries._failed.clear()


def refused(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    return response.json()["error"]["message"]


def sign_in(http: TestClient, name: str, password: str, **more: str) -> httpx.Response:
    return http.post("/signin", data={"name": name, "password": password, **more})


# Signing in


def test_nothing_is_shown_without_signing_in(world: World) -> None:
    http = world.client()
    for path in ("/", "/zh/", "/account", "/admin", "/config", "/nothing", "/v1"):
        answer = http.get(path, headers=HTML)
        assert (answer.status_code, answer.headers["location"].split("?")[0]) == (303, "/signin"), path
        assert "Sign in first" in refused(http.get(path, headers=JSON), 401)
    for path in ("/gradio_api/queue/join", "/gradio_api/upload", "/account", "/admin", "/signout"):
        assert "Sign in first" in refused(http.post(path, json={}), 401)
    for path in ("/gradio_api/info", "/gradio_api/file=/etc/passwd", "/gradio_api/heartbeat/x", "/zh/config"):
        assert "Sign in first" in refused(http.get(path), 401)
    picture = world.turns["anna"].picture
    refused(http.get(f"/v1/pictures/{picture}.png"), 401)
    for path in ("/v1/models", "/metrics", "/mcp"):
        refused(http.get(path), 401)
    for path in ("/health", "/ready", "/docs", "/openapi.json", "/signin"):
        assert http.get(path).status_code == 200
        assert "secret" not in http.get(path).text


def test_in_and_out(world: World) -> None:
    http = world.client()
    page = http.get("/?lang=en", headers=HTML)
    assert page.headers["location"] == "/signin?next=%2F%3Flang%3Den"
    form = http.get(page.headers["location"])
    assert 'value="/?lang=en"' in form.text and form.headers["cache-control"] == "no-store"
    answer = sign_in(http, "Anna", GOOD, next="/?lang=en")
    assert (answer.status_code, answer.headers["location"]) == (303, "/?lang=en")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Secure" not in cookie
    assert http.get("/?lang=en", headers=HTML).status_code == 200
    assert "red secret" not in http.get("/config").text  # conversations come by events alone
    kept = http.cookies[COOKIE]
    assert http.post("/signout").headers["location"] == "/signin"
    http.cookies.set(COOKIE, kept)
    assert http.get("/account", headers=HTML).status_code == 303  # the session is over, not only the cookie
    assert http.get("/health").headers["x-easel-session"] == "none"
    assert "x-easel-session" not in world.signed_in(world.anna).get("/health").headers


def test_behind_https_the_cookie_goes_nowhere_else(world: World) -> None:
    http = world.client()
    http.base_url = "https://127.0.0.1"  # type: ignore[assignment]
    assert "Secure" in sign_in(http, "anna", GOOD).headers["set-cookie"]


@pytest.mark.parametrize("after", ["https://evil.example", "//evil.example", "/\\evil.example", "evil", "/\r\nX: 1"])
def test_one_is_led_to_this_server_only(world: World, after: str) -> None:
    answer = sign_in(world.client(), "anna", GOOD, next=after)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "evil" not in world.client().get("/signin", params={"next": after}).text


def test_wrong_passwords_are_slowed_down(world: World) -> None:
    http = world.client("192.0.2.7")
    for name in ("ben", "nobody"):
        pages = [sign_in(http, name, "wrong") for _ in range(FREE_TRIES)]
        assert {page.status_code for page in pages} == {401}
        assert all("The name or the password is wrong" in page.text and COOKIE not in page.cookies for page in pages)
        answer = sign_in(http, name, GOOD)  # now even the right one must wait
        assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
        assert "Too many tries" in answer.text and f'value="{name}"' in answer.text and GOOD not in answer.text
    assert sign_in(world.client("192.0.2.8"), "ben", GOOD).status_code == 303


def test_the_sign_in_page_in_chinese(world: World) -> None:
    http = world.client()
    assert "密码" in http.get("/signin", headers={"Accept-Language": "zh-CN,zh"}).text
    assert "Password" in http.get("/signin?lang=en", headers={"Accept-Language": "zh-CN,zh"}).text
    assert "用户名或密码不正确" in http.post("/signin?lang=zh", data={"name": "x", "password": "y"}).text


def test_what_is_typed_is_escaped(world: World) -> None:
    page = sign_in(world.client(), '"><script>x', "y")
    assert "<script>x" not in page.text and "&lt;script&gt;x" in page.text


def test_other_sites_pages_cannot_use_the_session(world: World) -> None:
    http = world.signed_in(world.anna)
    elsewhere = {"Origin": NEIGHBOUR}
    for path in ("/account", "/admin", "/signin", "/signout", "/gradio_api/queue/join"):
        assert "the API alone" in refused(http.post(path, headers=elsewhere), 403)
    assert "API key is missing" in refused(http.post("/v1/images/generations", headers=elsewhere, json={}), 401)


# The account and the administration


def test_ones_own_account(world: World) -> None:
    user = world.accounts.add("cleo", GOOD)
    http, other = world.signed_in(user), world.signed_in(user)
    made = http.post("/account", data={"do": "key", "name": "laptop"})
    key = made.text.split('<code id="key">')[1].split("<")[0]
    assert world.client().get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    page = http.get("/account").text
    assert "laptop" in page and key not in page
    (entry,) = world.accounts.keys(user)
    ben = world.signed_in(world.ben).post("/account", data={"do": "delete-key", "key": entry.id})
    assert "no such API key" in ben.text and len(world.accounts.keys(user)) == 1
    http.post("/account", data={"do": "delete-key", "key": entry.id})
    refused(world.client().get("/v1/models", headers={"Authorization": f"Bearer {key}"}), 401)
    wrong = http.post("/account", data={"do": "password", "old": "wrong", "new": "another one"})
    assert wrong.status_code == 400 and "The password so far is wrong" in wrong.text
    assert "8 to 1024" in http.post("/account", data={"do": "password", "old": GOOD, "new": "short"}).text
    assert "is changed" in http.post("/account", data={"do": "password", "old": GOOD, "new": "another one"}).text
    assert http.get("/account").status_code == 200  # this browser stays in, others do not
    assert other.get("/account", headers=HTML).status_code == 303
    assert sign_in(world.client(), "cleo", "another one").status_code == 303
    assert http.post("/account", data={"do": "everywhere"}).status_code == 303
    assert http.get("/account", headers=HTML).status_code == 303
    world.accounts.remove(user)


def test_the_administration(world: World) -> None:
    http = world.signed_in(world.anna)
    page = http.get("/admin").text
    for fact in ("anna", "ben", "administrator", "dialog: ready", "MB in the data folder", "way: 0", "drawn: 0"):
        assert fact in page
    assert "secret" not in page, "administrators see how much others have, not what"
    added = http.post("/admin", data={"do": "add", "name": "dora", "password": GOOD})
    assert "Added: dora" in added.text and not world.accounts.named("dora").admin
    again = http.post("/admin", data={"do": "add", "name": "dora", "password": GOOD})
    assert again.status_code == 400 and "a user dora already" in again.text
    http.post("/admin", data={"do": "limit", "name": "dora", "turns_per_minute": "3", "disk_mb": ""})
    dora = world.accounts.named("dora")
    assert (dora.turns_per_minute, dora.disk_mb) == (3, 2048)
    for wrong in ("-1", "1e9", "x", "9" * 20):
        assert http.post("/admin", data={"do": "limit", "name": "dora", "disk_mb": wrong}).status_code == 400
    session = world.signed_in(dora)
    assert "Saved" in http.post("/admin", data={"do": "password", "name": "dora", "password": "another one"}).text
    assert session.get("/account", headers=HTML).status_code == 303
    world.accounts.remove(dora)


def test_the_administration_is_for_administrators(world: World) -> None:
    http = world.signed_in(world.ben)
    assert "administrators" in refused(http.get("/admin"), 403)
    refused(http.post("/admin", data={"do": "add", "name": "eve", "password": GOOD, "admin": "on"}), 403)
    refused(http.post("/admin", data={"do": "password", "name": "anna", "password": "mine now"}), 403)
    refused(http.post("/admin", data={"do": "limit", "name": "ben", "disk_mb": "999999"}), 403)
    assert [user.name for user in world.accounts.users()] == ["anna", "ben"]
    assert world.accounts.check("anna", GOOD) is not None
    assert "/admin" not in http.get("/account").text
    for path in ("/improve/", "/zh/improve/", "/improve/config", "/zh/improve/gradio_api/queue/data?session_hash=x"):
        assert "administrators" in refused(http.get(path), 403)
    assert world.signed_in(world.anna).get("/improve/").status_code == 200
    assert "administrators" in refused(world.with_key(world.ben).get("/metrics"), 403)
    assert world.with_key(world.anna).get("/metrics").status_code == 200


# The API


def test_pictures_of_the_other(world: World) -> None:
    for me, other in (("anna", "ben"), ("ben", "anna")):
        user = getattr(world, me)
        for http in (world.signed_in(user), world.with_key(user)):
            for turn, status in ((world.turns[me], 200), (world.turns[other], 404)):
                for name in (turn.picture, *turn.uploads):
                    assert http.get(f"/v1/pictures/{name}.png").status_code == status
            missing = refused(http.get(f"/v1/pictures/{'0' * 32}.png"), 404)
            assert refused(http.get(f"/v1/pictures/{world.turns[other].picture}.png"), 404) == missing
            for path in ("..%2f..%2feasel.sqlite3", "%00", "'%20OR%201=1--", "%5B"):
                assert http.get(f"/v1/pictures/{path}.png").status_code in (400, 404)


def test_pictures_drawn_by_the_others_programs(world: World) -> None:
    anna, ben = world.with_key(world.anna), world.with_key(world.ben)
    url = anna.post("/v1/images/generations", json={"prompt": "a fox", "seed": 5}).json()["data"][0]["url"]
    assert anna.get(url).status_code == world.signed_in(world.anna).get(url).status_code == 200
    assert ben.get(url).status_code == world.signed_in(world.ben).get(url).status_code == 404
    operator = {"Authorization": f"Bearer {OPERATOR}"}
    assert world.client().get("/v1/models", headers=operator).status_code == 200
    assert world.models.generator.requests[-1].owner == world.anna.id  # whose turn it is in the queue


def test_a_picture_of_the_other_is_no_part_of_a_request(world: World) -> None:
    hers = f"http://127.0.0.1/v1/pictures/{world.turns['anna'].picture}.png"
    for http, status in ((world.with_key(world.anna), 200), (world.with_key(world.ben), 404)):
        look = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": hers}}]
        asked = {"messages": [{"role": "user", "content": look}]}
        assert http.post("/v1/chat/completions", json=asked).status_code == status
    drawn = [
        {"role": "user", "content": "draw it"},
        {"role": "assistant", "content": f"![a guess]({hers})"},
        {"role": "user", "content": "give it a hat"},
    ]
    world.with_key(world.ben).post("/v1/chat/completions", json={"messages": drawn})
    seen = [message for message in world.models.dialog.asked[-1][0] if message.images]
    assert seen == [] and "red secret" not in str(world.models.dialog.asked[-1][0])


def test_a_session_is_no_key(world: World) -> None:
    """Else any page that a user's browser opens could draw in their name."""
    http = world.signed_in(world.anna)
    assert "API key is missing" in refused(http.get("/v1/models"), 401)
    assert "API key is missing" in refused(http.post("/mcp", json={}), 401)
    token = http.cookies[COOKIE]
    assert "wrong" in refused(world.client().get("/v1/models", headers={"Authorization": f"Bearer {token}"}), 401)


def test_tools_of_the_other(world: World) -> None:
    def call(http: TestClient, name: str, **arguments: Any) -> dict[str, Any]:
        asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
        headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}
        answer = http.post("/mcp", json=asked, headers=headers)
        assert answer.status_code == 200, answer.text
        line = next(line for line in answer.text.splitlines() if line.startswith("data: {"))
        return json.loads(line.removeprefix("data: "))["result"]

    anna, ben = world.with_key(world.anna), world.with_key(world.ben)
    begun = call(anna, "chat", message="draw a red secret")
    conversation = begun["structuredContent"]["conversation"]
    stolen = call(ben, "chat", message="what was that?", conversation=conversation)
    assert stolen["isError"] and "no conversation" in stolen["content"][0]["text"]
    assert not call(anna, "chat", message="hello", conversation=conversation).get("isError")
    url = call(anna, "draw_picture", prompt="a fox")["structuredContent"]["url"]
    assert anna.get(url).status_code == 200 and ben.get(url).status_code == 404


def test_limits_in_openais_shape(world: World) -> None:
    user = world.accounts.limit(world.accounts.add("fay", GOOD), 2, None)
    http = world.with_key(user)
    hello = {"messages": [{"role": "user", "content": "hello"}]}
    assert http.post("/v1/chat/completions", json=hello).status_code == 200
    answer = http.post("/v1/images/generations", json={"prompt": "a fox", "n": 2})
    assert "more than 2 pictures and replies a minute" in refused(answer, 429)
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.json()["error"]["code"] == "TooMany"
    world.accounts.limit(user, 100, 0)
    data = base64.b64encode(png_bytes(Image.new("RGB", (9, 9), "red"))).decode()
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    shown = {"role": "user", "content": [{"type": "text", "text": "look"}, picture]}
    past = {"messages": [shown, {"role": "assistant", "content": "Red."}, *hello["messages"]]}
    assert "Your pictures fill the 0 MB" in refused(http.post("/v1/chat/completions", json=past), 403)
    assert world.accounts.usage(user.id).pictures == 0, "what is refused is not kept"
    world.accounts.remove(user)


# The page's events and files


def browser(world: World, user: User, session: str = "") -> Browser:
    return Browser(world.signed_in(user), session or f"of{user.name}")


def test_what_the_browser_remembers_may_be_the_others(world: World) -> None:
    """Of conversations, that is all that a browser names: what is open is kept by the server."""
    me = browser(world, world.anna, "remembering")
    assert "red secret" in me.load(world.conversations["anna"].id)
    shown = me.load(world.conversations["ben"].id)
    assert '"success":true' in shown and "blue" not in shown
    choice = me.send(me.event("conversations", "input"), {1: world.conversations["ben"].id})
    assert '"success":false' in choice and "blue" not in choice


Act = Callable[[Page, gr.Request, str, str], Any]
PANEL = (1, "inherit", STORYBOOK.sizes[0], 5, 4.0, "")
ACTS: dict[str, Act] = {
    "open": lambda page, me, one, turn: page.open(Gaze(), one, me),
    "open a turn": lambda page, me, one, turn: page.open_turn(Gaze(), turn, me),
    "say": lambda page, me, one, turn: page.send(Gaze(), one, {"text": "hello"}, "auto", me, *PANEL),
    "example": lambda page, me, one, turn: page.send_example(
        Gaze(), one, "auto", SimpleNamespace(value={"text": "hello"}), me, *PANEL
    ),
    "retry": lambda page, me, one, turn: page.take_again(Gaze(), one, "auto", me),
    "undo": lambda page, me, one, turn: page.take_back(Gaze(), one, me),
    "rate": lambda page, me, one, turn: page.rate(Gaze(), one, SimpleNamespace(index=1, liked=True), me),
    "stop": lambda page, me, one, turn: page.stop(one, me),
    "rename": lambda page, me, one, turn: page.retitle(Gaze(), one, "mine now", me),
    "delete": lambda page, me, one, turn: page.remove(Gaze(), one, me),
    "export": lambda page, me, one, turn: page.send_out(one, me),
    "settings": lambda page, me, one, turn: page.change_panel(one, me, *PANEL),
    "search": lambda page, me, one, turn: page.finder.find("blue", one, me),
    "gallery": lambda page, me, one, turn: page.gallery.show(me),
    "gallery search": lambda page, me, one, turn: page.gallery.seek("blue", me),
    "gallery picture": lambda page, me, one, turn: page.gallery.pick("blue", SimpleNamespace(place=0), me),
    "gallery compare": lambda page, me, one, turn: page.compare(Gaze(), turn, me),
    **{
        what: lambda page, me, one, turn, what=what: page.act(
            Gaze(), one, "auto", SimpleNamespace(do=what, turn=turn, text="A hat."), me
        )
        for what in ("reword", "redraw", "vary", "paint", "base", "branch", "compare")
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def page(world: World) -> Page:
    turns = RunningTurns(STORYBOOK, world.store, world.models.dialog, world.models.generator)
    return Page(TEXTS["en"], STORYBOOK, world.store, turns, Visitors())


async def shown(answer: Any) -> str:
    """All that a handler shows; an error is shown too."""
    try:
        if inspect.isasyncgen(answer):
            return str([update async for update in answer])
        if inspect.isgenerator(answer):
            return str(list(answer))
        return str(await answer if inspect.isawaitable(answer) else answer)
    except gr.Error as error:
        return str(error)


async def act(name: str, page: Page, user: User, conversation: Conversation, turn: Turn) -> str:
    try:
        return await shown(ACTS[name](page, gr.Request(username=user.id), conversation.id, turn.id))
    except gr.Error as error:
        return str(error)


@pytest.mark.parametrize("name", ACTS)
async def test_a_conversation_of_the_other(world: World, page: Page, name: str) -> None:
    conversation, turn = world.conversations["ben"], world.turns["ben"]

    def state() -> tuple[Any, ...]:
        mine = (world.store.conversation(world.ben.id, conversation.id), world.store.turns(conversation))
        return *mine, world.store.ratings(world.ben.id), len(world.models.dialog.asked)

    before = state()
    answer = await act(name, page, world.anna, conversation, turn)
    assert "blue secret" not in answer and str(turn.picture) not in answer and "mine now" not in answer
    assert state() == before


@pytest.mark.parametrize(
    "name", ["open", "open a turn", "search", "gallery", "gallery search", "gallery picture", "rename"]
)
async def test_the_same_shows_ones_own(world: World, page: Page, name: str) -> None:
    """Else the test above could pass for a page that shows nothing."""
    answer = await act(name, page, world.ben, world.conversations["ben"], world.turns["ben"])
    assert ("mine now" if name == "rename" else "blue secret") in answer
    world.store.change_conversation(world.conversations["ben"], title="blue secret")


async def test_a_look_ends_with_nothing_new(world: World, page: Page) -> None:
    """Gradio repeats a handler's last update, by when the user may have gone elsewhere or begun to type."""
    me, one = gr.Request(username=world.ben.id), world.conversations["ben"].id
    assert list([update async for update in page.open(Gaze(), one, me)][-1].values()) == [gr.skip()]


@pytest.mark.parametrize("name", ["reword", "redraw", "vary", "paint", "base", "branch"])
async def test_a_turn_of_the_other_in_a_conversation_of_ones_own(world: World, page: Page, name: str) -> None:
    with pytest.warns(UserWarning, match="does not exist"):
        answer = await act(name, page, world.anna, world.conversations["anna"], world.turns["ben"])
    assert "blue" not in answer


def test_a_session_of_the_other(world: World) -> None:
    hers, his = browser(world, world.anna, "sessionofanna"), browser(world, world.ben, "sessionofanna")
    assert hers.join(hers.event("gallery-open", "click"), {}).status_code == 200
    for answer in (
        his.http.get("/gradio_api/queue/data", params={"session_hash": "sessionofanna"}),
        his.join(his.event("gallery-open", "click"), {}),
        his.http.get("/gradio_api/heartbeat/sessionofanna"),
        his.http.get("/zh/gradio_api/heartbeat/sessionofanna/"),
        his.http.post("/gradio_api/cancel", json={"session_hash": "sessionofanna", "fn_index": 0, "event_id": "x"}),
    ):
        assert "somebody else's" in refused(answer, 403)
    assert "red secret" in hers.http.get("/gradio_api/queue/data", params={"session_hash": "sessionofanna"}).text


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "component_server"), ("POST", "run/predict"), ("POST", "api/predict"), ("POST", "call/send"),
     ("GET", "deep_link?session_hash=x"), ("POST", "stream/x"), ("GET", "stream/x/y/1/playlist.m3u8"),
     ("POST", "process_recording"), ("GET", "vibe-code/"), ("GET", "dev/reload"), ("GET", "runs"),
     ("GET", "file/etc/passwd"), ("GET", "openapi.json")],
)  # fmt: skip
def test_what_the_page_does_not_use_is_closed(world: World, method: str, path: str) -> None:
    for page in ("", "/zh"):
        refused(world.signed_in(world.anna).request(method, f"{page}/gradio_api/{path}"), 404)


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_uploads_of_the_other(world: World) -> None:
    hers, his = browser(world, world.anna), browser(world, world.ben)
    names = ["a.png", "b" * 300 + ".png", "c" * 300 + ".png"]  # a reply so long that it would be compressed
    uploaded = hers.http.post("/gradio_api/upload", files=[("files", (name, png("red"))) for name in names]).json()
    for path in uploaded:
        assert hers.http.get(f"/gradio_api/file={path}").content == png("red")
        assert "Upload it again" in refused(his.http.get(f"/gradio_api/file={path}"), 404)
        assert refused(his.http.get(f"/zh/gradio_api/file={path}"), 404)
        said = {"text": "look", "files": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
        assert "Upload it again" in refused(his.join(his.event("box", "submit"), {1: None, 2: said}), 404)
        zipped = {"path": path, "meta": {"_type": "gradio.FileData"}}
        refused(his.join(his.event("import", "upload"), {1: zipped}), 404)
    (again,) = his.http.post("/gradio_api/upload", files={"files": ("a.png", png("red"))}).json()
    assert again == uploaded[0] and his.http.get(f"/gradio_api/file={again}").status_code == 200  # now it is both's


def test_the_page_sends_an_upload(world: World) -> None:
    me = browser(world, world.anna, "uploading")
    (path,) = me.http.post("/gradio_api/upload", files={"files": ("a.png", png("green"))}).json()
    said = {"text": "look at this", "files": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
    answer = me.send(me.event("box", "submit"), {1: None, 2: said, 3: "auto", 4: 1, 6: STORYBOOK.sizes[0]})
    assert "You said: look at this" in answer
    undone = me.send(me.event("undo", "click"), {})
    path = find_path(undone, ".png")
    assert me.http.get(f"/gradio_api/file={path}").status_code == 200
    refused(world.signed_in(world.ben).get(f"/gradio_api/file={path}"), 404)


def test_exports_of_the_other(world: World) -> None:
    me = browser(world, world.ben, "exporting")
    me.load(world.conversations["ben"].id)
    path = find_path(me.send(me.event("export", "click"), {}), ".zip")
    assert me.http.get(f"/gradio_api/file={path}").content[:2] == b"PK"
    refused(world.signed_in(world.anna).get(f"/gradio_api/file={path}"), 404)


def find_path(answer: str, ending: str) -> str:
    (path,) = set(re.findall(rf'"path":"([^"]+{ending})"', answer))
    return path


@pytest.mark.parametrize(
    "path",
    ["{data}/easel.sqlite3", "{data}/pictures/{two}/{picture}.png", "{data}/uploads/../easel.sqlite3", "/etc/passwd",
     "{data}/uploads/../pictures/{two}/{picture}.png", "file://{data}/easel.sqlite3", "%2fetc%2fpasswd", ""],
)  # fmt: skip
def test_files_of_the_machine(world: World, path: str) -> None:
    picture = world.turns["ben"].picture or ""
    place = path.format(data=world.store.folder, two=picture[:2], picture=picture)
    for user in (world.anna, world.ben):  # not even one's own: pictures have an address of their own
        assert world.signed_in(user).get(f"/gradio_api/file={place}").status_code in (403, 404)


def test_the_pages_limit_is_said_and_nothing_is_lost(world: World) -> None:
    user = world.accounts.limit(world.accounts.add("gus", GOOD), 0, None)
    me = browser(world, user)
    answer = me.send(me.event("box", "submit"), {2: {"text": "hello", "files": []}, 4: 1, 6: STORYBOOK.sizes[0]})
    assert "more than 0 pictures and replies a minute" in answer
    assert world.store.conversations(user.id) == []
    world.accounts.remove(user)


def test_a_session_ends_with_its_user(world: World) -> None:
    user = world.accounts.add("hal", GOOD)
    http = world.signed_in(user)
    assert http.get("/account").status_code == 200
    world.accounts.remove(user)
    assert http.get("/account", headers=HTML).status_code == 303
