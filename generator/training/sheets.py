"""Contact sheets: many pictures in one, for a person to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor


def contact_sheet(pixels: Tensor, path: Path, columns: int = 10, gap: int = 4) -> None:
    """Writes (n, 3, H, W) in -1 ... 1 as one PNG of `columns` pictures a row."""
    n, _, height, width = pixels.shape
    rows = -(-n // columns)
    sheet = Image.new("RGB", (columns * (width + gap), rows * (height + gap)), "white")
    values = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    for i, picture in enumerate(np.asarray(values)):
        sheet.paste(Image.fromarray(picture), (i % columns * (width + gap), i // columns * (height + gap)))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
