#!/usr/bin/env python3
"""noema beside its peers, in one run, on the same weights and threads.

    bench/peers.py --lib build/libnoema.so --noema build/noema [--work image-b32,text,...] [--rounds 7] [--threads 2] [--out FILE.md]

Every engine is a process of its own that loads the model once and then runs one timed batch whenever it is told to; the engines
take turns (A B C A B C ...), so that a machine that slows down slows all of them. The figure is the median over the rounds, the
ratio the peer's median over noema's. Weights: `noema models new` draws a full-size checkpoint that open_clip loads.

Peers (PyPI): torch, open_clip_torch, onnxruntime, onnx, openvino. An engine that cannot do a piece of work is listed as such.
"""
import argparse
import ctypes
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

CAPTIONS = [
    "a man riding a wave on top of a surfboard", "a group of people standing around a kitchen",
    "two dogs playing with a frisbee in the park", "a plate of food with broccoli and rice on a table",
    "a woman holding an umbrella on a rainy street", "a cat sleeping on a laptop keyboard",
    "an airplane flying through a cloudy blue sky", "a bathroom with a white sink, toilet and a large mirror",
    "a young boy swinging a baseball bat during a game", "a red double decker bus driving down the street",
    "a zebra grazing in a field of tall green grass", "a pizza with cheese and tomatoes on a wooden board",
]


# ---- engines: each returns a function that runs one batch ----

class Noema:
    """The public C API through ctypes."""

    def __init__(self, lib, model, dtype, threads):
        self.lib = ctypes.CDLL(lib)
        L = self.lib

        class Err(ctypes.Structure):
            _fields_ = [("code", ctypes.c_int), ("message", ctypes.c_char * 1020)]

        class CtxOpt(ctypes.Structure):
            _fields_ = [("struct_size", ctypes.c_size_t), ("n_threads", ctypes.c_int), ("log", ctypes.c_void_p), ("log_user", ctypes.c_void_p),
                        ("reserved", ctypes.c_void_p * 8)]

        class ModelOpt(ctypes.Structure):
            _fields_ = [("struct_size", ctypes.c_size_t), ("dtype", ctypes.c_int), ("tokenizer", ctypes.c_char_p), ("config", ctypes.c_char_p),
                        ("preprocess", ctypes.c_char_p), ("image_height", ctypes.c_int), ("image_width", ctypes.c_int), ("activation", ctypes.c_int),
                        ("offline", ctypes.c_int), ("reserved", ctypes.c_void_p * 16)]

        self.err = Err()
        co, mo = CtxOpt(), ModelOpt()
        L.noema_context_options_default(ctypes.byref(co))
        co.n_threads = threads
        L.noema_model_options_default(ctypes.byref(mo))
        mo.dtype = {"f32": 1, "bf16": 2, "int8": 4}[dtype]
        tok = os.environ.get("NOEMA_BENCH_TOKENIZER")
        mo.tokenizer = tok.encode() if tok else None
        self.ctx, self.model, self.s = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        self.check(L.noema_context_create(ctypes.byref(self.ctx), ctypes.byref(co), ctypes.byref(self.err)))
        self.check(L.noema_model_open(ctypes.byref(self.model), self.ctx, model.encode(), ctypes.byref(mo), ctypes.byref(self.err)))
        self.check(L.noema_session_create(ctypes.byref(self.s), self.model, ctypes.byref(self.err)))
        L.noema_embed_tensors.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p]
        L.noema_embed_texts.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p,
                                        ctypes.c_void_p]

    def check(self, status):
        if status:
            raise RuntimeError(self.err.message.decode())

    def image(self, batch, size, dim):
        import array
        import random
        rng = random.Random(0)
        x = array.array("f", [rng.uniform(-2, 2) for _ in range(3 * size * size)] * batch)
        y = (ctypes.c_float * (batch * dim))()
        address = x.buffer_info()[0]
        return lambda _x=x: self.check(self.lib.noema_embed_tensors(self.s, batch, address, 1, y, ctypes.byref(self.err)))

    def text(self, batch, dim):
        texts = [CAPTIONS[i % len(CAPTIONS)] for i in range(batch)]
        arr = (ctypes.c_char_p * batch)(*[t.encode() for t in texts])
        y = (ctypes.c_float * (batch * dim))()
        return lambda: self.check(self.lib.noema_embed_texts(self.s, batch, arr, None, 1, y, ctypes.byref(self.err)))


def open_clip_model(arch, path, dtype):
    import open_clip
    import torch
    model = open_clip.create_model(arch, pretrained=path, precision="fp32").eval()
    return model.to(torch.bfloat16) if dtype == "bf16" else model


