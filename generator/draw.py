"""`easel draw`: a prompt in, a PNG out.

    easel draw "a red fox in the snow" -o fox.png --seed 7

The PNG carries everything needed to draw it again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from generator.errors import RequestError
from generator.metadata import picture_texts, png_info
from generator.request import DrawRequest, Lora

if TYPE_CHECKING:
    from generator.engine import Backbone, Progress

# None where they are not named
OPTIONS = ("negative_prompt", "size", "steps", "guidance", "sampler", "lora", "lora_scale")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", help="what to draw, in English or Chinese; drawn as it stands")
    parser.add_argument("-o", "--output", type=Path, default=Path("drawing.png"), help="a .png file (%(default)s)")
    parser.add_argument("--negative-prompt", help="what not to draw")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same picture (%(default)s)")
    parser.add_argument("--size", type=parse_size, help="WIDTHxHEIGHT in pixels")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float, help="how closely to follow")
    parser.add_argument("--sampler", help="dpmpp or ddim; of another model than Hunyuan-DiT, dpmpp stands for its own")
    parser.add_argument("--lora", metavar="PATH", help="a LoRA for the image model: its file or folder; '' for none")
    parser.add_argument("--lora-scale", type=float, help="how strongly it is applied (1)")
    parser.add_argument("--json", action="store_true", help="print the request and the timings as JSON")


def run(args: argparse.Namespace, pipeline_source: Callable[[], Backbone[Any]], profile: str = "") -> int:
    """Draw and save; raises GeneratorError. The request is checked before the model is loaded."""
    named = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
    path, scale = named.pop("lora", ""), named.pop("lora_scale", 1.0)
    lora = Lora(path, scale) if path else None
    request = DrawRequest(prompt=args.prompt, seed=args.seed, owner="easel draw", lora=lora, **named)
    check_output(args.output)
    from generator.engine import Engine

    with Engine(pipeline_source) as engine:
        drawing = engine.submit(request, show_progress if sys.stderr.isatty() else None).result()
    save_png(drawing.image, picture_texts(request, drawing.provenance, profile=profile), args.output)
    if drawing.truncated:
        print("The prompt is longer than the model reads: its end was left out.", file=sys.stderr)
    print(f"{args.output}: {request.size[0]}x{request.size[1]}, seed {request.seed}, {drawing.timings['total']:.1f} s")
    if args.json:
        summary = {"output": str(args.output), **request.metadata(), "timings": drawing.timings}
        print(json.dumps(summary, ensure_ascii=False))
    return 0


def parse_size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(side) for side in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write it like 128x128") from None
    return width, height


def check_output(path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise RequestError(f"{path} is not a .png file name. Choose one that ends in .png.")
    if not path.parent.is_dir():
        raise RequestError(f"The folder {path.parent} does not exist. Make it first, or choose another.")


def save_png(picture: Image.Image, texts: Mapping[str, str], path: Path) -> None:
    try:
        picture.save(path, format="PNG", pnginfo=png_info(texts))
    except OSError as error:
        raise RequestError(f"{path} cannot be written ({error.strerror or error}). Choose another place.") from error


def show_progress(progress: Progress) -> None:
    end = "\n" if progress.step == progress.steps else ""
    print(f"\rstep {progress.step} of {progress.steps}", end=end, file=sys.stderr, flush=True)
