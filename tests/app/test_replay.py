"""`easel replay`: pictures of the chat, of the HTTP API and of `easel draw`, drawn again from their files alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.torch import load_file, save_file

from app.api import add_api
from app.cli import main
from app.conversation import Picture, UserMessage, take_turn
from app.models import GeneratorModel
from app.profiles import Profile, load_profile
from app.store import Store
from generator.metadata import png_info, read_png
from tests.app.fakes import FakeDialog, FakeModels
from tests.generator.test_lora import write_peft
from tests.generator.tiny import make_folder

WEIGHTS = "tiny/transformer/diffusion_pytorch_model.safetensors"
TINY = 'name = "tiny"\ngenerator = "tiny"\nwidth = 64\nheight = 64\nsteps = 4\n'
FOX = "<draw>A flat picture of a red fox in the snow by day."
SCARF = FOX.replace("fox", "fox with a blue scarf")
NIGHT = SCARF.replace("day", "night")
CAT = "<draw>A watercolour picture of a cat on the beach."
HAT = CAT.replace("cat", "cat with a hat")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profile")
    make_folder(folder / "tiny")
    (folder / "tiny.toml").write_text(TINY)
    return folder


@pytest.fixture
def profile(model: Path, tmp_path: Path) -> str:
    """A copy of one's own."""
    shutil.copytree(model, tmp_path / "mine")
    return str(tmp_path / "mine" / "tiny.toml")


