#!/usr/bin/env python3
"""Compares bench_tokenizer with openai/CLIP's Python tokenizer (open_clip's copy) and Rust `tokenizers`, one thread, same lines.

usage: bench/tokenizer.py BUILD_DIR GOLDEN_TOKENIZERS_DIR [TEXTFILE]
Without TEXTFILE: 20,000 caption-like lines made from a fixed seed. Peers that are not installed are left out.
"""
import json
import os
import random
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
build, golden = sys.argv[1], sys.argv[2]


def captions(path):
    r = random.Random(1)
    noun = ("man woman dog cat train bus surfboard zebra field table plate pizza kitchen street sign clock tower horse beach ball "
            "player bat umbrella giraffe elephant child skateboard snow mountain laptop desk bed bathroom sink toilet boat").split()
    adj = "red small large black white young old wooden green blue empty busy colorful brown sunny".split()
    verb = ["riding", "sitting on", "standing next to", "holding", "looking at", "walking past", "lying under", "jumping over"]
    with open(path, "w") as f:
        for _ in range(20000):
            a, b, c = (f"{r.choice(['a', 'the', 'two'])} {r.choice(adj)} {r.choice(noun)}" for _ in range(3))
            f.write(f"{a[0].upper()}{a[1:]} {r.choice(verb)} {b} near {c}{r.choice(['.', '', ', outside.'])}\n")


def best(f, n=5):
    t = []
    for _ in range(n):
        t0 = time.perf_counter()
        f()
        t.append(time.perf_counter() - t0)
    return min(t)


def ours(tok, text, kind="0"):
    exe = os.path.join(build, "bench_tokenizer")
    return json.loads(subprocess.run([exe, tok, text, kind], check=True, capture_output=True, text=True).stdout)


with tempfile.TemporaryDirectory() as tmp:
    text = sys.argv[3] if len(sys.argv) > 3 else os.path.join(tmp, "captions.txt")
    if len(sys.argv) <= 3:
        captions(text)
    lines = open(text, encoding="utf-8").read().splitlines()
    bpe = os.path.join(golden, "bpe_simple_vocab_16e6.txt.gz")
    clip = ours(bpe, text, "1")
    print(f"clip   ours {clip['texts_per_s']:>10.0f}/s   load {clip['load_ms']:.1f} ms")
    try:
        from open_clip.tokenizer import SimpleTokenizer
        ref = SimpleTokenizer(bpe)
        ref.encode("warm up")
        s = best(lambda: [ref.encode(x) for x in lines], 3)
        print(f"clip   python {len(lines) / s:>8.0f}/s   ours is {s / clip['seconds']:.1f} times as fast")
    except ImportError:
        print("clip   python: open_clip is not installed")
    try:
        from tokenizers import Tokenizer
        from tokenizers.implementations import BertWordPieceTokenizer
    except ImportError:
        print("tokenizers is not installed")
        sys.exit(0)
    vocab = os.path.join(golden, "bert_uncased.vocab.txt")
    bert_json = os.path.join(tmp, "tokenizer.json")
    BertWordPieceTokenizer(vocab, lowercase=True).save(bert_json)
    cases = [("bert", bert_json), ("gpt2", os.path.join(golden, "bytelevel.tokenizer.json")),
             ("t5", os.path.join(golden, "t5.tokenizer.json"))]
    try:
        from transformers import CLIPTokenizer
        import gzip
        merges = [tuple(m.split()) for m in gzip.open(bpe).read().decode().split("\n")[1:48895]]
        byte = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 256))] + [chr(256 + n) for n in range(68)]
        names = byte + [b + "</w>" for b in byte] + ["".join(m) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
        hf = CLIPTokenizer(vocab={s: i for i, s in enumerate(names)}, merges=merges)
        path = os.path.join(tmp, "clip.json")
        hf.backend_tokenizer.save(path)
        cases.insert(0, ("cliphf", path))
    except ImportError:
        pass
    for name, path in cases:
        t = Tokenizer.from_file(path)
        s = best(lambda: [t.encode(x) for x in lines], 3)
        o = ours(path, text)
        print(f"{name:6} ours {o['texts_per_s']:>10.0f}/s   rust {len(lines) / s:>8.0f}/s   ours is {s / o['seconds']:.1f} times as fast"
              f"   load {o['load_ms']:.1f} ms")
