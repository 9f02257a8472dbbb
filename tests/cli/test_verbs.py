#!/usr/bin/env python3
"""embed, match, classify, inspect activations and models convert against the references' results on the tiny models."""
import json
import os
import pathlib
import subprocess
import sys

from harness import (OWN, SHARED, TMP, check, close, contains, equal, exits, f32, finish, golden, read_npy, read_safetensors, run, skip, write_npy)

IMAGES = SHARED / "images"
# case -> model, options; names below golden/clip or golden/tokenizers
CASES = {
    "openai_vit": ("openai_vit.pt", {"tokenizer": "bpe_tiny.txt.gz"}),
    "openai_vit_fullvocab": ("openai_vit_fullvocab.pt", {"tokenizer": "../tokenizers/bpe_simple_vocab_16e6.txt.gz"}),
    "openai_rn": ("openai_rn.pt", {"tokenizer": "bpe_tiny.txt.gz"}),
    "openclip_vit": ("openclip_vit.safetensors", {"tokenizer": "bpe_tiny.txt.gz", "config": "openclip_vit.config.json"}),
    "hf_clip": ("hf_clip", {}),
    "siglip_openclip": ("siglip_openclip.safetensors", {"tokenizer": "../tokenizers/t5.tokenizer.json", "config": "siglip_openclip.config.json"}),
    "openclip_xlmr": ("openclip_xlmr.bin", {"tokenizer": "../tokenizers/xlmr.tokenizer.json", "config": "openclip_xlmr.config.json"}),
    "coca": ("coca.safetensors", {"tokenizer": "bpe_tiny.txt.gz", "config": "coca.config.json"}),
}


class Case:
    def __init__(self, name):
        model, options = CASES[name]
        self.name, self.model = name, golden("clip", model)
        self.args, self.text = ["--dtype", "f32"], self.model is not None
        for key, value in options.items():
            path = golden("clip", value) if not value.startswith("..") else golden("tokenizers", pathlib.Path(value).name)
            if path is None and key == "tokenizer":
                self.text = False
            elif path:
                self.args += [f"--{key}", path]
        if self.model is None:
            return
        self.args += ["-m", self.model]
        self.t = read_safetensors(golden("clip", f"{name}.expected.safetensors"))
        self.j = json.loads(golden("clip", f"{name}.expected.json").read_text())
        self.tol = self.j["tolerance"]["embeds_max_abs"]
        self.images = [IMAGES / n for n in self.j["images"]] if IMAGES.is_dir() else []
        # the texts that a command line can hold as they are; the json has all of them
        self.texts = self.j["texts"]

    def rows(self, name):
        _, shape, values = self.t[name]
        return [values[i * shape[1]:(i + 1) * shape[1]] for i in range(shape[0])]

    def pixels(self):
        path = TMP / f"{self.name}.npy"
        if "pixel_values" in self.t:
            write_npy(path, self.t["pixel_values"][1], self.t["pixel_values"][2])
        elif self.images:
            return self.images[0]
        else:  # pictures of others stay out of the repository: some tensor, its vector not known
            h, w = run("models", "info", *self.args).rows()[0]["image_size"]
            write_npy(path, [2, 3, h, w], [((i * 7919) % 4093) / 1024 - 2 for i in range(2 * 3 * h * w)])
        return path

    def known(self):
        return "pixel_values" in self.t or bool(self.images)


def text_args(texts):
    return [f"--text={t}" for t in texts]


