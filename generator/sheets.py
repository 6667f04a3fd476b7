"""Contact sheets: many pictures in one, for a person to look at.

python -c "from generator.sheets import contact_sheet; contact_sheet(pictures).save('sheet.png')"
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

GAP = 4  # pixels between two pictures


def contact_sheet(pictures: Sequence[Image.Image], columns: int = 10) -> Image.Image:
    """Pictures of one size, `columns` in a row."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP), rows * (height + GAP)), "white")
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % columns * (width + GAP), number // columns * (height + GAP)))
    return sheet
