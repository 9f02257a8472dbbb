#!/usr/bin/env python3
"""`noema train --val-data`: the figures are open_clip's (tests/golden/train/e2e/validation.json, written by scripts/gen_train_validation.py) and those of
`noema eval`; training itself is not changed by it, runs that go on have the same log; averaged weights; unusable rows and data."""
import json
import math
import shutil
import xml.etree.ElementTree as xml

from harness import OWN, TMP, check, close, contains, equal, exits, finish, ran, read_npy, read_safetensors, run, write_png, write_safetensors

E2E = OWN / "train" / "e2e"
DATA = E2E / "data.safetensors"
WANT = json.loads((E2E / "validation.json").read_text())
PAIRS = ["train", "-m", E2E / "init.safetensors", "--config", E2E / "model_config.json", "--train-data", DATA, "--logs", TMP, "--no-augment", "--no-shuffle"]
TRAJECTORY = ["--batch-size", 16, "--epochs", 10, "--lr", 0.004, "--beta1", 0.9, "--beta2", 0.98, "--eps", 1e-6, "--wd", 0.2, "--warmup", 5, "--grad-clip-norm", 1]
SHORT = ["--batch-size", 16, "--epochs", 3, "--lr", 0.004, "--warmup", 0]
COLOURS = [(230, 30, 30), (30, 200, 40), (40, 60, 220), (240, 230, 60), (250, 250, 250), (10, 10, 10)]
NAMES = ["red", "green", "blue", "yellow", "white", "black"]


def log(name):
    return [json.loads(line) for line in (TMP / name / "log.jsonl").read_text().splitlines()]


def log_there(name):
    return (TMP / name / "log.jsonl").exists()


def split(name):
    rows = log(name)
    equal([r["step"] for r in rows], list(range(len(rows))), f"{name}: one object per step")
    return [{k: v for k, v in r.items() if k != "val"} for r in rows], [r for r in rows if "val" in r]


def same_figures(got, want, tolerance, what):
    for key in want:
        if key != "batch_size":
            close([got[key]], [want[key]], tolerance if "loss" in key else 1e-7, f"{what}: {key}")


def pairs():
    for k, want in enumerate(WANT[:2]):  # the weights do not move: all rows, the last batch smaller; the first rows alone
        r = ran(*PAIRS, "--val-data", DATA, "--lr", 0, "--epochs", 2, "--batch-size", want["batch_size"], "--val-num-samples", want["num_samples"], "--name", f"p{k}")
        steps, val = split(f"p{k}")
        equal([(v["step"], v["epoch"], v["val"]["epoch"]) for v in val], [(1, 0, 1), (3, 1, 2)], "figures after each epoch")
        for v in val:
            same_figures(v["val"], want, 2e-6, f"pairs {k}")
        contains(r.err, f"validation after epoch 2: {want['num_samples']} pairs", "the progress output")
    ran(*PAIRS, *TRAJECTORY, "--name", "plain")
    ran(*PAIRS, *TRAJECTORY, "--name", "measured", "--val-data", DATA, "--val-frequency", 3, "--threads", 2)
    steps, val = split("measured")
    equal(steps, log("plain"), "the steps of a run that is measured")
    equal((TMP / "measured/open_clip_model.safetensors").read_bytes(), (TMP / "plain/open_clip_model.safetensors").read_bytes(), "its weights")
    equal([v["val"]["epoch"] for v in val], [3, 6, 9, 10], "every third epoch and the last")
    close([val[-1]["val"]["clip_val_loss"]], [WANT[2]["clip_val_loss"]], 2e-4, "after 30 steps: loss")
    for key in ("image_to_text_R@1", "text_to_image_R@5", "text_to_image_mean_rank"):
        close([val[-1]["val"][key]], [WANT[2][key]], 0.05, f"after 30 steps: {key}")  # a pair that stands one place off
    ran(*PAIRS, *SHORT, "--name", "never", "--val-data", DATA, "--val-frequency", 0)
    equal(split("never")[1], [], "frequency 0")
    words = [t.text for t in xml.parse(TMP / "measured/curves.svg").getroot().iter() if t.text]
    for part in ("validation", "image to text R@1", "text to image R@1", "learning rate"):
        check(part in words, f"curves.svg has {part}")
    check("validation" not in [t.text for t in xml.parse(TMP / "plain/curves.svg").getroot().iter()], "no empty panel")


