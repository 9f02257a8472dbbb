#!/usr/bin/env python3
"""`noema train --resume` of epoch files whose optimizer is laid out in other ways than open_clip's two groups: one group of all parameters,
SGD without momentum, an optimizer that took fewer steps than the run; and weights that overflow, which no file may hold."""
import collections
import io
import json
import pickle
import struct
import sys
import types
import zipfile

from harness import OWN, TMP, check, close, contains, equal, finish, ran

E2E, FILES = OWN / "train/e2e", OWN / "train/checkpoint"
COMMON = ["-m", E2E / "init.safetensors", "--config", E2E / "model_config.json", "--train-data", E2E / "data.safetensors", "--batch-size", 16,
          "--lr", 0.004, "--beta1", 0.9, "--beta2", 0.98, "--eps", 1e-6, "--warmup", 5, "--grad-clip-norm", 1, "--no-shuffle", "--no-augment",
          "--quiet", "--logs", TMP]
NAMES = json.loads((FILES / "checkpoint.json").read_text())["files"]["epoch_5.pt"]

# ---- PyTorch's files without PyTorch: its classes under their names, storages as they lie in the archive ----

torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
Tensor = type("Tensor", (), {"__reduce__": lambda self: (utils._rebuild_tensor_v2, self.args)})
Storage = collections.namedtuple("Storage", "id")


def _rebuild_tensor_v2(*args):
    t = Tensor()
    t.args = args
    return t


_rebuild_tensor_v2.__module__ = "torch._utils"
utils._rebuild_tensor_v2 = _rebuild_tensor_v2
sys.modules.update({"torch": torch, "torch._utils": utils})


class Reader(pickle.Unpickler):
    def persistent_load(self, pid):
        return Storage(pid)


class Writer(pickle.Pickler):
    def persistent_id(self, x):
        return x.id if isinstance(x, Storage) else None


def edited(source, name, change):
    """A copy of an epoch file after change(tree, bytes of its storages by key)."""
    with zipfile.ZipFile(source) as z:
        entries = {n.split("/", 1)[1]: z.read(n) for n in z.namelist()}
    tree = Reader(io.BytesIO(entries["data.pkl"])).load()
    data = {k[5:]: v for k, v in entries.items() if k.startswith("data/")}
    change(tree, data)
    out = io.BytesIO()
    Writer(out, 2).dump(tree)
    entries.update({"data.pkl": out.getvalue(), **{f"data/{k}": v for k, v in data.items()}})
    with zipfile.ZipFile(TMP / name, "w", zipfile.ZIP_STORED) as z:
        for n, v in entries.items():
            z.writestr(f"{name[:-3]}/{n}", v)
    return TMP / name


def groups(path):
    with zipfile.ZipFile(path) as z:
        entry = next(n for n in z.namelist() if n.endswith("data.pkl"))
        optimizer = Reader(io.BytesIO(z.read(entry))).load()["optimizer"]
        step = optimizer["state"][0]["step"].args[0].id[2]
        return optimizer["param_groups"], struct.unpack("<f", z.read(f"{entry[:-8]}data/{step}"))[0]


