#!/usr/bin/env python3
"""`noema describe --mode fast` beside the computation of clip-interrogator 0.6.0 (torch, written again from its source), in one run.

    bench/interrogator.py --noema build/noema --pictures DIR [--arch ViT-L-14] [--phrases 100000] [--threads 2] [--count 10] [--turns 3] [--work DIR]
                          [--dtypes f32,bf16]

Full-size random weights of the published shape, phrases with random unit vectors in upstream's cache files; both read the same files. The
caption is given. Figures are per picture, of the pictures after the first two: of noema by the times of its lines. The texts of f32 must be equal. Peers (PyPI): torch, open_clip_torch, safetensors.
"""
import argparse
import hashlib
import json
import math
import os
import pathlib
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time

CAPTION = "a photo of something"


def make(a, folder):
    import numpy as np
    import open_clip
    import torch
    from safetensors.numpy import save_file
    torch.manual_seed(0)
    clip = folder / "clip"
    clip.mkdir(parents=True)
    model = open_clip.create_model(a.arch, force_quick_gelu=True)
    save_file({k: v.numpy() for k, v in model.state_dict().items() if k != "attn_mask"}, clip / "open_clip_model.safetensors")
    config = dict(open_clip.get_model_config(a.arch), quick_gelu=True)
    pre = {"mean": list(open_clip.OPENAI_DATASET_MEAN), "std": list(open_clip.OPENAI_DATASET_STD), "interpolation": "bicubic", "resize_mode": "shortest"}
    (clip / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": pre}))
    shutil.copy(pathlib.Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz", clip)
    lists, sizes = folder / "lists", {"artists": a.phrases // 20, "mediums": 95, "movements": 200, "negative": 41}
    lists.mkdir()
    sizes["flavors"] = a.phrases - 2 * sizes["artists"] - 95 - 200
    for name, n in sizes.items():
        (lists / f"{name}.txt").write_text("".join(f"{name} phrase {i}\n" for i in range(n)))
    rng, dim = np.random.default_rng(0), config["embed_dim"]
    cache = folder / "cache"
    cache.mkdir()
    labels = {name: (lists / f"{name}.txt").read_text().splitlines() for name in sizes}
    labels["artists"] = [form + x for form in ("by ", "inspired by ") for x in labels["artists"]]
    for name, rows in labels.items():
        v = rng.standard_normal((len(rows), dim)).astype(np.float32)
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        digest = hashlib.sha256(",".join(rows).encode()).hexdigest()
        save_file({"embeds": v.astype(np.float16), "hash": np.frombuffer(digest.encode(), dtype=np.int8)}, cache / f"clip_{name}.safetensors")


class LabelTable:
    def __init__(self, labels, embeds, chunk_size=2048):
        self.labels, self.embeds, self.chunk_size = labels, embeds, chunk_size

    def _rank(self, image_features, text_embeds, top_count):
        import torch
        top_count = min(top_count, len(text_embeds))
        text_embeds = torch.stack([torch.from_numpy(t) for t in text_embeds])
        similarity = image_features @ text_embeds.T
        _, top_labels = similarity.float().topk(top_count, dim=-1)
        return [top_labels[0][i].numpy() for i in range(top_count)]

    def rank(self, image_features, top_count):
        if len(self.labels) <= self.chunk_size:
            return [self.labels[i] for i in self._rank(image_features, self.embeds, top_count)]
        chunks = math.ceil(len(self.labels) / self.chunk_size)
        keep, top_labels, top_embeds = int(self.chunk_size / chunks), [], []
        for c in range(chunks):
            start, stop = c * self.chunk_size, min((c + 1) * self.chunk_size, len(self.embeds))
            tops = self._rank(image_features, self.embeds[start:stop], keep)
            top_labels.extend(self.labels[start + i] for i in tops)
            top_embeds.extend(self.embeds[start + i] for i in tops)
        return [top_labels[i] for i in self._rank(image_features, top_embeds, top_count)]


def truncate_to_fit(text, tokenize):
    parts = text.split(", ")
    new = parts[0]
    for part in parts[1:]:
        if tokenize([new + part])[0][-1] != 0:
            break
        new += ", " + part
    return new


def peer(a):
    import numpy as np
    import open_clip
    import torch
    from PIL import Image
    from safetensors.numpy import load_file
    torch.set_num_threads(a.threads)
    folder = pathlib.Path(a.work)
    model = open_clip.create_model(a.arch, force_quick_gelu=True)
    state = {k: torch.from_numpy(v) for k, v in load_file(folder / "clip/open_clip_model.safetensors").items()}
    model.load_state_dict(state, strict=False)
    model.eval()
    preprocess = open_clip.image_transform(model.visual.image_size, is_train=False)
    tokenize = open_clip.get_tokenizer(a.arch)
    tables = []
    for name in ("artists", "flavors", "mediums", "movements", "trendings"):
        labels = (folder / "lists" / f"{name}.txt").read_text().splitlines() if name != "trendings" else None
        if name == "artists":
            labels = [form + x for form in ("by ", "inspired by ") for x in labels]
        embeds = [e.astype(np.float32) for e in load_file(folder / "cache" / f"clip_{name}.safetensors")["embeds"]]
        tables.append(LabelTable(labels or [f"trending {i}" for i in range(len(embeds))], embeds))
    print("ready", flush=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        with torch.no_grad():
            features = model.encode_image(preprocess(Image.open(line.strip()).convert("RGB")).unsqueeze(0))
            features /= features.norm(dim=-1, keepdim=True)
        merged = LabelTable(sum((t.labels for t in tables), []), sum((t.embeds for t in tables), []))
        text = truncate_to_fit(CAPTION + ", " + ", ".join(merged.rank(features, 32)), tokenize)
        print(f"{1e3 * (time.perf_counter() - wall):.2f} {1e3 * (time.process_time() - cpu):.2f} "
              f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} {text}", flush=True)


def noema(a, dtype, pictures, skip):
    """Wall and processor milliseconds per picture after the first `skip`, peak MiB, the texts."""
    command = [pathlib.Path(a.noema).resolve(), "describe", "-m", "clip", "--mode", "fast", "--caption", CAPTION, "--lists", "lists", "--cache", "cache",
               "--dtype", dtype, "--threads", a.threads, "--json", "-q", *pictures]
    q = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True, cwd=a.work)  # "clip" is also the name of the cache files
    stat, lines, seen = pathlib.Path(f"/proc/{q.pid}/stat"), [], []
    for line in q.stdout:
        lines.append(line)
        if len(lines) in (skip, len(pictures)):
            spent = stat.read_text().rsplit(")", 1)[1].split()[11:13]  # of a process that has ended too, until it is waited for
            seen.append((time.perf_counter(), sum(map(int, spent)) / os.sysconf("SC_CLK_TCK")))
    _, status, usage = os.wait4(q.pid, 0)
    assert status == 0
    count = max(1, len(pictures) - skip)
    wall, cpu = (1e3 * (y - x) / count for x, y in zip(seen[0], seen[-1]))
    return wall, cpu, usage.ru_maxrss // 1024, [json.loads(x)["prompt"] for x in lines]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--noema")
    p.add_argument("--pictures")
    p.add_argument("--arch", default="ViT-L-14")
    p.add_argument("--work", default="interrogator-bench")
    p.add_argument("--dtypes", default="f32,bf16")
    p.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    for name, default in (("phrases", 100000), ("threads", 2), ("count", 10), ("turns", 3)):
        p.add_argument("--" + name, type=int, default=default)
    a = p.parse_args()
    if a.peer:
        return peer(a)
    if not pathlib.Path(a.work, "cache").exists():
        make(a, pathlib.Path(a.work))
    pictures = sorted(x.resolve() for x in pathlib.Path(a.pictures).iterdir() if x.suffix in (".jpg", ".png"))[:2 + a.count]
    noema(a, "f32", pictures[:1], 1)  # writes the cache of the small table that has no list
    command = [sys.executable, __file__, "--peer", "--arch", a.arch, "--work", a.work, "--threads", str(a.threads)]
    q = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert q.stdout.readline().strip() == "ready"
    wall, cpu, memory, texts = {}, {}, {}, {}
    for turn in range(a.turns):
        rows = []
        for x in pictures:
            q.stdin.write(f"{x}\n")
            q.stdin.flush()
            rows.append(q.stdout.readline().rstrip("\n").split(" ", 3))
        wall.setdefault("torch f32", []).append(statistics.mean(float(r[0]) for r in rows[2:]))
        cpu.setdefault("torch f32", []).append(statistics.mean(float(r[1]) for r in rows[2:]))
        memory["torch f32"], texts["torch f32"] = int(rows[-1][2]), [r[3] for r in rows]
        for dtype in a.dtypes.split(","):
            key = "noema " + dtype
            w, c, memory[key], texts[key] = noema(a, dtype, pictures, 2)
            wall.setdefault(key, []).append(w)
            cpu.setdefault(key, []).append(c)
    q.stdin.close()
    q.wait()
    print(f"{a.arch}, {a.phrases} phrases, {a.threads} threads, mode fast, per picture, best of {a.turns}")
    for k in wall:
        same = sum(re.sub(r"\s+", " ", x) == re.sub(r"\s+", " ", y) for x, y in zip(texts[k], texts["torch f32"]))
        print(f"  {k:10} {min(wall[k]):8.1f} ms wall, {min(cpu[k]):8.1f} ms processor, {memory[k]:5d} MiB; torch needs "
              f"{min(wall['torch f32']) / min(wall[k]):.2f}x (wall), {min(cpu['torch f32']) / min(cpu[k]):.2f}x (processor); {same} of {len(pictures)} texts equal")


main()
