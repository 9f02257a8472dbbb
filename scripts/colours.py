#!/usr/bin/env python3
"""Writes tests/unit/dataset_colours.inc: what Pillow and torchvision make of some colours (brightness, contrast, saturation, hue, grey)."""
import random

from PIL import Image
from torchvision.transforms import functional as F

random.seed(7)
N = 64
pixels = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128), (1, 2, 3), (254, 255, 253)]
pixels += [tuple(random.randrange(256) for _ in range(3)) for _ in range(N - len(pixels))]
im = Image.new("RGB", (N, 1))
im.putdata(pixels)


def row(x):
    return ", ".join(str(v) for v in x.tobytes())


cases = [("b", f, F.adjust_brightness(im, f)) for f in (0.0, 0.6, 1.4, 2.5)] + [("c", f, F.adjust_contrast(im, f)) for f in (0.3, 1.4)]
cases += [("s", f, F.adjust_saturation(im, f)) for f in (0.0, 0.6, 1.7)] + [("h", f, F.adjust_hue(im, f)) for f in (-0.5, -0.1, 0.07, 0.3)]
cases += [("g", 0, F.to_grayscale(im, 3))]
print(f"/* Written by scripts/colours.py. */\nenum {{ COLOURS = {N} }};\nstatic const unsigned char colours[COLOURS * 3] = {{ {row(im)} }};")
print("static const struct { char kind; double factor; unsigned char want[COLOURS * 3]; } colour_cases[] = {")
for kind, factor, out in cases:
    print(f"    {{ '{kind}', {factor}, {{ {row(out)} }} }},")
print("};")
