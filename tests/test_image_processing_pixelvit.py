# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Tests of the two image processors, against torchvision's transforms and Pillow as independent references."""

import base64
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from modeling_pixelvit.image_processing_pixelvit import PixelViTImageProcessor, PixelViTImageProcessorPil


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BACKENDS = [PixelViTImageProcessor, PixelViTImageProcessorPil]
LEVELS = {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}
AS_IS = {**LEVELS, "do_resize": False, "do_center_crop": False}

both_backends = pytest.mark.parametrize("processor_class", BACKENDS)


def picture(height, width, channels=3, seed=0):
    """A smooth picture with some noise, uint8 of shape (height, width, channels)."""
    rows, columns, bands = np.ogrid[:height, :width, :channels]
    waves = 120 + 80 * np.sin(rows / 17 + columns / 29 + bands) + 30 * np.sin(columns / 5)
    noise = np.random.default_rng(seed).normal(0, 15, (height, width, channels))
    return (waves + noise).clip(0, 255).astype(np.uint8)


def released_evaluation(size, crop_pct=0.875):
    return v2.Compose(
        [
            v2.Resize(int(size / crop_pct), interpolation=v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(size),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


def pixels(processor_class, image, **settings):
    """The one output image of a call, as integers of shape (height, width, channels) where it is on 8-bit levels."""
    return processor_class()(image, **settings)["pixel_values"][0].transpose(1, 2, 0)


def levels(processor_class, image, **settings):
    """What an image is read as, before anything is done to it."""
    read = pixels(processor_class, image, **{**AS_IS, **settings})
    assert read.dtype == np.float32
    assert (read == read.round()).all()
    return read.astype(int)


# Size and place


SIZES = [(480, 640), (301, 222), (257, 256), (255, 400), (33, 32), (7, 5), (1, 1), (1, 9), (9, 1)]


@both_backends
@pytest.mark.parametrize("image_size", SIZES)
@pytest.mark.parametrize(("size", "crop_pct"), [(224, 0.875), (64, 0.875), (33, 0.9), (32, 1.0)])
def test_square_sizes_equal_the_released_evaluation(processor_class, image_size, size, crop_pct):
    image = picture(*image_size)
    reference = released_evaluation(size, crop_pct)
    processor = processor_class(size=size, crop_pct=crop_pct)
    if processor_class is PixelViTImageProcessorPil:
        expected = reference(Image.fromarray(image))
    else:
        expected = reference(torch.from_numpy(image).permute(2, 0, 1))
    output = processor(image, input_data_format="channels_last", return_tensors="pt").pixel_values
    assert output.shape == (1, 3, size, size)
    assert output.dtype == torch.float32
    torch.testing.assert_close(output[0], expected, atol=2e-6, rtol=2e-6)


@both_backends
@pytest.mark.parametrize(
    ("image_size", "size", "resized"),
    [
        ((100, 100), (70, 35), (80, 80)),  # the height decides: 70 / 0.875 = 80
        ((100, 400), (70, 35), (80, 320)),
        ((400, 100), (70, 35), (160, 40)),  # the width decides: 35 / 0.875 = 40
        ((31, 100), (35, 140), (49, 160)),  # int(31 * 160 / 100) = 49, not below 40
    ],
)
def test_other_sizes_cover_the_target_and_crop_its_centre(processor_class, image_size, size, resized):
    image = Image.fromarray(picture(*image_size))
    reference = image.resize(resized[::-1], Image.Resampling.BICUBIC)
    top, left = round((resized[0] - size[0]) / 2), round((resized[1] - size[1]) / 2)
    expected = np.asarray(reference)[top : top + size[0], left : left + size[1]].astype(int)
    output = pixels(processor_class, image, size=size, **LEVELS)
    assert output.shape == (*size, 3)
    tolerance = 0 if processor_class is PixelViTImageProcessorPil else 2
    assert np.abs(output - expected).max() <= tolerance


@both_backends
def test_without_crop_the_whole_image_is_resized_to_the_size(processor_class):
    image = Image.fromarray(picture(50, 91))
    expected = np.asarray(image.resize((40, 30), Image.Resampling.BICUBIC)).astype(int)
    output = pixels(processor_class, image, size=(30, 40), do_center_crop=False, crop_pct=0.5, **LEVELS)
    assert np.abs(output - expected).max() <= (0 if processor_class is PixelViTImageProcessorPil else 2)


@both_backends
@pytest.mark.parametrize("image_size", [(11, 8), (4, 9), (5, 4), (3, 3), (12, 13)])
def test_without_resize_the_crop_is_torchvisions_with_zeros_around(processor_class, image_size):
    image = picture(*image_size)
    expected = v2.CenterCrop((6, 7))(torch.from_numpy(image).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    output = pixels(processor_class, Image.fromarray(image), size=(6, 7), do_resize=False, **LEVELS)
    np.testing.assert_array_equal(output, expected)


def test_backends_differ_by_at_most_two_grey_levels():
    pattern = np.kron(np.indices((41, 53)).sum(0) % 2 * 255, np.ones((5, 7)))
    images = [
        picture(300, 401),
        picture(5, 3),
        picture(64, 701),
        np.random.default_rng(1).integers(0, 256, (99, 98, 3)),
    ]
    images = [Image.fromarray(np.asarray(image, np.uint8)) for image in (*images, pattern)]
    worst = []
    for settings in ({}, {"size": (97, 130)}, {"do_center_crop": False}, {"size": 32, "crop_pct": 1.0}):
        on_torchvision, on_pil = (
            processor(images, **settings, **LEVELS).pixel_values
            for processor in (PixelViTImageProcessor(), PixelViTImageProcessorPil())
        )
        assert on_torchvision.dtype == on_pil.dtype == np.float32
        worst.append(np.abs(on_torchvision - on_pil).max(axis=(1, 2, 3)))
    assert np.max(worst) <= 2


def test_backends_agree_on_floats_and_keep_them_in_their_range():
    image = np.kron(np.indices((9, 7)).sum(0) % 2, np.ones((8, 8))).astype(np.float32)
    for factor in (1.0, 255.0):
        settings = {"size": (41, 40), **LEVELS}
        outputs = [pixels(processor_class, image * factor, **settings) for processor_class in BACKENDS]
        np.testing.assert_allclose(*outputs, atol=1e-4 * factor)
        assert outputs[0].min() == 0 and outputs[0].max() == factor
    # Values of no known range may overshoot.
    assert pixels(PixelViTImageProcessor, image * 2 - 1, size=(41, 40), **LEVELS).max() > 1


def test_output_of_an_image_does_not_depend_on_the_batch():
    small, large = np.random.default_rng(0).random((2, 3, 20, 20), dtype=np.float32)
    large *= 255
    levels = large.astype(np.uint8)
    processor = PixelViTImageProcessor(size=16, do_rescale=False, do_normalize=False, disable_grouping=False)
    for batch in ([small, large], [levels, small, large]):
        together = processor(batch, return_tensors="pt").pixel_values
        for image, found in zip(batch, together, strict=True):
            assert torch.equal(found, processor(image, return_tensors="pt").pixel_values[0])
        assert together[-2].max() <= 1


# Settings


@both_backends
def test_rescale_and_normalize(processor_class):
    image = picture(8, 8)
    settings = {"do_resize": False, "do_center_crop": False, "return_tensors": "np"}
    np.testing.assert_allclose(pixels(processor_class, image, do_normalize=False, **settings), image / 255, rtol=1e-6)
    np.testing.assert_allclose(
        pixels(
            processor_class, image, do_rescale=False, image_mean=[1.0, 2.0, 3.0], image_std=[4.0, 5.0, 6.0], **settings
        ),
        (image - np.array([1, 2, 3])) / np.array([4, 5, 6]),
        rtol=1e-6,
    )
    expected = (image / 255 - 0.5) / 0.25
    np.testing.assert_allclose(
        pixels(processor_class, image, image_mean=0.5, image_std=0.25, **settings), expected, rtol=1e-5, atol=1e-6
    )
    assert pixels(processor_class, image, **AS_IS).dtype == np.float32


@both_backends
def test_crop_follows_the_size_of_a_call(processor_class):
    processor = processor_class(size=32, crop_size={"height": 32, "width": 32})
    assert processor(picture(40, 50), size=(24, 16), return_tensors="pt").pixel_values.shape == (1, 3, 24, 16)
    assert "crop_size" not in processor.to_dict()


@both_backends
@pytest.mark.parametrize(
    ("image_size", "patch_size", "crop_pct"),
    [
        (224, 16, 0.875),
        (224, 32, 0.875),
        (224, 8, 1.0),
        (224, 1, 1.0),
        (384, 16, 1.0),
        (128, 16, 0.875),
        (128, 1, 1.0),
        (64, 1, 0.875),
        (32, 4, 0.875),
        ((64, 48), 1, 0.875),
        ((64, 96), 1, 1.0),
        ((224, 256), 16, 1.0),
        ((192, 224), (16, 16), 0.875),
        (224, (16, 8), 1.0),
    ],
)
def test_for_config_takes_the_papers_crop_ratio(processor_class, image_size, patch_size, crop_pct):
    config = SimpleNamespace(image_size=image_size, patch_size=patch_size)
    processor = processor_class.for_config(config)
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    assert processor.crop_pct == crop_pct
    assert processor.size == {"height": height, "width": width}
    changed = processor_class.for_config(config, crop_pct=0.5, do_normalize=False)
    assert (changed.crop_pct, changed.do_normalize, changed.do_resize) == (0.5, False, True)


# Reading


def as_rgb(image):
    return np.asarray(image.convert("RGB")).astype(int)


GREY = picture(6, 9, 1)[..., 0]
COLOUR = Image.fromarray(picture(6, 9))
ALPHA = Image.fromarray(picture(6, 9, 1, seed=3)[..., 0])


def with_alpha(image):
    image = image.copy()
    image.putalpha(ALPHA)
    return image


def over_white(image):
    """What an image with alpha looks like on white, computed in floating point."""
    colours, alpha = np.split(np.asarray(image.convert("RGBA")) / 255, [3], axis=-1)
    return ((colours * alpha + 1 - alpha) * 255).round().astype(int)


@both_backends
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_opaque_modes_are_read_as_pillow_converts_them(processor_class, mode):
    image = COLOUR.convert(mode)
    np.testing.assert_array_equal(levels(processor_class, image), as_rgb(image))


@both_backends
def test_lab_is_read_as_srgb(processor_class):
    from PIL import ImageCms

    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    image = ImageCms.applyTransform(COLOUR, to_lab)
    assert image.mode == "LAB"
    assert np.abs(levels(processor_class, image) - np.asarray(COLOUR)).max() <= 3


@both_backends
@pytest.mark.parametrize("mode", ["LA", "La", "RGBA", "RGBa", "PA"])
def test_alpha_is_composited_over_white(processor_class, mode):
    image = with_alpha(COLOUR.convert("L" if mode in ("LA", "La") else "RGB"))
    if mode == "PA":
        image = with_alpha(COLOUR.convert("P"))
    elif mode != image.mode:
        image = image.convert(mode)
    assert image.mode == mode
    unmultiplied = image.convert("LA") if mode == "La" else image
    np.testing.assert_array_equal(levels(processor_class, image), over_white(unmultiplied))


@both_backends
def test_transparent_colours_become_white(processor_class, tmp_path):
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), mode="L").convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    palette.save(tmp_path / "palette.png", transparency=bytes([255, 0, 128]))
    expected = [[[10, 20, 30], [255, 255, 255], [162, 167, 172]]]
    np.testing.assert_array_equal(levels(processor_class, str(tmp_path / "palette.png")), expected)
    grey = Image.fromarray(np.array([[7, 8, 9]], np.uint8))
    grey.save(tmp_path / "grey.png", transparency=8)
    np.testing.assert_array_equal(levels(processor_class, tmp_path / "grey.png")[0, :, 0], [7, 255, 9])
    deep = Image.fromarray(np.array([[2570, 2056, 0]], np.uint16))
    deep.save(tmp_path / "deep.png", transparency=2056)
    np.testing.assert_array_equal(levels(processor_class, tmp_path / "deep.png")[0, :, 0], [10, 255, 0])


DEEP = np.array([[0, 128, 129, 257, 30000, 65407, 65535]], np.uint16)
DEEP_AS_8_BIT = [[0, 0, 1, 1, 117, 255, 255]]  # rounded value / 257


@both_backends
def test_16_bit_grey_is_reduced_to_8_bits(processor_class, tmp_path):
    Image.fromarray(DEEP).save(tmp_path / "grey.png")
    Image.fromarray(DEEP).save(tmp_path / "grey.tif")
    big_endian = Image.frombytes("I;16B", (7, 1), DEEP.astype(">u2").tobytes())
    inputs = [
        Image.fromarray(DEEP),
        big_endian,
        Image.fromarray(DEEP.astype(np.int32)),
        Image.fromarray(DEEP.astype(np.float32)),
        str(tmp_path / "grey.png"),
        str(tmp_path / "grey.tif"),
        DEEP,
        DEEP.astype(">u2"),
        DEEP.astype(np.int32),
        DEEP.astype(np.uint64),
        torch.from_numpy(DEEP),
        torch.from_numpy(DEEP.astype(np.int32)),
    ]
    assert [image.mode for image in inputs[:4]] == ["I;16", "I;16B", "I", "F"]
    for image in inputs:
        read = levels(processor_class, image)
        np.testing.assert_array_equal(read, np.repeat(np.array(DEEP_AS_8_BIT)[..., None], 3, axis=-1))


@both_backends
def test_16_bit_colour_arrays_are_reduced_to_8_bits(processor_class):
    image = picture(6, 9)
    for deep in (image.astype(np.uint16) * 257, torch.from_numpy(image.astype(np.int32) * 257)):
        np.testing.assert_array_equal(levels(processor_class, deep), image)
    dark = np.full((5, 6, 3), 200, np.uint16)  # the type says 16 bits even where no value does
    np.testing.assert_array_equal(levels(processor_class, dark), np.ones((5, 6, 3)))


@both_backends
def test_wide_modes_holding_8_bits_or_unit_range(processor_class):
    expected = np.repeat(GREY[..., None], 3, axis=-1)
    for values in (GREY.astype(np.int32), GREY.astype(np.float32), GREY.astype(np.float32) / 255):
        np.testing.assert_array_equal(levels(processor_class, Image.fromarray(values)), expected)
    np.testing.assert_array_equal(levels(processor_class, GREY.astype(np.int64)), expected)


@both_backends
def test_booleans_are_black_and_white(processor_class):
    mask = np.random.default_rng(0).random((5, 6)) > 0.5
    for image in (mask, mask[None], torch.from_numpy(mask), Image.fromarray(mask)):
        np.testing.assert_array_equal(levels(processor_class, image), np.repeat(mask[..., None] * 255, 3, axis=-1))


@both_backends
def test_layouts_and_containers(processor_class):
    image = picture(8, 10)
    first = np.ascontiguousarray(image.transpose(2, 0, 1))
    read_only = image.copy()
    read_only.flags.writeable = False
    for same in (image, first, torch.from_numpy(image), torch.from_numpy(first), image[::-1][::-1], read_only):
        np.testing.assert_array_equal(levels(processor_class, same), image)
    processor = processor_class(size=8)
    for batch in (
        np.stack([first] * 4),
        np.stack([image] * 4),
        torch.from_numpy(np.stack([first] * 4)),
        [image, Image.fromarray(image), torch.from_numpy(first), first],
        [[image, first], [image], (first,)],
        [np.stack([first] * 2), np.stack([first] * 2)],
    ):
        output = processor(batch, return_tensors="pt").pixel_values
        assert output.shape == (4, 3, 8, 8)
        assert all(torch.equal(item, output[0]) for item in output)


@both_backends
def test_ambiguous_layouts_are_told_apart_by_input_data_format(processor_class):
    image = picture(3, 3)
    np.testing.assert_array_equal(levels(processor_class, image, input_data_format="channels_last"), image)
    np.testing.assert_array_equal(levels(processor_class, image), image.transpose(1, 2, 0))  # transformers' rule
    four_channels = levels(processor_class, picture(6, 7, 4), input_data_format="channels_last")
    np.testing.assert_array_equal(four_channels, over_white(Image.fromarray(picture(6, 7, 4))))


@both_backends
def test_without_rgb_conversion_bands_stay(processor_class):
    read = levels(processor_class, with_alpha(COLOUR), do_convert_rgb=False)
    np.testing.assert_array_equal(read, np.asarray(with_alpha(COLOUR)))
    assert levels(processor_class, Image.fromarray(GREY), do_convert_rgb=False).shape == (6, 9, 1)
    # Each band is resized on its own: alpha does not weight the colours.
    resized = pixels(processor_class, with_alpha(COLOUR), do_convert_rgb=False, size=5, **LEVELS)
    np.testing.assert_array_equal(resized[..., :3], pixels(processor_class, COLOUR, size=5, **LEVELS))


@both_backends
def test_floating_point_alpha(processor_class):
    image = picture(6, 9, 4)
    expected = over_white(Image.fromarray(image))
    for white in (1, 255):
        read = pixels(processor_class, (image / 255 * white).astype(np.float32), **AS_IS)
        np.testing.assert_allclose(read / white * 255, expected, atol=0.51)


@both_backends
@pytest.mark.parametrize("extension", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_files_are_turned_upright(processor_class, extension, orientation, tmp_path):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = [250, 0, 0]
    upright[8:, 16:] = [0, 0, 250]
    # How a camera held that way stores the picture.
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    stored = Image.fromarray(upright)
    stored = stored if undo is None else stored.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image.{extension}"
    stored.save(path, exif=exif, **({"lossless": True} if extension == "webp" else {}))
    with Image.open(path) as opened:
        from_pil = levels(processor_class, opened)
    from_path = levels(processor_class, path)
    assert from_path.shape == (16, 32, 3)
    np.testing.assert_array_equal(from_path, from_pil)
    tolerance = 40 if extension == "jpg" else 0
    assert np.abs(from_path - upright.astype(int))[1:7, 1:15].max() <= tolerance
    assert np.abs(from_path - upright.astype(int))[9:, 17:].max() <= tolerance


@both_backends
def test_text_sources(processor_class, tmp_path):
    path = tmp_path / "image.png"
    with_alpha(COLOUR).save(path)
    encoded = base64.b64encode(path.read_bytes()).decode()
    wrapped = base64.encodebytes(path.read_bytes()).decode()
    for source in (path, str(path), encoded, wrapped, "data:image/png;base64," + encoded):
        np.testing.assert_array_equal(levels(processor_class, source), over_white(with_alpha(COLOUR)))
    fetched = processor_class().fetch_images([str(path), [COLOUR]])
    assert fetched[0].mode == "RGBA" and fetched[1][0] is COLOUR


@both_backends
def test_urls_keep_transparency(processor_class, tmp_path, monkeypatch):
    with_alpha(COLOUR).save(tmp_path / "image.png")

    class Session:
        def get(self, url, **kwargs):
            found = url == "https://example.org/image.png"
            return SimpleNamespace(content=(tmp_path / "image.png").read_bytes(), raise_for_status=lambda: 1 // found)

    monkeypatch.setattr("modeling_pixelvit.image_reading.get_session", Session)
    read = levels(processor_class, "https://example.org/image.png")
    np.testing.assert_array_equal(read, over_white(with_alpha(COLOUR)))
    with pytest.raises(ValueError, match=r"^image 0 \('https://example.org/no.png'\) could not be downloaded \(.*give"):
        processor_class()("https://example.org/no.png")


@both_backends
def test_many_files_are_not_kept_open(processor_class, tmp_path):
    resource = pytest.importorskip("resource")
    COLOUR.save(tmp_path / "image.png")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20 if os.path.isdir("/proc") else 256, hard)
    )
    try:
        assert len(processor_class(size=4)([str(tmp_path / "image.png")] * 300)["pixel_values"]) == 300
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Errors


@pytest.fixture
def damaged_files(tmp_path):
    image = Image.fromarray(picture(200, 200))
    for extension in ("jpg", "png"):
        image.save(tmp_path / f"whole.{extension}")
        content = (tmp_path / f"whole.{extension}").read_bytes()
        (tmp_path / f"half.{extension}").write_bytes(content[: len(content) // 2])
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def message_of(processor_class, images, error=ValueError, **settings):
    with pytest.raises(error) as raised:
        processor_class(size=8)(images, **settings)
    message = str(raised.value)
    assert message.endswith(".") and ". " not in message.replace("...", ""), message  # one sentence
    return message


@both_backends
def test_errors_about_files_name_image_and_file(processor_class, damaged_files):
    def failing(file_name):
        return message_of(processor_class, [COLOUR, str(damaged_files / file_name)])

    for extension in ("jpg", "png"):
        message = failing(f"half.{extension}")
        assert message.startswith("image 1 (") and f"half.{extension}') could not be decoded" in message
        assert "truncated" in message and "complete copy" in message
        with Image.open(damaged_files / f"half.{extension}") as opened:
            assert message_of(processor_class, opened).startswith("image 0 (")
    assert "notes.txt') is not an image that Pillow can read: give" in failing("notes.txt")
    assert "missing.png') is neither an existing file" in failing("missing.png")
    assert "image 0 ('cats') is neither an existing file" in message_of(processor_class, "cats")
    assert len(message_of(processor_class, "A" * 100_000)) < 400


@both_backends
def test_errors_about_size_come_before_decoding(processor_class, damaged_files, monkeypatch):
    half = str(damaged_files / "half.png")  # decoding it would be another error
    message = message_of(processor_class, half, max_pixels=39_999)
    assert "has 200 x 200 = 40,000 pixels, more than max_pixels=39,999: shrink" in message
    assert "could not be decoded" in message_of(processor_class, half, max_pixels=40_000)
    assert "image 1 has 6 x 9 = 54 pixels" in message_of(
        processor_class, [COLOUR.resize((2, 2)), COLOUR], max_pixels=50, size=2
    )
    for array in (picture(6, 9), torch.zeros(1, 6, 9), np.zeros((6, 9))):
        assert "image 0 has 6 x 9 = 54 pixels" in message_of(processor_class, array, max_pixels=53, do_rescale=False)
    assert processor_class(size=4, max_pixels=None)(COLOUR)["pixel_values"][0].shape == (3, 4, 4)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    assert "is larger than Pillow opens" in message_of(processor_class, half, max_pixels=None)


@both_backends
def test_elongated_images_do_not_fill_the_memory(processor_class):
    line = Image.new("L", (1_000_000, 1))
    assert "elongated that resizing it would give 9 x 9,000,000" in message_of(processor_class, line, max_pixels=10**7)
    assert processor_class(size=8)(line, do_center_crop=False)["pixel_values"][0].shape == (3, 8, 8)


@both_backends
@pytest.mark.parametrize(
    ("image", "settings", "expected"),
    [
        (Image.new("RGB", (0, 5)), {}, "image 0 has shape (5, 0) and so no pixels"),
        (np.zeros((3, 0, 4)), {}, "image 0 has shape (3, 0, 4) and so no pixels"),
        ([picture(4, 5), torch.zeros(2, 5, 6)], {}, "image 1 has shape (2, 5, 6): pass (height, width)"),
        (np.zeros((5, 6, 5), np.uint8), {}, "image 0 has shape (5, 6, 5): pass"),
        (np.zeros(7), {}, "image 0 has shape (7,): pass"),
        (np.zeros((1, 2, 3, 8, 8)), {}, "image 0 has shape (1, 2, 3, 8, 8): pass"),
        (
            np.zeros((2, 5, 6), np.uint8),
            {"input_data_format": "channels_first"},
            "image 0 has 2 channels (shape (2, 5, 6), channels_first): pass 1",
        ),
        (picture(5, 6), {"input_data_format": "channels_first"}, "image 0 has 5 channels (shape (5, 6, 3)"),
        (np.array([[0.5, np.nan]]), {}, "image 0 has NaN or infinite pixel values"),
        (torch.tensor([[0.5, -torch.inf]]), {}, "image 0 has NaN or infinite pixel values"),
        (Image.fromarray(np.array([[0.5, np.nan]], np.float32)), {}, "image 0 has NaN or infinite pixel values"),
        (np.array([[0, 65536]]), {}, "image 0 has integer pixel values from 0 to 65536: bring"),
        (np.array([[-1, 5]]), {}, "image 0 has integer pixel values from -1 to 5: bring"),
        (Image.fromarray(np.array([[-1, 5]], np.float32)), {}, "of PIL mode F with values from -1 to 5: bring"),
        (np.full((4, 5, 6), -0.5), {}, "image 0 has an alpha channel and values outside 0 to 255"),
        (np.array([["a"]]), {}, "image 0 is an array of dtype <U1"),
        (torch.zeros(2, 2, dtype=torch.complex64), {}, "image 0 is a tensor of dtype torch.complex64"),
        (Image.new("L", (4, 4)), {"do_convert_rgb": False}, "image 0 has 1 channels but image_mean has 3 values"),
        ([], {}, "No images were given"),
        ([[]], {}, "No images were given"),
    ],
)
def test_errors_about_pixels(processor_class, image, settings, expected):
    assert expected in message_of(processor_class, image, **settings)


@both_backends
def test_errors_about_what_is_no_image(processor_class):
    assert message_of(processor_class, [COLOUR, 3], TypeError).startswith("image 1 is of type int: pass")
    assert message_of(processor_class, None, TypeError).startswith("image 0 is of type NoneType: pass")


@both_backends
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"size": {"shortest_edge": 224}}, "size={'shortest_edge': 224} is not accepted: give"),
        ({"size": {"height": 224}}, "size={'height': 224} is not accepted: give"),
        ({"size": {"hieght": 224, "width": 224}}, "size={'hieght': 224, 'width': 224} is not accepted: give"),
        ({"size": (0, 224)}, "size=(0, 224) is not accepted"),
        ({"size": 224.0}, "size=224.0 is not accepted"),
        ({"size": None}, "size=None is not accepted"),
        ({"size": 32, "crop_size": 24}, "crop_size=24 differs from size={'height': 32, 'width': 32}"),
        ({"crop_pct": 0}, "crop_pct=0 is out of range: give"),
        ({"crop_pct": 1.01}, "crop_pct=1.01 is out of range: give"),
        ({"crop_pct": float("nan")}, "crop_pct=nan is out of range: give"),
        ({"crop_pct": "0.9"}, "crop_pct='0.9' is out of range: give"),
        ({"crop_pct": None}, "crop_pct=None is out of range: give"),
        ({"max_pixels": 0}, "max_pixels=0 is not accepted: give"),
        ({"max_pixels": 1e6}, "max_pixels=1000000.0 is not accepted: give"),
    ],
)
def test_errors_about_settings_at_construction_and_at_the_call(processor_class, settings, expected):
    with pytest.raises(ValueError) as raised:
        processor_class(**settings)
    assert expected in str(raised.value)
    assert expected in message_of(processor_class, COLOUR, **settings)


