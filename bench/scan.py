#!/usr/bin/env python3
"""Exact search against FAISS IndexFlatIP: the same sizes and number of threads, one after the other.

usage: scan.py BUILD_DIR [rows [dim]]    (needs numpy and faiss; prints a ratio per case, above 1 = noema is faster)
"""
import re
import subprocess
import sys
import time

import faiss
import numpy as np


def noema(build, n, dim, threads):
    out = subprocess.run([f"{build}/bench_scan", str(n), str(dim), str(threads), "f32"], check=True, capture_output=True, text=True).stdout
    print(out, end="")
    return {int(m[1]): float(m[2]) for m in re.finditer(r"nq (\d+) ms ([\d.]+)", out)}


def faiss_times(n, dim, threads):
    faiss.omp_set_num_threads(threads)
    rng = np.random.default_rng(0)
    index = faiss.IndexFlatIP(dim)
    for i in range(0, n, 100000):
        index.add(rng.random((min(100000, n - i), dim), dtype=np.float32) * 2 - 1)
    queries = rng.random((256, dim), dtype=np.float32) * 2 - 1
    best = {}
    for nq in (1, 16, 256):
        index.search(queries[:nq], 10)
        end = time.perf_counter() + 2
        times = []
        while time.perf_counter() < end:
            t = time.perf_counter()
            index.search(queries[:nq], 10)
            times.append(time.perf_counter() - t)
        best[nq] = min(times) * 1e3
    return best


def main():
    build = sys.argv[1]
    n = int(sys.argv[2]) if len(sys.argv) > 2 else 1000000
    dim = int(sys.argv[3]) if len(sys.argv) > 3 else 512
    for threads in (1, 2):
        ours = noema(build, n, dim, threads)
        theirs = faiss_times(n, dim, threads)
        for nq in ours:
            print(f"{threads} threads, {nq} queries: noema {ours[nq]:.1f} ms, FAISS {faiss.__version__} {theirs[nq]:.1f} ms, ratio {theirs[nq] / ours[nq]:.2f}")


main()
