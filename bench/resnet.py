#!/usr/bin/env python3
"""The yardstick of bench_resnet: the same ModifiedResNet tower of open_clip in PyTorch, forward and backward.
usage: resnet.py [THREADS [WIDTH [SIZE [BATCH [BLOCKS]]]]]   (needs open_clip_torch)"""
import sys
import time

import torch
from open_clip.modified_resnet import ModifiedResNet

given = [int(a) for a in sys.argv[1:]]
threads, width, size, batch, blocks = given + [1, 32, 64, 256, 1][len(given):]
torch.set_num_threads(threads)
clock = time.process_time if threads == 1 else time.perf_counter
for layout in (torch.contiguous_format, torch.channels_last):
    model = ModifiedResNet([blocks] * 4, 128, width * 32 // 64, image_size=size, width=width).train().to(memory_format=layout)
    x = torch.randn(batch, 3, size, size).to(memory_format=layout)
    forward = step = 1e9
    for _ in range(4):
        t0 = clock()
        y = model(x)
        t1 = clock()
        y.backward(torch.full_like(y, 0.01))
        t2 = clock()
        model.zero_grad()
        forward, step = min(forward, t1 - t0), min(step, t2 - t0)
    print(f"torch {torch.__version__} {layout} threads {threads}: forward {forward * 1e3:.0f} ms, step {step * 1e3:.0f} ms")
