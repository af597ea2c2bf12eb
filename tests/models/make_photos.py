#!/usr/bin/env python3
"""Makes the photos of the image example, and altered copies of each, from photos that scikit-image carries.

    make_photos.py SKIMAGE/DATA OUT_FOLDER

A copy is named by its photo and by what was done to it: coffee-cropped.jpg is one of coffee.jpg. The bytes depend on the
versions of Pillow and of the libraries in it, so what is committed is what counts.
"""

import argparse
from pathlib import Path

from PIL import Image, ImageEnhance, ImageOps

# What it is called here, and its file. Only photos that nobody has rights in; examples/photos/README.md says of each why.
PHOTOS = {
    "brick": "brick.png",
    "camera": "camera.png",
    "cat": "chelsea.png",
    "clock": "clock_motion.png",
    "coffee": "coffee.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "hubble": "hubble_deep_field.jpg",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
}
SIDE = 256
QUALITY = 70


def smaller(photo):
    """Two thirds of the size, as lossy WebP: what a site makes for a telephone."""
    return photo.resize((photo.width * 2 // 3, photo.height * 2 // 3), Image.Resampling.LANCZOS)


def cropped(photo):
    """Some twentieths of the width and the height cut off."""
    width, height = photo.size
    return photo.crop((width // 20, height // 25, width - width // 30, height - height // 20))


def brighter(photo):
    return ImageEnhance.Contrast(ImageEnhance.Brightness(photo).enhance(1.2)).enhance(1.1)


COPIES = [
    ("smaller", ".webp", smaller, {"quality": 60, "method": 6}),
    ("cropped", ".jpg", cropped, {"quality": 60, "optimize": True}),
    ("brighter", ".jpg", brighter, {"quality": 55, "optimize": True, "progressive": True}),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, file in PHOTOS.items():
        with Image.open(arguments.data / file) as opened:
            photo = ImageOps.contain(opened.convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)
        photo.save(arguments.out / f"{name}.jpg", quality=QUALITY, optimize=True)
        for what, ending, change, options in COPIES:
            change(photo).save(arguments.out / f"{name}-{what}{ending}", **options)


if __name__ == "__main__":
    main()
