"""`mpirun -n R noema train`: 1, 2 and 4 processes give one trajectory, classifiers too; rank 0 writes and resuming works; NaN and a killed rank end all."""
import json
import os
import shutil
import signal
import struct
import subprocess
import time

from harness import BINARY, OWN, TMP, check, close, contains, equal, exits, finish, read_safetensors, run, skip

E2E = OWN / "train" / "e2e"
COMMON = ["train", "-m", E2E / "init.safetensors", "--config", E2E / "model_config.json", "--train-data", E2E / "data.safetensors", "--batch-size", "16",
          "--epochs", "10", "--lr", "0.004", "--beta1", "0.9", "--beta2", "0.98", "--eps", "1e-6", "--wd", "0.2", "--warmup", "5", "--grad-clip-norm", "1",
          "--no-shuffle", "--no-augment", "--quiet", "--threads", "1", "--logs", TMP]


def command(ranks, *args):
    return ["mpirun", "-n", str(ranks), "--oversubscribe", "--bind-to", "none", BINARY, *[os.fspath(a) for a in args]]


ENV = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
       "ASAN_OPTIONS": "detect_leaks=0:" + os.environ.get("ASAN_OPTIONS", "")}  # OpenMPI keeps what it allocates to the end


def ranks(n, *args, code=0, what=""):
    p = subprocess.run(command(n, *args), capture_output=True, env=ENV, timeout=280)
    check(p.returncode == code, f"{what or args[-1]}: expected exit {code}, got {p.returncode}; stderr: {p.stderr.decode()[-800:]}")
    return p.stdout.decode(), p.stderr.decode()


def log(name):
    return [json.loads(line) for line in (TMP / name / "log.jsonl").read_text().splitlines()]


def trajectories():
    want = json.loads((E2E / "trajectory.json").read_text())["trajectory_fp32"]
    exits(run(*COMMON, "--name", "one"), 0, "one process")
    one = log("one")
    for n in (2, 4):
        out, _ = ranks(n, *COMMON, "--name", f"r{n}", what=f"{n} ranks")
        equal(len(out.splitlines()), 1, f"{n} ranks: rank 0 alone prints the result")
        got = log(f"r{n}")
        equal([x["step"] for x in got], list(range(30)), f"{n} ranks: each step once")
        close([x["loss"] for x in got], [x["loss"] for x in one], 1e-5, f"{n} ranks: losses of one process")
        close([x["loss"] for x in got], [w["loss"] for w in want], 2e-4, f"{n} ranks: the reference's losses")
        close([x["grad_norm"] for x in got], [x["grad_norm"] for x in one], 1e-4, f"{n} ranks: gradient norms")
        a = read_safetensors(TMP / "one" / "open_clip_model.safetensors")
        b = read_safetensors(TMP / f"r{n}" / "open_clip_model.safetensors")
        for name in a:
            values = [x[2] for x in (a[name], b[name])]
            if name.endswith("in_proj_bias"):  # the key's third has no gradient but noise
                third = len(values[0]) // 3
                values = [v[:third] + v[2 * third:] for v in values]
            close(values[1], values[0], 2e-4, f"{n} ranks: {name}")
    # accumulation, masks: the same rows whoever computes them
    for extra, name in ((["--accum-freq", "2", "--batch-size", "8"], "accum"), (["--force-patch-dropout", "0.5", "--seed", "3"], "masked")):
        exits(run(*COMMON, *extra, "--name", f"{name}1"), 0, name)
        ranks(2, *COMMON, *extra, "--name", f"{name}2", what=name)
        close([x["loss"] for x in log(f"{name}2")], [x["loss"] for x in log(f"{name}1")], 2e-5, f"{name}: two ranks and one")


def captions():
    """CoCa: the ranks' texts have different numbers of labels, the mean is over all of them."""
    coca = OWN / "train" / "coca"
    base = ["train", "-m", coca / "split.safetensors", "--config", coca / "split.json", "--train-data", coca / "split.data.safetensors", "--batch-size", "16", "--epochs",
            "5", "--lr", "0.02", "--opt", "sgd", "--momentum", "0.9", "--warmup", "0", "--no-shuffle", "--no-augment", "--quiet", "--threads", "1", "--logs", TMP]
    for weight in ("1", "0"):
        extra = ["--coca-contrastive-loss-weight", weight]
        exits(run(*base, *extra, "--name", f"coca{weight}"), 0, "coca")
        ranks(2, *base, *extra, "--name", f"coca{weight}r2", what="coca in two ranks")
        for key in ("loss", "caption_loss", "contrastive_loss"):
            close([x[key] for x in log(f"coca{weight}r2")], [x[key] for x in log(f"coca{weight}")], 1e-4, f"coca, contrastive weight {weight}: {key} in two ranks")
        close([x["grad_norm"] for x in log(f"coca{weight}r2")], [x["grad_norm"] for x in log(f"coca{weight}")], 5e-3, "coca: gradient norms in two ranks")


