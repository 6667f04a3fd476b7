"""Imports: hand-written files of each public schema become records that check, and what is wrong is named."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.cli import main as easel
from datasets_build.check import check
from datasets_build.foreign import MAX_TOKENS, Refused, language_of, sound
from dialog_mllm.messages import DRAW, JOINER, Message
from tests.datasets_build.test_check import change

ROOT = Path(__file__).resolve().parent.parent.parent
Row = dict[str, Any]


def picture(colour: str, format: str = "PNG", size: tuple[int, int] = (40, 30), **more: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format, **more)
    return buffer.getvalue()


def turned(colour: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    return picture(colour, "JPEG", exif=exif)


def talk(*texts: str) -> list[Row]:
    return [{"from": "gpt" if i % 2 else "human", "value": text} for i, text in enumerate(texts)]


def chat(*texts: Any) -> list[Row]:
    return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)]


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


LLAVA: list[Row] = [
    {"id": "000000033471", "image": "a/red.png", "conversations": talk("<image>\nWhat colour is it?", "It is red.")},
    {"id": "2", "image": "blue.jpg", "conversations": talk("What is there?\n<image>", "A blue wall.", "Sure?", "Yes.")},
    {"id": "3", "image": "turned.jpg", "conversations": talk("<image>\n这是什么颜色？", "这是绿色，很好看。")},
    {"id": "4", "conversations": talk("How many legs has a spider?", "It has eight legs.")},
    {"id": "5", "image": "a/red.png", "conversations": talk("Tell me about it.", "It is a red wall and nothing else.")},
]  # fmt: skip
SHAREGPT: list[Row] = [
    {"id": "s1", "conversations": talk("Hello there", "Hello! What can I do?", "Nothing, thanks", "Welcome.")},
    {"id": "s2", "conversations": [{"from": "system", "value": "Be brief."}, *talk("What is <draw>?", "<draw>a fox")]},
    {"id": "s3", "conversations": [*talk("Say one"), *talk("and then two"), {"from": "gpt", "value": "one"},
                                   {"from": "gpt", "value": "two"}, *talk("and three?")]},
    {"id": "s4", "conversations": talk("请写一句关于春天的话", "春天来了，花都开了。")},
]  # fmt: skip
CHAT: list[Row] = [
    {"messages": [{"role": "system", "content": "You are kind."}, *chat("42", "That is a number.")]},
    {"messages": chat([{"type": "image_url", "image_url": {"url": data_url(picture("red"))}},
                       {"type": "text", "text": "What is this?"}], [{"type": "text", "text": "A red wall."}])},
    {"messages": chat([{"type": "text", "text": "Compare"}, {"type": "image"}, {"type": "text", "text": "with"},
                       {"type": "image"}], "One is red."), "images": ["a/red.png", "pink.webp"]},
]  # fmt: skip
GOOD = {"llava": LLAVA, "sharegpt4v": LLAVA[:3], "sharegpt": SHAREGPT, "chat": CHAT}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the rows' pictures lie."""
    root = tmp_path / "public"
    (root / "a").mkdir(parents=True)
    (root / "a" / "red.png").write_bytes(picture("red"))
    (root / "blue.jpg").write_bytes(picture("blue", "JPEG"))
    (root / "turned.jpg").write_bytes(turned("green"))
    (root / "pink.webp").write_bytes(picture("pink", "WEBP"))
    (root / "broken.png").write_bytes(picture("red")[:60])
    return root


