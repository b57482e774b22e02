"""Pictures of a tile grid: drawn over the image, or with characters in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from rich.text import Text

    from .images import Tiles

_LONG_SIDE = 1024  # of the drawn image, pixels
_MARGIN = 24
_LINE, _EDGE, _PAPER, _INK = (255, 196, 0), (20, 20, 20), (250, 250, 248), (40, 40, 40)
_FONT = ImageFont.load_default(18)


def draw_tiles(image: Image.Image, tiles: Tiles, caption: str | None = None) -> Image.Image:
    """``image`` with its grid and tile numbers over it, the thumbnail tile beside it and a caption below; RGB.

    The grid is drawn where its lines lie in the image: a tile shows its cell stretched to a square.
    """
    columns, rows = tiles.grid
    count, thumbnail = len(tiles), tiles.thumbnail
    scale = _LONG_SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    smooth = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    shown = image.convert("RGB").resize(size, smooth)
    side = min(max(size[1], 160), 320) if thumbnail else 0
    line = 26
    width = size[0] + (side + _MARGIN if thumbnail else 0) + 2 * _MARGIN
    height = max(size[1], side + line if thumbnail else 0) + line + 3 * _MARGIN
    canvas = Image.new("RGB", (width, height), _PAPER)
    canvas.paste(shown, (_MARGIN, _MARGIN))
    draw = ImageDraw.Draw(canvas)
    for edge, colour in ((4, _EDGE), (2, _LINE)):
        for c in range(columns + 1):
            x = _MARGIN + round(c * (size[0] - 1) / columns)
            draw.line((x, _MARGIN, x, _MARGIN + size[1] - 1), colour, edge)
        for r in range(rows + 1):
            y = _MARGIN + round(r * (size[1] - 1) / rows)
            draw.line((_MARGIN, y, _MARGIN + size[0] - 1, y), colour, edge)
    for number in range(columns * rows):
        left, top = number % columns * size[0] / columns, number // columns * size[1] / rows
        _badge(draw, _MARGIN + left + 6, _MARGIN + top + 6, str(number + 1))
    if thumbnail:
        x = size[0] + 2 * _MARGIN
        small = Image.fromarray(tiles.pixels[-1]).resize((side, side), Image.Resampling.LANCZOS)
        canvas.paste(small, (x, _MARGIN))
        draw.rectangle((x, _MARGIN, x + side - 1, _MARGIN + side - 1), outline=_EDGE, width=2)
        _badge(draw, x + 6, _MARGIN + 6, str(count))
        draw.text((x, _MARGIN + side + 6), "thumbnail", _INK, _FONT)
    text = caption or f"{image.width} x {image.height}: {columns} x {rows} tiles" + (
        " and a thumbnail" if thumbnail else ""
    )
    draw.text((_MARGIN, height - line - _MARGIN // 2), text, _INK, _FONT)
    return canvas


def _badge(draw: ImageDraw.ImageDraw, x: float, y: float, text: str) -> None:
    width = draw.textlength(text, _FONT)
    draw.rounded_rectangle((x, y, x + width + 12, y + 24), 6, _EDGE, _LINE)
    draw.text((x + 6, y + 12), text, (255, 255, 255), _FONT, anchor="lm")


def grid_text(grid: tuple[int, int], thumbnail: bool) -> str:
    """The grid with box characters, tiles numbered in order; the thumbnail stands apart."""
    columns, rows = grid
    total = columns * rows
    inner = max(6 if columns <= 12 else 2, len(str(total + 1)) + 1)

    def rule(left: str, middle: str, right: str, cells: int) -> str:
        return left + middle.join(["─" * inner] * cells) + right

    def cells(numbers: range) -> str:
        return "│" + "│".join(str(n).center(inner) for n in numbers) + "│"

    lines = [rule("┌", "┬", "┐", columns)]
    for r in range(rows):
        lines.append(cells(range(r * columns + 1, (r + 1) * columns + 1)))
        lines.append(rule("├", "┼", "┤", columns) if r + 1 < rows else rule("└", "┴", "┘", columns))
    if thumbnail:
        apart = [rule("┌", "", "┐", 1), cells(range(total + 1, total + 2)), rule("└", "", "┘", 1) + " thumbnail"]
        lines = [line + (f"   {apart[i]}" if i < len(apart) else "") for i, line in enumerate(lines)]
    return "\n".join(lines)


def image_text(image: Image.Image, columns: int = 64, rows: int = 16) -> Text:
    """A small colour picture for a terminal: each character is two pixels, one above the other."""
    from rich.text import Text

    scale = min(columns / image.width, 2 * rows / image.height)
    size = (max(1, round(image.width * scale)), max(2, 2 * round(image.height * scale / 2)))
    pixels = image.convert("RGB").resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC).load()
    assert pixels is not None
    text = Text()
    for y in range(0, size[1], 2):
        for x in range(size[0]):
            above, below = (",".join(str(v) for v in pixels[x, row]) for row in (y, y + 1))  # type: ignore[union-attr]
            text.append("▀", f"rgb({above}) on rgb({below})")
        text.append("\n")
    return text


__all__ = ["draw_tiles", "grid_text", "image_text"]
