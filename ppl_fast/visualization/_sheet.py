"""Sheets of small pictures with headings, and writing pictures whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from ppl_fast._files import replacing

PAPER = (255, 255, 255)
TEXT = (74, 78, 87)
GAP, MARGIN, FONT_SIZE = 8, 20, 15
CAPTION = 24  # height of a line of text above or below a picture


def sheet(
    rows: Sequence[Sequence[Image.Image | None]],
    headings: Sequence[str] | None = None,
    row_labels: Sequence[str] | None = None,
) -> Image.Image:
    """Pictures of one size in rows and columns on white; headings above the columns, labels left of the rows."""
    font = ImageFont.load_default(FONT_SIZE)
    width, height = next(cell.size for row in rows for cell in row if cell is not None)
    columns = max(len(row) for row in rows)
    left = MARGIN + (max(round(font.getlength(label)) for label in row_labels) + 2 * GAP if row_labels else 0)
    top = MARGIN + (CAPTION if headings else 0)
    page = Image.new(
        "RGB",
        (left + columns * (width + GAP) - GAP + MARGIN, top + len(rows) * (height + GAP) - GAP + MARGIN),
        PAPER,
    )
    drawing = ImageDraw.Draw(page)
    for column, heading in enumerate(headings or ()):
        drawing.text((left + column * (width + GAP) + width / 2, top - GAP - 2), heading, TEXT, font, anchor="ms")
    for row, cells in enumerate(rows):
        y = top + row * (height + GAP)
        if row_labels:
            drawing.text((left - 2 * GAP, y + height / 2), row_labels[row], TEXT, font, anchor="rm")
        for column, cell in enumerate(cells):
            if cell is not None:
                page.paste(cell, (left + column * (width + GAP), y))
    return page


def captioned(picture: Image.Image, text: str) -> Image.Image:
    """The picture with a line of text beneath it."""
    whole = Image.new("RGB", (picture.width, picture.height + CAPTION), PAPER)
    whole.paste(picture, (0, 0))
    font = ImageFont.load_default(FONT_SIZE)
    ImageDraw.Draw(whole).text((picture.width / 2, picture.height + CAPTION / 2), text, TEXT, font, anchor="mm")
    return whole


def save_png(path: str | Path, picture: Image.Image, comment: str | None = None) -> None:
    """Write a PNG under its final name only once it is whole; missing folders on the way are made."""
    notes = PngInfo()
    if comment is not None:
        notes.add_text("Comment", comment)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=notes)
