from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from app.api import add_api
from app.openai_format import derive_seed, picture_markdown
from app.profiles import PROFILES, Profile
from app.store import Store
from dialog_mllm.errors import DialogTimeout, DialogUnavailable
from generator.errors import DrawingFailed, QueueFull
from tests.app.fakes import FakeGenerator, FakeModels
from tests.app.test_pictures import bomb, encode

Json = dict[str, Any]
SIZE = (PROFILES["storybook"].width, PROFILES["storybook"].height)
SMALL = encode(Image.new("RGB", (8, 8)), "PNG")


@pytest.fixture
def models() -> FakeModels:
    return FakeModels()


@pytest.fixture
def http(profile: Profile, store: Store, models: FakeModels) -> Iterator[TestClient]:
    app = FastAPI()
    add_api(app, profile, store, models)  # type: ignore[arg-type]
    with TestClient(app, base_url="http://easel.test:7860") as client:
        yield client


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The app on a real socket: the test client has no wire to cut."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def ask(http: TestClient, *messages: Json | str, status: int = 200, **body: Any) -> Json:
    spoken = [message if isinstance(message, dict) else user(message) for message in messages]
    content = json.dumps({"model": "easel", "messages": spoken, **body})  # httpx's own refuses what an attacker sends
    response = http.post("/v1/chat/completions", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == status, response.text
    return response.json()


def user(*content: Any) -> Json:
    return {"role": "user", "content": content[0] if len(content) == 1 else list(content)}


def image(url: str) -> Json:
    return {"type": "image_url", "image_url": {"url": url}}


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def text(said: str) -> Json:
    return {"type": "text", "text": said}


def test_health(http: TestClient, models: FakeModels) -> None:
    assert http.get("/health").json()["status"] == "ready"
    models.status = {"status": "warming up", "dialog": "warming up", "generator": "ready"}
    assert http.get("/health").json()["status"] == "warming up"


def test_models(http: TestClient) -> None:
    names = [model["id"] for model in http.get("/v1/models").json()["data"]]
    assert names == ["easel", "easel-storybook"]
    assert http.get("/v1/models/easel").json()["object"] == "model"
    assert http.get("/v1/models/gpt").status_code == 404


def test_text(http: TestClient) -> None:
    body = ask(http, "hello")
    choice = body["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": "You said: hello"}
    assert choice["finish_reason"] == "stop"
    assert body["object"] == "chat.completion"
    assert body["easel"]["draw"] is False


def test_a_drawing_stands_in_the_text_and_beside_it(http: TestClient) -> None:
    body = ask(http, "draw a red fox")
    message, easel = body["choices"][0]["message"], body["easel"]
    prompt = "A flat picture of a red fox."
    assert message["content"].startswith(f"![{prompt}](http://easel.test:7860/v1/pictures/")
    assert (easel["draw"], easel["prompt"], easel["seed"]) == (True, prompt, derive_seed("draw a red fox"))
    address = message["content"].partition("(")[2].rstrip(")")
    served = http.get(address)
    assert served.headers["content-type"] == "image/png"
    data = base64.b64decode(message["images"][0]["image_url"]["url"].partition(",")[2])
    assert data == served.content
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.size, picture.info["prompt"]) == (SIZE, prompt)


def test_the_history_comes_back_as_drawn_turns_of_one_seed(http: TestClient, models: FakeModels) -> None:
    first = ask(http, "draw a red fox")["choices"][0]["message"]
    body = ask(http, "draw a red fox", {"role": "assistant", "content": first["content"]}, "give it a blue scarf")
    messages, _ = models.dialog.asked[-1]
    assert [message.text for message in messages] == [
        "draw a red fox", "<draw>A flat picture of a red fox.", "give it a blue scarf",
    ]  # fmt: skip
    assert len(messages[1].images) == 1
    assert body["easel"]["prompt"] == "A flat picture of a red fox, give it a blue scarf."
    assert len({request.seed for request in models.generator.requests}) == 1


def test_the_server_behind_another_name_still_knows_its_pictures(http: TestClient, models: FakeModels) -> None:
    content = ask(http, "draw a fox")["choices"][0]["message"]["content"]
    moved = content.replace("http://easel.test:7860", "https://pictures.example/easel")
    ask(http, "draw a fox", {"role": "assistant", "content": [text(moved)]}, "make it blue")
    assert models.dialog.asked[-1][0][1].text == "<draw>A flat picture of a fox."


def test_prompts_with_brackets_survive_markdown(http: TestClient, models: FakeModels) -> None:
    models.dialog.replies.append("<draw>a [red] fox (small) \\ here")
    content = ask(http, "draw it")["choices"][0]["message"]["content"]
    ask(http, "draw it", {"role": "assistant", "content": content}, "make it blue")
    assert models.dialog.asked[-1][0][1].text == "<draw>a [red] fox (small) \\ here"
    assert picture_markdown("a [b]", "u") == "![a \\[b\\]](u)"


