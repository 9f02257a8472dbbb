"""FLIP through the command: checkpoint folder and zip, embed, match, classify, inspect, models, and files that must be refused."""
import json
import struct
import zipfile

from harness import OWN, SHARED, TMP, check, close, contains, equal, exits, finish, read_npy, read_safetensors, run, skip, write_npy, write_png

GOLDEN = OWN / "flip"
CONFIG = GOLDEN / "flip_tiny.config.json"
VOCAB = SHARED / "flip" / "vocab_bert_base.txt"


F32 = ["--dtype", "f32"]  # what is compared with the reference's figures; a processor with bf16 products would take those


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
        r = run("embed", "-m", model, "--config", CONFIG, *F32, images)
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

    r = run("inspect", "activations", "-m", folder, "--config", CONFIG, *F32, images, "--out", tmp / "a.safetensors")
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
    r = run("embed", "-m", out, *F32, images)
    exits(r, 0, "the converted model needs no configuration")
    for row, want in zip(r.rows(), z_img):
        close(row["embedding"], want, 5e-6, "the converted model")
    exits(run("embed", "-m", folder, "--config", CONFIG, "--image-size", "48", GOLDEN / "images" / "wide.png"), 0, "another picture size")
    exits(run("embed", "-m", folder, "--config", CONFIG, "--image-size", "50", GOLDEN / "images" / "wide.png"), 3, "no multiple of the patch")

    texts(tmp, folder, images, g, z_img)
    training(tmp, folder, g)
    masked_clip(tmp)
    masked_texts(tmp, folder)
    refused(tmp, folder)
    finish()


def texts(tmp, folder, images, g, z_img):
    """The word list is not ours to carry."""
    if not VOCAB.exists():
        skip("the BERT word list: texts of FLIP")
        return
    j = json.loads((GOLDEN / "forward.json").read_text())
    common = ["-m", folder, "--config", CONFIG, "--tokenizer", VOCAB, *F32]
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


def write_tensors(path, named):
    head, body = {}, b""
    for name, (dtype, shape, values) in named.items():
        raw = struct.pack(f"<{len(values)}{'f' if dtype == 'F32' else 'q'}", *values)
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def losses(logs, name):
    return [json.loads(line) for line in (logs / name / "log.jsonl").read_text().splitlines()]


