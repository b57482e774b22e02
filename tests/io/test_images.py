"""Picture input: what is accepted equals the Pillow path, what is refused is refused by name."""

from __future__ import annotations

import io
import pathlib
import warnings

import numpy as np
import pytest
from PIL import Image, ImageOps

from internvl_kernels.io import decode
from internvl_kernels.io.images import Tiles, Video, open_image, tile_image, tile_video

BICUBIC = Image.Resampling.BICUBIC


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def published(image, size=448, low=1, high=12, thumbnail=True):
    """The family's preprocessing on Pillow, with an exhaustive search for the grid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = image.convert("RGB")
    width, height = image.size
    grids = {
        (i, j) for n in range(low, high + 1) for i in range(1, n + 1) for j in range(1, n + 1) if low <= i * j <= high
    }
    best, gap = (1, 1), float("inf")
    for i, j in sorted(grids, key=lambda g: g[0] * g[1]):
        distance = abs(width / height - i / j)
        if distance < gap or (distance == gap and width * height > 0.5 * size * size * i * j):
            best, gap = (i, j), distance
    whole = np.asarray(image.resize((size * best[0], size * best[1]), BICUBIC))
    tiles = [
        whole[y : y + size, x : x + size] for y in range(0, len(whole), size) for x in range(0, whole.shape[1], size)
    ]
    if thumbnail and best != (1, 1):
        tiles.append(np.asarray(image.resize((size, size), BICUBIC)))
    return best, np.stack(tiles)


def check(source, image=None, size=56, **options):
    grid, pixels = published(Image.fromarray(source) if image is None else image, size)
    tiles = tile_image(source, size=size, **options)
    assert tiles.grid == grid
    assert tiles.thumbnail == (grid != (1, 1))
    np.testing.assert_array_equal(tiles.pixels, pixels)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_tiles_of_a_photo_size():
    image = Image.fromarray(noise(600, 901, 3))
    tiles = tile_image(image)
    grid, pixels = published(image)
    assert isinstance(tiles, Tiles)
    assert (tiles.grid, tiles.thumbnail, len(tiles)) == (grid, True, len(pixels))
    np.testing.assert_array_equal(tiles.pixels, pixels)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 10000), (10000, 1), (2, 3), (56, 56), (112, 56), (57, 55)])
def test_odd_sizes(width, height):
    check(noise(height, width, 3))


def test_every_kind_of_source_gives_the_same_tiles(tmp_path):
    import torch

    pixels = noise(77, 130, 3)
    image = Image.fromarray(pixels)
    path = tmp_path / "picture.png"
    image.save(path)
    arrays = [pixels, torch.from_numpy(pixels), np.asfortranarray(pixels)]
    for source in [path, str(path), path.read_bytes(), image, Image.open(path), *arrays]:
        check(source, image)


def test_a_picture_over_several_of_pillows_blocks():
    image = Image.fromarray(noise(2300, 2100, 3))  # 19 MB of four-byte pixels; a block has 16
    bands = decode.bands_of(image, "original")
    np.testing.assert_array_equal(np.concatenate(bands), np.asarray(image))
    if hasattr(image, "__arrow_c_array__"):
        assert len(bands) == 2
        small = decode.bands_of(image.crop((0, 0, 300, 200)), "original")
        assert len(small) == 1
        assert small[0].strides == (1200, 4, 1)  # Pillow's own memory, not a copy


def test_without_arrow_pillow_gives_the_same(monkeypatch):
    image = Image.fromarray(noise(77, 130, 4))
    want = tile_image(image, size=28).pixels
    monkeypatch.delattr(Image.Image, "__arrow_c_array__", raising=False)
    np.testing.assert_array_equal(tile_image(image, size=28).pixels, want)


def test_borrowed_pixels(tmp_path):
    pixels = noise(40, 90, 4)
    check(Image.frombuffer("RGBA", (90, 40), pixels.tobytes(), "raw", "RGBA", 0, 1), Image.fromarray(pixels))
    path = tmp_path / "mapped.tif"  # uncompressed in Pillow's own layout: read through mmap
    Image.fromarray(pixels).save(path)
    check(path, Image.fromarray(pixels))


def test_pixels_outlive_the_image():
    bands = decode.bands_of(Image.fromarray(noise(64, 64, 3, seed=5)), "original")
    [noise(64, 64, 3) for _ in range(50)]
    np.testing.assert_array_equal(bands[0], noise(64, 64, 3, seed=5))
    assert not bands[0].flags.writeable


def palette_with_alpha():
    image = Image.fromarray(noise(40, 90, 3)).quantize(16)
    image.info["transparency"] = bytes(range(0, 256, 16))
    return image


MODES = {
    "grey": lambda: Image.fromarray(noise(40, 90)),
    "grey alpha": lambda: Image.fromarray(noise(40, 90, 2)),
    "one bit": lambda: Image.fromarray(noise(40, 90)).convert("1"),
    "palette": lambda: Image.fromarray(noise(40, 90, 3)).quantize(16),
    "palette alpha": palette_with_alpha,
    "rgba": lambda: Image.fromarray(noise(40, 90, 4)),
    "cmyk": lambda: Image.frombytes("CMYK", (90, 40), noise(40, 90, 4).tobytes()),
    "ycbcr": lambda: Image.fromarray(noise(40, 90, 3)).convert("YCbCr"),
    "sixteen bit": lambda: Image.fromarray(noise(40, 90).astype(np.uint16) * 3),
    "int32": lambda: Image.fromarray(noise(40, 90).astype(np.int32) - 20),
    "float32": lambda: Image.fromarray(noise(40, 90).astype(np.float32) * 1.5),
}


@pytest.mark.parametrize("mode", MODES)
def test_modes_equal_the_pillow_path(mode):
    image = MODES[mode]()
    check(image, image)
    opened = open_image(image)
    assert opened.mode == "RGB"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert opened.tobytes() == image.convert("RGB").tobytes()


FILES = [("PNG", "sixteen bit"), ("PNG", "palette alpha"), ("JPEG", "cmyk"), ("TIFF", "float32")]


@pytest.mark.parametrize(("kind", "mode"), FILES)
def test_modes_from_files(kind, mode):
    data = encoded(MODES[mode](), kind)
    check(data, Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("shape", [(40, 90), (40, 90, 1), (40, 90, 3), (40, 90, 4)])
def test_arrays(shape):
    pixels = noise(*shape)
    image = Image.fromarray(pixels.squeeze())
    assert image.mode == {1: "L", 3: "RGB", 4: "RGBA"}[(*shape, 1)[2]]
    check(pixels, image)
    check(pixels[::-1, ::-1], Image.fromarray(np.ascontiguousarray(np.asarray(image)[::-1, ::-1])))
    assert open_image(pixels).tobytes() == image.convert("RGB").tobytes()


def test_animation_is_its_first_frame():
    frames = [Image.fromarray(noise(40, 90, 3, seed=s)) for s in range(3)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    check(data, Image.open(io.BytesIO(data)))
    later = Image.open(io.BytesIO(data))
    later.seek(2)
    check(later, later.copy())


def test_exif_orientation_only_when_asked():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(noise(40, 90, 3)), "JPEG", exif=exif)
    stored = Image.open(io.BytesIO(data))
    check(data, stored)
    check(data, ImageOps.exif_transpose(stored), exif=True)
    assert open_image(data, exif=True).size == (40, 90)


def test_single_tile_and_bounds():
    pixels = noise(50, 200, 3)
    squashed = np.asarray(Image.fromarray(pixels).resize((28, 28), BICUBIC))
    single = tile_image(pixels, size=28, max_tiles=1)
    assert (single.grid, single.thumbnail) == ((1, 1), False)
    np.testing.assert_array_equal(single.pixels, squashed[None])
    many = tile_image(pixels, size=28, min_tiles=8, max_tiles=40)
    assert many.grid == (8, 2)
    assert len(many) == 17
    plain = tile_image(pixels, size=28, thumbnail=False)
    assert len(plain) == plain.grid[0] * plain.grid[1]
    assert not plain.thumbnail


@pytest.mark.parametrize("shape", [(50, 201, 3), (90, 31, 3), (40, 40, 3)])
def test_pad_to_square(shape):
    pixels = noise(*shape)
    side = max(shape[:2])
    square = Image.new("RGB", (side, side), (123, 116, 103))
    square.paste(Image.fromarray(pixels), ((side - shape[1]) // 2, (side - shape[0]) // 2))
    got = tile_image(pixels, size=28, max_tiles=1, pad_to_square=True)
    np.testing.assert_array_equal(got.pixels[0], np.asarray(square.resize((28, 28), BICUBIC)))
    np.testing.assert_array_equal(
        tile_image(pixels, size=28, pad_to_square=True).pixels, tile_image(pixels, size=28).pixels
    )


def test_threads_do_not_change_tiles():
    pixels = noise(300, 500, 3)
    np.testing.assert_array_equal(tile_image(pixels, threads=1).pixels, tile_image(pixels, threads=2).pixels)


def test_video_is_one_tile_per_frame():
    frames = [noise(50, 80, 3, seed=s) for s in range(3)]
    tiles = tile_video(Video(frames), size=28)
    assert [(t.grid, t.thumbnail, len(t)) for t in tiles] == [((1, 1), False, 1)] * 3
    for frame, tile in zip(frames, tiles):
        np.testing.assert_array_equal(tile.pixels[0], np.asarray(Image.fromarray(frame).resize((28, 28), BICUBIC)))


@pytest.mark.parametrize("mode", ["rgb", *MODES])
@pytest.mark.parametrize("high", [1, 12])
def test_hf_rule_within_one_grey_level_of_transformers(mode, high):
    module = pytest.importorskip("transformers.models.got_ocr2.image_processing_pil_got_ocr2")
    image = Image.fromarray(noise(321, 517, 3)) if mode == "rgb" else MODES[mode]()
    processor = module.GotOcr2ImageProcessorPil(
        size={"height": 56, "width": 56}, crop_to_patches=True, max_patches=high, do_rescale=False, do_normalize=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = processor(image, return_tensors="np")
    tiles = tile_image(image, size=56, max_tiles=high, rule="hf")
    assert list(want["num_patches"]) == [len(tiles)]
    difference = want["pixel_values"].transpose(0, 2, 3, 1).astype(int) - tiles.pixels
    assert np.abs(difference).max() <= 1


def test_hf_rule_lays_transparent_pictures_on_white():
    pixels = np.zeros((30, 30, 4), np.uint8)
    for source in (pixels, Image.fromarray(pixels), encoded(Image.fromarray(pixels))):
        assert (tile_image(source, size=28, rule="hf").pixels == 255).all()
        assert (tile_image(source, size=28).pixels == 0).all()


def test_paths_of_every_type(tmp_path):
    path = pathlib.Path(tmp_path) / "ü b.png"
    Image.fromarray(noise(9, 9, 3)).save(path)
    assert len(tile_image(path, size=14)) == 1
