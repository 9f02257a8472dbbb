#!/usr/bin/env python3
"""`noema train` against open_clip's trajectories (tests/golden/train): 30 steps in fp32 and bf16, large batches in micro-batches, going on
from open_clip's own epoch files (both layouts), kill -9 and --resume, NaN, and bad input."""
import json
import pathlib
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time

NOEMA = sys.argv[1]
GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden/train"
E2E = GOLDEN / "e2e"
TRAJECTORY = json.loads((E2E / "trajectory.json").read_text())
COMMON = ["-m", str(E2E / "init.safetensors"), "--config", str(E2E / "model_config.json"), "--train-data", str(E2E / "data.safetensors"),
          "--batch-size", "16", "--epochs", "10", "--lr", "0.004", "--beta1", "0.9", "--beta2", "0.98", "--eps", "1e-6", "--wd", "0.2",
          "--warmup", "5", "--grad-clip-norm", "1", "--no-shuffle", "--no-augment", "--quiet"]
checks = 0


def check(ok, what):
    global checks
    checks += 1
    if not ok:
        print("FAILED:", what)
        sys.exit(1)


def train(logs, *extra, code=0, drop=()):
    common = [x for i, x in enumerate(COMMON) if x not in drop and (i == 0 or COMMON[i - 1] not in drop)]
    r = subprocess.run([NOEMA, "train", *common, "--logs", str(logs), *extra], capture_output=True, text=True)
    check(r.returncode == code, f"{extra}: exit {r.returncode}, expected {code}: {r.stderr[-600:]}")
    return r


def log(logs, name="run"):
    return [json.loads(line) for line in (logs / name / "log.jsonl").read_text().splitlines()]


def tensors(path):
    data = path.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8:8 + n])
    out = {}
    for k, v in head.items():
        if k != "__metadata__" and v["dtype"] == "F32":
            a, b = v["data_offsets"]
            out[k] = struct.unpack(f"<{(b - a) // 4}f", data[8 + n + a:8 + n + b])
    return out


def compare(rows, tolerance, steps=range(30), what=""):
    want = TRAJECTORY["trajectory_fp32"]
    check([r["step"] for r in rows] == list(steps), f"{what}: steps {[r['step'] for r in rows]}")
    for r in rows:
        w = want[r["step"]]
        check(abs(r["loss"] - w["loss"]) <= tolerance, f"{what}: step {r['step']}: loss {r['loss']}, want {w['loss']}")
        check(abs(r["lr"] - w["lr"]) <= 1e-12, f"{what}: step {r['step']}: lr {r['lr']}, want {w['lr']}")
        if tolerance < 1e-3:
            check(abs(r["grad_norm"] - w["grad_norm"]) <= 1e-3 * w["grad_norm"], f"{what}: step {r['step']}: norm {r['grad_norm']}, want {w['grad_norm']}")
            check(abs(r["logit_scale"] - w["logit_scale"]) <= 1e-4, f"{what}: step {r['step']}: scale {r['logit_scale']}, want {w['logit_scale']}")


def weights_near(path, what):
    got = tensors(path)
    want = {k[6:]: v for k, v in tensors(E2E / "final.safetensors").items() if k.startswith("final.")}
    check(len(want) > 60, "final weights")
    for k, w in want.items():
        g = got[k]
        third = len(w) // 3
        for i, (x, y) in enumerate(zip(g, w)):
            if k.endswith("attn.in_proj_bias") and third <= i < 2 * third:
                continue  # the key bias has no gradient but rounding noise
            if abs(x - y) > 2e-3:
                check(False, f"{what}: {k}[{i}]: {x}, want {y}")


