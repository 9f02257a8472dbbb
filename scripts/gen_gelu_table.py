#!/usr/bin/env python3
"""Prints src/kernels/x86/gelu_table.inc: Phi(t) - 0.5 for 0 <= t < 5.6 as 16 polynomials of degree 5.

Interval i is centred at (i + 0.5) * 0.35; its polynomial is in f = t / 0.35 - 0.5 - i, |f| <= 0.5, through the Chebyshev
nodes. Phi is the normal distribution function: gelu(x) = x Phi(x). Standard library only.
"""
import math
import re
import struct

WIDTH, COUNT, DEGREE = 0.35, 16, 5


def value(t):
    return 0.5 * math.erf(t / math.sqrt(2))


def solve(a, b):
    n = len(b)
    for i in range(n):
        p = max(range(i, n), key=lambda r: abs(a[r][i]))
        a[i], a[p], b[i], b[p] = a[p], a[i], b[p], b[i]
        for r in range(i + 1, n):
            m = a[r][i] / a[i][i]
            a[r] = [x - m * y for x, y in zip(a[r], a[i])]
            b[r] -= m * b[i]
    x = [0.0] * n
    for i in reversed(range(n)):
        x[i] = (b[i] - sum(a[i][j] * x[j] for j in range(i + 1, n))) / a[i][i]
    return x


def f32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


table = []
for i in range(COUNT):
    nodes = [0.5 * math.cos(math.pi * (k + 0.5) / (DEGREE + 1)) for k in range(DEGREE + 1)]
    table.append(solve([[f ** p for p in range(DEGREE + 1)] for f in nodes], [value((i + 0.5 + f) * WIDTH) for f in nodes]))
print("/* Made by scripts/gen_gelu_table.py: coefficient p of interval i is gelu_table[p][i]. */")
print("static const float gelu_table[%d][%d] = {" % (DEGREE + 1, COUNT))
for p in range(DEGREE + 1):
    row = [re.sub("0*p", "p", float.hex(f32(table[i][p]))) + "f" for i in range(COUNT)]
    print("    { " + ",\n      ".join(", ".join(row[j:j + 4]) for j in range(0, COUNT, 4)) + " },")
print("};")
