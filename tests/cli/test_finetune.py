#!/usr/bin/env python3
"""`noema finetune` against PyTorch (tests/golden/train/finetune): losses and probabilities of full fine-tuning with layer decay and of a
linear probe by SGD; adapters through `noema train`; kill -9 and --resume; few-shot, WiSE-FT, means of weights, a head from text,
Korean classes, the report; bad input."""
import json
import math
import random
import shutil
import signal
import subprocess
import time

from harness import BINARY, OWN, TMP, check, close, finish, ran, read_npy, read_safetensors, safetensors_head, write_npy, write_png, write_safetensors

GOLDEN = OWN / "train"
E2E, FINE = GOLDEN / "e2e", GOLDEN / "finetune"
DATA = FINE / "data.safetensors"
GOAL = json.loads((FINE / "finetune.json").read_text())
TOLERANCE = GOAL["tolerance"]
MODEL = ["-m", E2E / "init.safetensors", "--config", E2E / "model_config.json"]
FIXED = ["--batch-size", 20, "--epochs", 5, "--no-shuffle", "--no-augment", "--quiet"]
FULL = ["--head", DATA, "--opt", "adamw", "--beta1", 0.9, "--beta2", 0.999, "--eps", 1e-8, "--wd", 0.05, "--label-smoothing", 0.1, "--lr", 2e-3, "--warmup", 2,
        "--image-layer-decay", 0.75]
PROBE = ["--head", DATA, "--opt", "sgd", "--lr", 0.5, "--momentum", 0.9, "--wd", 1e-3, "--lr-scheduler", "const", "--warmup", 0, "--lock-image"]
ROWS, CLASSES, DIM = 40, 10, 32


def finetune(logs, *extra, code=0, data=DATA):
    r = ran("finetune", *MODEL, "--train-data", data, "--logs", logs, *FIXED, *extra, code=code)
    return json.loads(r.out) if code == 0 else r.err


def log(logs, name="run"):
    return [json.loads(line) for line in (logs / name / "log.jsonl").read_text().splitlines()]


def tensors(path):
    """name -> (shape, numbers)"""
    return {k: v[1:] for k, v in read_safetensors(path).items()}


def png(path, color):
    write_png(path, 24, 24, bytes(color) * (24 * 24))


def softmax(row):
    e = [math.exp(x - max(row)) for x in row]
    return [x / sum(e) for x in e]


def losses(logs, want, tolerance, what):
    rows = log(logs)
    check([r["step"] for r in rows] == list(range(10)), f"{what}: steps")
    close([r["loss"] for r in rows], want, tolerance, what)