def trajectories(tmp):
    train(tmp / "a")
    compare(log(tmp / "a"), 2e-4, what="fp32")
    weights_near(tmp / "a/run/open_clip_model.safetensors", "fp32")
    train(tmp / "defaults", "--epochs", "1", drop=("--beta1", "--beta2", "--eps"))
    config = json.loads((tmp / "defaults/run/config.json").read_text())
    check([config[k] for k in ("beta1", "beta2", "eps")] == [0.9, 0.98, 1e-6], f"open_clip's defaults for transformers: {config}")
    check((tmp / "a/run/curves.svg").read_text().startswith("<svg"), "curves.svg")
    train(tmp / "b", "--precision", "amp_bf16")
    compare(log(tmp / "b"), 0.06, what="bf16")
    # four micro-batches of 4 are one batch of 16
    train(tmp / "c", "--batch-size", "4", "--accum-freq", "4")
    compare(log(tmp / "c"), 2e-4, what="accumulation")
    # threads do not change a bit
    train(tmp / "d", "--threads", "1")
    train(tmp / "e", "--threads", "3")
    check(log(tmp / "d") == log(tmp / "e") == log(tmp / "a"), "losses depend on the number of threads")


def resumed(tmp):
    ck = GOLDEN / "checkpoint"
    want = json.loads((ck / "checkpoint.json").read_text())["resume"]
    for file, key in (("epoch_5.pt", "new_losses_steps_15_to_29"), ("epoch_5_ddp_amp_old_layout.pt", "old_losses_steps_15_to_29")):
        logs = tmp / key
        train(logs, "--resume", str(ck / file))
        rows = log(logs)
        check([r["step"] for r in rows] == list(range(15, 30)), f"{file}: steps")
        for r, w in zip(rows, want[key]):
            check(abs(r["loss"] - w) <= 2e-4, f"{file}: step {r['step']}: loss {r['loss']}, want {w}")
    # our own files: stop at an epoch, go on: the same bits as without the stop
    whole = (tmp / "a/run/log.jsonl").read_text()
    train(tmp / "f", "--resume", str(tmp / "a/run/checkpoints/epoch_5.pt"))
    check((tmp / "f/run/log.jsonl").read_text() == "".join(whole.splitlines(True)[15:]), "going on from epoch_5.pt changes the losses")
    # kill -9 at some moments, then go on from the latest
    for k in range(4):
        logs = tmp / f"kill{k}"
        p = subprocess.Popen([NOEMA, "train", *COMMON, "--logs", str(logs)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.04 + 0.09 * k)
        p.send_signal(signal.SIGKILL)
        p.wait()
        if not (logs / "run/log.jsonl").exists():
            logs.mkdir(exist_ok=True)
        train(logs, "--resume", "latest")
        check((logs / "run/log.jsonl").read_text() == whole, f"kill {k}: the log is not that of an uninterrupted run")
    r = train(tmp / "a", code=1)
    check("resume" in r.stderr, "a second run into the same folder must be refused")


def files(tmp, name):
    return sorted(p.name for p in (tmp / name / "run/checkpoints").iterdir())


def saved(tmp):
    """Checkpoints inside an epoch, what is kept, and going on from them after kill -9 at random moments."""
    whole = (tmp / "a/run/log.jsonl").read_text()
    train(tmp / "s", "--save-steps", "2", "--keep", "2", "--save-most-recent")
    check(files(tmp, "s") == ["epoch_10.pt", "epoch_9.pt", "epoch_latest.pt"], f"kept: {files(tmp, 's')}")
    train(tmp / "s1", "--resume", str(tmp / "s/run/checkpoints/epoch_latest.pt"))
    check((tmp / "s1/run/log.jsonl").read_text() == "", "a finished run has nothing left to do")
    train(tmp / "s2", "--save-frequency", "4", "--delete-previous-checkpoint")
    check(files(tmp, "s2") == ["epoch_10.pt"], f"kept: {files(tmp, 's2')}")
    moments = random.Random()
    seed = moments.randrange(1 << 30)
    moments.seed(seed)
    inside = 0
    for k in range(6):
        logs = tmp / f"steps{k}"
        logs.mkdir()
        for _ in range(2):
            p = subprocess.Popen([NOEMA, "train", *COMMON, "--logs", str(logs), "--save-steps", "1", "--resume", "latest"], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
            time.sleep(moments.uniform(0.02, 0.9))
            p.send_signal(signal.SIGKILL)
            p.wait()
        inside += any(f.startswith("step_") for f in files(tmp, logs.name)) if (logs / "run/checkpoints").exists() else 0
        train(logs, "--resume", "latest", "--save-steps", "1")
        check((logs / "run/log.jsonl").read_text() == whole, f"seed {seed}, kill {k}: the log is not that of an uninterrupted run")
    # the same without chance: a run that stops inside an epoch says so and goes on from there
    train(tmp / "m", "--resume", "latest", "--save-steps", "1", "--epochs", "2", "--lr-scheduler", "const")
    ours = tmp / "m/run/checkpoints/epoch_1.pt"
    r = train(tmp / "m1", "--resume", str(tmp / "a/run/checkpoints/epoch_5.pt"), "--epochs", "2", code=3)
    check("15 steps" in r.stderr and "6" in r.stderr, f"a checkpoint beyond the run's end: {r.stderr}")
    check(ours.exists(), "epoch_1.pt")
    for bad in (["--save-steps", "-1"], ["--keep", "-1"], ["--lr-scheduler", "const-cooldown"], ["--lr-scheduler", "const-cooldown", "--epochs-cooldown", "11"]):
        train(tmp / "bad", *bad, code=1)


def patched(source, dst, scale, prefix=""):
    """A copy of a safetensors file with another logit_scale; `prefix` is cut from the names."""
    data = bytearray(source.read_bytes())
    n = struct.unpack("<Q", data[:8])[0]
    head = {k[len(prefix):]: v for k, v in json.loads(data[8:8 + n]).items() if k.startswith(prefix)}
    at = 8 + n + head["logit_scale"]["data_offsets"][0]
    data[at:at + 4] = struct.pack("<f", scale)
    text = json.dumps(head).encode()
    dst.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + n:])
    return str(dst)