def training(tmp, folder, g):
    """The reference's steps with its masks, by the recipe; unmasked tuning of the result; a run that goes on."""
    noise = tensors(GOLDEN / "train.safetensors")["noise"][1]
    want = json.loads((GOLDEN / "train.json").read_text())
    rows = [sorted(range(16), key=lambda p: noise[16 * i + p])[:8] for i in range(24)]
    keep = [p for row in rows + rows[:8] for p in row]
    pixels = channels_first(*g["input.image"])
    data, ids = tmp / "train.safetensors", g["input.ids"][1]
    write_tensors(data, {"image": ("F32", [32, 3, 32, 32], pixels * 8), "text": ("I64", [32, 32], ids * 8), "keep": ("I64", [32, 8], keep)})
    common = ["train", "--recipe", "flip", "--batch-size", "4", "--no-shuffle", "--logs", tmp / "logs", "--quiet"]
    first = ["-m", folder, "--config", CONFIG, "--train-data", data, "--lr", "0.002", "--warmup", "2"]
    exits(run(*common, *first, "--epochs", "1", "--name", "a"), 0, "train by the recipe")
    got = losses(tmp / "logs", "a")
    for x, w in zip(got, want["trajectory"]):
        close([x["loss"]], [w["loss"]], 1e-4, f"loss of step {w['step']}")
        if w["lr"] is not None:
            close([x["lr"]], [w["lr"]], 1e-8, f"lr of step {w['step']}")
    close([x["logit_scale"] for x in got[:5]], [w["logit_scale"] for w in want["trajectory"][1:]], 1e-5, "logit scale after each step")
    exits(run("embed", "-m", tmp / "logs" / "a", tmp / "images.npy"), 0, "-m LOGS/NAME")

    plain = tmp / "plain.safetensors"
    write_tensors(plain, {"image": ("F32", [24, 3, 32, 32], pixels * 6), "text": ("I64", [24, 32], ids * 6)})
    exits(run(*common, "-m", tmp / "logs" / "a", "--train-data", plain, "--lr", "4e-5", "--warmup", "2", "--epochs", "1", "--force-patch-dropout", "0",
              "--name", "tuned"), 0, "unmasked tuning")
    close([x["lr"] for x in losses(tmp / "logs", "tuned")[:4]], [w["lr"] for w in want["unmasked_tuning"]["trajectory"]], 1e-9, "learning rates of tuning")

    # random masks: a run that is cut in two is the run in one piece
    masked = ["-m", folder, "--config", CONFIG, "--train-data", plain, "--lr", "0.002", "--warmup", "2", "--seed", "7"]
    exits(run(*common, *masked, "--epochs", "2", "--name", "whole"), 0, "random masks")
    whole = losses(tmp / "logs", "whole")
    exits(run(*common, *masked, "--epochs", "2", "--name", "whole2", "--resume", tmp / "logs" / "whole" / "checkpoints" / "epoch_1.pt"), 0, "resumed")
    equal([x["loss"] for x in losses(tmp / "logs", "whole2")], [x["loss"] for x in whole[6:]], "the same masks after resuming")
    exits(run(*common, *masked, "--batch-size", "2", "--accum-freq", "2", "--epochs", "2", "--name", "micro"), 0, "micro-batches")
    close([x["loss"] for x in losses(tmp / "logs", "micro")], [x["loss"] for x in whole], 1e-4, "the same masks in micro-batches")
    check(abs(whole[0]["loss"] - whole[1]["loss"]) > 1e-3, "other masks in every step (the learning rate of the first is 0)")
    r = run(*common, "-m", folder, "--config", CONFIG, "--train-data", plain, "--name", "defaults", "--epochs", "1")
    exits(r, 0, "the recipe alone")
    made = json.loads((tmp / "logs" / "defaults" / "config.json").read_text())
    close([made[k] for k in ("lr", "beta1", "beta2", "eps", "wd", "patch_dropout", "warmup")], [4e-6 * 4 / 256, 0.9, 0.95, 1e-8, 0.2, 0.5, 40 * (1281167 // 4)],
          1e-12, "what the recipe sets")

    # an empty caption is padding alone, as in the reference
    if VOCAB.exists():
        for i in range(4):
            write_png(tmp / f"{i}.png", 32, 32, bytes(range(48 * i, 48 * i + 48)) * 64)
        for name, caption in (("pads", ""), ("words", "a dog")):
            table = tmp / f"{name}.csv"
            table.write_text("filepath,title\n" + "".join(f"{i}.png,{caption if i == 2 else f'a cat {i}'}\n" for i in range(4)))
            exits(run(*common, "-m", folder, "--config", CONFIG, "--tokenizer", VOCAB, "--train-data", table, "--no-augment", "--force-patch-dropout", "0",
                      "--epochs", "1", "--name", name), 0, f"captions: {name}")
        check(losses(tmp / "logs", "pads")[0]["loss"] != losses(tmp / "logs", "words")[0]["loss"], "an empty caption is none of the others")

    for bad, word in (([3] * 8, "different patches"), ([0] * 7 + [16], "different patches")):
        write_tensors(data, {"image": ("F32", [4, 3, 32, 32], pixels), "text": ("I64", [4, 32], ids), "keep": ("I64", [4, 8], bad * 4)})
        r = run(*common, *first, "--epochs", "1", "--name", "bad")
        exits(r, 3, "patches that cannot be kept")
        contains(r.err, word, "patches that cannot be kept")
    exits(run(*common, *first, "--epochs", "1", "--name", "bad", "--force-patch-dropout", "1"), 1, "nothing left")


def masked_clip(tmp):
    """open_clip's patch_dropout: the option and the configuration's key do the same; not in evaluation."""
    e2e = OWN / "train" / "e2e"
    common = ["train", "-m", e2e / "init.safetensors", "--train-data", e2e / "data.safetensors", "--batch-size", "16", "--epochs", "1", "--warmup", "2",
              "--lr", "0.001", "--logs", tmp / "clip", "--quiet"]
    config = json.loads((e2e / "model_config.json").read_text())
    exits(run(*common, "--config", e2e / "model_config.json", "--name", "plain"), 0, "CLIP without masking")
    exits(run(*common, "--config", e2e / "model_config.json", "--name", "option", "--force-patch-dropout", "0.5"), 0, "--force-patch-dropout")
    config.get("model_cfg", config)["vision_cfg"]["patch_dropout"] = 0.5
    (tmp / "masked.json").write_text(json.dumps(config))
    exits(run(*common, "--config", tmp / "masked.json", "--name", "key"), 0, "patch_dropout in the configuration")
    exits(run(*common, "--config", tmp / "masked.json", "--name", "off", "--force-patch-dropout", "0"), 0, "the option wins")
    loss = {n: [x["loss"] for x in losses(tmp / "clip", n)] for n in ("plain", "option", "key", "off")}
    equal(loss["key"], loss["option"], "configuration and option")
    equal(loss["off"], loss["plain"], "option over configuration")
    check(abs(loss["plain"][0] - loss["option"][0]) > 1e-4, "masking changes the loss")


def masked_texts(tmp, folder):
    """--text-mask-ratio: what keeps every token changes nothing in a causal tower, what leaves tokens out does; FLIP's tower computes fewer rows."""
    e2e = OWN / "train" / "e2e"
    (shape, ids), image = (tensors(e2e / "data.safetensors")[k] for k in ("text", "image"))
    for i in range(0, len(ids), shape[1]): # nine tokens at most
        if ids[i + 9]:
            ids[i + 8:i + 10] = [ids[i + 9], 0]
    short = tmp / "short.safetensors"
    write_tensors(short, {"image": ("F32", *image), "text": ("I64", shape, ids)})
    common = ["train", "-m", e2e / "init.safetensors", "--config", e2e / "model_config.json", "--train-data", short, "--batch-size", "16", "--warmup", "2",
              "--lr", "0.001", "--seed", "3", "--logs", tmp / "texts", "--quiet"]
    runs = {"plain": [], "whole": ["--text-mask-ratio", "0.1"], "half": ["--text-mask-ratio", "0.5"], "most": ["--text-mask-ratio", "0.8"],
            "random": ["--text-mask-ratio", "0.5", "--text-mask", "random"], "micro": ["--text-mask-ratio", "0.8", "--batch-size", "4", "--accum-freq", "4"]}
    loss = {}
    for name, more in runs.items():
        exits(run(*common, "--epochs", "2", *more, "--name", name), 0, f"text masks: {name}")
        loss[name] = [x["loss"] for x in losses(tmp / "texts", name)]
    equal(loss["whole"], loss["plain"], "nine of ten positions hold every token")
    for name in ("most", "random"):
        check(abs(loss[name][0] - loss["plain"][0]) > 1e-5, f"{name} masks change the loss")
    check(loss["random"][0] != loss["half"][0], "random is not prioritized")
    close(loss["micro"], loss["most"], 1e-4, "the same text masks in micro-batches")
    n = len(loss["most"]) // 2
    exits(run(*common, "--epochs", "2", *runs["most"], "--name", "again", "--resume", tmp / "texts" / "most" / "checkpoints" / "epoch_1.pt"), 0, "resumed")
    equal([x["loss"] for x in losses(tmp / "texts", "again")], loss["most"][n:], "the same text masks after resuming")
    flip = ["train", "-m", folder, "--config", CONFIG, "--train-data", tmp / "plain.safetensors", "--batch-size", "4", "--epochs", "1", "--warmup", "2", "--lr", "0.002",
            "--logs", tmp / "texts", "--quiet"]
    for name, more in (("flip", []), ("flip_masked", ["--text-mask-ratio", "0.5", "--text-mask", "random"])):
        exits(run(*flip, *more, "--name", name), 0, f"text masks: {name}")
        loss[name] = [x["loss"] for x in losses(tmp / "texts", name)]
    check(all(x < 10 for x in loss["flip_masked"]) and loss["flip_masked"][0] != loss["flip"][0], "FLIP's texts are masked")
    exits(run(*common, "--epochs", "1", "--text-mask-ratio", "1", "--name", "bad"), 1, "no text left")
    exits(run(*common, "--epochs", "1", "--text-mask-ratio", "0.5", "--text-mask", "some", "--name", "bad"), 1, "an unknown mask")


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
