"""The command tiles: how a picture is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._common import Json, console, print_json, save_picture


def tiles(
    image: Annotated[Path, typer.Argument(help="The picture.", show_default=False)],
    max_tiles: Annotated[int, typer.Option(min=1, max=40, help="Most tiles, thumbnail aside.")] = 12,
    min_tiles: Annotated[int, typer.Option(min=1, max=40, help="Fewest tiles.")] = 1,
    size: Annotated[int, typer.Option(min=14, help="Side of a tile in pixels, a multiple of 28.")] = 448,
    thumbnail: Annotated[bool, typer.Option(help="Append the whole picture as a last tile.")] = True,
    rule: Annotated[
        str, typer.Option(help="original: as the family's code; hf: as transformers' processor.")
    ] = "original",
    out: Annotated[
        Path | None, typer.Option(help="Where the picture with its grid goes.", show_default="IMAGE-tiles.png")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw the grid that a picture is cut into, with tile numbers and token counts, and save it as a picture."""
    from ..errors import UnsupportedError
    from ..io.draw import draw_tiles, grid_text
    from ..io.images import open_image, tile_image

    if size % 28:
        raise UnsupportedError(f"--size: {size}; allowed: multiples of 28 (patches of 14 pixels, shuffled by twos)")
    picture = open_image(image, rule=rule)
    cut = tile_image(picture, size=size, min_tiles=min_tiles, max_tiles=max_tiles, thumbnail=thumbnail, rule=rule)
    columns, rows = cut.grid
    count = len(cut)
    per_tile = (size // 28) ** 2
    out = out or Path(f"{image.stem}-tiles.png")
    save_picture(draw_tiles(picture, cut), out)
    if as_json:
        print_json({
            "image": str(image), "width": picture.width, "height": picture.height, "rule": rule, "grid": [columns, rows], "tiles": count,
            "thumbnail": cut.thumbnail, "tile_size": size, "tokens_per_tile": per_tile, "tokens": count * per_tile, "out": str(out),
        })  # fmt: skip
        return
    screen = console()
    screen.print(f"[bold]{image}[/bold]: {picture.width} x {picture.height} pixels")
    screen.print(grid_text(cut.grid, cut.thumbnail), soft_wrap=True)
    cell = f"{picture.width / columns:.0f} x {picture.height / rows:.0f} pixels each, resized to {size} x {size}"
    screen.print(f"{columns} x {rows} tiles of {cell}" + (", and the thumbnail" if cut.thumbnail else ""))
    screen.print(f"{count} tiles x {per_tile} tokens = [bold]{count * per_tile}[/bold] visual tokens")
    screen.print(f"saved as [bold]{out}[/bold]")