def golden(tmp):
    want = tensors(FINE / "expected.safetensors")
    logits = want["full.logits_after_10_steps"][1]
    probs = [p for i in range(ROWS) for p in softmax(logits[i * CLASSES:(i + 1) * CLASSES])]
    r = finetune(tmp / "a", *FULL, "--predictions", tmp / "a.npy")
    losses(tmp / "a", GOAL["full"]["losses"], TOLERANCE["full_loss"], "full")
    _, shape, p = read_npy(tmp / "a.npy")
    check(shape == (ROWS, CLASSES), f"predictions {shape}")
    close(p, probs, TOLERANCE["full_logits"] / 4, "probabilities")
    check(abs(r["accuracy"] - GOAL["full"]["train_accuracy"]) < 1e-9, f"accuracy {r}")
    head = tensors(tmp / "a/run/head.safetensors")
    close(head["head.weight"][1], want["full.head.weight"][1], 1e-4, "head.weight")
    close(head["head.bias"][1], want["full.head.bias"][1], 1e-4, "head.bias")
    model = tensors(tmp / "a/run/open_clip_model.safetensors")
    for name, (total, length) in GOAL["full"]["final_checksums_sum_l2"].items():
        if not name.endswith("attn.in_proj_bias"):  # rounding noise moves the key bias
            got = model[name][1]
            check(abs(math.sqrt(sum(x * x for x in got)) - length) < 1e-4 * length and abs(sum(got) - total) < 1e-3 * length, f"{name}: {sum(got)}, want {total}")
    start = tensors(E2E / "init.safetensors")
    for name in ("visual.proj", "token_embedding.weight", "logit_scale"):
        check(model[name][1] == start[name][1], f"{name} must not move")
    # micro-batches and threads
    finetune(tmp / "b", *FULL, "--batch-size", 5, "--accum-freq", 4)
    losses(tmp / "b", GOAL["full"]["losses"], TOLERANCE["full_loss"], "four micro-batches")
    for n in (1, 3):
        finetune(tmp / f"t{n}", *FULL, "--threads", n)
        check(log(tmp / f"t{n}") == log(tmp / "a"), f"{n} threads change the losses")
    # mistakes that must show
    wrong = finetune(tmp / "w", *FULL, "--image-layer-decay", 1)
    check(wrong and abs(log(tmp / "w")[-1]["loss"] - GOAL["full"]["losses"][-1]) > 10 * TOLERANCE["full_loss"], "layer decay has no effect")
    # a linear probe by SGD
    r = finetune(tmp / "p", *PROBE)
    losses(tmp / "p", GOAL["linear_probe"]["losses"], TOLERANCE["probe_loss"], "linear probe")
    check(r["trained_parameters"] == CLASSES * (DIM + 1) and abs(r["accuracy"] - GOAL["linear_probe"]["train_accuracy"]) < 1e-9, f"probe {r}")
    head = tensors(tmp / "p/run/head.safetensors")
    close(head["head.weight"][1], want["probe.weight"][1], 1e-4, "probe: head.weight")
    close(head["head.bias"][1], want["probe.bias"][1], 1e-4, "probe: head.bias")
    same = tensors(tmp / "p/run/open_clip_model.safetensors")
    check(all(same[k] == v for k, v in start.items() if v[0]), "a locked tower must not move")
    finetune(tmp / "u", *PROBE[:-1], "--unlocked-layers", 0)
    check(log(tmp / "u") == log(tmp / "p"), "--unlocked-layers 0 is --lock-image")


def moved(path):
    start, end = tensors(E2E / "init.safetensors"), tensors(path)
    return {k for k, v in start.items() if end[k][1] != v[1]}


def partial(tmp):
    finetune(tmp / "last", *FULL, "--unlocked-layers", 1)
    check(moved(tmp / "last/run/open_clip_model.safetensors") == {k for k in tensors(E2E / "init.safetensors")
                                                                  if k.startswith(("visual.transformer.resblocks.1.", "visual.ln_post."))}, "the last block alone")
    # adapters of q and v: golden/train/partial, through train
    want = json.loads((GOLDEN / "partial/partial.json").read_text())["lora"]
    lora = tensors(GOLDEN / "partial/lora.safetensors")
    write_safetensors(tmp / "lora.safetensors", {k[5:]: ("F32", v[0], v[1]) for k, v in lora.items() if k.startswith("init.")})
    args = ["train", *MODEL, "--train-data", E2E / "data.safetensors", "--batch-size", 16, "--no-shuffle", "--no-augment", "--quiet", "--epochs", 4, "--lr", 0.005,
            "--beta1", 0.9, "--beta2", 0.98, "--eps", 1e-6, "--wd", 0, "--warmup", 0, "--lr-scheduler", "const", "--lora-rank", 4, "--lora-alpha", 8,
            "--lora", tmp / "lora.safetensors"]
    ran(*args, "--logs", tmp / "lora")
    rows = log(tmp / "lora")
    close([r["loss"] for r in rows[:10]], want["losses_10_steps"], want["tolerance"]["loss"], "LoRA")
    check(moved(tmp / "lora/run/open_clip_model.safetensors") == {k for k in tensors(E2E / "init.safetensors") if k.endswith("attn.in_proj_weight")},
          "merged weights: the in-projections alone")
    adapters = tensors(tmp / "lora/run/lora.safetensors")
    meta = safetensors_head(tmp / "lora/run/lora.safetensors")["__metadata__"]
    check(meta["r"] == "4" and float(meta["lora_alpha"]) == 8, f"metadata {meta}")
    # W = W0 + 2 B A on the rows of q; those of k stay
    name = "visual.transformer.resblocks.0.attn."
    a, b = adapters[name + "q.lora_A"][1], adapters[name + "q.lora_B"][1]
    w0, w = (tensors(f)[name + "in_proj_weight"][1] for f in (E2E / "init.safetensors", tmp / "lora/run/open_clip_model.safetensors"))
    for i, j in ((0, 0), (3, 17), (31, 31)):
        ba = sum(b[i * 4 + k] * a[k * DIM + j] for k in range(4))
        check(abs(w[i * DIM + j] - w0[i * DIM + j] - 2 * ba) < 1e-6, "merged weights")
    check(w[DIM * DIM:2 * DIM * DIM] == w0[DIM * DIM:2 * DIM * DIM], "rows of k")
    # going on from epoch 2 gives the same bits
    ran(*args, "--logs", tmp / "lora2", "--resume", tmp / "lora/run/checkpoints/epoch_2.pt")
    check(log(tmp / "lora2") == rows[6:], "LoRA: going on changes the losses")
    # of a classifier: adapters start as nothing, and the head learns with them
    r = finetune(tmp / "flora", *FULL, "--lora-rank", 2, "--lora-targets", "q,k,v,out,fc,proj")
    check(log(tmp / "flora")[0]["loss"] == log(tmp / "a")[0]["loss"], "fresh adapters must not change the first loss")
    check(r["trained_parameters"] == CLASSES * (DIM + 1) + 2 * 2 * (3 * 2 * DIM + 2 * DIM + 2 * (DIM + 4 * DIM)), f"parameters of adapters: {r}")
    for bad in (["--lora-targets", "q"], ["--lora-rank", 4, "--lora-targets", "q,x"], ["--lora-rank", 100]):
        finetune(tmp / "bad", *FULL, *bad, code=1)
    check("lora_A" in finetune(tmp / "bad2", *FULL, "--lora-rank", 4, "--lora", DATA, code=3), "a file without adapters")