def embed(c):
    r = run("embed", *c.args, c.pixels())
    exits(r, 0, f"{c.name}: embed tensors")
    want = c.rows("image_embeds")
    for k, row in enumerate(r.rows()):
        name = str(c.pixels()) if str(c.pixels()).endswith(".png") else f"{c.pixels()}#{k}"
        equal((row["input"], row["modality"], row["dim"]), (name, "image", len(want[k])), f"{c.name}: row")
        if c.known():
            close(row["embedding"], want[k], c.tol, f"{c.name}: tensor {k}")
        close([sum(x * x for x in row["embedding"])], [1.0], 1e-5, f"{c.name}: length 1")
    r = run("embed", *c.args, c.pixels(), "--no-normalize")
    for row, want_row in zip(r.rows() if c.known() else [], c.rows("image_features")):
        close(row["embedding"], want_row, 2e-5 * max(1, max(abs(x) for x in want_row)), f"{c.name}: not normalised")
    if c.text:
        r = run("embed", *c.args, *text_args(c.texts))
        exits(r, 0, f"{c.name}: embed texts")
        for row, text, want_row in zip(r.rows(), c.texts, c.rows("text_embeds")):
            equal((row["input"], row["modality"]), (text, "text"), f"{c.name}: text row")
            close(row["embedding"], want_row, c.tol, f"{c.name}: text {text!r}")
    if c.images and c.text and not c.name.startswith("hf_siglip"):
        out = TMP / f"{c.name}.out.npy"
        r = run("embed", *c.args, *text_args(c.texts), *c.images, "--out", out)
        exits(r, 0, f"{c.name}: --out")
        equal(r.out, "", f"{c.name}: nothing on stdout with --out")
        kind, shape, values = read_npy(out)
        want = c.t["text_embeds"][2] + c.t["image_embeds"][2]
        equal((kind, shape), ("<f4", (len(c.texts) + len(c.images), c.t["text_embeds"][1][1])), f"{c.name}: shape")
        close(values, want, c.tol, f"{c.name}: texts, then images, in order")
        lines = run("embed", *c.args, *text_args(c.texts), *c.images).rows()
        equal([f32(x) for row in lines for x in row["embedding"]], values, f"{c.name}: JSON reads back as the same f32")
        side = json.loads((TMP / f"{c.name}.out.npy.json").read_text())
        equal((side["count"], side["dim"], side["dtype"], side["normalized"]), (shape[0], shape[1], "f32", True), f"{c.name}: identity")
        check(len(side["weights_sha256"]) == 64 and len(side["space"]) == 64 and len(side["preprocess_sha256"]) == 64, f"{c.name}: digests")
        check(not pathlib.Path(f"{out}.part").exists(), f"{c.name}: no part left")


def match(c):
    if not (c.images and c.text):
        return skip(f"{c.name}: match needs the shared pictures and vocabulary")
    r = run("match", *c.args, *[f"--image={p}" for p in c.images], *text_args(c.texts))
    exits(r, 0, f"{c.name}: match")
    row = r.rows()[0]
    equal((row["images"], row["texts"]), ([str(p) for p in c.images], c.texts), f"{c.name}: names")
    flat = [x for line in row["scores"] for x in line]
    close(flat, c.t["logits_per_image"][2], 2e-4, f"{c.name}: logits")
    probs = [x for line in row["probs"] for x in line]
    close(probs, c.t["probs" if "probs" in c.t else "sigmoid_probs"][2], 1e-4, f"{c.name}: probabilities")


def classify(c):
    if not (c.images and c.text) or "zeroshot_probs" not in c.t:
        return None
    (TMP / "templates.txt").write_text("\n".join(c.j["templates"]) + "\n")
    (TMP / "labels.txt").write_text("\n".join(c.j["classes"]) + "\n")
    want = c.rows("zeroshot_probs")
    for labels in (",".join(c.j["classes"]), TMP / "labels.txt"):
        r = run("classify", *c.args, "--labels", labels, "--templates", TMP / "templates.txt", *c.images)
        exits(r, 0, f"{c.name}: classify")
        for row, probs in zip(r.rows(), want):
            got = {x["label"]: x["prob"] for x in row["labels"]}
            close([got[x] for x in c.j["classes"]], probs, 2e-4, f"{c.name}: {row['input']}")
            order = [x["prob"] for x in row["labels"]]
            equal(order, sorted(order, reverse=True), f"{c.name}: sorted")
    r = run("classify", *c.args, "--labels", "a dog, 고양이 ,", "--top", "1", c.images[0])
    equal([len(row["labels"]) for row in r.rows()], [1], f"{c.name}: --top 1")
    r = run("classify", *c.args, "--labels", "a,b", "--templates", "openai", c.images[0], c.images[0].parent / "bad" / "zero_bytes.png")
    exits(r, 2, f"{c.name}: one picture is broken")
    contains(r.err, "zero_bytes.png", f"{c.name}: named")
    equal(len(r.rows()), 1, f"{c.name}: the other is done")