def test_an_unknown_picture_is_text(http: TestClient, models: FakeModels) -> None:
    content = f"![a fox](http://elsewhere/v1/pictures/{'0' * 32}.png)"
    ask(http, "draw", {"role": "assistant", "content": content}, "hello")
    assert models.dialog.asked[-1][0][1].text == "[a fox]"


def test_a_typed_token_in_the_history_stays_the_assistants_text(http: TestClient, models: FakeModels) -> None:
    ask(http, "hi", {"role": "assistant", "content": "<draw>a trick"}, "hello")
    assert models.generator.requests == []
    assert models.dialog.asked[-1][0][1].text != "<draw>a trick"


def test_seed_mode_and_settings(http: TestClient, models: FakeModels) -> None:
    options = {"mode": "draw", "size": "64x96", "steps": 3, "guidance": 2}
    body = ask(http, "draw a fox", seed=5, easel=options)
    assert body["easel"]["seed"] == 5
    (request,) = models.generator.requests
    assert (request.seed, request.size, request.steps, request.guidance) == (5, (64, 96), 3, 2.0)
    assert models.dialog.asked[0][1] == "draw"


def test_uploads(http: TestClient, models: FakeModels) -> None:
    own = ask(http, "draw a fox")["choices"][0]["message"]["content"].partition("(")[2].rstrip(")")
    png = encode(Image.new("RGB", (20, 10), "red"), "PNG")
    ask(http, user(text("what are these?"), image(data_url(png)), image(own)))
    pictures = models.dialog.asked[-1][0][0].images
    assert [picture.open().size for picture in pictures] == [(20, 10), SIZE]


def test_messages_in_a_row_are_one(http: TestClient, models: FakeModels) -> None:
    greeting = {"role": "assistant", "content": "Welcome!"}
    ask(http, {"role": "system", "content": "be kind"}, greeting, "one", "two")
    assert [message.text for message in models.dialog.asked[0][0]] == ["one\ntwo"]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages"),
        ([user("")], "The message is empty"),
        ([user("x" * 20_000)], "at most 4,000"),
        ([{"role": "assistant", "content": "hi"}], "last message must be the user's"),
        ([{"role": "robot", "content": "hi"}], "no role 'robot'"),
        ([user(text("look"), {"type": "video"})], "content part"),
        *(
            (
                [user(text("look"), image(address))],
                "send the picture itself, as data:image/png;base64,… Other addresses",
            )
            for address in (
                "http://169.254.169.254/latest/meta-data/",
                "http://127.0.0.1/a.png",
                "https://example.com/a.png",
                "file:///etc/passwd",
                "/etc/passwd",
                "ftp://host/a.png",
                "gopher://host/",
                "//host/a.png",
                "",
                "http://easel.test:7860/v1/pictures/../../easel.sqlite3",
                "http://x/" + "/v1/pictures/" * 100_000,
            )
        ),
        ([user(text("look"), {"type": "image_url", "image_url": ["http://127.0.0.1/"]})], "send the picture itself"),
        ([user(text("look"), image("data:text/html;base64,PHNjcmlwdD4="))], "a picture's data URL begins with"),
        ([user(text("look"), image("data:image/svg+xml;base64,PHN2Zy8+"))], "a picture's data URL begins with"),
        ([user(text("look"), image("data:image/png;base64," + "A" * 28_000_000))], "larger than 20 MB"),
        ([user(*[image(data_url(SMALL))] * 5)], "at most 4 pictures"),
        (
            [user(*[image(data_url(SMALL))] * 4), {"role": "assistant", "content": "nice"}] * 17 + [user("x")],
            "at most 64",
        ),
        ([user("draw \ud83d")], "messages.0 holds half a character"),
        ([user(text("look"), text("\udd8a"))], "messages.0 holds half a character"),
        ([user(text("look"), image("data:image/png;base64,???"))], "not valid base64"),
        ([user(text("look"), image("data:image/png,xx"))], "data URL begins with data:image/png;base64,"),
        ([user(text("look"), image(data_url(b"just text")))], "not a picture"),
        ([user(text("look"), image(data_url(bomb(20_000))))], "too large"),
        ([user("draw"), {"role": "assistant", "content": "![" * 4_000}, user("")], "message is empty"),  # at once
        ([user("draw"), {"role": "assistant", "content": "x" * 9_000}, user("hi")], "messages.1 has 9,000"),
    ],
)
def test_bad_messages(http: TestClient, models: FakeModels, messages: list[Json], message: str) -> None:
    error = ask(http, *messages, status=400)["error"]
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"
    assert models.dialog.asked == []


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"model": "gpt-9"}, 404, "no model 'gpt-9'"),
        ({"n": 2}, 400, "One reply per request"),
        ({"seed": -1}, 400, "seed"),
        ({"easel": {"steps": 0}}, 400, "Steps must be from 1"),
        ({"easel": {"colour": "red"}}, 400, "easel.colour"),
        ({"easel": {"size": "big"}}, 400, "WIDTHxHEIGHT"),
        ({"easel": {"style": "cubist"}}, 400, "There are: watercolour, pencil, pixel art, paper cut"),
        ({"easel": {"style": "x" * 99}}, 400, "at most 40 characters"),
        ({"easel": {"mode": "sing"}}, 400, "easel.mode"),
        ({"easel": {"guidance": float("nan")}}, 400, "Guidance must be a number from 1 to 30; got nan"),
        ({"model": "\ud800"}, 404, "no model"),
    ],
)
def test_bad_requests(http: TestClient, body: Json, status: int, message: str) -> None:
    assert message in ask(http, "draw a fox", status=status, **body)["error"]["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "malformed: body"),
        ("null", "malformed: body"),
        ("{", "no valid JSON: Expecting property name"),
        ('{"messages": ' + "[" * 100_000, "error parsing the body"),  # too deep
        ('{"seed": ' + "9" * 5_000 + "}", "error parsing the body"),  # too long a number
        ("messages=hello", "no valid JSON"),
    ],
)
def test_bodies_that_are_no_request(http: TestClient, body: str, message: str) -> None:
    response = http.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DialogUnavailable("gone"), 503),
        (DialogTimeout("slow"), 504),
        (QueueFull("busy"), 429),
        (ZeroDivisionError(), 500),
    ],
)
def test_failures(http: TestClient, models: FakeModels, error: Exception, status: int) -> None:
    models.dialog.replies.append(error)
    with TestClient(http.app, raise_server_exceptions=False) as careful:
        response = careful.post("/v1/chat/completions", json={"messages": [user("hi")]})
    assert response.status_code == status
    if status > 500:
        assert response.json()["error"]["type"] == "server_error"