def survives(tmp):
    whole = (tmp / "a/run/log.jsonl").read_bytes()
    files = ["open_clip_model.safetensors", "head.safetensors"]
    for k in range(5):
        logs = tmp / f"kill{k}"
        args = list(map(str, [BINARY, "finetune", *MODEL, "--train-data", DATA, "--logs", logs, *FIXED, *FULL]))
        p = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.03 + 0.05 * k)
        p.send_signal(signal.SIGKILL)
        p.wait()
        finetune(logs, *FULL, "--resume", "latest", "--predictions", logs / "p.npy")
        check((logs / "run/log.jsonl").read_bytes() == whole, f"kill {k}: the log is not that of an uninterrupted run")
        check((logs / "p.npy").read_bytes() == (tmp / "a.npy").read_bytes(), f"kill {k}: predictions")
        for f in files:
            check((logs / "run" / f).read_bytes() == (tmp / "a/run" / f).read_bytes(), f"kill {k}: {f}")
        report, want = (json.loads((d / "run/report.json").read_text()) for d in (logs, tmp / "a"))
        check(all(report[x] == want[x] for x in report if x != "seconds"), f"kill {k}: report")
    # killed after the last epoch file, before the model's files
    (tmp / "kill0/run/open_clip_model.safetensors").unlink()
    (tmp / "kill0/run/head.safetensors").write_bytes((tmp / "p/run/head.safetensors").read_bytes())
    finetune(tmp / "kill0", *FULL, "--resume", "latest")
    for f in files:
        check((tmp / "kill0/run" / f).read_bytes() == (tmp / "a/run" / f).read_bytes(), f"killed at the end: {f}")
    check("resume" in finetune(tmp / "a", *FULL, code=1), "a second run into the same folder must be refused")


