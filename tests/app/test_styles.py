"""Styles: what they make of prompts, and what a profile may say of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import ProfileError
from app.profiles import PROFILES, load_profile
from app.styles import HUNYUAN, STORYBOOK
from datasets_build.storybook.language import write_prompt
from datasets_build.storybook.reading import complete, read_prompt
from datasets_build.storybook.scene import STYLES


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_bundled_styles_are_the_worlds(language: str) -> None:
    scene = complete({"subjects": [{"kind": "fox", "colour": "red"}], "background": "snow"})
    plain = write_prompt(scene, language, 0)
    assert scene.style == "flat" and set(STORYBOOK) | {"flat"} == set(STYLES)
    for style in STORYBOOK:
        drawn = read_prompt(PROFILES["storybook"].in_style(plain, style))
        assert drawn is not None and drawn.style == style
        assert PROFILES["storybook"].in_style(write_prompt(drawn, language, 0), "pencil") == write_prompt(
            drawn, language, 0
        ), "who asks for a style gets it"


def test_other_models_are_told_in_words(tmp_path: Path) -> None:
    assert PROFILES["hunyuan"].in_style("a fox", "ink wash") == "a fox, Chinese ink wash painting"
    file = tmp_path / "own.toml"
    file.write_text('generator = "./model"')
    assert load_profile(str(file)).styles == HUNYUAN
    file.write_text('[styles]\nneon = "neon lights, {prompt}"\n[styles.dark]\nday = "night"')
    profile = load_profile(str(file))
    assert profile.in_style("a fox by day", "neon") == "neon lights, a fox by day"
    assert profile.in_style("a fox by day", "dark") == "a fox by night"
    assert profile.in_style("a fox by day", "") == profile.in_style("a fox by day", "else") == "a fox by day"


@pytest.mark.parametrize(
    ("styles", "message"),
    [
        ('styles = "neon"', "must be a table of names"),
        ('styles = {neon = "neon lights"}', r"must hold \{prompt\}"),
        ("styles = {neon = 3}", "must be a text, or a table"),
        ("styles = {neon = {}}", "must be a text, or a table"),
        ('styles = {neon = {day = ""}}', "must be a text, or a table"),
        (f'styles = {{{"n" * 41} = "{{prompt}}"}}', "1 to 40 characters"),
    ],
)
def test_styles_that_are_none_are_named(tmp_path: Path, styles: str, message: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(styles)
    with pytest.raises(ProfileError, match=message):
        load_profile(str(file))
