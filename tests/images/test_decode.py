"""Colour modes, orientation and broken files: each handled once, the same everywhere."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from wsolpipe.contract.errors import BadImageError
from wsolpipe.images.decode import decode, decode_mask, decode_oriented, probe, turn

ORIENTATION = 0x0112


def picture(width=24, height=16):
    """Smooth colours with a different corner each, so that every turn shows."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), (x + y) * 2], axis=2).astype(np.uint8)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tagged(image, orientation, kind="PNG", **options):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(image, kind, exif=exif, **options)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied_once_and_can_be_ignored(kind, orientation):
    image = Image.fromarray(picture())
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    plain, data = encoded(image, kind, **options), tagged(image, orientation, kind, **options)
    stored = np.asarray(Image.open(io.BytesIO(plain)).convert("RGB"))
    carrier = Image.fromarray(stored)
    carrier.getexif()[ORIENTATION] = orientation
    wanted = np.asarray(ImageOps.exif_transpose(carrier))
    np.testing.assert_array_equal(decode(data), wanted)
    np.testing.assert_array_equal(decode(data, orientation=1), stored)
    np.testing.assert_array_equal(decode(data, orientation=orientation), wanted)
    pixels, applied = decode_oriented(data, exif="apply")
    found = probe(data, exif="apply")
    assert applied == found.orientation == orientation
    assert (found.height, found.width) == pixels.shape[:2] == wanted.shape[:2]
    ignored = probe(data, exif="ignore")
    assert (ignored.height, ignored.width, ignored.orientation) == (*stored.shape[:2], 1)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
def test_a_sideways_tiff_is_not_turned_twice_however_it_is_compressed(compression):
    info = Image.Exif()
    info[ORIENTATION] = 6
    data = encoded(Image.fromarray(picture()), "TIFF", exif=info, compression=compression)
    np.testing.assert_array_equal(decode(data), np.rot90(picture(), -1))
    np.testing.assert_array_equal(decode(data, orientation=1), picture())


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_invalid_orientation_counts_as_none(value):
    data = tagged(Image.fromarray(picture()), value)
    np.testing.assert_array_equal(decode(data), picture())
    assert probe(data, exif="apply").orientation == 1


def test_turning_is_a_view_of_any_array():
    mask = np.arange(6).reshape(2, 3)
    assert turn(mask, 1) is mask
    np.testing.assert_array_equal(turn(mask, 6), np.rot90(mask, -1))
    np.testing.assert_array_equal(turn(turn(mask, 6), 8), mask)


def test_sixteen_bit_gray_is_scaled_not_clipped():
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        gray = decode(encoded(Image.fromarray(values), kind))
        np.testing.assert_array_equal(gray[0, :, 0], [0, 1, 128, 255])
        assert (gray == gray[:, :, :1]).all()
    pgm = b"P5\n4 1\n65535\n" + values.astype(">u2").tobytes()
    np.testing.assert_array_equal(decode(pgm)[0, :, 0], [0, 1, 128, 255])


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[-2.0, 0.0, 2.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, np.nan, 1.0]], np.float32), [0, 0, 255]),
        (np.array([[0, 500_000, 1_000_000]], np.int32), [0, 128, 255]),
        (np.array([[7, 7, 7]], np.int32) * 100_000, [0, 0, 0]),
    ],
)
def test_wide_pixels_are_scaled_by_the_range_they_are_in(values, wanted):
    gray = decode(encoded(Image.fromarray(values), "TIFF"))[0, :, 0]
    assert np.abs(gray.astype(int) - wanted).max() <= 1


def test_alpha_is_composited_on_white_in_every_mode():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = [0, 128, 255]
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(rgba)))[0, :, 0], [255, 127, 0])
    gray = Image.new("LA", (3, 1))
    gray.putalpha(Image.fromarray(rgba[:, :, 3]))
    np.testing.assert_array_equal(decode(encoded(gray))[0, :, 0], [255, 127, 0])
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    np.testing.assert_array_equal(decode(encoded(palette, transparency=0))[0], [[255, 255, 255], [0, 0, 255]])
    keyed = encoded(Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)), transparency=(1, 2, 3))
    np.testing.assert_array_equal(decode(keyed)[0], [[255, 255, 255], [4, 5, 6]])