def ties():
    """One text and one picture for all: every score is equal, the lower index stands in front."""
    t = read_safetensors(DATA)
    n, each, length = 40, 3 * 24 * 24, t["text"][1][1]
    write_safetensors(TMP / "same.safetensors", {"image": ("F32", [n, 3, 24, 24], t["image"][2][:each] * n), "text": ("I64", [n, length], t["text"][2][:length] * n)})
    ran(*PAIRS, "--val-data", TMP / "same.safetensors", "--lr", 0, "--epochs", 1, "--batch-size", 16, "--name", "ties")
    v = split("ties")[1][0]["val"]
    for key in ("image_to_text", "text_to_image"):
        equal([v[f"{key}_mean_rank"], v[f"{key}_median_rank"], v[f"{key}_R@5"]], [20.5, 20, 5 / 40], f"equal scores: {key}")


def averages():
    """With a decay near 1 the average stays where the run began."""
    ran(*PAIRS, *SHORT, "--name", "ema", "--ema-decay", 0.9999999, "--val-data", DATA)
    ran(*PAIRS, *SHORT, "--name", "ema_plain", "--ema-decay", 0.9999999)
    steps, val = split("ema")
    equal(steps, log("ema_plain"), "steps with an average")
    for n in ("ema", "ema_plain"):
        ran(*PAIRS, *SHORT, "--name", f"{n}_on", "--epochs", 4, "--ema-decay", 0.9999999, "--resume", TMP / n / "checkpoints/epoch_3.pt", "--val-data", DATA)
    equal(log("ema_on"), log("ema_plain_on"), "what follows its checkpoint, the average among it")
    ran(*PAIRS, "--val-data", DATA, "--lr", 0, "--epochs", 1, "--batch-size", 16, "--name", "start")
    start = split("start")[1][0]["val"]
    for v in val:
        close([v["val"]["clip_val_loss"]], [start["clip_val_loss"]], 1e-4, "the average's loss")
    ran(*PAIRS, *SHORT, "--name", "moved", "--val-data", DATA)
    check(abs(split("moved")[1][-1]["val"]["clip_val_loss"] - start["clip_val_loss"]) > 0.1, "without an average the loss moves")
    ran(*PAIRS, *SHORT, "--name", "bf16", "--precision", "amp_bf16", "--val-data", DATA)
    close([split("bf16")[1][-1]["val"]["clip_val_loss"]], [split("moved")[1][-1]["val"]["clip_val_loss"]], 0.1, "amp_bf16")


def going_on():
    options = [*PAIRS, *SHORT, "--val-data", DATA, "--epochs", 4, "--save-frequency", 2, "--lr-scheduler", "const"]
    ran(*options, "--name", "whole")
    whole = (TMP / "whole/log.jsonl").read_text()
    for cut in (2, 0):  # goes on after the second epoch; from the start
        name = f"on{cut}"
        shutil.copytree(TMP / "whole", TMP / name)
        for n in range(cut + 1, 5):
            (TMP / name / f"checkpoints/epoch_{n}.pt").unlink(missing_ok=True)
        if not cut:
            (TMP / name / "checkpoints/epoch_2.pt").unlink(missing_ok=True)
        ran(*options, "--name", name, "--resume", "latest")
        equal((TMP / name / "log.jsonl").read_text(), whole, f"{name}: the log of a run that goes on")