def mixtures(tmp):
    finetune(tmp / "wise", *FULL, "--wise-ft", 0.25)
    report = json.loads((tmp / "wise/run/report.json").read_text())
    start, end, mid = (tensors(f) for f in (E2E / "init.safetensors", tmp / "wise/run/open_clip_model.safetensors", tmp / "wise/run/wise_ft/open_clip_model.safetensors"))
    for k in end:
        close(mid[k][1], [0.75 * x + 0.25 * y for x, y in zip(start[k][1], end[k][1])], 2e-6 * max(1, max(map(abs, end[k][1]))), f"WiSE-FT {k}")
    first, last, head = (tensors(f) for f in (DATA, tmp / "wise/run/head.safetensors", tmp / "wise/run/wise_ft/head.safetensors"))
    close(head["head.weight"][1], [0.75 * x + 0.25 * y for x, y in zip(first["head.weight"][1], last["head.weight"][1])], 1e-6, "WiSE-FT of the head")
    check(report["wise_ft"]["alpha"] == 0.25 and 0 <= report["wise_ft"]["accuracy"] <= 1, f"report {report['wise_ft']}")
    # the same by `models interpolate`, and a mean of three
    config = ["--config", E2E / "model_config.json"]
    ran("models", "interpolate", E2E / "init.safetensors", tmp / "wise/run/open_clip_model.safetensors", *config, "--alpha", 0.25, "--out", tmp / "i", code=0)
    other = tensors(tmp / "i/open_clip_model.safetensors")
    for k in mid:
        close(other[k][1], mid[k][1], 2e-6 * max(1, max(map(abs, mid[k][1]))), f"interpolate {k}")
    runs = [tmp / x / "run" for x in ("a", "b", "wise")]
    ran("models", "average", *runs, "--out", tmp / "soup")
    got, each = tensors(tmp / "soup/head.safetensors"), [tensors(r / "head.safetensors") for r in runs]
    close(got["head.weight"][1], [sum(x) / 3 for x in zip(*(e["head.weight"][1] for e in each))], 1e-6, "soup of heads")
    ran("embed", "-m", tmp / "soup", "--quiet", tmp / "x.npy", code=3)  # it opens; there is no such input
    for alpha, same in ((0, E2E / "init.safetensors"), (1, tmp / "a/run/open_clip_model.safetensors")):
        ran("models", "interpolate", E2E / "init.safetensors", tmp / "a/run/open_clip_model.safetensors", *config, "--alpha", alpha, "--out", tmp / "end")
        a, b = tensors(tmp / "end/open_clip_model.safetensors"), tensors(same)
        check(all(a[k][1] == b[k][1] for k in a), f"alpha {alpha} is one of both")
    check("heads are left out" in ran("models", "average", tmp / "a/run", tmp / "i", "--out", tmp / "x").err and not (tmp / "x/head.safetensors").exists(),
          "one model with a head, one without")
    ran("models", "average", tmp / "a/run", "--out", tmp / "x", code=1)
    ran("models", "interpolate", tmp / "a/run", tmp / "b/run", code=1)


def measured(tmp):
    """--val-data after each epoch: the run itself does not change, and the last figures are the report's."""
    def pixels(n, seed):
        r = random.Random(seed)
        return [r.uniform(-1, 1) for _ in range(n * 3 * 24 * 24)]
    val = tmp / "val.safetensors"
    write_safetensors(val, {"image": ("F32", [30, 3, 24, 24], pixels(30, 1)), "label": ("I64", [30], [i * 7 % CLASSES for i in range(30)])})
    plain, half = log(tmp / "a"), tmp / "half"
    r = finetune(tmp / "v", *FULL, "--val-data", val, "--predictions", tmp / "v.npy", "--before", "none")
    rows = log(tmp / "v")
    check([{k: v for k, v in x.items() if k != "val"} for x in rows] == plain, "the steps of a run that is measured")
    figures = [x["val"] for x in rows if "val" in x]
    check([x["step"] for x in rows if "val" in x] == [1, 3, 5, 7, 9] and [v["epoch"] for v in figures] == [1, 2, 3, 4, 5], f"after each epoch: {rows}")
    _, _, p = read_npy(tmp / "v.npy")
    labels, loss, first, five = [i * 7 % CLASSES for i in range(30)], 0, 0, 0
    for i, label in enumerate(labels):
        order = sorted(range(CLASSES), key=lambda k: -p[i * CLASSES + k])
        loss, first, five = loss - math.log(p[i * CLASSES + label]) / 30, first + (order[0] == label) / 30, five + (label in order[:5]) / 30
    close([figures[-1][k] for k in ("val_loss", "val-top1", "val-top5")], [loss, first, five], 1e-5, "the last figures")
    check(figures[-1]["num_samples"] == 30 and figures[-1]["skipped"] == 0 and figures[-1]["classes"] == CLASSES, f"counts: {figures[-1]}")
    report = json.loads((tmp / "v/run/report.json").read_text())["after"]
    check(abs(report["cross_entropy"] - figures[-1]["val_loss"]) < 1e-7 and abs(report["accuracy"] - first) < 1e-9 and abs(r["accuracy"] - first) < 1e-9,
          f"the report: {report}")
    # a run of two epochs of the five, measured at its end, is where the third begins
    shutil.copytree(tmp / "v", half)
    for n in (3, 4, 5):
        (half / f"run/checkpoints/epoch_{n}.pt").unlink()
    finetune(half, *FULL, "--val-data", val, "--resume", "latest", "--before", "none")
    check((half / "run/log.jsonl").read_bytes() == (tmp / "v/run/log.jsonl").read_bytes(), "going on between two measurings")
    check("validation" in (tmp / "v/run/curves.svg").read_text() and "top-1" in (tmp / "v/run/curves.svg").read_text(), "curves.svg")
    finetune(tmp / "never", *FULL, "--val-data", val, "--val-frequency", 0, "--before", "none")
    check(log(tmp / "never") == plain, "--val-frequency 0")
    finetune(tmp / "ema", *FULL, "--val-data", val, "--ema-decay", 0.9999999, "--epochs", 2, "--before", "none")
    finetune(tmp / "still", *FULL, "--val-data", val, "--lr", 0, "--epochs", 1, "--before", "none")
    averaged, start = (log(tmp / n)[-1]["val"]["val_loss"] for n in ("ema", "still"))
    after = json.loads((tmp / "ema/run/report.json").read_text())["after"]["cross_entropy"]
    check(abs(averaged - start) < 1e-4 and abs(after - start) > 1e-3, f"averaged weights after epochs, the trained ones in the report: {averaged} {start} {after}")


