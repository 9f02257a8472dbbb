"""FLIP through the command: checkpoint folder and zip, embed, match, classify, inspect, models, and files that must be refused."""
import json
import struct
import zipfile

from harness import OWN, SHARED, TMP, check, close, contains, equal, exits, finish, read_npy, read_safetensors, run, skip, write_npy

GOLDEN = OWN / "flip"
CONFIG = GOLDEN / "flip_tiny.config.json"
VOCAB = SHARED / "flip" / "vocab_bert_base.txt"


def tensors(path):
    return {name: (shape, values) for name, (_, shape, values) in read_safetensors(path).items()}


def channels_first(shape, v):
    n, h, w, c = shape
    return [v[((i * h + y) * w + x) * c + k] for i in range(n) for k in range(c) for y in range(h) for x in range(w)]


def array_zip(path, **meta):
    z = {"zarr_format": 2, "shape": [2], "chunks": [2], "dtype": "<f4", "order": "C", "compressor": None, "filters": None, "fill_value": None}
    z.update(meta)
    with zipfile.ZipFile(path, "w") as f:
        f.writestr("target.x/.zarray", json.dumps(z))
        f.writestr("target.x/0", struct.pack("<2f", 1, 2))


def main():
    tmp = TMP
    with zipfile.ZipFile(GOLDEN / "flip_tiny.zip") as z:
        z.extractall(tmp)
    folder = tmp / "checkpoint_7"
    g = tensors(GOLDEN / "forward.safetensors")
    shape, pixels = g["input.image"]
    images = tmp / "images.npy"
    write_npy(images, [shape[0], 3, 32, 32], channels_first(shape, pixels))
    z_img = [g["z_img"][1][40 * i:40 * i + 40] for i in range(4)]

    for model in (folder, GOLDEN / "flip_tiny.zip"):
        r = run("embed", "-m", model, "--config", CONFIG, images)
        exits(r, 0, f"embed of {model.name}")
        for row, want in zip(r.rows(), z_img):
            close(row["embedding"], want, 5e-6, f"{model.name}: {row['input']}")
    r = run("models", "info", "-m", folder, "--config", CONFIG)
    exits(r, 0, "models info")
    info = r.rows()[0]
    equal([info["family"], info["format"], info["missing"], info["unused"], info["image_size"], info["context_length"]],
          ["flip", "zarr", 0, 0, [32, 32], 32], "models info")

    r = run("embed", "-m", folder, images)
    exits(r, 3, "unpublished widths without a configuration")
    contains(r.err, "--config", "the heads are asked for")

    p = tensors(GOLDEN / "preprocess.safetensors")
    for name in ("wide", "tall", "square", "down"):
        r = run("inspect", "pixels", "-m", folder, "--config", CONFIG, GOLDEN / "images" / f"{name}.png", "--out", tmp / "p.npy")
        exits(r, 0, f"inspect pixels of {name}")
        got = read_npy(tmp / "p.npy")[2]
        want = p[f"{name}.normalised"]
        close(got, channels_first([1] + want[0], want[1]), 1e-5, f"pixels of {name}")

    r = run("inspect", "activations", "-m", folder, "--config", CONFIG, images, "--out", tmp / "a.safetensors")
    exits(r, 0, "inspect activations")
    seen = tensors(tmp / "a.safetensors")
    for name, (want_shape, want) in g.items():
        if name.startswith("inter.img"):
            if check(name[6:] in seen, f"activation {name[6:]}"):
                equal(seen[name[6:]][0], want_shape, f"shape of {name[6:]}")
                close(seen[name[6:]][1], want, 2e-5, name[6:])

    out = tmp / "converted"
    exits(run("models", "convert", "-m", folder, "--config", CONFIG, "--out", out), 0, "models convert")
    equal({n: s for n, (s, _) in tensors(out / "open_clip_model.safetensors").items()}["img_encoder.embedding.kernel"], [8, 8, 3, 64],
          "the official layout")
    r = run("embed", "-m", out, images)
    exits(r, 0, "the converted model needs no configuration")
    for row, want in zip(r.rows(), z_img):
        close(row["embedding"], want, 5e-6, "the converted model")
    exits(run("embed", "-m", folder, "--config", CONFIG, "--image-size", "48", GOLDEN / "images" / "wide.png"), 0, "another picture size")
    exits(run("embed", "-m", folder, "--config", CONFIG, "--image-size", "50", GOLDEN / "images" / "wide.png"), 3, "no multiple of the patch")

    texts(tmp, folder, images, g, z_img)
    refused(tmp, folder)
    finish()


def texts(tmp, folder, images, g, z_img):
    """The word list is not ours to carry."""
    if not VOCAB.exists():
        skip("the BERT word list: texts of FLIP")
        return
    j = json.loads((GOLDEN / "forward.json").read_text())
    common = ["-m", folder, "--config", CONFIG, "--tokenizer", VOCAB]
    args = [x for t in j["texts"] for x in ("--text", t)]
    r = run("embed", *common, *args)
    exits(r, 0, "embed of texts")
    z_txt = [g["z_txt"][1][40 * i:40 * i + 40] for i in range(4)]
    for row, want in zip(r.rows(), z_txt):
        close(row["embedding"], want, 5e-6, row["input"][:30])
    r = run("match", *common, "--image", images, *args)
    exits(r, 0, "match")
    close([x for row in r.rows()[0]["scores"] for x in row], g["logits"][1], 5e-5, "logits")
    r = run("classify", *common, "--labels", ",".join(j["zero_shot"]["classes"]), "--templates", "flip", images)
    exits(r, 0, "classify")
    for row, scores in zip(r.rows(), j["zero_shot"]["scores"]):
        want = [2.718281828459045 ** (100 * (s - max(scores))) for s in scores]
        got = {x["label"]: x["prob"] for x in row["labels"]}
        close([got[c] for c in j["zero_shot"]["classes"]], [w / sum(want) for w in want], 2e-4, "zero-shot probabilities")
    r = run("inspect", "tokens", *common, "--text", "itap of a tench.")
    equal(r.rows()[0]["ids"], [2009, 9331, 1997, 1037, 2702, 2818, 1012], "ids without specials")


def refused(tmp, folder):
    bad = {"blosc": ({"compressor": {"id": "blosc"}}, "blosc"), "delta": ({"filters": [{"id": "delta"}]}, "delta"), "order": ({"order": "F"}, "order"),
           "big-endian": ({"dtype": ">f4"}, ">f4"), "huge": ({"shape": [1 << 34], "chunks": [1 << 34]}, "larger"), "version": ({"zarr_format": 3}, "zarr_format")}
    for name, (meta, word) in bad.items():
        array_zip(tmp / f"{name}.zip", **meta)
        r = run("inspect", "weights", "-m", tmp / f"{name}.zip")
        exits(r, 3, f"zarr: {name}")
        contains(r.err, word, f"zarr: {name}")
    chunk = folder / "target.img_mlp1.kernel" / "0.0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:-9])
    r = run("inspect", "weights", "-m", folder)
    exits(r, 3, "a truncated chunk")
    contains(r.err, "target.img_mlp1.kernel", "a truncated chunk")
    (folder / "target.img_mlp1.kernel" / ".zarray").unlink()
    r = run("inspect", "weights", "-m", folder)
    exits(r, 3, "an array that the index names is missing")
    contains(r.err, "target.img_mlp1.kernel", "a missing array")


main()
