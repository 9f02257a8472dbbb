#!/usr/bin/env python3
"""Writes tests/golden/media/more/* (own figures in many formats and modes) and more.json (what Pillow makes of them).

Needs Pillow >= 13 and numpy; run once, the results are committed. Digests: SHA-256 of Image.tobytes() (mode 1: one byte per
pixel), of the RGB and RGBA conversions, and of a bicubic resize to 37 x 29 in the file's own mode."""
import hashlib, json, os, random, struct, sys, warnings, zlib
import numpy as np
from PIL import Image

warnings.simplefilter("ignore")
HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "more")
W, H = 41, 31
random.seed(3)
rng = np.random.default_rng(1)


def figure(channels, dtype=np.uint8, levels=256):
    y, x = np.mgrid[0:H, 0:W]
    a = np.stack([(np.sin(x / 7 + k) * np.cos(y / 9 - k) * .4 + .5) * (levels - 1) for k in range(channels)], -1)
    a = np.clip(a + rng.normal(0, levels / 60, a.shape), 0, levels - 1).astype(dtype)
    return a[..., 0] if channels == 1 else a


def save(name, im, **kw):
    im.save(os.path.join(OUT, name), **kw)


def write(name, *parts):
    open(os.path.join(OUT, name), "wb").write(b"".join(parts))


def chunk(tag, data):
    return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))


def png(name, depth, colour, channels, extra=b""):
    row = (W * depth * channels + 7) // 8
    raw = b"".join(b"\0" + bytes((x * 3 + y * 5 + random.randrange(8)) & 255 for x in range(row)) for y in range(H))
    write(name, b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, depth, colour, 0, 0, 0)), extra,
          chunk(b"IDAT", zlib.compress(raw, 9)), chunk(b"IEND", b""))


def bmp(name, bits, compression=0, masks=b"", header=40, height=H, ext=b""):
    raw = random.randbytes((W * bits + 31) // 32 * 4 * H)
    head = struct.pack("<IiiHHIIiiII", header, W, height, 1, bits, compression, len(raw), 0, 0, 0, 0) + ext
    at = 14 + len(head) + len(masks)
    write(name, b"BM", struct.pack("<IHHI", at + len(raw), 0, 0, at), head, masks, raw)


def make():
    os.makedirs(OUT, exist_ok=True)
    im = {"L": Image.fromarray(figure(1)), "LA": Image.fromarray(figure(2), "LA"), "RGB": Image.fromarray(figure(3)),
          "RGBA": Image.fromarray(figure(4)), "CMYK": Image.frombytes("CMYK", (W, H), figure(4).tobytes()),
          "I16": Image.fromarray(figure(1, np.uint16, 65536))}
    im["P"], im["1"] = im["RGB"].quantize(37), im["L"].convert("1")
    for mode, i in im.items():
        save(f"{mode}.tif", i)
    for mode in ("L", "RGB", "RGBA", "P", "CMYK", "I16", "LA"):
        save(f"{mode}_lzw.tif", im[mode], compression="tiff_lzw")
        save(f"{mode}_deflate.tif", im[mode], compression="tiff_adobe_deflate")
    save("1_g4.tif", im["1"], compression="group4")
    save("RGB_packbits.tif", im["RGB"], compression="packbits")
    save("RGB_jpeg.tif", im["RGB"], compression="jpeg")
    save("RGB_orient6.tif", im["RGB"], tiffinfo={274: 6})
    save("P_orient3.tif", im["P"], tiffinfo={274: 3})
    for mode in ("L", "RGB", "CMYK"):
        for sub in (0, 2):
            save(f"{mode}_{sub}.jpg", im[mode], quality=80, subsampling=sub, progressive=sub == 2)
    for depth, colour, channels in ((1, 0, 1), (2, 0, 1), (4, 0, 1), (16, 0, 1), (16, 2, 3), (16, 4, 2), (16, 6, 4)):
        png(f"d{depth}_c{colour}.png", depth, colour, channels)
    png("key_1.png", 1, 0, 1, chunk(b"tRNS", b"\0\1"))
    png("key_2.png", 2, 0, 1, chunk(b"tRNS", b"\0\1"))
    save("key_L.png", im["L"], transparency=100)
    save("key_P.png", im["P"], transparency=5)
    save("P_2.png", im["RGB"].quantize(4))
    save("P_1.bmp", im["RGB"].quantize(2))
    save("1.bmp", im["1"])
    save("P_4.bmp", im["RGB"].quantize(11))
    bmp("16.bmp", 16)
    bmp("565.bmp", 16, 3, struct.pack("<III", 0xF800, 0x7E0, 0x1F))
    bmp("32_topdown.bmp", 32, height=-H)
    bmp("32_v4.bmp", 32, 3, b"", 108, ext=struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"\0" * 52)
    os2 = struct.pack("<IHHHH", 12, W, H, 1, 8) + random.randbytes(768)
    write("os2.bmp", b"BM", struct.pack("<IHHI", 0, 0, 0, 14 + len(os2)), os2, random.randbytes((W + 3) // 4 * 4 * H))
    save("RGBA_lossy.webp", im["RGBA"])
    save("RGBA_anim.webp", im["RGBA"], save_all=True, append_images=[im["RGBA"].rotate(90)])
    save("interlaced.gif", im["P"], interlace=1)
    save("transparent.gif", im["P"], transparency=3)
    save("grey.gif", im["L"])
    n = W * H
    write("plain.pbm", b"P1\n# c\n%d %d\n" % (W, H), b"".join(random.choice([b"0", b"1 ", b"1\n"]) for _ in range(n)))
    write("plain.pgm", b"P2 %d %d 100\n" % (W, H), b" ".join(b"%d" % random.randint(0, 100) for _ in range(n)))
    write("plain.ppm", b"P3 %d %d 7\n" % (W, H), b" ".join(b"%d" % random.randint(0, 7) for _ in range(3 * n)))
    write("binary.ppm", b"P6 %d %d 31\n" % (W, H), bytes(random.randint(0, 31) for _ in range(3 * n)))
    write("wide.ppm", b"P6 %d %d 1023\n" % (W, H), b"".join(struct.pack(">H", random.randint(0, 1023)) for _ in range(3 * n)))
    save("1.pbm", im["1"])


def flat(i):
    return i.tobytes() if i.mode != "1" else i.convert("L").tobytes()


def main():
    if sys.argv[1:] != ["--digests"]:
        make()
    sha = lambda b: hashlib.sha256(b).hexdigest()
    out = {}
    for name in sorted(os.listdir(OUT)):
        i = Image.open(os.path.join(OUT, name))
        i.load()
        e = {"mode": i.mode, "width": i.width, "height": i.height, "native": sha(flat(i)), "rgb": sha(i.convert("RGB").tobytes())}
        if i.mode != "I;16" and ("A" in i.getbands() or i.info.get("transparency") is not None):
            e["rgba"] = sha(i.convert("RGBA").tobytes())
        e["bicubic"] = sha(flat(i.resize((37, 29), Image.BICUBIC)))
        for f, k in ((Image.BILINEAR, "bilinear"), (Image.LANCZOS, "lanczos"), (Image.HAMMING, "hamming"), (Image.BOX, "box"),
                     (Image.NEAREST, "nearest")):
            e[k] = sha(flat(i.resize((23, 50), f)))
        out[name] = e
    json.dump(out, open(os.path.join(HERE, "more.json"), "w"), indent=0, separators=(",", ":"))


main()