def torch_runner(args, compiled):
    import open_clip
    import torch
    torch.set_num_threads(args.threads)
    model = open_clip_model(args.arch, args.model, args.dtype)
    dt = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    if args.kind == "image":
        x = torch.randn(args.batch, 3, args.size, args.size, dtype=dt)
        f = model.encode_image
    else:
        tok = open_clip.get_tokenizer(args.arch)
        texts = [CAPTIONS[i % len(CAPTIONS)] for i in range(args.batch)]
        x, f = None, model.encode_text
    if compiled:
        f = torch.compile(f)

    def run():
        with torch.inference_mode():
            f(x if x is not None else tok(texts), normalize=True)
    return run


class ImageTower:
    def __new__(cls, model):
        import torch

        class M(torch.nn.Module):
            def __init__(self, m):
                super().__init__()
                self.m = m

            def forward(self, x):
                return torch.nn.functional.normalize(self.m.encode_image(x), dim=-1)
        return M(model).eval()


class TextTower:
    def __new__(cls, model):
        import torch

        class M(torch.nn.Module):
            def __init__(self, m):
                super().__init__()
                self.m = m

            def forward(self, x):
                return torch.nn.functional.normalize(self.m.encode_text(x), dim=-1)
        return M(model).eval()


def exported_input(args):
    import open_clip
    import torch
    if args.kind == "image":
        return torch.randn(args.batch, 3, args.size, args.size)
    tok = open_clip.get_tokenizer(args.arch)
    return tok([CAPTIONS[i % len(CAPTIONS)] for i in range(args.batch)])


def onnxruntime_runner(args):
    import onnxruntime as ort
    import torch
    if args.dtype != "f32":
        raise RuntimeError("onnxruntime has no bf16 kernels for the CPU")
    model = open_clip_model(args.arch, args.model, "f32")
    tower = ImageTower(model) if args.kind == "image" else TextTower(model)
    x = exported_input(args)
    path = f"/tmp/noema-bench-{os.getpid()}.onnx"
    torch.backends.mha.set_fastpath_enabled(False)  # its fused operator has no ONNX form
    with torch.inference_mode():
        torch.onnx.export(tower, (x,), path, dynamo=False, opset_version=17, do_constant_folding=True, input_names=["x"])
    del model, tower
    o = ort.SessionOptions()
    o.intra_op_num_threads = args.threads
    s = ort.InferenceSession(path, o, providers=["CPUExecutionProvider"])
    for f in pathlib.Path("/tmp").glob(f"noema-bench-{os.getpid()}.onnx*"):
        f.unlink()
    feed = {s.get_inputs()[0].name: x.numpy()}
    return lambda: s.run(None, feed)


def openvino_runner(args):
    import openvino as ov
    import torch
    model = open_clip_model(args.arch, args.model, "f32")
    tower = ImageTower(model) if args.kind == "image" else TextTower(model)
    x = exported_input(args)
    with torch.inference_mode():
        m = ov.convert_model(tower, example_input=x)
    m.reshape(list(x.shape))
    c = ov.Core().compile_model(m, "CPU", {"INFERENCE_PRECISION_HINT": args.dtype, "INFERENCE_NUM_THREADS": args.threads,
                                           "PERFORMANCE_HINT": "LATENCY"})
    r = c.create_infer_request()
    feed = x.numpy()
    return lambda: r.infer([feed])


def worker(args):
    if args.engine == "noema":
        n = Noema(args.lib, args.model, args.dtype, args.threads)
        run = n.image(args.batch, args.size, args.dim) if args.kind == "image" else n.text(args.batch, args.dim)
    elif args.engine == "torch":
        run = torch_runner(args, False)
    elif args.engine == "torch.compile":
        run = torch_runner(args, True)
    elif args.engine == "onnxruntime":
        run = onnxruntime_runner(args)
    else:
        run = openvino_runner(args)
    run()
    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        t = time.perf_counter()
        run()
        print(time.perf_counter() - t, flush=True)


# ---- the driver ----

WORK = {  # name: (arch, kind, dtype, batch, image size, dim, GFLOP per item at full length)
    "b32-f32": ("ViT-B-32", "image", "f32", 32, 224, 512, 8.73),
    "b32-bf16": ("ViT-B-32", "image", "bf16", 32, 224, 512, 8.73),
    "b32-int8": ("ViT-B-32", "image", "int8", 32, 224, 512, 8.73),
    "b32-f32-1": ("ViT-B-32", "image", "f32", 1, 224, 512, 8.73),
    "b32-bf16-1": ("ViT-B-32", "image", "bf16", 1, 224, 512, 8.73),
    "text-f32": ("ViT-B-32", "text", "f32", 100, 224, 512, 5.96),
    "text-bf16": ("ViT-B-32", "text", "bf16", 100, 224, 512, 5.96),
    "l14-f32": ("ViT-L-14", "image", "f32", 32, 224, 768, 162.0),
    "l14-bf16": ("ViT-L-14", "image", "bf16", 32, 224, 768, 162.0),
    "l14-int8": ("ViT-L-14", "image", "int8", 32, 224, 768, 162.0),
}


