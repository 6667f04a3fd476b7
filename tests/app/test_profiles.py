from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from app.errors import InputRefused, ProfileError
from app.profiles import PROFILES, Profile, load_profile, parse_size
from dialog_mllm.instructions import INSTRUCTIONS
from dialog_mllm.messages import BUNDLED_IMAGES, MAX_IMAGES
from generator.request import Lora


def write(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_built_ins_load_by_name() -> None:
    for name, profile in PROFILES.items():
        assert load_profile(name) is profile
        assert profile.name == name
        assert f"{profile.width}x{profile.height}" in profile.sizes


def test_unknown_profile_names_the_valid_ones() -> None:
    with pytest.raises(ProfileError, match=r"'storyboook'.*storybook or hunyuan.*toml"):
        load_profile("storyboook")


def test_a_file_starts_from_its_base_and_finds_folders_beside_it(tmp_path: Path) -> None:
    (tmp_path / "vlm").mkdir()
    profile = load_profile(write(tmp_path, 'base = "hunyuan"\ndialog = "./vlm"\nsteps = 30\nguidance = 6'))
    assert (profile.name, profile.steps, profile.guidance) == ("mine", 30, 6)
    assert profile.dialog == str(tmp_path / "vlm")
    assert profile.adapter == ""
    assert profile.generator == PROFILES["hunyuan"].generator


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepps = 3", "unknown keys stepps.*steps"),
        ('base = "mine"', "no built-in profile 'mine'"),
        ("steps = 0", "steps must be a whole number above 0"),
        ('steps = "20"', "steps must be a whole number"),
        ("steps = 100000", "Steps must be from 1 to"),
        ("width = 100", "Width must be a multiple of 16"),
        ('guidance = "strong"', "guidance must be a number"),
        ('generator = ""', "generator must be a text"),
        ('sizes = ["wide"]', "WIDTHxHEIGHT"),
        ('lora = "gone.safetensors"', "There is no LoRA gone"),
        ("lora = 3", "lora must be a str"),
        ('lora_scale = "much"', "lora_scale must be a number"),
        ("draw_bias = true", "draw_bias must be a number"),
        ('precision = "double"', "precision must be one of float32, bfloat16, float16"),
        ('t5_8bit = "yes"', "t5_8bit must be a bool"),
        ("offload = 1", "offload must be a bool"),
        ("steps = = 3", "cannot be read"),
    ],
)
def test_impossible_profiles_are_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        load_profile(write(tmp_path, text))


def test_how_the_generator_is_loaded_and_what_it_wears(tmp_path: Path) -> None:
    (tmp_path / "style.safetensors").write_bytes(b"some weights")
    keys = 'lora = "./style.safetensors"\nlora_scale = 0.5\nt5_8bit = true\noffload = true\nprecision = "float32"\n'
    profile = load_profile(write(tmp_path, keys))
    assert profile.loading == {"precision": "float32", "t5_8bit": True, "offload": True}
    lora = profile.request("a fox", 7, profile.settings).lora
    assert lora == Lora(str(tmp_path / "style.safetensors"), 0.5)
    assert lora is not None and lora.sha256 == hashlib.sha256(b"some weights").hexdigest()
    assert PROFILES["storybook"].request("a fox", 7, PROFILES["storybook"].settings).lora is None
    assert not any(PROFILES["hunyuan"].loading.values())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"no profile file .*gone.toml"):
        load_profile(str(tmp_path / "gone.toml"))


def test_settings_are_checked(profile: Profile) -> None:
    assert profile.read_settings({"steps": 3}).steps == 3
    for values in ({"steps": 0}, {"steps": 2.5}, {"guidance": float("nan")}, {"width": 130}, {"colour": "red"}):
        with pytest.raises(InputRefused):
            profile.read_settings(values)
    assert parse_size("128x96") == parse_size("128×96") == {"width": 128, "height": 96}
    with pytest.raises(InputRefused, match="WIDTHxHEIGHT"):
        parse_size("128")


def test_a_model_without_our_training_is_told_what_to_do(tmp_path: Path) -> None:
    own = load_profile(write(tmp_path, 'dialog = "some/vlm"\nprompt_only = true'))
    assert own.asking["instructions"] == INSTRUCTIONS
    assert not own.asking["squares"], "it is not the bundled model's processor that sees the pictures"
    asked = PROFILES["hunyuan"].asking
    assert asked == {"max_images": 4, "instructions": INSTRUCTIONS, "squares": False, "draw_bias": 0.0}
    assert not PROFILES["storybook"].asking["instructions"] and PROFILES["storybook"].asking["squares"]
    assert not load_profile(write(tmp_path, 'base = "hunyuan"\nadapter = "./lora"')).prompt_only


def test_a_dialog_model_of_one_s_own_sees_as_many_pictures_as_in_its_training(tmp_path: Path) -> None:
    assert PROFILES["storybook"].max_images == BUNDLED_IMAGES
    assert load_profile(write(tmp_path, 'dialog = "some/vlm"')).max_images == MAX_IMAGES
    assert load_profile(write(tmp_path, 'dialog = "some/vlm"\nmax_images = 2')).max_images == 2
    assert load_profile(write(tmp_path, "steps = 9")).max_images == BUNDLED_IMAGES
    own = f'dialog = "{PROFILES["storybook"].dialog}"'  # what `easel train mllm` makes
    assert load_profile(write(tmp_path, own)).max_images == BUNDLED_IMAGES


def test_a_bias_to_draw_is_a_profile_s_own(tmp_path: Path) -> None:
    assert load_profile(write(tmp_path, 'dialog = "some/vlm"')).asking["draw_bias"] == 0
    assert load_profile(write(tmp_path, "draw_bias = -0.5")).asking["draw_bias"] == -0.5