def options(tmp):
    whole = (tmp / "a/run/log.jsonl").read_text()
    train(tmp / "g", "--grad-checkpointing")
    check((tmp / "g/run/log.jsonl").read_text() == whole, "checkpointing changes the losses")
    train(tmp / "cool", "--lr-scheduler", "const-cooldown", "--epochs-cooldown", "4", "--lr-cooldown-end", "0.001", "--lr-cooldown-power", "2")
    for r in log(tmp / "cool"):
        s = r["step"]
        want = 0.004 * (s + 1) / 5 if s < 5 else 0.004 if s < 18 else (1 - (s - 18) / 12) ** 2 * 0.003 + 0.001
        check(abs(r["lr"] - want) < 1e-12, f"cooldown: step {s}: {r['lr']}, want {want}")
    # scale held in [0, ln 100]: golden/train/partial
    clamp = json.loads((GOLDEN / "partial/partial.json").read_text())["clamp"]
    low = patched(E2E / "init.safetensors", tmp / "low.safetensors", 0.015)
    train(tmp / "clamp", "-m", low, "--lr", "0.01", "--lr-scheduler", "const", "--warmup", "0", "--epochs", "2")
    for r, (loss, scale, _) in zip(log(tmp / "clamp"), clamp["lower"]["loss_scale_gradient_per_step"]):
        check(abs(r["loss"] - loss) <= 1e-3 and abs(r["logit_scale"] - scale) <= 1e-4, f"clamp: {r}, want {loss} {scale}")
    # the last two groups of the text tower: the projection, the last block with ln_final
    train(tmp / "lt", "--lock-text", "--lock-text-unlocked-layers", "2", "--lock-image", "--epochs", "1")
    start, end = tensors(E2E / "init.safetensors"), tensors(tmp / "lt/run/open_clip_model.safetensors")
    moved = {k for k in end if k in start and end[k] != start[k]}
    want = {k for k in end if k in ("text_projection", "logit_scale") or k.startswith(("transformer.resblocks.1.", "ln_final."))}
    check(moved == want, f"moved: {sorted(moved ^ want)}")
    train(tmp / "ema", "--ema-decay", "0.99", "--ema-warmup", "--epochs", "1")


