#!/usr/bin/env python3
"""llama.cpp beside bench_decode: a random-weight model of OPT-2.7B's size (Phi-2's shape: 32 layers, width 2560, MLP 10240) writes ids.

    bench/decode_llama.py OUT.gguf [--type bf16|q8_0] [--threads 1,2] [--steps 20]

llama.cpp has no OPT; Phi-2 has the same matrices and 51200 rows of vocabulary for 50304. Printed is the best step after 34 positions, as
bench_decode has it. Peers (PyPI): gguf, llama-cpp-python.
"""
import argparse
import os
import resource
import time

import numpy as np


def make(path, kind):
    import gguf
    layers, width, mlp, vocab = 32, 2560, 10240, 51200
    w = gguf.GGUFWriter(path, "phi2")
    w.add_context_length(2048)
    w.add_embedding_length(width)
    w.add_feed_forward_length(mlp)
    w.add_block_count(layers)
    w.add_head_count(32)
    w.add_head_count_kv(32)
    w.add_layer_norm_eps(1e-5)
    w.add_rope_dimension_count(32)
    w.add_tokenizer_model("no_vocab")
    w.add_vocab_size(vocab)
    t = gguf.GGMLQuantizationType.BF16 if kind == "bf16" else gguf.GGMLQuantizationType.Q8_0
    noise = np.random.default_rng(0).standard_normal(1 << 22).astype(np.float32) * 0.02
    cache = {}

    def matrix(name, n, k):
        if (n, k) not in cache:
            cache[n, k] = gguf.quants.quantize(np.resize(noise, (n, k)), t)
        w.add_tensor(name, cache[n, k], raw_dtype=t)

    def vector(name, n, value=0):
        w.add_tensor(name, np.full(n, value, dtype=np.float32))
    matrix("token_embd.weight", vocab, width)
    for i in range(layers):
        b = f"blk.{i}."
        vector(b + "attn_norm.weight", width, 1)
        vector(b + "attn_norm.bias", width)
        for name, n, k in (("attn_qkv", 3 * width, width), ("attn_output", width, width), ("ffn_up", mlp, width), ("ffn_down", width, mlp)):
            matrix(b + name + ".weight", n, k)
            vector(b + name + ".bias", n)
    vector("output_norm.weight", width, 1)
    vector("output_norm.bias", width)
    matrix("output.weight", vocab, width)
    vector("output.bias", vocab)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("out")
    p.add_argument("--type", default="bf16", choices=("bf16", "q8_0"))
    p.add_argument("--threads", default="1,2")
    p.add_argument("--steps", type=int, default=20)
    a = p.parse_args()
    if not os.path.exists(a.out):
        make(a.out, a.type)
    import llama_cpp as l
    l.llama_backend_init()
    mp = l.llama_model_default_params()
    mp.use_mmap = False
    model = l.llama_load_model_from_file(a.out.encode(), mp)
    size = l.llama_model_size(model)
    for threads in map(int, a.threads.split(",")):
        cp = l.llama_context_default_params()
        cp.n_ctx, cp.n_batch, cp.n_threads, cp.n_threads_batch = 256, 64, threads, threads
        ctx = l.llama_new_context_with_model(model, cp)
        ids = (l.llama_token * 34)(*[4 + i for i in range(34)])
        assert l.llama_decode(ctx, l.llama_batch_get_one(ids, 34)) == 0
        best = 1e9
        for i in range(a.steps):
            one = (l.llama_token * 1)(100 + i)
            start = time.perf_counter() if threads > 1 else time.process_time()
            assert l.llama_decode(ctx, l.llama_batch_get_one(one, 1)) == 0
            l.llama_get_logits(ctx)
            best = min(best, (time.perf_counter() if threads > 1 else time.process_time()) - start)
        l.llama_free(ctx)
        print(f"llama.cpp {a.type}, {threads} threads: {1e3 * best:.1f} ms a step, {size * 1e-9:.2f} GB of weights with the embedding, "
              f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")


main()