def activations(c):
    out = TMP / "act.safetensors"
    r = run("inspect", "activations", *c.args, c.pixels(), "--out", out)
    exits(r, 0, f"{c.name}: activations")
    got = read_safetensors(out)
    equal({row["name"] for row in r.rows()}, set(got), f"{c.name}: the lines name what is in the file")
    depth = [n for n in c.t if n.startswith("visual.") and n in got]
    check(len(depth) >= 3, f"{c.name}: only {depth} of the reference's depths")
    for n in depth:
        k = min(len(c.t[n][2]), len(got[n][2]))  # the golden may have more images or fewer
        check(k > 0 and k % c.t["pixel_values"][1][0] == 0, f"{c.name}: {n} is empty")
        scale = max(1.0, max(abs(x) for x in c.t[n][2]))
        close(got[n][2][:k], c.t[n][2][:k], 2e-4 * scale, f"{c.name}: {n}")


def convert(c):
    out = TMP / "변환" / c.name
    r = run("models", "convert", *c.args, "--out", out)
    exits(r, 0, f"{c.name}: convert")
    a = run("embed", *c.args, c.pixels())
    b = run("embed", "-m", out, "--dtype", "f32", c.pixels())
    exits(b, 0, f"{c.name}: the copy opens")
    for x, y in zip(a.rows(), b.rows()):
        close(y["embedding"], x["embedding"], 1e-6, f"{c.name}: the copy gives the same vectors")
    equal(len(b.rows()), len(a.rows()), f"{c.name}: as many rows")
    hf = TMP / "변환" / f"{c.name}.hf"
    r = run("models", "convert", *c.args, "--format", "hf", "--out", hf)
    if c.name in ("openai_rn", "siglip_openclip", "openclip_xlmr", "coca"):
        exits(r, 3, f"{c.name}: transformers has no such CLIPModel")
        check(not (hf / "model.safetensors").exists(), f"{c.name}: nothing written")
    else:
        exits(r, 0, f"{c.name}: convert to transformers' layout")
        tokenizer = [x for i, x in enumerate(c.args) if "--tokenizer" in c.args[max(0, i - 1):i + 1]]  # a merge list is not of that layout
        b = run("embed", "-m", hf, "--dtype", "f32", *tokenizer, *([c.pixels()] if str(c.pixels()).endswith(".npy") else []), "--text", "a dog")
        same = run("embed", *c.args, *([c.pixels()] if str(c.pixels()).endswith(".npy") else []), "--text", "a dog") if c.text else None
        check(same is None or len(same.rows()) == len(b.rows()), f"{c.name}: as many rows: {b.err[-300:]}")
        for x, y in zip(same.rows() if same else [], b.rows()):
            close(y["embedding"], x["embedding"], 1e-6, f"{c.name}: transformers' layout gives the same vectors")
    if c.text:
        b = run("embed", "-m", out, "--dtype", "f32", "--text", "a dog")
        a = run("embed", *c.args, "--text", "a dog")
        if exits(b, 0, f"{c.name}: the copy has its tokenizer"):
            close(b.rows()[0]["embedding"], a.rows()[0]["embedding"], 1e-6, f"{c.name}: the copy's texts")


def info(c):
    r = run("models", "info", *c.args)
    exits(r, 0, f"{c.name}: info")
    row = r.rows()[0]
    equal((row["dim"], row["missing"], row["dtype"]), (len(c.rows("image_embeds")[0]), 0, "f32"), f"{c.name}: info")
    check(row["parameters"] > 1000 and row["tensors"] > 10, f"{c.name}: counts")


for name in CASES:
    case = Case(name)
    if case.model is None:
        continue
    embed(case)
    match(case)
    classify(case)
    info(case)
    convert(case)
    if name in ("openai_vit", "openai_rn", "hf_clip") and case.known():
        activations(case)
finish()
