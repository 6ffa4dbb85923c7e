"""Sheets of small pictures with headings, and writing pictures whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from ppl_fast._files import replacing
from ppl_fast.visualization._draw import palette

PAPER = (255, 255, 255)
TEXT = (74, 78, 87)
GAP, MARGIN, FONT_SIZE = 8, 20, 15
LONGEST = 26  # characters of a name under a picture
CAPTION = 24  # height of a line of text above or below a picture
DOT, SAMPLE = 12, 36  # width of a dot and of a line in a legend
LINKS = "links, the heavier the more opaque"


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


def shortened(name: str) -> str:
    """The end of a name, that fits under a picture."""
    return name if len(name) <= LONGEST else f"...{name[3 - LONGEST :]}"


def with_legend(page: Image.Image, keypoints: int, text: str) -> Image.Image:
    """The page with a strip beneath: what is shown, the keypoints' colours by number, and what links' opacity means.

    Without keypoints it tells what is shown.
    """
    font = ImageFont.load_default(FONT_SIZE)
    room = page.width - 2 * MARGIN
    words = [(word, font.getlength(f"{word} ")) for word in text.split()]
    numbers = [(str(i), DOT + GAP / 2 + font.getlength(str(i))) for i in range(keypoints)]
    lines = _flowing(words, 0, room)
    marks = [*numbers, (LINKS, SAMPLE + GAP + font.getlength(LINKS))] if numbers else []
    rows = _flowing(marks, 2 * GAP, room) if marks else []
    strip = Image.new("RGB", (page.width, CAPTION * (len(lines) + len(rows))), PAPER)
    for number, row in enumerate(lines):
        _write(strip, MARGIN, CAPTION * (number + 0.5), " ".join(word for word, _ in row))
    colours = palette(keypoints)
    for number, row in enumerate(rows, start=len(lines)):
        x, y = float(MARGIN), CAPTION * (number + 0.5)
        for mark, width in row:
            if mark == LINKS:
                strip.paste(_fading(), (round(x), round(y) - 1))
            else:
                strip.paste(_dot(colours[int(mark)]), (round(x), round(y - DOT / 2)))
            _write(strip, x + width - font.getlength(mark), y, mark)
            x += width + 2 * GAP
    top = page.height - MARGIN + GAP
    whole = Image.new("RGB", (page.width, top + strip.height + MARGIN - GAP), PAPER)
    whole.paste(page, (0, 0))
    whole.paste(strip, (0, top))
    return whole


def _write(page: Image.Image, x: float, y: float, text: str) -> None:
    """Text from x on, its middle at y."""
    ImageDraw.Draw(page).text((x, y), text, TEXT, ImageFont.load_default(FONT_SIZE), anchor="lm")


def _dot(colour: tuple[int, int, int]) -> Image.Image:
    large = Image.new("RGB", (4 * DOT, 4 * DOT), PAPER)
    ImageDraw.Draw(large).ellipse([0, 0, 4 * DOT - 1, 4 * DOT - 1], colour)
    return large.reduce(4)


def _fading() -> Image.Image:
    """A line that grows opaque."""
    line = Image.linear_gradient("L").rotate(90).resize((SAMPLE, 3))
    return Image.composite(Image.new("RGB", line.size, TEXT), Image.new("RGB", line.size, PAPER), line)


def _flowing(items: list[tuple[str, float]], gap: float, room: float) -> list[list[tuple[str, float]]]:
    """Items of these widths in as many rows as it takes for each to fit into the room."""
    rows: list[list[tuple[str, float]]] = [[]]
    for item in items:
        if rows[-1] and sum(width + gap for _, width in rows[-1]) + item[1] > room:
            rows.append([])
        rows[-1].append(item)
    return rows


def save_png(path: str | Path, picture: Image.Image, comment: str | None = None) -> None:
    """Write a PNG under its final name only once it is whole; missing folders on the way are made."""
    notes = PngInfo()
    if comment is not None:
        notes.add_text("Comment", comment)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=notes)
