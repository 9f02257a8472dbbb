#!/usr/bin/env python3
"""`noema train` on CoCa against open_clip's model and CoCaLoss in PyTorch (tests/golden/train/coca, written by scripts/gen_train_coca.py): both losses over six
steps, the gradient of every parameter, an epoch file of PyTorch gone on from; the same numbers with micro-batches, threads, checkpointing and after kill -9.

Tolerances. A loss of 3 to 9 is a sum of f32 products in another order: 2e-5 of it; later steps pass on what SGD with momentum makes of such differences
(2e-4; leaving the padding's label in, or the contrastive loss out of a step, moves them by 1e-2 and more), and of a value that rounding moves across a
ReLU (norms of `resnet` 2e-2). A gradient is read off the weights before and
after a step with learning rate 1, so that it is rounded as the weights are, to 6e-8 of a weight of about 1: 2e-4 of its norm and 3e-6."""
import json
import signal
import struct
import subprocess
import time

from harness import BINARY, OWN, TMP, check, close, contains, equal, exits, finish, read_safetensors, run

G = OWN / "train" / "coca"
WANT = json.loads((G / "expected.json").read_text())


def common(name, *extra):
    return ["train", "-m", G / f"{name}.safetensors", "--config", G / f"{name}.json", "--train-data", G / f"{name}.data.safetensors", "--batch-size", "16", "--lr",
            "0.02", "--opt", "sgd", "--momentum", "0.9", "--wd", "0.1", "--warmup", "0", "--lr-scheduler", "const", "--no-shuffle", "--no-augment", "--quiet", "--logs",
            TMP, *map(str, extra)]


def log(name):
    return [json.loads(line) for line in (TMP / name / "log.jsonl").read_text().splitlines()]


def norm(values):
    return sum(v * v for v in values) ** 0.5


def trajectory(name, kind, want):
    run_name = f"{name}-{kind}"
    weights = ["--coca-caption-loss-weight", want["caption"], "--coca-contrastive-loss-weight", want["contrastive"]]
    if not exits(run(*common(name, *weights, "--epochs", 6, "--name", run_name)), 0, run_name):
        return
    rows = log(run_name)
    equal(len(rows), 6, f"{run_name}: steps")
    for k, (got, w) in enumerate(zip(rows, want["steps"])):
        share = 2e-5 if k == 0 else 2e-4
        for key in ("caption_loss", "contrastive_loss"):
            close([got[key]], [w[key]], share * (1 + w[key]), f"{run_name}: {key} of step {k}")
        close([got["loss"]], [w["caption_loss"] + w["contrastive_loss"]], share * 10, f"{run_name}: loss of step {k}")
        close([got["grad_norm"]], [w["grad_norm"]], (1e-4 if k == 0 else 2e-2 if name == "resnet" else 5e-3) * w["grad_norm"], f"{run_name}: norm of step {k}")
        close([got["logit_scale"]], [w["logit_scale"]], 1e-4, f"{run_name}: logit_scale after step {k}")


def gradients(name, kind, want):
    run_name = f"{name}-{kind}-gradient"
    weights = ["--coca-caption-loss-weight", want["caption"], "--coca-contrastive-loss-weight", want["contrastive"]]
    exits(run(*common(name, *weights, "--epochs", 1, "--lr", 1, "--momentum", 0, "--wd", 0, "--name", run_name)), 0, run_name)
    before, after = read_safetensors(G / f"{name}.safetensors"), read_safetensors(TMP / run_name / "open_clip_model.safetensors")
    for key, (_, _, value) in before.items():
        got, w = norm([a - b for a, b in zip(value, after[key][2])]), want["gradients"].get(key, 0)
        if key == "logit_scale" or "running_" in key or "num_batches" in key:
            continue  # clamped after the step, its trajectory is compared; statistics
        check(abs(got - w) <= 2e-4 * w + 3e-6 * (1 + norm(value)), f"{run_name}: gradient of {key}: norm {got:g}, want {w:g}")


