"""Decoded picture to uint8 tiles: this package against the same steps on Pillow, one thread each, turn by turn.

    python bench/tiling.py --repeats 15

Both start from one decoded PIL.Image as Pillow itself lays it out and end with one uint8 array [T, 448, 448, 3]; the
tiles are compared before anything is timed. The numbers are medians; MP/s counts pixels of the picture.
"""

# ruff: noqa: E402 (threads are pinned before numpy is imported)

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import PIL
from PIL import Image
from rich.console import Console
from rich.table import Table

from internvl_kernels import _cpu
from internvl_kernels.io.images import tile_image
from internvl_kernels.ops.image import choose_grid

SIDE = 448
BICUBIC = Image.Resampling.BICUBIC


def on_pillow(image: Image.Image) -> np.ndarray:
    """Grid, resize, crop, thumbnail: what the family's preprocessing does, as far as uint8 tiles."""
    columns, rows = choose_grid(*image.size)
    resized = image.resize((columns * SIDE, rows * SIDE), BICUBIC)
    boxes = [(x, y, x + SIDE, y + SIDE) for y in range(0, rows * SIDE, SIDE) for x in range(0, columns * SIDE, SIDE)]
    tiles = [resized.crop(box) for box in boxes]
    if len(tiles) > 1:
        tiles.append(image.resize((SIDE, SIDE), BICUBIC))
    return np.stack([np.asarray(tile) for tile in tiles])


def with_isa(name: str, image: Image.Image) -> np.ndarray:
    _cpu.set_isa(name)
    return tile_image(image, threads=1).pixels


def medians(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Milliseconds. Each round runs every contender once, so that they share whatever else the machine does."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", nargs="+", default=["1280x960", "1920x1080", "1080x1920", "4000x3000"], metavar="WxH"
    )
    parser.add_argument("--isa", nargs="+", default=_cpu.available_isas(), choices=_cpu.available_isas())
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options = parser.parse_args()

    rows = []
    for size in options.sizes:
        width, height = map(int, size.split("x"))
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
        want = on_pillow(image)
        runs: dict[str, Callable[[], object]] = {"pillow": lambda image=image: on_pillow(image)}
        for isa in options.isa:
            if not np.array_equal(with_isa(isa, image), want):
                sys.exit(f"{size} on {isa}: the tiles differ from Pillow's")
            runs[isa] = lambda isa=isa, image=image: with_isa(isa, image)
        for path, milliseconds in (result := medians(runs, options.repeats)).items():
            rows.append(
                {
                    "picture": size,
                    "tiles": len(want),
                    "path": path,
                    "ms": round(milliseconds, 2),
                    "mp_per_s": round(width * height / 1e3 / milliseconds, 1),
                    "ratio": round(result["pillow"] / milliseconds, 2),
                }
            )

    command = " ".join(["python", "bench/tiling.py", *sys.argv[1:]])
    if options.json:
        print(json.dumps({"command": command, "pillow": PIL.__version__, "rows": rows}, indent=2))
        return
    table = Table(title=f"Decoded picture to uint8 tiles, one thread, Pillow {PIL.__version__}", caption=command)
    for column in ("picture", "tiles", "path", "ms", "MP/s", "times Pillow's speed"):
        table.add_column(column, justify="left" if column in ("picture", "path") else "right")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()), end_section=row["path"] == options.isa[-1])
    Console().print(table)


if __name__ == "__main__":
    main()
