#!/usr/bin/env python3
"""Two processes of one thread (mpirun) beside one process of two threads: the same training step, in turns.

    bench/ranks.py --bench build/bench_train [--arch ViT-B-32] [--batch 32] [--ranks 2] [--rounds 4] [--turns 2] [--precision fp32]

Printed are the best and the median wall times of each turn's rounds after two that are not counted (the second places the sums).
"""
import argparse
import statistics
import subprocess


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bench", required=True)
    p.add_argument("--arch", default="ViT-B-32")
    p.add_argument("--precision", default="fp32", choices=("fp32", "amp_bf16"))
    for name, default in (("batch", 32), ("ranks", 2), ("rounds", 4), ("turns", 2)):
        p.add_argument("--" + name, type=int, default=default)
    a = p.parse_args()

    def command(threads):
        return [a.bench, a.arch, str(threads), a.precision, str(a.batch), "10,14,18"]
    mpirun = ["mpirun", "-n", str(a.ranks), "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]
    engines = {"threads": command(a.ranks), "processes": mpirun + command(1)}
    wall = {k: [] for k in engines}
    for turn in range(a.turns):
        for k, v in engines.items():  # one after the other: waiting processes of MPI spin
            q = subprocess.run(v, input="go\n" * (a.rounds + 2), stdout=subprocess.PIPE, text=True, check=True)
            wall[k] += [float(line.split()[0]) for line in q.stdout.splitlines()[3:]]
    best, mid = ({k: f(wall[k]) for k in wall} for f in (min, statistics.median))
    print(f"{a.arch}, batch {a.batch}, {a.precision}")
    for k in wall:
        print(f"  {a.ranks} {k:9} {best[k]:8.0f} ms best, {mid[k]:8.0f} median, {1e3 * a.batch / best[k]:7.2f} samples/s")
    print(f"  the processes reach {best['threads'] / best['processes']:.2f}x of the threads ({mid['threads'] / mid['processes']:.2f}x by medians)")


main()