def pictures():
    rows = []
    for k, (name, (r, g, b)) in enumerate(zip(NAMES, COLOURS)):
        for i in range(4):
            path = TMP / f"{name}{i}.png"
            write_png(path, 32, 32, bytes(min(255, max(0, c + (x * 7 + i * 31) % 40 - 20)) for x in range(32 * 32) for c in (r, g, b)))
            rows.append({"filepath": path.name, "label": k, "name": name})
    (TMP / "rows.jsonl").write_text("".join(json.dumps({k: r[k] for k in ("filepath", "label")}) + "\n" for r in rows))
    (TMP / "named.jsonl").write_text("".join(json.dumps({"filepath": r["filepath"], "label": r["name"]}) + "\n" for r in rows))
    (TMP / "names.txt").write_text("\n".join(NAMES) + "\n")
    (TMP / "templates.txt").write_text("a photo of a {}\na {} picture\n")
    (TMP / "captions.jsonl").write_text("".join(json.dumps({"label": n, "captions": [f"a photo of a {n}", f"a {n} picture"]}) + "\n" for n in NAMES))
    return rows


def classes(rows):
    mini = ["train", "-m", "noema-mini", "--logs", TMP, "--lr", 0, "--epochs", 1, "--batch-size", 8, "--no-augment"]
    named = ["--class-names", TMP / "names.txt", "--templates", TMP / "templates.txt"]
    r = ran(*mini, "--train-data", TMP / "rows.jsonl", "--val-data", TMP / "rows.jsonl", *named, "--name", "zero", timeout=600)
    v = split("zero")[1][0]["val"]
    contains(r.err, "of 6 classes", "the progress output")
    # the model of the run has moved by its batch norms alone: measure that one
    want = json.loads(ran("eval", "zeroshot", "-m", TMP / "zero", "--dtype", "f32", TMP / "rows.jsonl", "--classes", TMP / "names.txt", "--templates", TMP / "templates.txt",
                          "--json").out)["metrics"]
    close([v["zeroshot-val-top1"], v["zeroshot-val-top5"]], [want["acc1"], want["acc5"]], 1e-7, "top-1 and top-5 are those of noema eval")
    ran("embed", "-m", TMP / "zero", "--dtype", "f32", *[TMP / x["filepath"] for x in rows], "--out", TMP / "i.npy")
    scale = math.exp(log("zero")[0]["logit_scale"])
    _, (n, dim), x = read_npy(TMP / "i.npy")
    (TMP / "t.txt").write_text("".join(t.replace("{}", c) + "\n" for c in NAMES for t in ("a photo of a {}", "a {} picture")))
    ran("embed", "-m", TMP / "zero", "--dtype", "f32", "--text-file", TMP / "t.txt", "--out", TMP / "t.npy")
    t = read_npy(TMP / "t.npy")[2]
    loss = 0
    for i, row in enumerate(rows):
        z = []
        for k in range(len(NAMES)):
            c = [a + b for a, b in zip(t[2 * k * dim:(2 * k + 1) * dim], t[(2 * k + 1) * dim:(2 * k + 2) * dim])]
            z.append(scale * sum(a * b for a, b in zip(c, x[i * dim:(i + 1) * dim])) / math.sqrt(sum(a * a for a in c)))
        loss += math.log(sum(math.exp(a - max(z)) for a in z)) + max(z) - z[row["label"]]
    close([v["val_loss"]], [loss / n], 1e-4, "cross-entropy over the classes")
    ran(*mini, "--train-data", TMP / "named.jsonl", "--val-data", TMP / "named.jsonl", "--captions", TMP / "captions.jsonl", "--name", "texts", timeout=600)
    u = split("texts")[1][0]["val"]
    close([u["zeroshot-val-top1"], u["val_loss"]], [v["zeroshot-val-top1"], v["val_loss"]], 1e-5, "captions by class are the templates' texts")