def start(engine, args, w):
    arch, kind, dtype, batch, size, dim, _ = WORK[w]
    cmd = [sys.executable, __file__, "--worker", "--engine", engine, "--arch", arch, "--kind", kind, "--dtype", dtype, "--batch", str(batch),
           "--size", str(size), "--dim", str(dim), "--threads", str(args.threads), "--lib", args.lib,
           "--model", str(args.models / arch if engine == "noema" else args.models / arch / "open_clip_model.safetensors")]
    env = dict(os.environ, OMP_NUM_THREADS=str(args.threads))
    p = subprocess.Popen(cmd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    lines = []
    for line in p.stdout:
        lines.append(line)
        if line.strip() == "ready":
            return p, None
    return None, (p.stderr.read().strip().splitlines() or ["?"])[-1][:160]


def peak(args):
    """GFLOP/s of register-only multiply-add loops, from `noema bench --json`; {} where that is not to be had."""
    try:
        out = subprocess.run([args.noema, "bench", "--peak", "--threads", str(args.threads), "--json"], capture_output=True, text=True, timeout=60)
        return json.loads(out.stdout.strip().splitlines()[-1])
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return {}


def run_work(w, args):
    engines = ["noema", "torch", "torch.compile", "onnxruntime", "openvino"]
    if "int8" in w:
        engines = ["noema"]
    live, times, notes = {}, {}, {}
    for e in engines:
        if e in args.skip:
            continue
        p, why = start(e, args, w)
        if p:
            live[e], times[e] = p, []
        else:
            notes[e] = why
    for _ in range(args.rounds):
        for e, p in live.items():
            p.stdin.write("go\n")
            p.stdin.flush()
            times[e].append(float(p.stdout.readline()))
    for p in live.values():
        p.stdin.close()
        p.wait()
    return {e: (statistics.median(t), min(t), max(t)) for e, t in times.items()}, notes


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--worker", action="store_true")
    for k in ("engine", "arch", "kind", "dtype", "model"):
        ap.add_argument("--" + k)
    for k in ("batch", "size", "dim"):
        ap.add_argument("--" + k, type=int)
    ap.add_argument("--lib", default="build/libnoema.so")
    ap.add_argument("--noema", default="build/noema")
    ap.add_argument("--threads", type=int, default=os.cpu_count())
    ap.add_argument("--rounds", type=int, default=7)
    ap.add_argument("--work", default=",".join(WORK))
    ap.add_argument("--skip", default="", help="engines to leave out")
    ap.add_argument("--models", type=pathlib.Path, default=pathlib.Path("bench-models"), help="folder of the drawn checkpoints (made if missing)")
    ap.add_argument("--out", type=pathlib.Path)
    args = ap.parse_args()
    if args.worker:
        return worker(args)
    args.skip = args.skip.split(",")
    args.models.mkdir(exist_ok=True)
    rows = []
    print(f"| work | engine | median ms | min | max | per item ms | peer / noema |\n|---|---|---|---|---|---|---|", flush=True)
    for w in args.work.split(","):
        arch = WORK[w][0]
        if not (args.models / arch).exists():
            subprocess.run([args.noema, "models", "new", "--arch", arch, "--seed", "0", "--out", str(args.models / arch)], check=True)
        result, notes = run_work(w, args)
        base = result.get("noema", (float("nan"),) * 3)[0]
        for e, (med, lo, hi) in result.items():
            rows.append(f"| {w} | {e} | {med * 1e3:.1f} | {lo * 1e3:.1f} | {hi * 1e3:.1f} | {med * 1e3 / WORK[w][3]:.2f} | {med / base:.2f} |")
            print(rows[-1], flush=True)
        for e, why in notes.items():
            rows.append(f"| {w} | {e} | not run: {why} | | | | |")
            print(rows[-1], flush=True)
        if "noema" in result:
            pk = peak(args).get("int8" if "int8" in w else WORK[w][2])
            rate = WORK[w][3] * WORK[w][6] / base
            print(f"    noema: {rate:.0f} GFLOP/s" + (f", {100 * rate / pk:.0f} % of the register-only peak {pk:.0f}" if pk else ""), flush=True)
    if args.out:
        args.out.write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