def same_numbers():
    base = log("fused-both")
    check("validation" not in (TMP / "fused-both/curves.svg").read_text(), "the parts of the loss are no validation")
    for extra, what, share in ((["--batch-size", 4, "--accum-freq", 4], "four micro-batches", 2e-5), (["--threads", 3], "threads", 0),
                               (["--grad-checkpointing"], "checkpointing", 0), (["--grad-checkpointing", "--batch-size", 8, "--accum-freq", 2], "both", 2e-5)):
        exits(run(*common("fused", "--epochs", 6, *extra, "--name", f"same {what}")), 0, what)
        for key in ("loss", "caption_loss", "grad_norm"):
            close([x[key] for x in log(f"same {what}")], [x[key] for x in base], 100 * share, f"{what}: {key}")
    for name in ("split", "resnet"):  # bf16 products: 2^-9 of a value, through a tower and a decoder
        exits(run(*common(name, "--epochs", 6, "--precision", "amp_bf16", "--name", f"{name}-bf16")), 0, f"{name}: amp_bf16")
        close([x["loss"] for x in log(f"{name}-bf16")][:1], [x["loss"] for x in log(f"{name}-both")][:1], 0.2, f"{name}: the first loss in amp_bf16")
        check(log(f"{name}-bf16")[-1]["loss"] < 0.95 * log(f"{name}-bf16")[0]["loss"], f"{name}: it falls in amp_bf16")
    exits(run(*common("fused", "--epochs", 6, "--lora-rank", 2, "--lr", 1e-2, "--name", "lora")), 0, "adapters")
    check(log("lora")[-1]["loss"] < log("lora")[0]["loss"], "adapters of a CoCa's towers are trained")
    # captions alone: micro-batches in one pass
    exits(run(*common("fused", "--epochs", 6, "--coca-contrastive-loss-weight", 0, "--coca-caption-loss-weight", 1.5, "--batch-size", 4, "--accum-freq", 4, "--name", "parts")), 0,
          "captions in micro-batches")
    close([x["loss"] for x in log("parts")], [x["loss"] for x in log("fused-captions")], 1e-4, "captions in micro-batches")


def adamw(*extra):
    return common("fused", "--opt", "adamw", "--lr", 1e-3, "--beta1", 0.9, "--beta2", 0.98, "--eps", 1e-6, "--wd", 0.2, *extra)


def resuming():
    """PyTorch's own epoch file: the optimizer's numbering of the parameters must be open_clip's."""
    if exits(run(*adamw("--epochs", 6, "--resume", G / "fused.epoch_3.pt", "--name", "torch")), 0, "an epoch file of open_clip"):
        close([x["loss"] for x in log("torch")], [w["caption_loss"] + w["contrastive_loss"] for w in WANT["fused"]["resumed"]], 2e-4, "steps after open_clip's epoch file")
        close([x["grad_norm"] for x in log("torch")], [w["grad_norm"] for w in WANT["fused"]["resumed"]], 2e-2, "their gradients")
    names = {json.loads(x)["name"] for x in run("inspect", "weights", "-m", TMP / "torch/checkpoints/epoch_6.pt", "--json").out.splitlines()}
    check(set(WANT["fused"]["keys"]) <= names, f"the epoch file lacks {sorted(set(WANT['fused']['keys']) - names)[:4]}")
    # killed, and gone on: the log of a run that was not
    exits(run(*adamw("--epochs", 60, "--name", "whole")), 0, "60 epochs")
    p = subprocess.Popen([BINARY, *map(str, adamw("--epochs", 60, "--save-steps", 1, "--name", "killed"))], stderr=subprocess.DEVNULL)
    saved, deadline = TMP / "killed/checkpoints/epoch_5.pt", time.time() + 60
    while not saved.exists() and p.poll() is None and time.time() < deadline:
        time.sleep(0.002)
    p.send_signal(signal.SIGKILL)
    p.wait()
    exits(run(*adamw("--epochs", 60, "--name", "killed", "--resume", "latest")), 0, "resumed")
    check(log("killed") == log("whole"), "killed and resumed: the log of a run that was not")


def locking():
    """A locked tower keeps its weights; the decoder and what is unlocked does not."""
    for extra, kept in ((["--lock-image"], lambda n: n.startswith("visual.")), (["--lock-text"], lambda n: n.startswith("text.")),
                        (["--lock-image", "--lock-image-unlocked-groups", 1], lambda n: n.startswith("visual.") and "attn_pool" not in n and n != "visual.proj")):
        for weight in (1, 0):
            name = f"{extra[-1]}{weight}"
            exits(run(*common("split", "--epochs", 1, *extra, "--coca-contrastive-loss-weight", weight, "--name", name)), 0, name)
            a, b = read_safetensors(G / "split.safetensors"), read_safetensors(TMP / name / "open_clip_model.safetensors")
            moved = {n for n in a if a[n][2] != b[n][2]}
            check(not any(kept(n) for n in moved), f"{name}: moved {[n for n in moved if kept(n)][:4]}")
            check("text_decoder.text_projection" in moved, f"{name}: the decoder is trained")
            if len(extra) > 1:
                check("visual.attn_pool.query" in moved and "visual.attn_pool.attn.k_proj_weight" in moved, f"{name}: the pool is trained")