def train(name, *extra, code=0, epochs=10):
    r = ran("train", *COMMON, "--name", name, "--epochs", epochs, *extra, code=code)
    log = TMP / name / "log.jsonl"
    return r, [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


# ---- the layouts ----

def one_group(tree, _):
    """As AdamW(model.parameters()) counts them: in the model's order."""
    number = {name: i for i, name in enumerate(NAMES["optimizer_index_to_name"])}
    names = [n for n in tree["state_dict"] if n in number]
    equal(len(names), len(number), "names of all parameters")
    optimizer = tree["optimizer"]
    optimizer["state"] = {i: optimizer["state"][number[n]] for i, n in enumerate(names)}
    first = optimizer["param_groups"][1]
    optimizer["param_groups"] = [{**first, "params": list(range(len(names)))}]


def one_group_of_all():
    file = edited(FILES / "epoch_5.pt", "one.pt", one_group)
    # without decay it does not matter which group a parameter is in
    two, one = train("two0", "--wd", 0, "--resume", FILES / "epoch_5.pt")[1], train("one0", "--wd", 0, "--resume", file)[1]
    equal([r["step"] for r in one], list(range(15, 30)), "steps")
    close([r["loss"] for r in one], [r["loss"] for r in two], 1e-6, "one group without decay")
    # with it, the one group is kept: all parameters are decayed, and so they are in what is written
    one, two = train("one", "--wd", 0.2, "--resume", file)[1], train("two", "--wd", 0.2, "--resume", FILES / "epoch_5.pt")[1]
    check(one[0]["loss"] == two[0]["loss"] and abs(one[-1]["logit_scale"] - two[-1]["logit_scale"]) > 1e-3, f"decay of all: {one[-1]} {two[-1]}")
    equal([len(g["params"]) for g in groups(TMP / "one/checkpoints/epoch_8.pt")[0]], [0, len(NAMES["optimizer_index_to_name"])], "groups written")
    equal(train("again", "--wd", 0.2, "--resume", TMP / "one/checkpoints/epoch_8.pt")[1], one[9:], "going on from those")


def fewer_updates():
    """A gradient scaler skipped twelve steps: AdamW's correction of its averages counts those it took."""
    def tensors(tree, data):
        for state in tree["optimizer"]["state"].values():
            data[state["step"].args[0].id[2]] = struct.pack("<f", 3)

    def numbers(tree, _):  # before PyTorch 1.12
        for state in tree["optimizer"]["state"].values():
            state["step"] = 3
    usual = train("usual", "--resume", FILES / "epoch_5.pt")[1]
    rows = train("fewer", "--resume", edited(FILES / "epoch_5.pt", "fewer.pt", tensors))[1]
    equal([r["lr"] for r in rows], [r["lr"] for r in usual], "the schedule counts the run's steps")
    # lr sqrt(1 - 0.98^t) / (1 - 0.9^t): 0.81 lr at t = 4, 0.65 lr at t = 16
    check(rows[0]["loss"] == usual[0]["loss"] and all(abs(a["loss"] - b["loss"]) > 1e-4 for a, b in zip(rows[1:4], usual[1:4])), f"losses: {rows[:4]}")
    equal(groups(TMP / "fewer/checkpoints/epoch_10.pt")[1], 18, "updates in the last file")
    equal(train("numbers", "--resume", edited(FILES / "epoch_5.pt", "numbers.pt", numbers))[1], rows, "counts as numbers")


def sgd_without_momentum():
    def none(tree, _):
        for state in tree["optimizer"]["state"].values():
            state["momentum_buffer"] = None
    how = ["--opt", "sgd", "--momentum", 0, "--wd", 0.01, "--lr", 0.05]
    whole = train("sgd", *how, epochs=4)[1]
    file = edited(TMP / "sgd/checkpoints/epoch_2.pt", "none.pt", none)
    equal(train("sgd1", *how, "--resume", file, epochs=4)[1], whole[6:], "SGD without momentum")
    contains(train("sgd2", *how, "--momentum", 0.9, "--resume", file, epochs=4, code=3)[0].err, "momentum_buffer", "momentum that the file lacks")


def overflow():
    """The last update of an epoch overflows: its file is not written, and the run has failed."""
    r, rows = train("inf", "--opt", "sgd", "--lr", 3e38, "--wd", 1000, "--warmup", 0, "--batch-size", 48, epochs=1, code=3)
    contains(r.err, "step 0", "the step")
    check(any(n in r.err for n in NAMES["optimizer_index_to_name"]), f"the weight: {r.err}")
    equal([x["step"] for x in rows], [0], "the log stays")
    equal(list((TMP / "inf/checkpoints").iterdir()), [], "no file holds such weights")


def leftovers():
    """What kill -9 in the middle of a write leaves takes no room for longer than that."""
    train("left", epochs=2)
    junk = [TMP / "left" / n for n in ("checkpoints/epoch_2.pt.tmp.4711", "checkpoints/epoch_3.pt.tmp.12", "open_clip_model.safetensors.tmp.12")]
    mine = TMP / "left/notes.tmp.txt"
    for p in (*junk, mine):
        p.write_bytes(b"half")
    train("left", "--resume", "latest", epochs=3)
    check(mine.exists() and not any(p.exists() for p in junk), "left over files")
    equal(sorted(p.name for p in (TMP / "left/checkpoints").iterdir()), ["epoch_1.pt", "epoch_2.pt", "epoch_3.pt"], "epoch files")


for part in (leftovers, one_group_of_all, fewer_updates, sgd_without_momentum, overflow):
    part()
finish()
