#!/usr/bin/env python3
"""Says what Pillow's BILINEAR makes of pictures of many sizes: sidecar/src/model/image/resample/pillow.txt.

    make_resample_goldens.py > pillow.txt

A line holds the size of a picture, the size that it is scaled to, and the sha256 of the pixels that come of it. The pictures
are noise, by a rule that the test repeats.
"""

import hashlib

import numpy as np
from PIL import Image

COUNT = 200
LONGEST = 140
# Sizes as they come and those that models read, and to and from single pixels.
MORE = [
    (1023, 767, 224, 224),
    (640, 481, 224, 224),
    (97, 2001, 96, 97),
    (223, 225, 224, 224),
    (50, 40, 299, 301),
    (64, 64, 32, 32),
    (32, 32, 64, 64),
    (33, 33, 33, 33),
    (1, 1, 9, 7),
    (9, 7, 1, 1),
    (1, 100, 100, 1),
]


def noise(width, height):
    """The upper byte of each number of a row in which a number follows from the one before it."""
    number, values = 1, []
    for _ in range(3 * width * height):
        number = (number * 1664525 + 1013904223) % 2**32
        values.append(number >> 24)
    return Image.fromarray(np.array(values, np.uint8).reshape(height, width, 3))


def main():
    sizes = np.random.default_rng(5).integers(1, LONGEST + 1, (COUNT, 4)).tolist()
    for across, down, width, height in [*sizes, *MORE]:
        made = noise(across, down).resize((width, height), Image.Resampling.BILINEAR)
        print(across, down, width, height, hashlib.sha256(made.tobytes()).hexdigest())


if __name__ == "__main__":
    main()