@pytest.fixture(autouse=True)
def everything_trains(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handful of rows would scatter over the splits; the tests of the splits themselves take them as they fall."""
    if "splits" not in request.node.name:
        monkeypatch.setattr("datasets_build.foreign._split_of", lambda digest: "train")


def write(path: Path, rows: list[Row]) -> Path:
    lines = path.suffix == ".jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(rows), encoding="utf-8")
    return path


def take(path: Path, kind: str, out: Path, *more: str) -> int:
    return easel(["data", "import", str(path), "--kind", kind, "--out", str(out), "--licence", "CC-BY-4.0", *more])


def records_of(out: Path, split: str = "train") -> dict[str, Row]:
    """By what the public set calls them, or by their number in it."""
    lines = (out / f"{split}-00000.jsonl").read_text(encoding="utf-8").splitlines()
    return {str(r["origin"]["id"] or r["origin"]["row"]): r for r in map(json.loads, lines)}


def texts_of(record: Row) -> list[str]:
    return ["".join(b["text"] for b in m["content"] if b["type"] == "text") for m in record["messages"]]


def reasons_of(out: Path, split: str = "train") -> list[str]:
    lines = (out / "import" / f"{split}.refused.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["reason"] for line in lines]


@pytest.mark.parametrize("ending", [".json", ".jsonl"])
@pytest.mark.parametrize("kind", GOOD)
def test_every_kind_becomes_records_that_check(
    folder: Path, tmp_path: Path, kind: str, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write(folder / f"set{ending}", GOOD[kind]), tmp_path / "out"
    assert take(path, kind, out) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["n"] == len(GOOD[kind])
    assert reasons_of(out) == []
    assert check(out).ok, dict(check(out).violations)
    manifest = json.loads((out / "manifest.json").read_text())
    made = manifest["splits"]["train"]["public"]
    assert made["name"] == path.name and len(made["sha256"]) == 64 and made["kind"] == kind
    for record in records_of(out).values():
        assert (record["task"], record["licence"]) == ("D_o", "CC-BY-4.0")
        assert record["source"] == manifest["source"] == f"{path.name}@{made['sha256'][:12]}"
        assert GOOD[kind][record["origin"]["row"]].get("id") == record["origin"]["id"]
        assert all(Message.from_json(message, out) for message in record["messages"])


def test_pictures_are_upright_and_where_they_belong(folder: Path, tmp_path: Path) -> None:
    assert take(write(folder / "l.json", LLAVA), "llava", tmp_path / "l") == 0
    records = records_of(tmp_path / "l")
    for name in ("000000033471", "2", "3", "5"):  # in front of the text, wherever the set has them
        assert [block["type"] for block in records[name]["messages"][0]["content"]] == ["image", "text"]
    assert [turn["type"] for turn in records["2"]["turns"]] == ["ti2t", "ti2t"]
    assert records["4"]["turns"][0]["type"] == "t2t"
    assert texts_of(records["000000033471"]) == ["What colour is it?", "It is red."]
    assert records["3"]["language"] == "zh"
    red, blue, green = (records[name]["messages"][0]["content"][0]["path"] for name in ("000000033471", "2", "3"))
    assert (tmp_path / "l" / red).read_bytes() == (folder / "a" / "red.png").read_bytes()
    assert (tmp_path / "l" / blue).read_bytes() == (folder / "blue.jpg").read_bytes()
    assert Image.open(tmp_path / "l" / green).size == (30, 40) and green.endswith(".png")
    assert take(write(folder / "c.json", CHAT), "chat", tmp_path / "c") == 0
    compared = records_of(tmp_path / "c")["2"]["messages"][0]["content"]
    assert [block["type"] for block in compared] == ["text", "image", "text", "image"]  # amid the text
    assert compared[3]["path"].endswith(".png")  # which was WebP
    assert texts_of(records_of(tmp_path / "c")["0"])[0] == "You are kind.\n\n42"


def test_roles_take_turns_and_foreign_text_holds_no_token(folder: Path, tmp_path: Path) -> None:
    assert take(write(folder / "s.json", SHAREGPT), "sharegpt", tmp_path / "s") == 0
    records = records_of(tmp_path / "s")
    assert texts_of(records["s3"]) == ["Say one\n\nand then two", "one\n\ntwo"]
    assert texts_of(records["s2"]) == [f"Be brief.\n\nWhat is <{JOINER}draw>?", f"<{JOINER}draw>a fox"]
    split_token = chat(
        [{"type": "text", "text": "a <dr"}, {"type": "image", "image": "a/red.png"}, {"type": "text", "text": "aw> b"}],
        "no token",
    )
    assert take(write(folder / "t.json", [{"messages": split_token}]), "chat", tmp_path / "t") == 0
    assert check(tmp_path / "t").ok and DRAW not in texts_of(records_of(tmp_path / "t")["0"])[0]


BAD: list[tuple[str, Any, str]] = [
    ("llava", {"image": "b/none.png", "conversations": talk("<image> hello", "hi")}, "there is no b/none.png in"),
    ("llava", {"image": "../../x.png", "conversations": talk("<image> hello", "hi")}, "leads out of"),
    ("llava", {"image": "broken.png", "conversations": talk("<image> hello", "hi")}, "a picture is broken"),
    ("llava", {"image": "https://x.y/z.png", "conversations": talk("<image> hello", "hi")}, "a picture is on the web"),
    ("llava", {"conversations": talk("<image> hello", "hi")}, "more places for pictures than pictures"),
    ("llava", {"image": ["a/red.png"] * 2, "conversations": talk("<image> hello", "hi")}, "more pictures than places"),
    ("llava", {"image": 7, "conversations": talk("<image> hello", "hi")}, "a picture is wanted, not int"),
    ("llava", {"image": "a/red.png", "conversations": talk("<image>", "hello")}, "a message without text"),
    ("sharegpt", {"conversations": [{"from": "human"}]}, "entry 1 of 'conversations' lacks 'value'"),
    ("sharegpt", {"conversations": "hello"}, "'conversations' is no list"),
    ("sharegpt", {"other": []}, "'conversations' is no list"),
    ("sharegpt", {"conversations": ["hello"]}, "entry 1 of 'conversations' is no object"),
    ("sharegpt", {"conversations": talk("one", "two")[1:]}, "the assistant speaks first"),
    ("sharegpt", {"conversations": talk("anybody there?")}, "no question with an answer"),
    ("sharegpt", {"conversations": [*talk("hello", "hi"), {"from": "system", "value": "x"}]}, "amid the conversation"),
    ("sharegpt", {"conversations": [*talk("hello", "hi"), {"from": "tool", "value": "x"}]}, "neither the user's nor"),
    ("sharegpt", {"conversations": talk("привет, как дела?", "хорошо")}, "neither English nor Chinese"),
    ("sharegpt", {"conversations": talk("これは何の絵ですか", "日本語の絵です")}, "neither English nor Chinese"),
    ("sharegpt", {"conversations": talk("tell me", "word " * 2100)}, "too long: a message of"),
    ("sharegpt", {"conversations": talk(*["x" * 7000] * 4)}, "can be read (--max-tokens)"),
    ("sharegpt", {"conversations": talk("half \ud83d a face", "yes")}, "half a character"),
    ("sharegpt", ["hello"], "a row is an object, not list"),
    ("chat", {"messages": chat("hello", None)}, "a text is wanted, not NoneType"),
    ("chat", {"messages": [*chat("hello"), {"role": "assistant", "content": "", "tool_calls": [{}]}]}, "calls a tool"),
    ("chat", {"messages": chat([{"type": "video"}], "hi")}, "neither text nor picture: 'video'"),
    ("chat", {"messages": chat("hello", [{"type": "image", "path": "a/red.png"}])}, "a reply holds a picture"),
    ("chat", {"messages": chat([{"type": "image_url", "image_url": {"url": "data:x,?"}}], "hi")}, "is no base64"),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["llava", "sharegpt", "chat"])
def test_what_cannot_be_used_is_refused_with_the_reason(folder: Path, tmp_path: Path, kind: str) -> None:
    bad = [(row, reason) for of, row, reason in BAD if of == kind]
    good = GOOD[kind]
    assert take(write(folder / "set.json", [*good, *(row for row, _ in bad), good[0]]), kind, tmp_path / "out") == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "import" / "train.refused.jsonl").open(encoding="utf-8")]
    reasons = {line["row"]: line["reason"] for line in lines}
    for i, (_, reason) in enumerate(bad, len(good)):
        assert reason in reasons.pop(i)
    assert list(reasons.values()) == ["says what another says"]
    made = json.loads((tmp_path / "out" / "manifest.json").read_text())["splits"]["train"]
    assert made["n"] == len(good) and sum(made["refused"].values()) == len(lines) == len(bad) + 1
    assert check(tmp_path / "out").ok


def test_a_line_that_is_no_json_is_refused(folder: Path, tmp_path: Path) -> None:
    path = write(folder / "set.jsonl", SHAREGPT)
    path.write_text(path.read_text() + '{"conversations": [\n\n')
    assert take(path, "sharegpt", tmp_path / "out") == 0
    assert len(records_of(tmp_path / "out")) == 4 and "no JSON" in reasons_of(tmp_path / "out")[0]


def many(n: int, root: Path) -> list[Row]:
    rows: list[Row] = []
    for i in range(n):
        (root / f"{i}.png").write_bytes(picture(f"#{i % 7:02x}{i // 7:02x}00"))
        said = talk(f"<image>\nWhat is number {i}?", "A wall.") if i % 3 else talk(f"Say {i}", "I said it.")
        rows.append({"id": str(i), "conversations": said} | ({"image": f"{i // 2}.png"} if i % 3 else {}))
    both = [{"image": [f"{i}.png", f"{i + 1}.png"], "conversations": talk(f"<image> or <image> {i}?", "the first")}
            for i in range(n // 2)]  # fmt: skip
    return rows + both


def test_splits_share_no_picture_and_samples_follow_from_the_seed(folder: Path, tmp_path: Path) -> None:
    path = write(folder / "many.jsonl", many(120, folder))
    out = tmp_path / "out"
    for split in ("train", "validation", "test"):
        assert take(path, "llava", out, "--split", split) == 0
    report = check(out)
    assert report.ok, dict(report.violations)
    taken = {split: set(records_of(out, split)) for split in ("train", "validation", "test")}
    refused = json.loads((out / "manifest.json").read_text())["splits"]["train"]["refused"]
    assert min(map(len, taken.values())) > 0 and set(refused) == {"pictures of several splits"}
    assert sum(map(len, taken.values())) + refused["pictures of several splits"] == 180
    for name, more in (("a", ["--seed", "1"]), ("b", ["--seed", "1"]), ("c", ["--seed", "2"])):
        assert take(path, "llava", tmp_path / name, "--n", "20", *more) == 0
    a, b, c = ((tmp_path / name / "train-00000.jsonl").read_bytes() for name in "abc")
    assert a == b != c and a.count(b"\n") == 20
    assert take(path, "llava", tmp_path / "few", "--n", "10", "--seed", "1") == 0
    assert a.startswith((tmp_path / "few" / "train-00000.jsonl").read_bytes())


def test_a_picture_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets_build.foreign.MAX_IMAGE_PIXELS", 40 * 30 - 1)
    with pytest.raises(Refused, match="a picture is too large: 40×30"):
        sound(picture("red"))


def test_languages_are_told_by_their_script() -> None:
    for text, language in (
        ("A red fox.", "en"),
        ("一只红色的狐狸", "zh"),
        ("用Python写一个函数", "zh"),
        ("a naïve plan of the whole long journey " * 9, "en"),
    ):
        assert language_of(text) == language
    for text in ("красная лиса", "빨간 여우", "été déjà à l'été très gênant", "1 + 1 = 2"):
        with pytest.raises(Refused):
            language_of(text)


@pytest.mark.slow
def test_records_are_measured_as_training_does(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoProcessor

    from dialog_mllm.data import Encoder
    from dialog_mllm.tokenizer import CONTEXT

    assert MAX_TOKENS == CONTEXT
    encoder = Encoder(AutoProcessor.from_pretrained(ROOT / "dialog_mllm" / "weights" / "base"))
    path = folder / "one.json"
    rows = [
        {"image": ["a/red.png", "blue.jpg"], "conversations": talk(f"<image> or <image>{' < b 图' * 9}?", "<pad>")},
        LLAVA[1],
    ]
    for number, row in enumerate(rows):
        write(path, [row])
        out = tmp_path / str(number)
        assert take(path, "llava", out) == 0
        (record,) = records_of(out).values()
        ids, pictures = encoder.ids([Message.from_json(message, out) for message in record["messages"]])
        assert len(pictures) == 2 - number
        assert take(path, "llava", tmp_path / f"whole {number}", "--max-tokens", str(len(ids))) == 0
        assert take(path, "llava", tmp_path / "long", "--max-tokens", str(len(ids) - 1)) == 1


# ------------------------------------------------------------------------------------------------- what users get wrong


def test_what_a_user_gets_wrong_is_said(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, out = write(folder / "set.json", SHAREGPT), tmp_path / "out"
    (folder / "half.json").write_text('[{"conversations"')
    (folder / "number.json").write_text("7")
    write(folder / "empty.json", [])
    write(folder / "bad.json", [BAD[0][1], BAD[0][1] | {"id": "9"}])
    (folder / "notes.txt").write_text("dear")
    for arguments, code, said in (
        ([folder / "none.json", "llava"], 1, "there is no file"),
        ([folder, "llava"], 1, "there is no file"),
        ([folder / "notes.txt", "llava"], 1, "is none of .json, .jsonl, .parquet"),
        ([folder / "half.json", "llava"], 1, "half.json is no JSON"),
        ([folder / "number.json", "llava"], 1, "row 0: another schema: a row is an object, not int"),
        ([folder / "empty.json", "llava"], 1, "empty.json is empty"),
        ([folder / "bad.json", "llava"], 1, f"there is no b/none.png in {folder} (--images)"),
        ([good, "chat"], 1, "no key 'messages', which --kind chat reads; its keys are 'id', 'conversations'"),
        ([good, "sharegpt", "--images", folder / "nowhere"], 2, "there is no folder"),
        ([good, "sharegpt", "--n", "0"], 2, "at least 1"),
        ([good, "sharegpt", "--revision", "main"], 2, "from a set on the hub, not from a file"),
        ([good, "sharegpt", "--licence", " "], 2, "such as CC-BY-4.0"),
    ):  # fmt: skip
        path, kind, *more = map(str, arguments)
        assert take(Path(path), kind, out, *more) == code
        assert said in capsys.readouterr().err
        assert not (out / "manifest.json").exists() and not list(out.glob("*.jsonl"))
    assert take(good, "sharegpt", out, "--n", "9") == 0
    assert "there are only 4 train records in it" in capsys.readouterr().err
    before = (out / "train-00000.jsonl").read_bytes()
    assert take(write(folder / "other.json", SHAREGPT[:1]), "sharegpt", out) == 1
    assert "must not be mixed" in capsys.readouterr().err
    assert (out / "train-00000.jsonl").read_bytes() == before and check(out).ok


def test_imported_records_only_talk(folder: Path, tmp_path: Path) -> None:
    assert take(write(folder / "set.json", LLAVA), "llava", tmp_path) == 0

    def damage(records: list[Row]) -> None:
        for record in records:
            record["turns"][0]["type"] = "ti2t"
        records[0]["messages"][1]["content"][0]["text"] = DRAW + "a fox"
        records[0]["turns"][0] |= {"type": "t2i", "request": {"op": "draw"}}

    change(tmp_path, damage)
    rules = check(tmp_path).violations
    assert len(rules["imported records only talk"]) == len(rules["a turn about a picture has one before it"]) == 1


# ------------------------------------------------------------------------------------------- parquet, and by name


def test_without_the_library_parquet_is_not_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    (folder / "set.parquet").write_bytes(b"PAR1")
    assert take(folder / "set.parquet", "chat", tmp_path / "out") == 1
    assert "not installed: pip install datasets" in capsys.readouterr().err


@pytest.mark.slow
def test_parquet_is_read_with_the_pictures_in_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets
    import pyarrow
    import pyarrow.parquet

    said = [[{"type": "image"}, {"type": "text", "text": "What is this?"}], [{"type": "text", "text": "A wall."}]]
    part = {"type": datasets.Value("string"), "text": datasets.Value("string")}
    message = {"role": datasets.Value("string"), "content": datasets.List(part)}
    features = datasets.Features({"messages": datasets.List(message), "images": datasets.List(datasets.Image())})
    table = pyarrow.Table.from_pylist([{"messages": chat(*said), "images": [{"bytes": picture("red"), "path": None}]}])
    # As `datasets` writes the sets on the hub.
    table = table.cast(features.arrow_schema).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features.to_dict()}})}
    )
    pyarrow.parquet.write_table(table, folder / "set.parquet")
    assert take(folder / "set.parquet", "chat", tmp_path / "out") == 0
    assert check(tmp_path / "out").ok
    block = records_of(tmp_path / "out")["0"]["messages"][0]["content"][0]
    assert (tmp_path / "out" / block["path"]).read_bytes() == picture("red")
    (folder / "broken.parquet").write_bytes(b"PAR1 and no more")
    capsys.readouterr()
    assert take(folder / "broken.parquet", "chat", tmp_path / "x") == 1
    assert "broken.parquet cannot be read: " in capsys.readouterr().err


COMMIT = "0123456789abcdef" * 2 + "01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as holds one file of one data set."""

    def do_GET(self) -> None:
        data, headers = b"", {"X-Repo-Commit": COMMIT, "ETag": '"1"'}
        if self.path.startswith("/api/datasets/owner/name"):
            data = json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": []}).encode()
            headers["Content-Type"] = "application/json"
        elif self.path == f"/datasets/owner/name/resolve/{COMMIT}/chats.json":
            data = json.dumps(SHAREGPT).encode()
        else:
            entry = "owner/name" in self.path
            headers = {"X-Error-Code": "EntryNotFound" if entry else "RepoNotFound", "X-Error-Message": "not found"}
        self.send_response(200 if data else 404)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.mark.slow
def test_a_set_is_read_from_the_hub_by_its_name(tmp_path: Path) -> None:
    hub = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True).start()
    there, nowhere = f"http://127.0.0.1:{hub.server_address[1]}", "http://127.0.0.1:9"

    def start(name: str, address: str, *more: str) -> subprocess.Popen[str]:
        environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
        environment.pop("HF_HUB_OFFLINE", None)
        command = [
            sys.executable,
            "-m",
            "app.cli",
            "data",
            "import",
            name,
            "--kind",
            "sharegpt",
            "--licence",
            "CC0-1.0",
        ]
        command += ["--out", str(tmp_path / "out"), *more]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)

    file = ["--file", "chats.json"]
    runs = {
        start("owner/name", there, *file, "--split", "train"): "",
        start("owner/name", there, "--file", "other.json"): "owner/name has no file 'other.json' (--file)",
        start("owner/none", there, *file): "there is no data set 'owner/none' on the hub",
        start("no name", there): "there is no data set 'no name' on the hub",
        start("owner/name", nowhere, *file): "the hub cannot be reached",
    }
    for process, says in runs.items():
        error = process.communicate(timeout=100)[1]
        assert says in error and process.returncode == bool(says), error
    hub.shutdown()
    hub.server_close()
    assert check(tmp_path / "out").ok
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["source"] == f"owner/name@{COMMIT[:12]}"
    public = {"kind": "sharegpt", "name": "owner/name", "revision": COMMIT, "file": "chats.json"}
    assert manifest["splits"]["train"]["public"] == public