@both_backends
def test_rescaling_a_scaled_image_warns(processor_class, caplog):
    from transformers.utils import logging

    logging.get_logger("modeling_pixelvit").propagate = True
    type(logging.get_logger("x")).warning_once.cache_clear()
    processor_class(size=4)(picture(5, 5).astype(np.float32))
    assert "rescaled once more" not in caplog.text
    processor_class(size=4)(picture(5, 5).astype(np.float32) / 255)
    assert "already between 0 and 1 and will be rescaled once more: pass do_rescale=False" in caplog.text


# Saving


@both_backends
def test_save_and_load(processor_class, tmp_path):
    processor = processor_class(
        size=(48, 32), crop_pct=0.75, do_rescale=None, image_mean=[0.1, 0.2, 0.3], max_pixels=None
    )
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["image_processor_type"] == "PixelViTImageProcessor"
    assert saved["size"] == {"height": 48, "width": 32}
    assert saved["auto_map"] == {
        "AutoImageProcessor": {
            "torchvision": "image_processing_pixelvit.PixelViTImageProcessor",
            "pil": "image_processing_pixelvit.PixelViTImageProcessorPil",
        }
    }
    for other_class in BACKENDS:
        loaded = other_class.from_pretrained(tmp_path)
        assert type(loaded) is other_class
        assert loaded.to_dict() == processor.to_dict()
        assert (loaded.crop_pct, loaded.do_rescale, loaded.max_pixels) == (0.75, None, None)
        assert other_class.from_pretrained(tmp_path, crop_pct=1.0).crop_pct == 1.0


def test_auto_class_finds_registered_backends(tmp_path):
    from transformers import AutoConfig, AutoImageProcessor, PretrainedConfig

    class Config(PretrainedConfig):
        model_type = "pixelvit_image_processing_test"

    AutoConfig.register(Config.model_type, Config, exist_ok=True)
    classes = {"torchvision": PixelViTImageProcessor, "pil": PixelViTImageProcessorPil}
    AutoImageProcessor.register(Config, image_processor_classes=classes, exist_ok=True)
    PixelViTImageProcessorPil(size=16).save_pretrained(tmp_path)
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is PixelViTImageProcessor
    assert type(AutoImageProcessor.from_pretrained(tmp_path, backend="pil")) is PixelViTImageProcessorPil
