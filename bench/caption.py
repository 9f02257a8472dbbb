#!/usr/bin/env python3
"""BLIP captions beside transformers, in one run: full-size random weights of the published shape, the engines take turns.

    bench/caption.py --bench build/bench_caption --vocab vocab.txt --picture photo.jpg [--threads 2] [--rounds 5] [--beams 3]
                     [--new 20] [--batch 1] [--dtypes f32] [--compile] [--work DIR]

Every engine is a process that loads the model once, then captions whenever it is told to (decoding the JPEG file included); figures are
medians over the rounds after one that is not counted. Weights are drawn by transformers with a fixed seed, so both run exactly
`--new` new ids, and the texts must be equal. Peers (PyPI): torch, transformers.
"""
import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time


def make_model(folder, vocab, size):
    import torch
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessorPil
    torch.manual_seed(0)
    c = BlipConfig(vision_config={"image_size": size}, text_config={"is_decoder": True, "num_attention_heads": 12, "encoder_hidden_size": 768})
    m = BlipForConditionalGeneration(c).eval()
    with torch.no_grad():  # the library's deviation leaves all logits alike; wider ones give beams something to choose from
        for name, p in m.text_decoder.named_parameters():
            if p.ndim == 2:
                p.mul_(2 if "embeddings" in name else 5)
    m.save_pretrained(folder)
    shutil.copy(vocab, folder / "vocab.txt")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}))
    BlipImageProcessorPil(size={"height": size, "width": size}).save_pretrained(folder)


def peer(a):
    import resource

    import torch
    from PIL import Image
    from transformers import AutoTokenizer, BlipForConditionalGeneration, BlipImageProcessorPil
    torch.set_num_threads(a.threads)
    m = BlipForConditionalGeneration.from_pretrained(a.peer, dtype={"f32": torch.float32, "bf16": torch.bfloat16}[a.dtypes]).eval()
    if a.compile:
        m.vision_model = torch.compile(m.vision_model)
        m.text_decoder.forward = torch.compile(m.text_decoder.forward, dynamic=True)
    proc, tok = BlipImageProcessorPil.from_pretrained(a.peer), AutoTokenizer.from_pretrained(a.peer)
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        with torch.inference_mode():
            x = proc([Image.open(a.picture).convert("RGB")] * a.batch, return_tensors="pt")["pixel_values"].to(m.dtype)
            out = m.generate(pixel_values=x, num_beams=a.beams, max_new_tokens=a.new, min_new_tokens=a.new)
        text = tok.decode(out[0], skip_special_tokens=True)
        print(f"{1e3 * (time.perf_counter() - start):.2f} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} {text}", flush=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bench")
    p.add_argument("--vocab")
    p.add_argument("--picture")
    p.add_argument("--peer", help=argparse.SUPPRESS)
    p.add_argument("--make", help=argparse.SUPPRESS)
    p.add_argument("--work")
    p.add_argument("--dtypes", default="f32")
    p.add_argument("--compile", action="store_true")
    for name, default in (("threads", 2), ("rounds", 5), ("beams", 3), ("new", 20), ("batch", 1), ("size", 384)):
        p.add_argument("--" + name, type=int, default=default)
    a = p.parse_args()
    if a.peer:
        return peer(a)
    if a.make:
        return make_model(pathlib.Path(a.make), a.vocab, a.size)
    with tempfile.TemporaryDirectory() as tmp:
        folder = pathlib.Path(a.work or tmp) / "blip-base"
        if not (folder / "config.json").exists():
            # a process of its own: a child's peak memory counts from its parent's
            subprocess.run([sys.executable, __file__, "--make", folder, "--vocab", a.vocab, "--size", str(a.size)], check=True)
        engines = {}
        for dtype in a.dtypes.split(","):
            engines[f"noema {dtype}"] = [a.bench, folder, a.picture, a.threads, dtype, a.beams, a.new, a.batch]
            if dtype != "int8":
                base = [sys.executable, __file__, "--peer", folder, "--picture", a.picture, "--threads", a.threads, "--beams", a.beams, "--new", a.new,
                        "--batch", a.batch, "--dtypes", dtype]
                engines[f"torch {dtype}"] = base
                if a.compile:
                    engines[f"compile {dtype}"] = base + ["--compile"]
        procs = {k: subprocess.Popen(list(map(str, v)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for k, v in engines.items()}
        times, memory, text = {k: [] for k in procs}, {}, {}
        for k, q in procs.items():
            assert q.stdout.readline().strip() == "ready", k
        for turn in range(a.rounds + 1):
            for k, q in procs.items():
                q.stdin.write("go\n")
                q.stdin.flush()
                ms, mib, said = q.stdout.readline().rstrip("\n").split(" ", 2)
                if turn:
                    times[k].append(float(ms))
                memory[k], text[k] = int(mib), said
        for q in procs.values():
            q.stdin.close()
            q.wait()
        for k in procs:
            own = statistics.median(times["noema " + k.split()[1]])
            mid = statistics.median(times[k])
            print(f"{k:14} {mid:9.1f} ms  [{min(times[k]):.1f} .. {max(times[k]):.1f}]  {mid / own:5.2f}x  {memory[k]} MiB  {text[k][:60]}")


main()
