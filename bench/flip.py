#!/usr/bin/env python3
"""What leaving out patches (FLIP) saves in the training of an image tower: the same step with 0, 50 and 75 % masked, in turns.

    bench/flip.py --bench build/bench_train [--arch ViT-B-16] [--batch 32] [--threads 2] [--rounds 4] [--precision fp32]

The text tower is locked and has two tokens, so that the step is that of the image tower: forward, loss, backward and update. Printed are
the best wall and processor times of the rounds after one that is not counted.
"""
import argparse
import subprocess


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bench", required=True)
    p.add_argument("--arch", default="ViT-B-16")
    p.add_argument("--precision", default="fp32", choices=("fp32", "amp_bf16"))
    for name, default in (("batch", 32), ("threads", 2), ("rounds", 4)):
        p.add_argument("--" + name, type=int, default=default)
    a = p.parse_args()
    shares = ("0", "0.5", "0.75")
    command = [a.bench, a.arch, str(a.threads), a.precision, str(a.batch), "2", "image"]
    procs = {s: subprocess.Popen(command + ["drop=" + s], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for s in shares}
    rows = {s: [] for s in shares}
    for q in procs.values():
        assert q.stdout.readline().strip() == "ready"
    for turn in range(a.rounds + 1):
        for s, q in procs.items():
            q.stdin.write("go\n")
            q.stdin.flush()
            row = list(map(float, q.stdout.readline().split()))
            if turn:
                rows[s].append(row)
    for q in procs.values():
        q.stdin.close()
        q.wait()
    print(f"{a.arch}, batch {a.batch}, {a.threads} threads, {a.precision}, image tower alone")
    wall, cpu = ({s: min(r[i] for r in rows[s]) for s in shares} for i in (0, 1))
    for s in shares:
        print(f"  masked {100 * float(s):3.0f} %: {wall[s]:8.0f} ms wall, {cpu[s]:8.0f} ms processor, {1e3 * a.batch / wall[s]:6.2f} samples/s, "
              f"{rows[s][-1][2]:5.0f} MiB; {wall['0'] / wall[s]:.2f}x by wall time, {cpu['0'] / cpu[s]:.2f}x by processor time")


main()
