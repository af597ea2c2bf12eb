#!/usr/bin/env python3
"""Makes image files of every kind that is read, and what Pillow and onnxruntime make of them.

    make_image_goldens.py EFFICIENTNET.onnx OUT_FOLDER PHOTO...

The first photo is what most files are made of; all photos are read as they are too.
OUT_FOLDER/goldens.json lists models and files. A model's vectors are in OUT_FOLDER/NAME.f32: little-endian floats, a row a
file, in the order of the files. Most models give the values that they read, so that their vector is what became of an
image before the model: the two orders of axes and of colours, both types, both ways to scale, and some sizes.
"""

import argparse
import io
import itertools
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from PIL import Image, ImageOps, ImageSequence

# Odd, and longer across than down.
SIZE = (67, 45)
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
ORIENTATION = 0x0112
# What a JPEG opens with, whose decoders may differ.
JPEG = b"\xff\xd8"
# The passes of an interlaced PNG: first column and row, steps across and down.
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


# --- files


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(values, colour, interlaced=False):
    """A PNG of 8 or 16 bits by hand: Pillow writes no colours of 16 bits, and nothing interlaced."""
    height, width, _ = values.shape
    bits = 8 * values.dtype.itemsize

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    def lines(part):
        return b"".join(b"\0" + line.astype(line.dtype.newbyteorder(">")).tobytes() for line in part)

    parts = [values]
    if interlaced:
        parts = [values[y::down, x::across] for x, y, across, down in ADAM7]
    data = b"".join(lines(part) for part in parts if part.size)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def turned(image, kind, orientation, **options):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return saved(image, kind, exif=exif.tobytes(), **options)


def without_adobe(jpeg):
    """The file without the segment that says how its colours are kept."""
    at = jpeg.index(b"\xff\xee")
    (length,) = struct.unpack(">H", jpeg[at + 2 : at + 4])
    return jpeg[:at] + jpeg[at + 2 + length :]


def in_a_corner(gif):
    """The file with a screen that is larger than its one frame, and its pixels: what the frame leaves free is black."""
    width, height = struct.unpack("<HH", gif[6:10])
    larger = (width + 20, height + 30)
    pixels = Image.new("RGB", larger)
    pixels.paste(read(gif, None), (0, 0))
    return gif[:6] + struct.pack("<HH", *larger) + gif[10:], np.asarray(pixels)


def files(photo):
    """Name, bytes, and the pixels that they hold where Pillow would not say."""
    width, height = photo.size
    rgb = np.asarray(photo)
    alpha = Image.linear_gradient("L").resize(photo.size)
    grey, rgba = photo.convert("L"), photo.copy()
    rgba.putalpha(alpha)
    palette = photo.quantize(200, dither=Image.Dither.NONE)
    cmyk = Image.merge("CMYK", [*photo.split(), grey.point(lambda value: value // 3)])
    frames = [photo, ImageOps.mirror(photo), ImageOps.flip(photo)]
    noise = np.random.default_rng(3)
    wide = (rgb.astype(np.uint16) << 8) | noise.integers(0, 256, rgb.shape, np.uint16)
    wide_alpha = np.concatenate([wide, noise.integers(0, 65536, (height, width, 1), np.uint16)], 2)
    wide_grey = (np.asarray(grey).astype(np.uint16)[:, :, None] << 8) | wide[:, :, :1] & 255
    wide_grey_alpha = np.concatenate([wide_grey, wide_alpha[:, :, 3:]], 2)
    high = (wide >> 8).astype(np.uint8)
    high_grey = np.repeat((wide_grey >> 8).astype(np.uint8), 3, 2)
    transparent = palette.copy()
    transparent.info["transparency"] = 3

    yield "png", saved(photo, "PNG"), None
    yield "png-alpha", saved(rgba, "PNG"), None
    yield "png-grey", saved(grey, "PNG"), None
    yield "png-grey-alpha", saved(rgba.convert("LA"), "PNG"), None
    yield "png-palette", saved(palette, "PNG"), None
    yield "png-palette-4-bits", saved(photo.quantize(11), "PNG", bits=4), None
    yield "png-palette-transparent", saved(transparent, "PNG", transparency=3), None
    yield "png-one-bit", saved(photo.convert("1"), "PNG"), None
    yield "png-key-colour", saved(photo, "PNG", transparency=photo.getpixel((5, 5))), None
    yield "png-interlaced", png(rgb, 2, interlaced=True), None
    yield "png-16-bits", png(wide, 2), high
    yield "png-16-bits-alpha", png(wide_alpha, 6), high
    yield "png-16-bits-interlaced", png(wide, 2, interlaced=True), high
    # Pillow keeps grey of 16 bits, and clips what it makes 8 of.
    yield "png-16-bits-grey", png(wide_grey, 0), high_grey
    yield "png-16-bits-grey-alpha", png(wide_grey_alpha, 4), high_grey
    yield "gif", saved(palette, "GIF", interlace=0), None
    yield "gif-grey", saved(grey, "GIF"), None
    yield "gif-interlaced", saved(palette, "GIF", interlace=1), None
    yield "gif-transparent", saved(palette, "GIF", transparency=3), None
    yield "gif-animated", saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50), None
    # Pillow fills what is free with the first colour of the palette, or with that which stands for nothing.
    yield "gif-in-a-corner", *in_a_corner(saved(palette, "GIF"))
    yield "gif-in-a-corner-transparent", *in_a_corner(saved(palette, "GIF", transparency=3))
    yield "webp-lossless", saved(photo, "WEBP", lossless=True), None
    yield "webp-lossless-alpha", saved(rgba, "WEBP", lossless=True, exact=True), None
    yield "webp-animated", saved(frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:]), None
    for orientation in range(1, 9):
        yield f"png-turned-{orientation}", turned(photo, "PNG", orientation), None
        yield f"jpeg-turned-{orientation}", turned(photo, "JPEG", orientation, quality=90), None
    yield "webp-turned-6", turned(photo, "WEBP", 6, lossless=True), None
    yield "jpeg-444", saved(photo, "JPEG", quality=95, subsampling=0), None
    yield "jpeg-422", saved(photo, "JPEG", quality=90, subsampling=1), None
    yield "jpeg-420", saved(photo, "JPEG", quality=80, subsampling=2), None
    yield "jpeg-progressive", saved(photo, "JPEG", quality=85, progressive=True), None
    yield "jpeg-restarts", saved(photo, "JPEG", quality=85, restart_marker_blocks=2), None
    yield "jpeg-rgb", saved(photo, "JPEG", quality=90, keep_rgb=True), None
    yield "jpeg-grey", saved(grey, "JPEG", quality=85), None
    yield "jpeg-cmyk-adobe", saved(cmyk, "JPEG", quality=90), None
    yield "jpeg-cmyk", without_adobe(saved(cmyk, "JPEG", quality=90)), None
    yield "webp-lossy", saved(photo, "WEBP", quality=80), None
    yield "webp-lossy-alpha", saved(rgba, "WEBP", quality=80, exact=True), None


def read(file, pixels):
    """The pixels of a file as the field reads them: the first frame, turned, red, green and blue."""
    if pixels is not None:
        return Image.fromarray(pixels)
    with Image.open(io.BytesIO(file)) as image:
        first = next(iter(ImageSequence.Iterator(image))).copy()
    return ImageOps.exif_transpose(first).convert("RGB")


# --- models


def values_model(image):
    """A model that gives the values that it reads, and how many they are."""
    width, height = image["width"], image["height"]
    axes = [height, width, 3] if image["layout"] == "NHWC" else [3, height, width]
    count = 3 * width * height
    kind = TensorProto.UINT8 if image["dtype"] == "Uint8" else TensorProto.FLOAT
    made = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
                helper.make_node("Flatten", ["floats"], ["values"], axis=1),
            ],
            "values",
            [helper.make_tensor_value_info("image", kind, ["batch", *axes])],
            [helper.make_tensor_value_info("values", TensorProto.FLOAT, ["batch", count])],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString(), count