def shots(tmp):
    a = finetune(tmp / "s0", *FULL, "--shots", 2, "--seed", 1)
    b = finetune(tmp / "s1", *FULL, "--shots", 2, "--seed", 1)
    finetune(tmp / "s2", *FULL, "--shots", 2, "--seed", 2)
    check(a["rows"] == 20 and {k: v for k, v in a.items() if k != "run"} == {k: v for k, v in b.items() if k != "run"}, f"shots: {a} {b}")
    check(log(tmp / "s0") == log(tmp / "s1") != log(tmp / "s2"), "shots by seed")
    check(len(log(tmp / "s0")) == 5, "twenty rows are one batch an epoch")
    finetune(tmp / "s3", *FULL, "--shots", 1, "--batch-size", 64)  # a batch is as large as there are rows
    many = finetune(tmp / "many", *FULL, "--shots", 2, "--seed", 1, "--seeds", 2)
    check(many["accuracies"][0] == a["accuracy"] and log(tmp / "many/run", "seed_2") == log(tmp / "s2"), f"several seeds: {many}")
    check(abs(sum(many["accuracies"]) / 2 - many["accuracy"]) < 1e-12 and
          abs(abs(many["accuracies"][0] - many["accuracies"][1]) / math.sqrt(2) - many["accuracy_std"]) < 1e-12, f"mean and deviation: {many}")
    check(finetune(tmp / "many", *FULL, "--shots", 2, "--seed", 1, "--seeds", 2, "--resume", "latest") == many, "complete runs are only measured")
    check("class 0 has 4 rows" in finetune(tmp / "s4", *FULL, "--shots", 5, code=1), "too few rows")