def validating():
    """Rank 0 measures, the others wait: the figures of one process, and its steps."""
    val = ["--val-data", E2E / "data.safetensors", "--val-frequency", "5"]
    exits(run(*COMMON, *val, "--name", "val1"), 0, "measured")
    ranks(2, *COMMON, *val, "--name", "val2", what="measured")
    one, two = ([x["val"] for x in log(n) if "val" in x] for n in ("val1", "val2"))
    equal([x["epoch"] for x in two], [5, 10], "measured by rank 0")
    close([x["clip_val_loss"] for x in two], [x["clip_val_loss"] for x in one], 1e-4, "validation loss of two ranks")
    close([x["image_to_text_mean_rank"] for x in two], [x["image_to_text_mean_rank"] for x in one], 0.1, "ranks of two ranks")
    _, err = ranks(2, *COMMON, "--val-data", TMP / "nothing.jsonl", "--name", "val3", code=3, what="validation data that is not there")
    contains(err, "nothing.jsonl", "rank 0 names it")


def classifier():
    """A head's trajectory, and one report: that of rank 0."""
    fine = OWN / "train/finetune/data.safetensors"
    args = ["finetune", "-m", E2E / "init.safetensors", "--config", E2E / "model_config.json", "--train-data", fine, "--val-data", fine, "--head", fine,
            "--batch-size", 20, "--epochs", 2, "--no-shuffle", "--no-augment", "--quiet", "--before", "none", "--json", "--logs", TMP]
    for n in (1, 2):
        out, _ = ranks(n, *map(str, args), "--name", f"fine{n}", what=f"a classifier in {n} ranks")
        equal([json.loads(x)["rows"] for x in out.splitlines()], [40], f"reports of {n} ranks")
    a, b = log("fine1"), log("fine2")
    close([x["loss"] for x in b], [x["loss"] for x in a], 1e-5, "losses")
    close([x["val"]["val_loss"] for x in b if "val" in x], [x["val"]["val_loss"] for x in a if "val" in x], 1e-5, "figures after epochs")


def resuming():
    exits(run(*COMMON, "--name", "half"), 0, "to resume from")
    half = TMP / "half" / "checkpoints" / "epoch_5.pt"
    ranks(2, *COMMON, "--name", "rest", "--resume", half, what="resumed by two ranks")
    close([x["loss"] for x in log("rest")], [x["loss"] for x in log("half")[15:]], 1e-5, "resumed by two ranks")
    ranks(2, *COMMON, "--name", "r2", code=1, what="a run that is there already")
    ranks(3, *COMMON, "--name", "odd", code=1, what="a batch that three ranks cannot share")


def failing():
    _, err = ranks(2, *COMMON, "--name", "nan", "--lr", "1e30", "--grad-clip-norm", "0", code=3, what="NaN ends all ranks")
    contains(err, "not finite", "NaN is named")

    data = (E2E / "data.safetensors").read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    p = subprocess.Popen(command(2, *COMMON, "--name", "killed", "--epochs", "5000"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENV)
    saved = TMP / "killed" / "checkpoints" / "epoch_2.pt"
    deadline = time.time() + 120
    while not saved.exists() and p.poll() is None and time.time() < deadline:
        time.sleep(0.05)
    check(saved.exists() and n > 0, "a checkpoint before the kill")
    victim = [int(x) for x in subprocess.run(["pgrep", "-P", str(p.pid)], capture_output=True, text=True).stdout.split()]
    check(len(victim) >= 2, f"two ranks below mpirun: {victim}")
    os.kill(victim[-1], signal.SIGKILL)
    try:
        _, err = p.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        p.kill()
        _, err = p.communicate()
        check(False, "a dead rank ends the job")
    check(p.returncode != 0, "a dead rank ends the job with a failure")
    contains(err.decode(), "signal 9", "the message says what happened")
    done = max(int(f.stem.split("_")[1]) for f in (TMP / "killed" / "checkpoints").glob("epoch_*.pt"))
    exits(run(*COMMON, "--name", "killed", "--resume", "latest", "--epochs", str(done + 1)), 0, "the last checkpoint is intact")


def main():
    if not shutil.which("mpirun"):
        skip("mpirun (openmpi-bin): training in several processes")
        check(True, "skipped")
        finish()
    p = subprocess.run(command(2, *COMMON, "--name", "probe", "--epochs", "1"), capture_output=True, env=ENV, timeout=120)
    if p.returncode and b"built without MPI" in p.stderr:
        skip("MPI in this build (libopenmpi-dev): training in several processes")
        check(True, "skipped")
        finish()
    trajectories()
    captions()
    validating()
    classifier()
    resuming()
    failing()
    finish()


main()
