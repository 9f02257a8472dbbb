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
    out = subprocess.run([f"{build}/bench_scan", str(n), str(dim), str(threads), "f32", "0.5"], check=True, capture_output=True, text=True).stdout
    return out, {int(m[1]): float(m[2]) for m in re.finditer(r"nq (\d+) ms ([\d.]+)", out)}


def faiss_index(n, dim):
    rng = np.random.default_rng(0)
    index = faiss.IndexFlatIP(dim)
    for i in range(0, n, 100000):
        index.add(rng.random((min(100000, n - i), dim), dtype=np.float32) * 2 - 1)
    return index, rng.random((256, dim), dtype=np.float32) * 2 - 1


def faiss_times(index, queries, threads):
    faiss.omp_set_num_threads(threads)
    now = time.thread_time if threads == 1 else time.perf_counter  # one thread: processor time, as bench_scan
    best = {}
    for nq in (1, 16, 256):
        end, best[nq] = now() + 0.5, float("inf")
        while now() < end:
            t = now()
            index.search(queries[:nq], 10)
            best[nq] = min(best[nq], (now() - t) * 1e3)
    return best


def main():
    build = sys.argv[1]
    n = int(sys.argv[2]) if len(sys.argv) > 2 else 1000000
    dim = int(sys.argv[3]) if len(sys.argv) > 3 else 512
    index, queries = faiss_index(n, dim)
    for threads in (1, 2):
        ours, theirs = {}, {}
        for _ in range(3):  # in turn, so that both see the same machine
            out, times = noema(build, n, dim, threads)
            ours = {q: min(t, ours.get(q, t)) for q, t in times.items()}
            theirs = {q: min(t, theirs.get(q, t)) for q, t in faiss_times(index, queries, threads).items()}
        print(out, end="")
        for nq in ours:
            print(f"{threads} threads, {nq} queries: noema {ours[nq]:.1f} ms, FAISS {faiss.__version__} {theirs[nq]:.1f} ms, ratio {theirs[nq] / ours[nq]:.2f}")


main()
