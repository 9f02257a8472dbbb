#!/usr/bin/env python3
"""`-m LOGS/NAME` is the trained model: with its tokenizer, whatever file or folder it came from; and --size with a model."""
import json

from harness import TMP, check, equal, exits, finish, golden, run

TOK = {"openclip_vit": ("clip", "bpe_tiny.txt.gz"), "siglip_openclip": ("tokenizers", "t5.tokenizer.json"),
       "hf_clip": None}


def pictures(folder):
    """Four small PPM pictures and the JSONL that names them."""
    rows = []
    for i in range(4):
        (folder / f"{i}.ppm").write_bytes(b"P6 24 20 255 " + bytes((j * (i + 3)) % 256 for j in range(24 * 20 * 3)))
        rows.append(json.dumps({"filepath": f"{i}.ppm", "title": f"picture number {i}"}))
    (folder / "p.jsonl").write_text("\n".join(rows) + "\n")


def trained(tmp, name, tokenizer):
    model = golden("clip", name) if tokenizer is None else golden("clip", name + ".safetensors")
    tok = golden(*tokenizer) if tokenizer else None
    if model is None or (tokenizer and tok is None):
        return
    args = ["-m", model] if tokenizer is None else ["-m", model, "--config", golden("clip", name + ".config.json"), "--tokenizer", tok]
    r = run("train", *args, "--train-data", tmp / "p.jsonl", "--batch-size", "4", "--epochs", "1", "--lr", "0", "--warmup", "0", "--wd", "0",
            "--no-augment", "--logs", tmp / "logs", "--name", name)
    if not exits(r, 0, f"{name}: train"):
        return
    inputs = ["--text", "picture number 1", "--text", "a dog", tmp / "1.ppm", "--dtype", "f32"]
    before, after = run("embed", *args, *inputs), run("embed", "-m", tmp / "logs" / name, *inputs)
    exits(after, 0, f"{name}: the run's folder has its tokenizer")
    rows = list(zip(before.rows(), after.rows()))
    equal(len(rows), 3, f"{name}: rows")
    worst = max((abs(x - y) for a, b in rows for x, y in zip(a["embedding"], b["embedding"])), default=1)
    check(worst < 2e-4, f"{name}: learning rate 0 leaves the vectors: largest difference {worst:g}")


def size(tmp):
    """A named --preprocess with --size replaces the model's own; the model then runs at that size."""
    model, config = golden("clip", "openclip_vit.safetensors"), golden("clip", "openclip_vit.config.json")
    args = ["-m", model, "--config", config, "--preprocess", "hf5_siglip", "--size", "24x40"]
    alone = run("inspect", "pixels", *args[4:], tmp / "2.ppm")
    exits(alone, 0, "--preprocess --size")
    equal(run("inspect", "pixels", *args, tmp / "2.ppm").rows(), alone.rows(), "the same pixels with a model")
    exits(run("embed", *args, tmp / "2.ppm"), 0, "embed --preprocess --size")
    exits(run("embed", *args[:-1], "0", tmp / "2.ppm"), 1, "--size 0")


pictures(TMP)
for case, where in TOK.items():
    trained(TMP, case, where)
size(TMP)
finish()
