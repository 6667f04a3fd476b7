"""What stands in a picture's PNG, and the request that is read back from it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from generator.errors import RequestError
from generator.metadata import picture_texts, png_info, read_png, read_request
from generator.request import DrawRequest, EditSettings, Lora, Upload

FOX = DrawRequest('一只 red fox,\n"quoted" — 🦊', seed=2**63 - 1, size=(96, 64), steps=7, guidance=3.0)
SCARF = replace(FOX, prompt="a red fox with a scarf", source=FOX, edit=EditSettings(0.15, 0.4, 2, 0.9))
NIGHT = replace(SCARF, prompt="a red fox with a scarf at night", source=SCARF)
PHOTO = Upload(b"what the file holds")


@pytest.fixture
def lora(tmp_path: Path) -> Lora:
    (tmp_path / "style.safetensors").write_bytes(b"some weights")
    return Lora(str(tmp_path / "style.safetensors"), 0.1 + 0.2)


def saved(folder: Path, request: DrawRequest, **more: str) -> Path:
    path = folder / "picture.png"
    texts = picture_texts(request, {"generator": "sha256:1234"}, **more)
    Image.new("RGB", request.size, "red").save(path, pnginfo=png_info(texts))
    return path


@pytest.mark.parametrize(
    "request_",
    [
        FOX,
        replace(FOX, guidance=3.14159265358979, guidance_interval=(1e-7, 1 / 3), negative_prompt=" \r\n"),
        replace(FOX, guidance=1, sampler="ddim", seed=0),
        NIGHT,
        replace(FOX, source=PHOTO, edit=EditSettings(0.4, 0.0)),
        replace(SCARF, source=replace(FOX, source=PHOTO)),
    ],
)  # fmt: skip
def test_a_request_comes_back_from_a_file(request_: DrawRequest, tmp_path: Path) -> None:
    picture, texts = read_png(saved(tmp_path, request_))
    assert picture.size == request_.size
    assert read_request(texts, [Upload(b"another"), PHOTO]) == request_


def test_so_does_one_with_loras(tmp_path: Path, lora: Lora) -> None:
    request = replace(SCARF, lora=lora, source=replace(FOX, lora=replace(lora, scale=1.0)))
    texts = read_png(saved(tmp_path, request))[1]
    assert read_request(texts, loras=[replace(lora, scale=7.0)]) == request
    assert str(tmp_path) not in json.dumps(texts)


def test_metadata_grow_by_one_prompt_an_edit() -> None:
    sizes = []
    request = FOX
    for _ in range(40):
        request = replace(request, source=request)
        sizes.append(sum(map(len, request.metadata().values())))
    assert sizes[-1] - sizes[-2] == sizes[1] - sizes[0]
    assert read_request(request.metadata()) == request


def test_sources_that_are_texts_in_texts_are_read_too() -> None:
    """As the first pictures have them."""
    inner = FOX.metadata()
    middle = {**SCARF.metadata(), "source": json.dumps(inner)}
    assert read_request({**NIGHT.metadata(), "source": json.dumps(middle)}) == NIGHT


def test_edits_of_before_there_was_a_share_to_go_back_from_never_do() -> None:
    texts = SCARF.metadata()
    texts["edit"] = json.dumps({"reuse": 0.15, "threshold": 0.4, "margin": 2})
    assert read_request(texts) == replace(SCARF, edit=EditSettings(0.15, 0.4, 2))
    with pytest.raises(RequestError, match="edit in the picture's metadata is damaged"):
        read_request({**texts, "edit": json.dumps({"reuse": 0.15, "threshold": 0.4})})


def test_a_picture_says_what_drew_it_and_that_a_model_did(tmp_path: Path) -> None:
    texts = read_png(saved(tmp_path, FOX, profile="storybook", turns=""))[1]
    assert texts["generator"] == "sha256:1234" and texts["profile"] == "storybook" and "turns" not in texts
    assert texts["software"].startswith("Easel ")
    (description,) = ElementTree.fromstring(texts["XML:com.adobe.xmp"]).iter(
        "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
    )
    mark = description.attrib["{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"]
    assert mark == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@pytest.mark.parametrize("name", FOX.metadata())
def test_nothing_may_be_missing(name: str) -> None:
    texts = {key: text for key, text in FOX.metadata().items() if key != name}
    with pytest.raises(RequestError, match=f"lack the {name.replace('_', ' ')}"):
        read_request(texts)
    with pytest.raises(RequestError, match=f"lack the {name.replace('_', ' ')}"):
        read_request({**SCARF.metadata(), "source": json.dumps(texts)})
    with pytest.raises(RequestError, match="lack the edit"):
        read_request({key: text for key, text in SCARF.metadata().items() if key != "edit"})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": "seven"}, "seed in the picture's metadata is damaged: 'seven'"),
        ({"seed": "-1"}, "seed"),
        ({"seed": "9" * 5000}, "seed"),
        ({"seed": str(2**63)}, "out of range"),
        ({"seed": 7}, "seed"),
        ({"size": "96"}, "size"),
        ({"size": "96x64x3"}, "size"),
        ({"steps": "7.5"}, "steps"),
        ({"steps": "0"}, "0 steps"),
        ({"guidance": "nan"}, "guidance"),
        ({"guidance": "1e999"}, "guidance"),
        ({"guidance_interval": "0.5"}, "guidance interval"),
        ({"guidance_interval": "1-0"}, "guidance interval"),
        ({"prompt": " "}, "prompt is empty"),
        ({"source": "{"}, "source in the picture's metadata is damaged"),
        ({"source": "[]"}, "source"),
        ({"source": "[" * 100_000}, "too often"),
        ({"source": json.dumps({**FOX.metadata(), "seed": None})}, "seed"),
        ({"source": json.dumps({**FOX.metadata(), "steps": "8"})}, "steps of its source"),
        ({"edit": '{"reuse": 0.3}'}, "edit"),
        ({"edit": '{"reuse": 0.3, "threshold": 0.5, "margin": 1, "more": 1}'}, "edit"),
        ({"edit": '{"reuse": "0.3", "threshold": 0.5, "margin": 1}'}, "damaged"),
        ({"edit": '{"reuse": 1.0, "threshold": 0.5, "margin": 1}'}, "reuse"),
        ({"lora": '{"name": "style"}'}, "lora"),
    ],
)
def test_damaged_metadata(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_request({**SCARF.metadata(), **changed})


def test_uploads_and_loras_are_asked_for(lora: Lora, tmp_path: Path) -> None:
    edit = replace(FOX, source=PHOTO)
    with pytest.raises(RequestError, match=rf"uploaded \(SHA-256 {PHOTO.sha256[:12]}….*\. Name .*--upload"):
        read_request(edit.metadata())
    with pytest.raises(RequestError, match="None of the named ones is it"):
        read_request(edit.metadata(), [Upload(b"another")])
    styled = replace(FOX, lora=lora).metadata()
    with pytest.raises(RequestError, match=r"the LoRA style\.safetensors \(SHA-256 .* Name .*--lora"):
        read_request(styled)
    (tmp_path / "style.safetensors").write_bytes(b"other weights")
    with pytest.raises(RequestError, match="None of the named ones is it"):
        read_request(styled, loras=[Lora(lora.path)])
    with pytest.raises(RequestError, match="damaged"):
        read_request({**styled, "lora": styled["lora"].replace("0.3", '"0.3"', 1)}, loras=[lora])


def test_files_that_are_no_picture_of_easel_s(tmp_path: Path) -> None:
    whole = saved(tmp_path, replace(FOX, size=(256, 256)))
    Image.effect_noise((256, 256), 90).save(whole, pnginfo=png_info(FOX.metadata()))
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:20_000])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    Image.open(whole).save(tmp_path / "saved.png")
    Image.open(whole).convert("RGB").save(tmp_path / "fox.jpg")
    for name, message in {
        "gone.png": "There is no picture .*gone.png",
        "half.png": "half.png cannot be read as a picture .*truncated",
        "text.png": "text.png cannot be read as a picture",
        "empty.png": "empty.png cannot be read as a picture",
        "": "cannot be read as a picture .*directory",
        "saved.png": "saved.png does not say how it was drawn",
        "fox.jpg": "fox.jpg is a JPEG",
    }.items():
        with pytest.raises(RequestError, match=message):
            read_png(tmp_path / name)
