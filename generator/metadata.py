"""What a PNG says of its picture: how to draw it again, what drew it, and that a model did.

    texts = picture_texts(drawing.request, drawing.provenance, profile="storybook")
    drawing.image.save("fox.png", pnginfo=png_info(texts))
    request = read_request(read_png("fox.png")[1])

Light: imports no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from importlib import metadata as packages
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from generator.errors import RequestError
from generator.request import DrawRequest, EditSettings, Lora, Upload

# The mark that a model made the picture: IPTC's term for it, in XMP, which is where other programs look.
MADE_BY_AI = {
    "XML:com.adobe.xmp": (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        ' Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
        "</rdf:RDF></x:xmpmeta>"
    )
}
TEXT, WHOLE, NUMBER = r"(?s:(.*))", r"([0-9]{1,19})", r"([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)"


def picture_texts(request: DrawRequest, provenance: Mapping[str, str], **more: str) -> dict[str, str]:
    """Everything that stands in the picture's PNG: `provenance` is the loaded model's, `more` what only the caller
    knows, left out where it is empty."""
    known = {name: text for name, text in more.items() if text}
    return {**request.metadata(), **provenance, **known, "software": software(), **MADE_BY_AI}


@cache
def software() -> str:
    try:
        return f"Easel {packages.version('easel')}"
    except packages.PackageNotFoundError:  # run from its folder, without being installed
        return "Easel"


def png_info(texts: Mapping[str, str]) -> PngInfo:
    info = PngInfo()
    for name, text in texts.items():
        info.add_itxt(name, text)
    return info


def read_png(path: str | Path) -> tuple[Image.Image, dict[str, str]]:
    """A picture that Easel wrote, as RGB, and its texts. RequestError for any other file."""
    try:
        with Image.open(path) as picture:
            kind = picture.format
            picture.load()
            texts = {str(name): str(text) for name, text in picture.info.items() if isinstance(text, str)}
            pixels = picture.convert("RGB")
    except FileNotFoundError as error:
        raise RequestError(f"There is no picture {path}.") from error
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RequestError(f"{path} cannot be read as a picture ({reason}). Find a whole copy of it.") from error
    if kind != "PNG":
        raise RequestError(f"{path} is a {kind}; how it was drawn stands in the PNG that Easel wrote. Name that one.")
    if "prompt" not in texts:
        raise RequestError(
            f"{path} does not say how it was drawn: Easel did not draw it, or a program that saved it since left that "
            "out. Name the PNG that Easel wrote."
        )
    return pixels, texts


def read_request(texts: Mapping[str, Any], uploads: Sequence[Upload] = (), loras: Sequence[Lora] = ()) -> DrawRequest:
    """The inverse of `DrawRequest.metadata`; other texts may stand beside. Of uploads and LoRAs the metadata hold the
    SHA-256 alone, by which they are found among those given. Raises RequestError."""
    source: DrawRequest | Upload | None = None
    edit, lora = EditSettings(), None
    try:
        if "source" in texts:
            facts = _object(texts, "source")
            upload = facts.keys() == {"sha256"}
            source = _upload(facts["sha256"], uploads) if upload else read_request(facts, uploads, loras)
            edit = _edit(texts)
        if "lora" in texts:
            facts = _object(texts, "lora", "name", "sha256", "scale")
            lora = replace(_lora(facts, loras), scale=facts["scale"])
    except TypeError as error:  # a text where a number should be
        raise RequestError(f"The picture's metadata are damaged: {error}.") from error
    except RecursionError as error:
        raise RequestError("The picture is an edit of an edit and so on, too often to be read.") from error
    width, height = _match(texts, "size", f"{WHOLE}x{WHOLE}")
    start, stop = _match(texts, "guidance_interval", f"{NUMBER}-{NUMBER}")
    return DrawRequest(
        prompt=_match(texts, "prompt", TEXT)[0],
        negative_prompt=_match(texts, "negative_prompt", TEXT)[0],
        seed=int(_match(texts, "seed", WHOLE)[0]),
        size=(int(width), int(height)),
        steps=int(_match(texts, "steps", WHOLE)[0]),
        guidance=float(_match(texts, "guidance", NUMBER)[0]),
        sampler=_match(texts, "sampler", TEXT)[0],
        guidance_interval=(float(start), float(stop)),
        source=source,
        edit=edit,
        lora=lora,
    )


def _match(texts: Mapping[str, Any], name: str, pattern: str) -> tuple[str, ...]:
    text = _there(texts, name)
    match = re.fullmatch(pattern, text) if isinstance(text, str) else None
    if match is None:
        raise _damaged(name, text)
    return match.groups()


def _object(texts: Mapping[str, Any], name: str, *keys: str) -> dict[str, Any]:
    """A JSON object; in an object it stands as one, or (so Easel once wrote) as a text once more."""
    text = _there(texts, name)
    try:
        value = json.loads(text) if isinstance(text, str) else text
    except ValueError as error:
        raise _damaged(name, text) from error
    if not isinstance(value, dict) or (keys and value.keys() != set(keys)):
        raise _damaged(name, text)
    return value


def _there(texts: Mapping[str, Any], name: str) -> Any:
    if name not in texts:
        raise RequestError(f"The picture's metadata lack the {name.replace('_', ' ')}, so it cannot be drawn again.")
    return texts[name]


def _damaged(name: str, text: Any) -> RequestError:
    return RequestError(f"The {name.replace('_', ' ')} in the picture's metadata is damaged: {str(text)[:80]!r}.")


def _edit(texts: Mapping[str, Any]) -> EditSettings:
    facts = {"nearly_all": 1.0, **_object(texts, "edit")}  # older pictures do not name it, and no edit went back
    if facts.keys() != {setting.name for setting in fields(EditSettings)}:
        raise _damaged("edit", facts)
    return EditSettings(**facts)


def _upload(sha256: Any, uploads: Sequence[Upload]) -> Upload:
    for upload in uploads:
        if upload.sha256 == sha256:
            return upload
    others = "None of the named ones is it: name" if uploads else "Name"
    raise RequestError(
        f"The picture is an edit of one that was uploaded (SHA-256 {str(sha256)[:12]}…). {others} the uploaded file "
        "too, with --upload."
    )


def _lora(facts: Mapping[str, Any], loras: Sequence[Lora]) -> Lora:
    for lora in loras:
        if lora.sha256 == facts["sha256"]:
            return lora
    others = "None of the named ones is it: name" if loras else "Name"
    raise RequestError(
        f"The picture was drawn with the LoRA {facts['name']} (SHA-256 {str(facts['sha256'])[:12]}…). {others} it too, "
        "with --lora."
    )
