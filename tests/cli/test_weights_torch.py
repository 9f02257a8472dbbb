#!/usr/bin/env python3
"""The checkpoint readers against torch, safetensors and numpy: files written by them in every container, dtype, stride order and
pickle protocol are read here, and what our writers write is read by them. Also the golden checkpoints, when ../shared is there.

Needs a Python with torch, numpy and safetensors: this one, or the one that NOEMA_TORCH_PYTHON names. Skipped, loudly, without.
usage: test_weights_torch.py path/to/noema   (test_weights and test_weights_write are found in tests/ beside it)"""
import hashlib, importlib.util, json, os, pathlib, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
other = os.environ.get("NOEMA_TORCH_PYTHON")
if not all(importlib.util.find_spec(m) for m in ("torch", "numpy", "safetensors")):
    if other and os.path.realpath(other) != os.path.realpath(sys.executable):
        os.execv(other, [other] + sys.argv)
    print("SKIPPED: torch, numpy or safetensors is not installed; set NOEMA_TORCH_PYTHON to compare with them")
    sys.exit(0)

import argparse, collections
import numpy as np
import torch
from safetensors.torch import load_file, save_file

TOOLS = pathlib.Path(sys.argv[1]).resolve().parent / "tests"
NAMES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16", torch.float64: "f64", torch.int8: "i8", torch.uint8: "u8",
         torch.int16: "i16", torch.int32: "i32", torch.int64: "i64", torch.bool: "bool"}
failures = 0


def check(ok, what):
    global failures
    if not ok:
        failures += 1
        print("FAILED:", what)


def describe(t):
    t = t.detach().contiguous()
    raw = t.reshape(-1).view(torch.uint8).numpy().tobytes() if t.numel() else b""
    return NAMES[t.dtype], "[" + ", ".join(map(str, t.shape)) + "]", hashlib.sha256(raw).hexdigest()


def dump(path, raw=False):
    r = subprocess.run([TOOLS / "test_weights", "--dump-raw" if raw else "--dump", path], capture_output=True, text=True)
    if r.returncode:
        return None, None, r.stderr.strip()
    rows = [line.split("\t") for line in r.stdout.splitlines()]
    return {n: tuple(x) for n, *x in rows if n not in ("meta", "format")}, json.loads(dict((x[0], x[1]) for x in rows)["meta"]), \
        dict((x[0], x[1]) for x in rows)["format"]


def compare(path, want, what, raw=False, fmt=None):
    got, meta, info = dump(path, raw)
    check(got is not None, f"{what}: {info}")
    if got is not None:
        check(got == {k: describe(v) for k, v in want.items()}, f"{what}: tensors differ: {sorted(set(got) ^ set(want))[:5]}")
        check(fmt is None or info == fmt, f"{what}: format {info}")
    return meta


def samples():
    g = torch.Generator().manual_seed(1)
    base = torch.randn(6, 8, generator=g)
    d = collections.OrderedDict()
    for t in NAMES:
        d["x." + NAMES[t]] = (base * 3 > 0 if t == torch.bool else (base * 20).abs().to(t) if t == torch.uint8 else (base * 20).to(t))
    d.update({"transposed": base.t(), "sliced": base[1:5:2, ::3], "expanded": base[0].expand(5, 8), "shared": base[2:4], "again": base,
              "scalar": torch.tensor(2.5), "one": torch.tensor([4], dtype=torch.int64), "empty": torch.empty(0, 3), "void": torch.empty(0),
              "six": torch.randn(1, 2, 1, 2, 1, 3, generator=g), "param": torch.nn.Parameter(base[:3] * 2),
              "channels_last": torch.randn(2, 3, 4, 5, generator=g).contiguous(memory_format=torch.channels_last)})
    return d