def write_data(path, images, n, size, ids, poison=None, kind="q"):
    """A data file of constant pictures; `poison` puts a NaN into that row; ids are i64 (q) or i32 (i)."""
    floats = [0.1] * (n * 3 * size * size)
    if poison is not None:
        floats[poison * 3 * size * size] = float("nan")
    img = struct.pack(f"<{len(floats)}f", *floats)
    txt = struct.pack(f"<{n * len(ids)}{kind}", *(ids * n))
    head = json.dumps({"image": {"dtype": "F32", "shape": [n, 3, size, size], "data_offsets": [0, len(img)]},
                       "text": {"dtype": "I64" if kind == "q" else "I32", "shape": [n, len(ids)], "data_offsets": [len(img), len(img) + len(txt)]}}).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + img + txt)


def bad_input(tmp):
    data = tmp / "nan.safetensors"
    write_data(data, None, 32, 24, [1, 5, 63, 0, 0, 0, 0, 0, 0, 0], poison=20)
    r = train(tmp / "nan", "--train-data", str(data), code=3)
    check("step 1" in r.stderr and "visual" in r.stderr, f"NaN must name step and layer: {r.stderr}")
    check([x["step"] for x in log(tmp / "nan")] == [0], "the log before the NaN stays")
    write_data(data, None, 32, 16, [1, 5, 63, 0, 0, 0, 0, 0, 0, 0])
    r = train(tmp / "size", "--train-data", str(data), code=3)
    check("16" in r.stderr and "24" in r.stderr, f"sizes must be named: {r.stderr}")
    empty = tmp / "empty.jsonl"
    empty.write_text("")
    check("empty" in train(tmp / "x1", "--train-data", str(empty), code=3).stderr, "empty data")
    empty.write_text('{"filepath": "a.png"}\n')
    check("line 1" in train(tmp / "x2", "--train-data", str(empty), code=3).stderr, "a row without title")
    empty.write_text('{"filepath": "a.png", "title": "x"\n')
    check("line 1" in train(tmp / "x3", "--train-data", str(empty), code=3).stderr, "broken JSON")
    empty.write_text('{"filepath": "a.png", "title": "x", "keep": [0, 99]}\n')
    check("keep" in train(tmp / "x6", "--train-data", str(empty), "--batch-size", "1", code=3).stderr, "a patch outside the grid is named")
    check(train(tmp / "x4", "--resume", str(E2E / "model_config.json"), code=3).stderr, "resume from something else")
    train(tmp / "x5", "--opt", "adam", code=1)
    for bad in (["--momentum", "-1"], ["--beta1", "-0.1"], ["--beta1", "1"], ["--beta2", "1"], ["--eps", "-1"], ["--ema-decay", "1"], ["--ema-decay", "-0.5"],
                ["--grad-clip-norm", "-1"], ["--force-patch-dropout", "-0.5"]):
        check("expected" in train(tmp / "x7", *bad, code=1).stderr, f"{bad} is refused")
    for kind in "qi":
        write_data(data, None, 32, 24, [1, 5, 63, 0, 0, 0, 0, 0, 0, 0], kind=kind)
        train(tmp / f"ids-{kind}", "--train-data", str(data), "--epochs", "1")
    check(log(tmp / "ids-q") == log(tmp / "ids-i"), "ids as i32 are those as i64")
    write_data(data, None, 32, 24, [1, 5, 64, 0, 0, 0, 0, 0, 0, 0])
    r = train(tmp / "x8", "--train-data", str(data), code=3)
    check("nan.safetensors: step 0" in r.stderr and "64" in r.stderr, f"a token beyond the table: {r.stderr}")


with tempfile.TemporaryDirectory() as t:
    tmp = pathlib.Path(t)
    trajectories(tmp)
    resumed(tmp)
    saved(tmp)
    options(tmp)
    bad_input(tmp)
print(f"{checks} checks passed")
