"""`easel draw`: a profile's generator, without the chat.

easel draw "a red fox in the snow" -o fox.png --seed 7
"""

from __future__ import annotations

import argparse

from generator import draw


def add_arguments(parser: argparse.ArgumentParser) -> None:
    draw.add_arguments(parser)
    parser.add_argument(
        "--profile",
        default="storybook",
        help="storybook, hunyuan, or a .toml file: the model, and what is not named (%(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    from app.models import load_generator
    from app.profiles import load_profile

    profile = load_profile(args.profile)
    if args.lora is not None and args.lora_scale is None:
        args.lora_scale = 1.0  # the profile's scale is that of the profile's own
    for name in draw.OPTIONS:  # what is not named is the profile's
        if getattr(args, name) is None:
            setattr(args, name, (profile.width, profile.height) if name == "size" else getattr(profile, name))
    return draw.run(args, lambda: load_generator(profile.generator, **profile.loading), profile.name)