@pytest.fixture
def fox(profile: str, tmp_path: Path) -> Path:
    path = tmp_path / "fox.png"
    assert main(["draw", "a red fox", "-o", str(path), "--seed", "7", "--profile", profile]) == 0
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A file that the chat does not keep as it is: it is no PNG, and too large."""
    picture = Image.effect_mandelbrot((1200, 900), (-2, -1.2, 1, 1.2), 60).convert("RGB")
    picture.save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


async def chat(profile: Profile, store: Store, photo: Path) -> list[Path]:
    """The pictures of a conversation: one drawn, two edits in a row, an edit of an upload, and an edit of that."""
    generator = GeneratorModel(profile)
    generator.start()
    conversation = store.create_conversation("local", profile.name, profile.settings.to_json(), seed=7)
    drawn = []
    try:
        for prompt, files in ((FOX, ()), (SCARF, ()), (NIGHT, ()), (CAT, (photo,)), (HAT, ())):
            conversation = store.conversation("local", conversation.id)
            message = UserMessage("draw it", files)
            turn = take_turn(
                conversation, message, FakeDialog(prompt), generator, store, profile, parent=conversation.leaf
            )
            drawn += [store.picture_path(event.id) async for event in turn if isinstance(event, Picture)]
    finally:
        generator.stop()
    return drawn


def output(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    said = capsys.readouterr().out
    return json.loads(said.splitlines()[-1]), said


async def check_chat(profile: str, store: Store, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = await chat(load_profile(profile), store, photo)
    assert len(pictures) == 5
    sources = [json.loads(read_png(path)[1].get("source", "{}")) for path in pictures]
    assert ["source" in source for source in sources] == [False, False, True, False, True]
    assert set(sources[3]) == set(sources[4]["source"]) == {"sha256"}
    names = [str(path) for path in pictures]
    assert main(["replay", *names, "--upload", str(photo), "--profile", profile, "--json"]) == 0
    result, said = output(capsys)
    assert result["identical"] and [one["picture"] for one in result["pictures"]] == names
    assert said.count("identical pixels") == 5
    assert main(["replay", names[-1], "--profile", profile]) == 1
    assert f"{names[-1]}: The picture is an edit of one that was uploaded" in capsys.readouterr().err


async def test_a_conversation_is_drawn_again(
    profile: str, store: Store, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await check_chat(profile, store, photo, capsys)


@pytest.mark.slow
async def test_the_bundled_model_draws_a_conversation_again(
    store: Store, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "quick.toml").write_text('base = "storybook"\nname = "storybook"\nsteps = 5\n')
    await check_chat(str(tmp_path / "quick.toml"), store, photo, capsys)


def test_what_easel_draw_wrote(fox: Path, profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = tmp_path / "again.png"
    assert main(["replay", str(fox), "--profile", profile, "--out", str(again)]) == 0
    assert capsys.readouterr().out.endswith(f"{fox}: identical pixels\n")
    (picture, texts), (copy, copied) = read_png(fox), read_png(again)
    assert copy == picture and copied == texts and texts["profile"] == "tiny"
    assert main(["replay", str(fox)]) == 1
    assert f"{fox} was drawn with the profile 'tiny'. Name its file" in capsys.readouterr().err


def test_it_computes_as_then_unless_the_profile_says_how(
    profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = []
    for precision in ("float32", "bfloat16"):  # one of them is not usual here
        own = Path(profile).with_name(f"{precision}.toml")
        own.write_text(TINY + f'precision = "{precision}"\n')
        pictures.append(str(tmp_path / f"{precision}.png"))
        assert main(["draw", "a red fox", "-o", pictures[-1], "--seed", "7", "--profile", str(own)]) == 0
    assert main(["replay", *pictures, "--profile", profile]) == 0
    capsys.readouterr()
    assert main(["replay", *pictures, "--profile", str(own)]) == 1
    said = capsys.readouterr().out
    assert f"{pictures[0]}: precision: float32 when it was drawn, bfloat16 now" in said
    assert f"{pictures[1]}: identical pixels" in said


def test_what_the_http_api_drew(profile: str, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load_profile(profile)
    models = FakeModels()
    models.generator = generator = GeneratorModel(loaded)  # type: ignore[assignment]
    generator.start()
    app = FastAPI()
    add_api(app, loaded, store, models)  # type: ignore[arg-type]
    with TestClient(app) as client:
        body = {"prompt": "a red fox", "n": 2, "seed": 3, "guidance": 2.123456789, "negative_prompt": "雪"}
        urls = [item["url"] for item in client.post("/v1/images/generations", json=body).json()["data"]]
    generator.stop()
    pictures = [str(store.picture_path(url.rpartition("/")[2].removesuffix(".png"))) for url in urls]
    assert main(["replay", *pictures, "--profile", profile, "--json"]) == 0
    assert len(output(capsys)[0]["pictures"]) == 2


def test_other_weights_are_named_and_the_pixels_counted(
    fox: Path, profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = Path(profile).parent / WEIGHTS
    save_file({key: tensor * 1.05 for key, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    assert main(["replay", str(fox), "--profile", profile, "--json"]) == 1
    result, said = output(capsys)
    (one,) = result["pictures"]
    then, now = one["changed"].pop("generator")
    assert not result["identical"] and then != now and one["changed"] == {}
    assert f"generator: {then} when it was drawn, {now} now" in said
    assert 0 < one["differing_pixels"] <= 64 * 64
    assert (
        f"{one['differing_pixels']:,} of 4,096 pixels differ, by at most {one['largest_difference']} of 255\n" in said
    )


def test_each_recorded_fact_that_is_another_now_is_named(
    fox: Path, profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, texts = read_png(fox)
    then = {"precision": "float64", "torch": "1.0", "threads": "99", "software": "Easel 0.0"}
    picture.save(fox, pnginfo=png_info({**texts, **then}))
    assert main(["replay", str(fox), "--profile", profile, "--json"]) == 0
    result, said = output(capsys)
    assert result["pictures"][0]["changed"] == {name: [fact, texts[name]] for name, fact in then.items()}
    assert f"torch: 1.0 when it was drawn, {texts['torch']} now" in said


@pytest.mark.parametrize(
    ("most", "words"),
    [(1, "sums are rounded in another order"), (90, "the same model drew it, so the file was changed since")],
)
def test_pixels_that_were_changed(
    most: int, words: str, fox: Path, profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, texts = read_png(fox)
    pixels = np.array(picture)
    pixels[:2, :8, 1] = np.where(pixels[:2, :8, 1] < 128, pixels[:2, :8, 1] + most, pixels[:2, :8, 1] - most)
    Image.fromarray(pixels).save(fox, pnginfo=png_info(texts))
    assert main(["replay", str(fox), "--profile", profile]) == 1
    said = capsys.readouterr().out
    assert f"16 of 4,096 pixels differ, by at most {most} of 255" in said and words in said


def test_a_picture_that_was_scaled(fox: Path, profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, texts = read_png(fox)
    picture.resize((32, 32)).save(fox, pnginfo=png_info(texts))
    again = tmp_path / "again.png"
    assert main(["replay", str(fox), "--profile", profile, "--json", "--out", str(again)]) == 1
    result, said = output(capsys)
    assert "was drawn as 64x64 and is 32x32 now" in said and result["pictures"][0]["differing_pixels"] is None
    assert read_png(again)[0] == picture


def test_a_picture_of_before_provenance(fox: Path, profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    picture, texts = read_png(fox)
    kept = ("prompt", "negative_prompt", "seed", "size", "steps", "guidance", "guidance_interval", "sampler")
    picture.save(fox, pnginfo=png_info({name: texts[name] for name in kept}))
    assert main(["replay", str(fox), "--profile", profile]) == 0
    said = capsys.readouterr().out
    assert "what drew it is not recorded" in said and said.endswith("identical pixels\n")


def test_a_lora_is_found_by_its_content(profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lora = write_peft(tmp_path / "style")
    styled = tmp_path / "styled.png"
    draw = ["draw", "a red fox", "-o", str(styled), "--profile", profile, "--lora", str(lora), "--lora-scale", "0.7"]
    assert main(draw) == 0
    moved = lora.rename(tmp_path / "elsewhere")
    assert main(["replay", str(styled), "--profile", profile]) == 1
    assert "Name it too, with --lora" in capsys.readouterr().err
    assert main(["replay", str(styled), "--profile", profile, "--lora", str(moved)]) == 0
    own = Path(profile).with_name("own.toml")
    own.write_text(TINY + f'lora = "{moved}"\nlora_scale = 0.2\n')
    assert main(["replay", str(styled), "--profile", str(own)]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["gone.png"], "There is no picture gone.png."),
        (["photo.jpg"], "photo.jpg is a JPEG"),
        (["fox.png", "photo.jpg"], "photo.jpg is a JPEG"),
        (["fox.png", "--upload", "gone.png"], "There is no uploaded picture gone.png."),
        (["fox.png", "--upload", "notes.txt"], "notes.txt is not a picture that can be read"),
        (["fox.png", "--lora", "gone"], "There is no LoRA gone."),
        (["fox.png", "--out", "again.jpg"], "again.jpg is not a .png file name"),
        (["fox.png", "--out", "nowhere/again.png"], "The folder nowhere does not exist"),
        (["fox.png", "--out", "./fox.png"], "would be overwritten"),
        (["fox.png", "fox.png", "--out", "again.png"], "--out is one file"),
        (["wide.png"], "wide.png: 640x64 is outside what this model draws"),
    ],
)
def test_what_cannot_be_replayed(
    options: list[str],
    message: str,
    fox: Path,
    photo: Path,
    profile: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    picture, texts = read_png(fox)
    picture.save("wide.png", pnginfo=png_info({**texts, "size": "640x64"}))
    before = fox.read_bytes()
    assert main(["replay", *options, "--profile", profile]) == 1
    assert message in capsys.readouterr().err
    assert fox.read_bytes() == before and not Path("again.png").exists()