def locked_trunk():
    """A ModifiedResNet whose pool alone is trained: weights and statistics of the trunk stay, the numbers do not depend on threads or micro-batches."""
    base = common("resnet", "--epochs", 3, "--coca-contrastive-loss-weight", 0, "--lock-image", "--lock-image-unlocked-groups", 1, "--lock-image-freeze-bn-stats")
    exits(run(*base, "--name", "trunk"), 0, "a locked trunk")
    a, b = read_safetensors(G / "resnet.safetensors"), read_safetensors(TMP / "trunk/open_clip_model.safetensors")
    moved = {n for n in a if a[n][2] != b[n][2]}
    check(not [n for n in moved if n.startswith("visual.") and not n.startswith("visual.attn_pool.")], f"the trunk stays: {sorted(moved)[:6]}")
    check({"visual.attn_pool.query", "visual.attn_pool.attn.v_proj_weight", "text.token_embedding.weight"} <= moved, "the pool and the text tower are trained")
    exits(run(*base, "--threads", "3", "--name", "trunk3"), 0, "threads")
    check(log("trunk3") == log("trunk"), "a locked trunk on three threads")
    exits(run(*base, "--batch-size", "4", "--accum-freq", "4", "--name", "trunk4"), 0, "micro-batches")
    close([x["loss"] for x in log("trunk4")], [x["loss"] for x in log("trunk")], 2e-4, "a locked trunk in micro-batches")


def others():
    new = TMP / "new"
    if exits(run("models", "new", "--config", G / "split.json", "--out", new, "--seed", "3"), 0, "models new"):
        w = read_safetensors(new / "open_clip_model.safetensors")
        equal(set(w), set(read_safetensors(G / "split.safetensors")), "models new: the names of open_clip")
        exits(run("train", "-m", new, "--train-data", G / "split.data.safetensors", "--batch-size", "16", "--epochs", "20", "--lr", "3e-3", "--warmup", "0", "--no-augment",
                  "--quiet", "--logs", TMP, "--name", "drawn"), 0, "drawn weights are trained")
        rows = log("drawn")
        check(rows[-1]["caption_loss"] < 0.8 * rows[0]["caption_loss"], f"captions are learned: {rows[0]['caption_loss']} to {rows[-1]['caption_loss']}")
    for a, b in ((-1, 1), (0, 0)):
        r = run(*common("split", "--coca-caption-loss-weight", a, "--coca-contrastive-loss-weight", 0 if b == 0 else b, "--name", "bad"))
        exits(r, 1, f"weights {a}, {b}")
        contains(r.err, "coca", "the message names the options")


def map_pool():
    """The learned query of SigLIP's pool takes the same way as CoCa's: it is trained."""
    clip, n = OWN / "clip", 4
    config = json.loads((clip / "siglip_openclip.config.json").read_text())["model_cfg"]
    size, length = config["vision_cfg"]["image_size"], config["text_cfg"]["context_length"]
    pixels = struct.pack(f"<{n * 3 * size * size}f", *[(i * 37 % 101) / 50 - 1 for i in range(n * 3 * size * size)])
    ids = struct.pack(f"<{n * length}q", *[i * 7 % 60 + 2 for i in range(n * length)])
    head = json.dumps({"image": {"dtype": "F32", "shape": [n, 3, size, size], "data_offsets": [0, len(pixels)]},
                       "text": {"dtype": "I64", "shape": [n, length], "data_offsets": [len(pixels), len(pixels) + len(ids)]}}).encode()
    head += b" " * (-len(head) % 8)
    (TMP / "map.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + pixels + ids)
    model = clip / "siglip_openclip.safetensors"
    if exits(run("train", "-m", model, "--config", clip / "siglip_openclip.config.json", "--train-data", TMP / "map.safetensors", "--batch-size", str(n), "--epochs", "1",
                 "--warmup", "0", "--siglip", "--no-augment", "--quiet", "--logs", TMP, "--name", "map"), 0, "a MAP pool"):
        key = "visual.trunk.attn_pool.latent"
        a, b = read_safetensors(model), read_safetensors(TMP / "map/open_clip_model.safetensors")
        check(key in a and a[key][2] != b[key][2], "the query of a MAP pool is trained")


for model, w in WANT.items():
    for which, part in w["runs"].items():
        trajectory(model, which, part)
        gradients(model, which, part)
same_numbers()
resuming()
locking()
locked_trunk()
others()
map_pool()
finish()