def korean(tmp):
    names, rows = ["빨강", "파랑"], []
    for i in range(12):
        png(tmp / f"{i}.png", (255 - i, i, 0) if i % 2 == 0 else (0, i, 255 - i))
        rows.append({"filepath": f"{i}.png", "label": names[i % 2]})
    train, val = tmp / "rows.jsonl", tmp / "val.jsonl"
    train.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows[:8]))
    val.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in reversed(rows[8:])))  # the other name comes first
    args = ["--val-data", val, "--epochs", 10, "--batch-size", 4, "--lr", 0.01, "--warmup", 0]
    r = finetune(tmp / "k", *args, data=train)
    report = json.loads((tmp / "k/run/report.json").read_text())
    check(r["accuracy"] == 1 and report["measured_on"] == "val_data" and report["after"]["rows"] == 4, f"red and blue: {r}")
    check([c["class"] for c in report["per_class"]] == names and report["per_class"][0]["after"] == 1, f"classes: {report['per_class']}")
    check(report["before"]["head"] == "linear probe" and report["before"]["accuracy"] == 1, f"before: {report['before']}")
    check("빨강" in (tmp / "k/run/report.txt").read_text(), "report.txt")
    check(abs(report["after"]["interval"][0] - 4 / (4 + 1.959963984540054 ** 2)) < 1e-12 and report["after"]["interval"][1] == 1, "Wilson's interval")
    for path, part in (("train.csv", rows[:8]), ("val.csv", rows[8:][::-1])):
        (tmp / path).write_text("그림,반\n" + "".join(f'{x["filepath"]},{x["label"]}\n' for x in part), encoding="utf-8-sig")
    columns = ["--csv-img-key", "그림", "--csv-label-key", "반", "--before", "none", "--val-data", tmp / "val.csv"]
    c = finetune(tmp / "columns", *args, *columns, data=tmp / "train.csv")
    check(c["accuracy"] == 1 and log(tmp / "columns") == log(tmp / "k"), f"other columns of training and validation data: {c}")
    # what was trained is used: by the run's folder, or by any head
    for model in (["-m", tmp / "k/run"], [*MODEL, "--head", tmp / "k/run/head.safetensors", "-m", tmp / "k/run"]):
        rows = [json.loads(x) for x in ran("classify", *model, "--dtype", "f32", "--quiet", tmp / "9.png", tmp / "10.png").out.splitlines()]
        check([r["labels"][0]["label"] for r in rows] == ["파랑", "빨강"] and abs(sum(x["prob"] for x in rows[0]["labels"]) - 1) < 1e-6, f"classify: {rows}")
    check("features" in ran("classify", *MODEL, "--head", tmp / "k/run/head.safetensors", "--labels", "a,b,c", tmp / "9.png", code=3).err, "names of other classes")
    check("head.weight" in ran("classify", *MODEL, "--head", E2E / "init.safetensors", tmp / "9.png", code=3).err, "no head in the file")
    # the head knows its classes by name: rows of the file in another order are put right
    check(json.loads(safetensors_head(tmp / "k/run/head.safetensors")["__metadata__"]["classes"]) == names, "names in the head")
    r = finetune(tmp / "k2", "--lock-image", "--lr", 0, "--head", tmp / "k/run/head.safetensors", "-m", tmp / "k/run", "--epochs", 1, "--batch-size", 4, data=val)
    check(r["accuracy"] == 1, f"classes in another order: {r}")
    (tmp / "9.png").write_bytes(b"no picture")
    r = finetune(tmp / "k3", *args, "--before", "none", data=train)
    report = json.loads((tmp / "k3/run/report.json").read_text())
    check(report["after"]["rows"] == 3 and report["after"]["unreadable"] == 1 and report["before"] is None and r["before_accuracy"] is None, f"unreadable: {report}")
    val.write_text('{"filepath": "0.png", "label": "초록"}\n')
    check("val.jsonl" in finetune(tmp / "k4", *args, data=train, code=3), "a class that training does not know")
    val.write_text('{"filepath": "0.png", "label": "빨강"}\n{"filepath": "1.png", "label": "초록"}\n')
    check("초록" in finetune(tmp / "k5", "--head", tmp / "k/run/head.safetensors", "--batch-size", 2, data=val, code=3), "a class that the head does not know")
    check("파랑" in finetune(tmp / "k6", "--labels", "파랑,빨강", "--batch-size", 2, data=train, code=3), "labels in another order than the data's")


