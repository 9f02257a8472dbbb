#!/usr/bin/env python3
"""`noema train` on a ModifiedResNet tower against open_clip in PyTorch (tests/golden/train/resnet, written by scripts/gen_train_resnet.py): losses,
running statistics, names in the epoch file, the same bits with any number of threads and after going on from a checkpoint.

Tolerances: the first loss and norm are one forward and backward apart from PyTorch (1e-5); later ones pass through updates in which a value that
is zero up to rounding may fall on the other side of a ReLU (2e-3, a tenth of what a forgotten running statistic or decay moves)."""
import json
import zipfile

from harness import OWN, TMP, check, finish, ran, read_safetensors

G = OWN / "train/resnet"
WANT = json.loads((G / "expected.json").read_text())
COMMON = ["-m", G / "init.safetensors", "--config", G / "model_config.json", "--train-data", G / "data.safetensors", "--logs", TMP, "--batch-size", 16,
          "--epochs", 3, "--lr", 1e-3, "--opt", "sgd", "--momentum", 0.9, "--wd", 0.1, "--warmup", 0, "--lr-scheduler", "const", "--no-shuffle",
          "--no-augment", "--quiet"]


def run(name, *extra):
    ran("train", *COMMON, "--name", name, *extra)
    return TMP / name


def tensor(path, name):
    return read_safetensors(path)[name][2]


def log(run_folder):
    return [json.loads(line) for line in (run_folder / "log.jsonl").read_text().splitlines()]


def compare(run_folder, want, what):
    rows = log(run_folder)
    check(len(rows) == 6, f"{what}: six steps")
    for k, (r, w) in enumerate(zip(rows, want["steps"])):
        tolerance = 1e-5 if k == 0 else 2e-3
        check(abs(r["loss"] - w["loss"]) <= tolerance * (1 + w["loss"]), f"{what}: step {k}: loss {r['loss']}, want {w['loss']}")
        check(abs(r["grad_norm"] - w["grad_norm"]) <= (1e-4 if k == 0 else 0.05) * w["grad_norm"], f"{what}: step {k}: norm {r['grad_norm']}, want {w['grad_norm']}")
    for name, values in want["statistics"].items():
        got = tensor(run_folder / "open_clip_model.safetensors", name)
        check(all(abs(x - y) <= 2e-3 * (1 + abs(y)) for x, y in zip(got, values)), f"{what}: {name}: {got[:4]}, want {values[:4]}")


def lines(run_folder, first=0):
    return "".join((run_folder / "log.jsonl").read_text().splitlines(True)[first:])


def plain():
    a = run("a", "--threads", 2)
    compare(a, WANT, "trained")
    config = json.loads((a / "config.json").read_text())
    check([config[k] for k in ("beta1", "beta2", "eps")] == [0.9, 0.999, 1e-8], f"open_clip's defaults for other towers than transformers: {config}")
    epoch = a / "checkpoints/epoch_1.pt"
    names = {r["name"] for r in ran("inspect", "weights", "-m", epoch, "--json").rows()}
    missing = [k for k in WANT["keys"] if k not in names and "attn_mask" not in k]
    check(not missing, f"the epoch file lacks {missing[:4]}")
    check(lines(run("b", "--threads", 1)) == lines(a), "threads change the losses")
    check(lines(run("c", "--resume", epoch)) == lines(a, 2), "going on from epoch_1 changes the losses")
    # two micro-batches of 8: statistics are those of a micro-batch, as in open_clip's accumulation; it runs, and the loss is another
    first = log(run("d", "--batch-size", 8, "--accum-freq", 2))[0]
    check(abs(first["loss"] - WANT["steps"][0]["loss"]) < 1, "accumulation")


def locked():
    """Norms go with the batch and move, or use their running statistics and leave them; the last two groups are trained or not."""
    start = tensor(G / "init.safetensors", "visual.layer1.0.bn2.running_var")
    for k, case in enumerate(json.loads((G / "locked.json").read_text())):
        freeze = case["freeze_bn_stats"]
        got = run(f"locked{k}", "--lock-image", "--lock-image-unlocked-groups", case["unlocked_groups"], *["--lock-image-freeze-bn-stats"] * freeze)
        compare(got, case, f"locked{k}")
        check((tensor(got / "open_clip_model.safetensors", "visual.layer1.0.bn2.running_var") == start) == freeze, f"locked{k}: statistics")
    # each micro-batch moves them once: 6 steps of 2
    twice = run("twice", "--batch-size", 8, "--accum-freq", 2, "--lock-image")
    check(tensor(twice / "open_clip_model.safetensors", "visual.bn1.num_batches_tracked") == [12], "one move per micro-batch")
    # going on, also from a file without counters, as open_clip's FrozenBatchNorm2d writes it
    epoch, bare, freeze = TMP / "locked2/checkpoints/epoch_2.pt", TMP / "bare.pt", ("--lock-image", "--lock-image-freeze-bn-stats")
    with zipfile.ZipFile(epoch) as a, zipfile.ZipFile(bare, "w") as b:
        for m in a.infolist():
            b.writestr(m, a.read(m).replace(b"num_batches_tracked", b"no_batches_tracked_") if m.filename.endswith("data.pkl") else a.read(m))
    for name, file in ("on", epoch), ("on_bare", bare):
        check(lines(run(name, *freeze, "--resume", file)) == lines(TMP / "locked2", 4), f"{name}: going on with a locked tower")


plain()
locked()
finish()
