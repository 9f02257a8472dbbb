#!/usr/bin/env python3
"""`inspect pixels` against the preprocessing goldens, and against every broken picture."""
import hashlib
import json
import pathlib
import shutil
import struct

from harness import SHARED, TMP, check, contains, equal, exits, finish, read_npy, run, skip

CLIP = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def open_clip(name, scale, **cfg):
    path = TMP / f"{name}_{scale}.json"
    path.write_text(json.dumps({"model_cfg": {}, "preprocess_cfg": {"size": scale, **cfg}}))
    return ["--preprocess", path]


def arguments(pipeline, size):
    """How the command line asks for a pipeline of the goldens."""
    named = {"openai": "openai", "hf4_clip_slow": "hf4_clip", "hf5_clip_pil": "hf5_clip", "hf5_siglip_pil": "hf5_siglip", "hf5_blip_pil": "hf5_blip",
             "blip_lavis": "blip"}
    if pipeline in named:
        return ["--preprocess", named[pipeline], "--size", str(size)]
    if not pipeline.startswith("openclip_"):
        return None  # torchvision's own kernel
    mode, how = pipeline.split("_")[1:3]
    if how == "hxw":
        return open_clip(pipeline, size, size=[size * 3 // 4, size], resize_mode=mode, interpolation="bicubic", **CLIP)
    extra = {"fill_color": 127} if pipeline.endswith("fill") else {}
    return open_clip(pipeline, size, resize_mode=mode, interpolation=how, **extra)


def golden_cases(g, images):
    cases = {}
    for line in (g / "expected.jsonl").read_text().splitlines():
        row = json.loads(line)
        cases.setdefault((row["pipeline"], row["scale"]), []).append(row)
    done = 0
    for (pipeline, scale), rows in sorted(cases.items()):
        size = 32 if scale == "tiny" else 384 if "blip" in pipeline else 224
        args = arguments(pipeline, size)
        rows = [r for r in rows if "u8" in r and (images / r["image"]).exists()]
        if not args or not rows:
            continue
        if scale == "full":
            rows = rows[::8]  # the library's own test has all of them
        files = [images / r["image"] for r in rows]
        u8 = {pathlib.Path(r["input"]).name: r for r in run("inspect", "pixels", *args, "--u8", *files).rows()}
        f32 = {pathlib.Path(r["input"]).name: r for r in run("inspect", "pixels", *args, *files).rows()}
        # the goldens give each open_clip pipeline one of two normalisations; only the clip one is set above
        wrong = [r["image"] for r in rows if u8.get(r["image"], {}).get("sha256", "")[:16] != r["u8"]]
        check(not wrong, f"{pipeline} {scale}: pixels differ: {wrong[:5]}")
        if not pipeline.startswith("openclip"):
            wrong = [r["image"] for r in rows if f32.get(r["image"], {}).get("sha256", "")[:16] != r["f32"]]
            check(not wrong, f"{pipeline} {scale}: tensors differ: {wrong[:5]}")
        done += len(rows)
    check(done > 250, f"only {done} golden cases")


def outputs(images):
    pictures = [images / "CLIP.png", images / "syn_gray.jpg"]
    out = TMP / "px.npy"
    r = run("inspect", "pixels", "--preprocess", "openai", "--size", "32", *pictures, "--out", out)
    exits(r, 0, "--out")
    kind, shape, values = read_npy(out)
    equal((kind, shape), ("<f4", (2, 3, 32, 32)), "shape")
    for i, row in enumerate(r.rows()):
        data = struct.pack(f"<{3 * 32 * 32}f", *values[i * 3072:(i + 1) * 3072])
        equal(row["sha256"], hashlib.sha256(data).hexdigest(), "digest of the row in the file")
        equal(row["shape"], [3, 32, 32], "shape")
    r = run("inspect", "pixels", "--preprocess", "openai", "--size", "24x40", "--u8", *pictures, "--out", out)
    equal(read_npy(out)[:2], ("|u1", (2, 24, 40, 3)), "bytes of HxW")
    r = run("inspect", "pixels", "--preprocess", "none", *pictures, "--out", out)
    exits(r, 2, "shapes that differ")
    equal(read_npy(out)[1][0], 1, "the first stays")
    r = run("inspect", "pixels", "--preprocess", "openai", *pictures, "--out", TMP / "no" / "such" / "folder.npy")
    exits(r, 3, "output that cannot be written")


def names(images):
    folder = TMP / "그림 폴더" / "안"
    folder.mkdir(parents=True)
    shutil.copy(images / "CLIP.png", folder / "고양이 사진.png")
    shutil.copy(images / "CLIP.png", folder.parent / "b.png")
    (folder / "메모.txt").write_text("not a picture")
    r = run("inspect", "pixels", "--preprocess", "openai", "-r", TMP / "그림 폴더")
    exits(r, 0, "folder with Korean names")
    equal([pathlib.Path(row["input"]).name for row in r.rows()], ["b.png", "고양이 사진.png"], "sorted, pictures only")
    listing = f"{folder / '고양이 사진.png'}\n\n{folder.parent / 'b.png'}\n".encode()
    r = run("inspect", "pixels", "--preprocess", "openai", "-", stdin=listing)
    equal(len(r.rows()), 2, "paths on stdin")
    r = run("inspect", "pixels", "--preprocess", "openai", TMP / "그림 폴더")
    exits(r, 3, "a folder without -r")
    contains(r.err, "-r", "message")


def bad_pictures(images):
    bad = images / "bad"
    expected = json.loads((bad / "expected.json").read_text())
    files = sorted(p for p in bad.iterdir() if p.suffix != ".json")
    good = images / "CLIP.png"
    r = run("inspect", "pixels", "--preprocess", "openai", good, *files)
    exits(r, 2, "broken pictures")
    done = {pathlib.Path(row["input"]).name for row in r.rows()}
    check("CLIP.png" in done, "the good one is done")
    for p in files:
        check((p.name in done) != (p.name in r.err), f"{p.name}: either a result or a message")
    check(len(expected) > 0, "expectations")
    (TMP / "zero.png").write_bytes(b"")
    for args, part in (([TMP / "zero.png"], "zero.png"), ([TMP / "nothing.png"], "nothing.png")):
        r = run("inspect", "pixels", "--preprocess", "openai", *args)
        exits(r, 3, part)
        contains(r.err, part, "named")


def usage():
    for args in (["--preprocess", "nosuch", "x.png"], ["--preprocess", "openai"], ["--preprocess", "openai", "--size", "0", "x.png"],
                 ["--preprocess", "openai", "--size", "3x", "x.png"], ["--size"], ["--nosuch", "x.png"], ["--u8=1", "x.png"]):
        exits(run("inspect", "pixels", *args), 1, f"usage {args}")


usage()
if (SHARED / "images").is_dir():
    golden_cases(SHARED / "preprocess", SHARED / "images")
    outputs(SHARED / "images")
    names(SHARED / "images")
    bad_pictures(SHARED / "images")
else:
    skip("shared/golden/images: pictures through the command")
finish()