def from_text(tmp):
    """The head made of class vectors answers as `classify` does."""
    words = ["[UNK]", "[BOS]"] + [f"word{i}" for i in range(CLASSES)] + ["a", "photo", "사진"]
    vocab = {w: i for i, w in enumerate(words)} | {"[EOS]": 63}
    (tmp / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"}, "truncation": None, "padding": None,
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[BOS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                                                                     {"SpecialToken": {"id": "[EOS]", "type_id": 0}}], "pair": [],
                           "special_tokens": {s: {"id": s, "ids": [vocab[s]], "tokens": [s]} for s in ("[BOS]", "[EOS]")}}}, ensure_ascii=False))
    (tmp / "labels.txt").write_text("".join(f"word{i}\n" for i in range(CLASSES)))
    (tmp / "templates.txt").write_text("a photo {}\n사진 {}\n")
    t = tensors(DATA)
    write_npy(tmp / "x.npy", (ROWS, 3, 24, 24), t["image"][1])
    config = json.loads((E2E / "model_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "tokenizer.json"
    (tmp / "config.json").write_text(json.dumps(config))
    text = ["--config", tmp / "config.json", "--tokenizer", tmp / "tokenizer.json", "--labels", tmp / "labels.txt", "--templates", tmp / "templates.txt"]
    rows = ran("classify", *MODEL, *text, "--dtype", "f32", "--quiet", tmp / "x.npy").out.splitlines()
    best = [json.loads(r)["labels"][0]["label"] for r in rows]
    right = sum(b == f"word{k}" for b, k in zip(best, t["label"][1]))
    r = finetune(tmp / "text", "--head-from-text", *text, "--lr", 0, "--lock-image", "--predictions", tmp / "text.npy")
    report = json.loads((tmp / "text/run/report.json").read_text())
    check(report["before"]["head"] == "zero-shot" and r["before_accuracy"] == right / ROWS, f"zero-shot: {right} right, {report['before']}")
    p = read_npy(tmp / "text.npy")[2]
    for i in range(ROWS):
        row = p[i * CLASSES:(i + 1) * CLASSES]
        check(row[int(best[i][4:])] == max(row), f"row {i}: another class than classify's")
    check(report["per_class"][3]["class"] == "word3", "names of --labels")
    check("--labels" in finetune(tmp / "text2", "--head-from-text", "--config", tmp / "config.json", "--tokenizer", tmp / "tokenizer.json", code=1), "numbers have no names")
    check("10 classes" in finetune(tmp / "text3", "--labels", "a,b", code=3), "too few labels")
    finetune(tmp / "text4", "--head-from-text", *text, "--head", DATA, code=1)


def bad_input(tmp):
    one = tmp / "one.jsonl"
    one.write_text('{"filepath": "0.png", "label": 0}\n')
    check("1 classes" in finetune(tmp / "x0", "--batch-size", 1, data=one, code=3), "one class")
    one.write_text('{"filepath": "0.png", "title": "red"}\n{"filepath": "1.png", "title": "blue", "label": 1}\n')
    check("row 0 has no label" in finetune(tmp / "x1", "--batch-size", 1, data=one, code=3), "a row without label")
    one.write_text('{"filepath": "0.png", "label": 0}\n{"filepath": "1.png", "label": 1}\n')
    e = finetune(tmp / "x2", "--batch-size", 1, "--head", DATA, data=one, code=3)
    check("head.weight" in e and "[2, 32]" in e and "[10, 32]" in e, f"a head of other classes: {e}")
    check("head.weight" in finetune(tmp / "x3", "--head", E2E / "init.safetensors", code=3), "no head in the file")
    t = tensors(DATA)
    w = list(t["head.weight"][1])
    w[40] = float("nan")
    write_safetensors(tmp / "nan.safetensors", {"head.weight": ("F32", [CLASSES, DIM], w)})
    check("finite" in finetune(tmp / "x4", "--head", tmp / "nan.safetensors", code=3), "a head that is not finite")
    w[40] = 0
    write_safetensors(tmp / "nobias.safetensors", {"head.weight": ("F32", [CLASSES, DIM], w)})
    finetune(tmp / "x5", "--head", tmp / "nobias.safetensors")
    images = list(t["image"][1])
    images[25 * 3 * 24 * 24] = float("inf")
    write_safetensors(tmp / "inf.safetensors", {"image": ("F32", [ROWS, 3, 24, 24], images), "label": ("I64", [ROWS], t["label"][1])})
    e = finetune(tmp / "x6", data=tmp / "inf.safetensors", code=3)
    check("step 1" in e and "visual" in e and [r["step"] for r in log(tmp / "x6")] == [0], f"Inf must name step and layer: {e}")
    check("nowhere" in finetune(tmp / "x7", "--head", "nowhere.safetensors", code=3), "a missing head")
    for bad in (["--wise-ft", 2], ["--wise-ft", -1], ["--label-smoothing", 1], ["--before", "x"], ["--shots", 0], ["--siglip"], ["--lock-text"],
                ["--lora-rank", 2, "--unlocked-layers", 1], ["--lora-rank", 2, "--lock-image"]):
        finetune(tmp / "x8", *bad, code=1)
    ran("finetune", *MODEL, code=1)


for part in (golden, partial, survives, measured, mixtures, shots, korean, from_text, bad_input):
    part(TMP)
finish()