def torch_files(tmp):
    d = samples()
    for zipped in (True, False):
        for protocol in (2, 3, 4, 5):
            p, what = tmp / "a.pt", f"torch.save zip={zipped} protocol={protocol}"
            kind = "torch zip" if zipped else "torch legacy"
            torch.save(d, p, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
            compare(p, d, what, fmt=kind)
            full = {"epoch": 4, "loss": 0.25, "best": np.float64(0.5), "name": "run", "list": [1, (2, 3), None, True, {"k": 1 << 40}],
                    "args": argparse.Namespace(lr=0.1, tags={"a"}), "state_dict": {"module." + k: v for k, v in d.items()},
                    "optimizer": {"state": {0: {"step": torch.tensor(3.), "exp_avg": d["again"]}}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
                    "ema": {"w": d["again"] + 1}, "array": np.arange(6, dtype=np.float32).reshape(2, 3).T, "size": torch.Size([1, 2]),
                    "dtype": torch.float16, "dev": torch.device("cuda:0"), "dd": collections.defaultdict(list, a=[1])}
            torch.save(full, p, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
            array = torch.from_numpy(full["array"].copy())
            meta = compare(p, {**d, "ema.w": full["ema"]["w"], "array": array}, what + ", training")
            for key, value in {"epoch": 4, "loss": 0.25, "best": 0.5, "name": "run", "list": [1, [2, 3], None, True, {"k": 1 << 40}],
                               "args": {"lr": 0.1, "tags": ["a"]}, "size": [1, 2], "dtype": "f16", "dev": "cuda", "dd": {"a": [1]}}.items():
                check(meta and meta.get(key) == value, f"{what}: meta {key}: {meta and meta.get(key)}")
            compare(p, {**{"state_dict.module." + k: v for k, v in d.items()}, "ema.w": full["ema"]["w"], "array": array,
                        "optimizer.state.0.step": torch.tensor(3.), "optimizer.state.0.exp_avg": d["again"]}, what + ", raw", raw=True)


class Tower(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 4, 2, bias=False)
        self.ln = torch.nn.Sequential(torch.nn.LayerNorm(4), torch.nn.BatchNorm1d(4))
        self.scale = torch.nn.Parameter(torch.tensor(1.5))
        self.sizes = [1, 2, 3]

    def forward(self, x):
        return self.ln(self.conv1(x).mean((2, 3))) * self.scale


def other_files(tmp):
    m = Tower().eval()
    torch.jit.save(torch.jit.script(m), tmp / "script.pt")
    compare(tmp / "script.pt", m.state_dict(), "torch.jit.script", fmt="torchscript")
    torch.jit.save(torch.jit.trace(m, torch.randn(2, 3, 8, 8)), tmp / "trace.pt")
    compare(tmp / "trace.pt", m.state_dict(), "torch.jit.trace", fmt="torchscript")
    d = {k: v.contiguous().clone() for k, v in samples().items() if k != "shared"}
    save_file(d, tmp / "a.safetensors", metadata={"format": "pt"})
    meta = compare(tmp / "a.safetensors", d, "safetensors", fmt="safetensors")
    check(meta == {"format": "pt"}, "safetensors metadata")
    arrays = {k: v.numpy() for k, v in d.items() if v.dtype != torch.bfloat16 and not v.requires_grad}
    arrays["fortran"] = np.asfortranarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    want = {k: torch.from_numpy(np.ascontiguousarray(v).reshape(v.shape)) for k, v in arrays.items()}
    np.savez(tmp / "a.npz", **arrays)
    compare(tmp / "a.npz", want, "np.savez", fmt="npz")
    np.savez_compressed(tmp / "b.npz", **arrays)
    compare(tmp / "b.npz", want, "np.savez_compressed", fmt="npz")
    for k, v in arrays.items():
        np.save(tmp / "a.npy", v)
        compare(tmp / "a.npy", {"arr_0": want[k]}, f"np.save {k}", fmt="npy")


def refused_files(tmp):
    for value, word in ((torch.zeros(3, dtype=torch.complex64), "ComplexFloatStorage"), (Tower(), "__main__"),
                        (torch.zeros(3).to(torch.float8_e4m3fn), "float8_e4m3fn"), (torch.eye(3).to_sparse(), "sparse")):
        torch.save({"x": value}, tmp / "r.pt")
        got, _, message = dump(tmp / "r.pt")
        check(got is None and word in message, f"{word} must be refused by name: {message}")
    save_file({"x": torch.zeros(4).to(torch.float8_e5m2)}, tmp / "r.safetensors")
    got, _, message = dump(tmp / "r.safetensors")
    check(got is None and "F8_E5M2" in message, f"fp8 safetensors: {message}")


def our_files(tmp):
    subprocess.run([TOOLS / "test_weights_write", "--write", tmp], check=True)
    ours = torch.load(tmp / "ours.pt", weights_only=True)
    st = load_file(tmp / "ours.safetensors")
    check(ours["epoch"] == 3 and ours["optimizer"]["betas"] == (0.9, 0.98) and ours["optimizer"]["big"] == -(1 << 50), "our .pt scalars")
    check(ours["optimizer"]["empty"] == [] and ours["optimizer"]["none"] == {} and ours["optimizer"]["yes"] is True, "our .pt containers")
    check(list(ours["optimizer"]["state"]) == [12], "our .pt integer keys")
    check(set(st) == set(ours["state_dict"]), "our .pt and .safetensors names")
    for k, v in ours["state_dict"].items():
        check(v.dtype == st[k].dtype and v.shape == st[k].shape and torch.equal(v, st[k]), f"ours: {k}")
        if v.dtype != torch.bfloat16:
            a = np.load(tmp / f"{k}.npy")
            check(a.dtype == v.numpy().dtype and a.shape == tuple(v.shape) and np.array_equal(a, v.numpy()), f"our {k}.npy")
    check(torch.equal(ours["state_dict"]["transposed"], torch.arange(24.).reshape(4, 6).T), "our transposed")


def golden_files():
    shared = next((p for p in (ROOT.parent / "shared/golden",) if p.exists()), None)
    if not shared:
        print("SKIPPED: no ../shared/golden: published layouts are not compared with torch")
        return
    for path in sorted(p for e in ("pt", "pth", "bin", "safetensors") for p in shared.rglob("*." + e)):
        if path.suffix == ".safetensors":
            compare(path, load_file(path), path.name)
            continue
        try:
            tree = torch.load(path, weights_only=True, map_location="cpu")
        except Exception:  # TorchScript: the code of these archives is a placeholder, so that torch cannot load them
            continue
        flat = {}

        def walk(prefix, v):
            if isinstance(v, torch.Tensor):
                flat[prefix] = v
            elif isinstance(v, (dict, list, tuple)):
                for k, x in v.items() if isinstance(v, dict) else enumerate(v):
                    walk(f"{prefix}.{k}" if prefix else str(k), x)
        walk("", tree)
        compare(path, flat, path.name, raw=True)


with tempfile.TemporaryDirectory() as t:
    for test in (torch_files, other_files, refused_files, our_files):
        test(pathlib.Path(t))
golden_files()
print("compared with torch", torch.__version__, "-", failures, "failures")
sys.exit(1 if failures else 0)
