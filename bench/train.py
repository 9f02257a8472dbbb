#!/usr/bin/env python3
"""A training step beside torch + open_clip, in one run: the same architecture, batch, threads and text lengths, the engines take turns.

    bench/train.py --bench build/bench_train [--arch ViT-B-32] [--batch 32] [--threads 1,2] [--rounds 3] [--tokens 10,14,18]
                   [--precision fp32] [--checkpoint]

Every engine is a process that makes the model and its AdamW once and then does one whole step (forward, loss, backward, clip, update)
whenever it is told to; the first step, which allocates, is not counted. open_clip computes all 77 positions of a text, noema the
`--tokens` that it has: `--tokens 77` gives both the same work. Printed are medians of wall and of processor time (other load on the
machine leaves the second alone), GFLOP/s and share of the peak that the processor reaches from registers, and the peak memory of each
process. Peers (PyPI): torch, open_clip_torch.
"""
import argparse
import json
import resource
import statistics
import subprocess
import sys
import time


def create(arch):
    import open_clip
    if not arch.endswith(".json"):
        return open_clip.create_model(arch)
    c = json.load(open(arch))["model_cfg"]
    return open_clip.CLIP(c["embed_dim"], open_clip.CLIPVisionCfg(**c["vision_cfg"]), open_clip.CLIPTextCfg(**c["text_cfg"]))


def peer(a):
    import open_clip
    import torch
    torch.set_num_threads(int(a.threads))
    torch.manual_seed(0)
    model = create(a.arch)
    if a.checkpoint:
        model.set_grad_checkpointing()
    model.train()
    loss_fn = open_clip.ClipLoss()
    named = [(n, p) for n, p in model.named_parameters()]
    no_decay = [p for n, p in named if p.ndim < 2]
    decay = [p for n, p in named if p.ndim >= 2]
    opt = torch.optim.AdamW([{"params": no_decay, "weight_decay": 0.0}, {"params": decay, "weight_decay": 0.2}], lr=1e-5, betas=(0.9, 0.98), eps=1e-6)
    size, context = model.visual.image_size, model.context_length
    size = size if isinstance(size, int) else size[0]
    images = torch.rand(a.batch, 3, size, size) * 2 - 1
    lengths = [int(x) for x in a.tokens.split(",")]
    texts, vocab = torch.zeros(a.batch, context, dtype=torch.long), model.vocab_size
    for i in range(a.batch):
        n = min(lengths[i % len(lengths)], context)
        texts[i, :n] = torch.randint(1, vocab - 2, (n,))
        texts[i, 0], texts[i, n - 1] = vocab - 2, vocab - 1
    print("ready", flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        opt.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=a.precision == "amp_bf16"):
            img, txt, scale = model(images, texts)[:3]
            loss = loss_fn(img, txt, scale)
        loss.backward()
        opt.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6052)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"{1e3 * wall:.2f} {1e3 * cpu:.2f} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} {loss.item():.6f}", flush=True)


def compare(a, threads):
    ours = [a.bench, a.arch, threads, a.precision, a.batch, a.tokens] + (["checkpoint"] if a.checkpoint else [])
    torch = [sys.executable, __file__, "--peer", "--arch", a.arch, "--threads", threads, "--precision", a.precision, "--batch", a.batch, "--tokens", a.tokens]
    engines = {"noema": ours, "torch": torch + (["--checkpoint"] if a.checkpoint else [])}
    procs = {k: subprocess.Popen(list(map(str, v)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for k, v in engines.items()}
    rows = {k: [] for k in procs}
    for k, q in procs.items():
        assert q.stdout.readline().strip() == "ready", k
    for turn in range(a.rounds + 1):
        for k, q in procs.items():
            q.stdin.write("go\n")
            q.stdin.flush()
            row = list(map(float, q.stdout.readline().split()))
            if turn:
                rows[k].append(row)
    for q in procs.values():
        q.stdin.close()
        q.wait()
    wall, cpu, memory = ({k: pick([r[i] for r in rows[k]]) for k in rows} for i, pick in ((0, statistics.median), (1, statistics.median), (2, max)))
    gflop, peak = rows["noema"][-1][4] * rows["noema"][-1][0] * 1e-3, rows["noema"][-1][5]
    print(f"{a.arch}, batch {a.batch}, {threads} threads, {a.precision}{', checkpointing' if a.checkpoint else ''}: {gflop:.0f} GFLOP a step of ours")
    for k in rows:
        print(f"  {k:6} {wall[k]:9.0f} ms wall [{min(r[0] for r in rows[k]):.0f} .. {max(r[0] for r in rows[k]):.0f}]  {cpu[k]:9.0f} ms processor  "
              f"{1e3 * a.batch / wall[k]:6.2f} samples/s  {memory[k]:6.0f} MiB", end="")
        if k == "noema":
            share = gflop / (cpu[k] * 1e-3) / (peak / int(threads))
            print(f"  {gflop / wall[k] * 1e3:.0f} GFLOP/s of {peak:.0f} ({100 * share:.0f} % of peak by processor time)", end="")
        print()
    print(f"  noema is {wall['torch'] / wall['noema']:.2f}x as fast by wall time, {cpu['torch'] / cpu['noema']:.2f}x by processor time, "
          f"with {memory['noema'] / memory['torch']:.2f}x the memory", flush=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bench")
    p.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    p.add_argument("--arch", default="ViT-B-32")
    p.add_argument("--tokens", default="10,14,18")
    p.add_argument("--threads", default="1,2")
    p.add_argument("--precision", default="fp32", choices=("fp32", "amp_bf16"))
    p.add_argument("--checkpoint", action="store_true")
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--rounds", type=int, default=3)
    a = p.parse_args()
    if a.peer:
        return peer(a)
    for threads in a.threads.split(","):
        compare(a, threads)


main()