def unusable(rows):
    mini = ["train", "-m", "noema-mini", "--logs", TMP, "--lr", 0, "--epochs", 1, "--batch-size", 8, "--no-augment", "--train-data", TMP / "rows.jsonl",
            "--class-names", TMP / "names.txt", "--templates", TMP / "templates.txt"]
    (TMP / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    lines = (TMP / "rows.jsonl").read_text()
    (TMP / "some.jsonl").write_text(json.dumps({"filepath": "torn.png", "label": 0}) + "\n" + lines)
    (TMP / "none.jsonl").write_text(json.dumps({"filepath": "torn.png", "label": 0}) + "\n")
    r = ran(*mini, "--val-data", TMP / "some.jsonl", "--name", "some", timeout=600)
    v = split("some")[1][0]["val"]
    equal([v["num_samples"], v["skipped"]], [len(rows), 1], "a torn picture is left out")
    contains(r.err, "torn.png", "and named")
    captions = "".join(json.dumps({"filepath": x["filepath"], "title": f"a {x['name']} picture"}) + "\n" for x in rows)
    (TMP / "pairs.jsonl").write_text(captions)
    (TMP / "some_pairs.jsonl").write_text(json.dumps({"filepath": "torn.png", "title": "torn"}) + "\n" + captions)
    for name in ("pairs", "some_pairs"):
        ran(*mini, "--val-data", TMP / f"{name}.jsonl", "--name", name, timeout=600)
    a, b = (split(n)[1][0]["val"] for n in ("pairs", "some_pairs"))
    equal({**b, "skipped": 0}, a, "pairs without the torn one")
    for data, what, part in ((TMP / "none.jsonl", "nothing usable", "none of 1 rows"), (TMP / "missing.jsonl", "a missing file", "missing.jsonl")):
        name = f"bad{what[0]}{what[-1]}"
        contains(ran(*mini, "--val-data", data, "--name", name, code=3, timeout=600).err, part, what)
    check(not log_there("badae"), "a missing file is found before the first step")
    check((TMP / "badne/checkpoints/epoch_1.pt").exists(), "an epoch that could not be measured is saved")
    write_safetensors(TMP / "small.safetensors", {"image": ("F32", [2, 3, 16, 16], [0.0] * (2 * 3 * 16 * 16)), "text": ("I64", [2, 2], [1, 63] * 2)})
    r = run(*map(str, PAIRS), *map(str, SHORT), "--val-data", TMP / "small.safetensors", "--name", "small")
    exits(r, 3, "tensors of another size")
    check("[3, 16, 16]" in r.err and not log_there("small"), f"which is found before the first step: {r.err}")
    write_safetensors(TMP / "bare.safetensors", {"image": ("F32", [2, 3, 24, 24], [0.0] * (2 * 3 * 24 * 24))})
    r = run(*map(str, PAIRS), *map(str, SHORT), "--val-data", TMP / "bare.safetensors", "--name", "bare")
    check(r.code in (1, 3), f"rows without text: {r.code}")
    # weights out of all bounds: the log stays JSON, and the next step ends the run
    r = run(*map(str, PAIRS), *map(str, SHORT), "--val-data", DATA, "--batch-size", "48", "--lr", "1e30", "--name", "bounds")
    exits(r, 3, "a learning rate of 1e30")
    contains(r.err, "step 1", "the step that shows it")
    strict = [json.loads(x, parse_constant=lambda c: check(False, f"{c} is no JSON")) for x in (TMP / "bounds/log.jsonl").read_text().splitlines()]
    equal([(x["step"], x["val"]["clip_val_loss"]) for x in strict], [(0, None)], "no loss")
    exits(run(*map(str, PAIRS), *map(str, SHORT), "--val-data", DATA, "--val-frequency", "-1", "--name", "negative"), 1, "a negative frequency")


pairs()
ties()
averages()
going_on()
rows = pictures()
classes(rows)
unusable(rows)
finish()