def read_stream(http: TestClient, said: str) -> tuple[list[Json], str]:
    body = {"messages": [user(said)], "stream": True}
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    return chunks, lines[-1]


def test_streaming(http: TestClient) -> None:
    chunks, last = read_stream(http, "hello")
    assert last == "data: [DONE]"
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "You said: hello"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    chunks, _ = read_stream(http, "draw a fox")
    content = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert content.startswith("![A flat picture of a fox.](http://")
    assert chunks[-1]["easel"]["draw"] is True
    assert chunks[-2]["choices"][0]["delta"]["images"]


def test_a_failure_in_the_stream(http: TestClient, models: FakeModels) -> None:
    models.generator = FakeGenerator(0.0, DrawingFailed("The numbers overflowed."))
    chunks, last = read_stream(http, "draw a fox")
    assert chunks[-1]["error"]["message"] == "The numbers overflowed."
    assert last != "data: [DONE]"


def test_images(http: TestClient, models: FakeModels) -> None:
    body = {"prompt": "a fox", "n": 2, "seed": 9, "size": "64x64", "response_format": "b64_json"}
    data = http.post("/v1/images/generations", json=body).json()["data"]
    assert [item["seed"] for item in data] == [9, 10]
    with Image.open(io.BytesIO(base64.b64decode(data[0]["b64_json"]))) as picture:
        assert picture.size == (64, 64)
    assert models.generator.requests[0].prompt == "a fox"
    assert models.dialog.asked == []
    url = http.post("/v1/images/generations", json={"prompt": "a fox"}).json()["data"][0]["url"]
    assert http.get(url).status_code == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": "x" * 20_000}, "20,000 characters"),
        ({"prompt": "a", "n": 9}, "n must be from 1 to 4"),
        ({"prompt": "a", "size": "100x100"}, "multiple of 16"),
        ({"prompt": "a", "size": "1024x1024"}, "outside what this model draws"),
        ({"prompt": "a", "response_format": "svg"}, "url or b64_json"),
        ({"prompt": "a \ud83d"}, "The prompt holds half a character"),
        ({"prompt": "a", "negative_prompt": "\udd8a"}, "The prompt holds half a character"),
        ({}, "prompt"),
    ],
)
def test_bad_image_requests(http: TestClient, body: Json, message: str) -> None:
    response = http.post(
        "/v1/images/generations", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "draw a fox"}]}),
        ("/v1/images/generations", {"prompt": "a fox"}),
    ],
)
def test_a_client_that_hangs_up_stops_its_drawing(profile: Profile, store: Store, path: str, body: Json) -> None:
    models = FakeModels(generator=FakeGenerator(pause=0.3))
    app = FastAPI()
    add_api(app, profile, store, models)  # type: ignore[arg-type]
    with serving(app) as url:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url + path, json=body, timeout=0.5)
        (job,) = models.generator.jobs
        assert job.cancelled.wait(5)


def test_pictures_that_are_not_there(http: TestClient) -> None:
    for name in ("0" * 32, "..%2F..%2Feasel.sqlite3", "x"):
        assert http.get(f"/v1/pictures/{name}.png").status_code == 404


def test_nothing_of_the_api_appears_among_the_conversations(http: TestClient, store: Store) -> None:
    ask(http, "draw a fox")
    assert store.conversations("api") == store.conversations("local") == []
