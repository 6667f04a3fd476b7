"""What draws: the model's weights by their hash, and what else decides over the last bit of a pixel.

python -c "from generator.provenance import hash_of_weights; print(hash_of_weights('generator/weights/storybook'))"
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

import torch

from generator.request import sha256

PARTS = ("transformer", "vae", "text_encoder*")  # folders whose weights make the picture
LARGE = 256 * 2**20  # bytes of weights that are read whole: a fraction of a second
SAMPLES, SAMPLE = 64, 2**16  # of each file of a larger model so many pieces of so many bytes
LIBRARIES = ("torch", "diffusers", "transformers")


def provenance(folder: str | Path, device: torch.device, dtype: torch.dtype, t5_8bit: bool = False) -> dict[str, str]:
    """Of a model that was just loaded, as texts for a PNG file."""
    precision = str(dtype).removeprefix("torch.")
    cpu = device.type == "cpu"
    return {
        "generator": hash_of_weights(folder),
        "precision": f"{precision}, T5 in 8 bits" if t5_8bit else precision,
        "device": f"CPU, {torch.backends.cpu.get_cpu_capability()}" if cpu else torch.cuda.get_device_name(device),
        **({"threads": str(torch.get_num_threads())} if cpu else {}),
        **{name: version(name) for name in LIBRARIES},
    }


def hash_of_weights(folder: str | Path) -> str:
    """`sha256:` and the hash of the safetensors files of PARTS, one after the other in the order of their paths. Many
    gigabytes are not read for this: then it is `sampled-sha256:`, over the files' paths, sizes and some of their bytes.
    """
    folder = Path(folder)
    files = sorted(file for part in PARTS for file in folder.glob(f"{part}/*.safetensors"))
    if sum(file.stat().st_size for file in files) <= LARGE:
        return f"sha256:{sha256(*files)}"
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.relative_to(folder).as_posix()} {size}\n".encode())
        with file.open("rb") as content:
            for i in range(SAMPLES):  # from the first byte to the last, evenly
                content.seek(max(0, size - SAMPLE) * i // (SAMPLES - 1))
                digest.update(content.read(SAMPLE))
    return f"sampled-sha256:{digest.hexdigest()}"