def test_cmyk_black_and_white_are_black_and_white_with_and_without_adobes_inversion():
    ink = np.zeros((8, 16, 4), np.uint8)
    ink[:, 8:, 3] = 255
    image = Image.fromarray(ink, "CMYK")
    for kind in ("TIFF", "JPEG"):
        pixels = decode(encoded(image, kind, **({"quality": 100} if kind == "JPEG" else {})))
        assert pixels[4, 2].min() > 250
        assert pixels[4, 13].max() < 5


def test_lab_colours_are_converted():
    lab = np.zeros((1, 2, 3), np.uint8)
    lab[0, 1, 0] = 255
    image = Image.frombytes("LAB", (2, 1), lab.tobytes())  # a and b are signed in files: 0 is neutral
    pixels = decode(encoded(image, "TIFF"))
    assert pixels[0, 0].max() < 12
    assert pixels[0, 1].min() > 243


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(kind):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (decode(data) == [255, 0, 0]).all()
    assert probe(data, exif="apply").frames == 3


def test_of_a_multi_picture_file_the_first_counts():
    first, second = (Image.new("RGB", (16, 16), colour) for colour in ((250, 250, 250), (5, 5, 5)))
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    assert decode(data).min() > 240


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_that_ends_early_is_refused(kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    decode(data)
    with pytest.raises(BadImageError, match=r"^(truncated: |broken: |not an image)"):
        decode(data[: int(len(data) * share)])


def test_a_jpeg_cut_by_a_few_bytes_is_refused_as_truncated():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with pytest.raises(BadImageError, match=r"^truncated: \d+ bytes not processed$"):
        decode(encoded(Image.fromarray(noise), "JPEG")[:-20])


def test_what_is_no_image_has_a_short_stable_reason():
    for data, reason in (
        (b"", "empty file"),
        (b"hello", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),
    ):
        with pytest.raises(BadImageError) as caught:
            decode(data)
        assert caught.value.message == reason
        with pytest.raises(BadImageError):
            probe(data, exif="apply")


def bomb(width, height):
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    chunks = b""
    for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")):
        chunks += len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (178_956_971, 1)])
def test_a_bomb_is_refused_before_it_is_unpacked(width, height, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # Pillow's own limit, which any program may lift
    with pytest.raises(BadImageError) as caught:
        decode(bomb(width, height))
    assert caught.value.message == f"decompression bomb: {width * height} pixels"


def test_draft_is_off_by_default_and_stays_above_the_size_asked():
    image = Image.fromarray(picture()).resize((640, 400), Image.Resampling.BICUBIC)
    data = tagged(image, 6, "JPEG", quality=95)
    assert decode(data).shape == (640, 400, 3)
    small = decode(data, draft=(224, 140))
    assert small.shape == (320, 200, 3)
    whole = np.asarray(Image.fromarray(decode(data)).resize((200, 320), Image.Resampling.BOX)).astype(int)
    assert np.abs(whole - small).mean() < 2
    png = encoded(Image.fromarray(picture()))
    np.testing.assert_array_equal(decode(png, draft=(4, 4)), picture())


def test_pixels_are_writable_contiguous_rgb():
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "LA", "I;16"):
        source = Image.fromarray(picture())
        deep = Image.fromarray(picture()[:, :, 0].astype(np.uint16) * 257)
        image = deep if mode == "I;16" else source.convert(mode)
        pixels = decode(encoded(image, "TIFF" if mode == "CMYK" else "PNG"))
        assert pixels.shape == (16, 24, 3), mode
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        assert pixels.flags.writeable


def test_masks_are_what_is_not_zero_in_any_mode():
    wanted = np.array([[False, True, True]])
    gray = Image.fromarray(np.array([[0, 1, 255]], np.uint8))
    palette = gray.convert("P")
    palette.putpalette([9, 9, 9] * 256)
    colour = Image.fromarray(np.array([[[0, 0, 0], [0, 0, 1], [255, 0, 0]]], np.uint8))
    deep = Image.fromarray(np.array([[0, 1, 65535]], np.uint16))
    opaque = colour.copy()
    opaque.putalpha(255)
    for image in (gray, palette, colour, deep, opaque, gray.point(lambda v: 255 * (v > 0)).convert("1")):
        np.testing.assert_array_equal(decode_mask(encoded(image)), wanted)
    np.testing.assert_array_equal(decode_mask(encoded(gray), orientation=6), wanted.T)
    with pytest.raises(BadImageError, match="not an image"):
        decode_mask(b"hello")
