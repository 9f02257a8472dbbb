#!/usr/bin/env python3
"""`noema train` on a ModifiedResNet tower against open_clip in PyTorch (tests/golden/train/resnet, written by scripts/gen_train_resnet.py): losses,
running statistics, names in the epoch file, the same bits with any number of threads and after going on from a checkpoint.

Tolerances: the first loss and norm are one forward and backward apart from PyTorch (1e-5); later ones pass through updates in which a value that
is zero up to rounding may fall on the other side of a ReLU (2e-3, a tenth of what a forgotten running statistic or decay moves)."""
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

NOEMA = sys.argv[1]
G = pathlib.Path(__file__).resolve().parents[1] / "golden/train/resnet"
WANT = json.loads((G / "expected.json").read_text())
COMMON = ["-m", G / "init.safetensors", "--config", G / "model_config.json", "--train-data", G / "data.safetensors", "--batch-size", 16, "--epochs", 3, "--lr",
          1e-3, "--opt", "sgd", "--momentum", 0.9, "--wd", 0.1, "--warmup", 0, "--lr-scheduler", "const", "--no-shuffle", "--no-augment", "--quiet"]
checks = 0


def check(ok, what):
    global checks
    checks += 1
    if not ok:
        print("FAILED:", what)
        sys.exit(1)


def run(*args, code=0):
    r = subprocess.run([NOEMA, *map(str, args)], capture_output=True, text=True)
    check(r.returncode == code, f"{args}: exit {r.returncode}: {r.stderr[-400:]}")
    return r.stdout


def tensor(path, name):
    data = path.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    v = json.loads(data[8:8 + n])[name]
    a, b = v["data_offsets"]
    return struct.unpack(f"<{(b - a) // 4}f", data[8 + n + a:8 + n + b])


with tempfile.TemporaryDirectory() as tmp:
    tmp = pathlib.Path(tmp)
    run("train", *COMMON, "--logs", tmp, "--name", "a", "--threads", 2)
    rows = [json.loads(line) for line in (tmp / "a/log.jsonl").read_text().splitlines()]
    check(len(rows) == 6, "six steps")
    for k, (r, w) in enumerate(zip(rows, WANT["steps"])):
        tolerance = 1e-5 if k == 0 else 2e-3
        check(abs(r["loss"] - w["loss"]) <= tolerance * (1 + w["loss"]), f"step {k}: loss {r['loss']}, want {w['loss']}")
        check(abs(r["grad_norm"] - w["grad_norm"]) <= (1e-4 if k == 0 else 0.05) * w["grad_norm"], f"step {k}: norm {r['grad_norm']}, want {w['grad_norm']}")
    for name, want in WANT["statistics"].items():
        got = tensor(tmp / "a/open_clip_model.safetensors", name)
        check(all(abs(x - y) <= 2e-3 * (1 + abs(y)) for x, y in zip(got, want)), f"{name}: {got[:4]}, want {want[:4]}")
    epoch = tmp / "a/checkpoints/epoch_1.pt"
    names = {json.loads(line)["name"] for line in run("inspect", "weights", "-m", epoch, "--json").splitlines()}
    missing = [k for k in WANT["keys"] if k not in names and "attn_mask" not in k]
    check(not missing, f"the epoch file lacks {missing[:4]}")
    run("train", *COMMON, "--logs", tmp, "--name", "b", "--threads", 1)
    check((tmp / "b/log.jsonl").read_text() == (tmp / "a/log.jsonl").read_text(), "threads change the losses")
    run("train", *COMMON, "--logs", tmp, "--name", "c", "--resume", epoch)
    check((tmp / "c/log.jsonl").read_text() == "".join((tmp / "a/log.jsonl").read_text().splitlines(True)[2:]), "going on from epoch_1 changes the losses")
    # two micro-batches of 8: statistics are those of a micro-batch, as in open_clip's accumulation; it runs, and the loss is another
    run("train", *COMMON, "--logs", tmp, "--name", "d", "--batch-size", 8, "--accum-freq", 2)
    first = json.loads((tmp / "d/log.jsonl").read_text().splitlines()[0])
    check(abs(first["loss"] - rows[0]["loss"]) < 1, "accumulation")
    # a locked tower keeps its running statistics
    run("train", *COMMON, "--logs", tmp, "--name", "e", "--lock-image")
    check(tensor(tmp / "e/open_clip_model.safetensors", "visual.bn1.running_mean") == tensor(G / "init.safetensors", "visual.bn1.running_mean"), "locked")
print(f"{checks} checks passed")