def models(efficientnet):
    """Name, file, values of a vector, and spec.input.image."""
    small = {"width": 24, "height": 17}
    choices = itertools.product(("NHWC", "NCHW"), ("RGB", "BGR"), ("Uint8", "Float32"), ("Stretch", "FitCrop"))
    for layout, channels, dtype, resize in choices:
        image = {**small, "layout": layout, "channels": channels, "dtype": dtype, "resize": resize}
        if dtype == "Float32":
            # In the order of the channels.
            way = 1 if channels == "RGB" else -1
            image |= {"mean": MEAN[::way], "std": STD[::way]}
        yield "-".join(("values", layout, channels, dtype, resize)).lower(), *values_model(image), image
    plain = {"layout": "NHWC", "channels": "RGB", "dtype": "Uint8"}
    # The size of the files, larger, much smaller, and one axis each way.
    for width, height in [SIZE, (71, 70), (3, 2), (1, 1), (20, 91)]:
        for resize in ("Stretch", "FitCrop"):
            image = {"width": width, "height": height, **plain, "resize": resize}
            yield f"size-{width}-{height}-{resize}".lower(), *values_model(image), image
    image = {"width": 224, "height": 224, **plain, "resize": "Stretch"}
    yield "efficientnet", efficientnet.read_bytes(), 1280, image


def prepared(pixels, image):
    """What a model reads of an image, by Pillow and numpy."""
    width, height = image["width"], image["height"]
    across, down = pixels.size
    wide, high = width, height
    if image["resize"] == "FitCrop":
        if width * down >= height * across:
            high = width * down // across
        else:
            wide = height * across // down
    left, top = (wide - width) // 2, (high - height) // 2
    scaled = pixels.resize((wide, high), Image.Resampling.BILINEAR)
    values = np.asarray(scaled.crop((left, top, left + width, top + height)))
    if image["channels"] == "BGR":
        values = values[:, :, ::-1]
    if image["dtype"] == "Float32":
        values = ((values / 255.0 - image["mean"]) / image["std"]).astype(np.float32)
    if image["layout"] == "NCHW":
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values)[None]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("efficientnet", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with Image.open(arguments.photos[0]) as opened:
        photo = opened.convert("RGB").resize(SIZE, Image.Resampling.LANCZOS)
    made = list(files(photo))
    made += [(f"photo-{path.name}", path.read_bytes(), None) for path in arguments.photos]
    goldens = {"models": [], "files": []}
    for name, file, _ in made:
        (arguments.out / name).write_bytes(file)
        goldens["files"].append({"name": name, "exact": not file.startswith(JPEG)})
    pictures = [read(file, pixels) for _, file, pixels in made]
    for name, file, dimensions, image in models(arguments.efficientnet):
        (arguments.out / f"{name}.onnx").write_bytes(file)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        [port] = session.get_inputs()
        rows = [session.run(None, {port.name: prepared(picture, image)})[0] for picture in pictures]
        np.concatenate(rows).astype("<f4").tofile(arguments.out / f"{name}.f32")
        goldens["models"].append({"name": name, "dimensions": dimensions, "image": image})
    (arguments.out / "goldens.json").write_text(json.dumps(goldens, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
