#!/usr/bin/env python3
"""A BLIP-2 folder in transformers' layout with the published shapes and random f16 weights, in shards: for measuring speed and memory.

    blip2_random.py OUT [--lm-layers 32] [--vision-layers 39] [--tokenizer tests/golden/blip2/lavis/opt]
"""
import argparse
import json
import pathlib
import shutil

import numpy as np

SHARD = 2 << 30


def tensors(a):
    """Name and shape of every tensor, in the order of the forward."""
    w, mlp = 1408, 6144
    yield "query_tokens", (1, 32, 768)
    v = "vision_model."
    yield v + "embeddings.class_embedding", (1, 1, w)
    yield v + "embeddings.position_embedding", (1, 257, w)
    yield v + "embeddings.patch_embedding.weight", (w, 3, 14, 14)
    yield v + "embeddings.patch_embedding.bias", (w,)
    for i in range(a.vision_layers):
        b = f"{v}encoder.layers.{i}."
        for n in ("layer_norm1", "layer_norm2"):
            yield b + n + ".weight", (w,)
            yield b + n + ".bias", (w,)
        for n, o, k in (("self_attn.qkv", 3 * w, w), ("self_attn.projection", w, w), ("mlp.fc1", mlp, w), ("mlp.fc2", w, mlp)):
            yield b + n + ".weight", (o, k)
            yield b + n + ".bias", (o,)
    yield v + "post_layernorm.weight", (w,)
    yield v + "post_layernorm.bias", (w,)
    yield "qformer.layernorm.weight", (768,)
    yield "qformer.layernorm.bias", (768,)
    for i in range(12):
        b = f"qformer.encoder.layer.{i}."
        for cross in (["attention"] + (["crossattention"] if i % 2 == 0 else [])):
            for n in ("query", "key", "value"):
                k = w if cross == "crossattention" and n != "query" else 768
                yield f"{b}{cross}.attention.{n}.weight", (768, k)
                yield f"{b}{cross}.attention.{n}.bias", (768,)
            for n, s in (("dense.weight", (768, 768)), ("dense.bias", (768,)), ("LayerNorm.weight", (768,)), ("LayerNorm.bias", (768,))):
                yield f"{b}{cross}.output.{n}", s
        for n, s in (("intermediate_query.dense.weight", (3072, 768)), ("intermediate_query.dense.bias", (3072,)),
                     ("output_query.dense.weight", (768, 3072)), ("output_query.dense.bias", (768,)),
                     ("output_query.LayerNorm.weight", (768,)), ("output_query.LayerNorm.bias", (768,))):
            yield b + n, s
    d, ffn = 2560, 10240
    yield "language_projection.weight", (d, 768)
    yield "language_projection.bias", (d,)
    m = "language_model.model.decoder."
    yield m + "embed_tokens.weight", (50304, d)
    yield m + "embed_positions.weight", (2050, d)
    for i in range(a.lm_layers):
        b = f"{m}layers.{i}."
        for n, o, k in (("self_attn.q_proj", d, d), ("self_attn.k_proj", d, d), ("self_attn.v_proj", d, d), ("self_attn.out_proj", d, d), ("fc1", ffn, d),
                        ("fc2", d, ffn)):
            yield b + n + ".weight", (o, k)
            yield b + n + ".bias", (o,)
        for n in ("self_attn_layer_norm", "final_layer_norm"):
            yield b + n + ".weight", (d,)
            yield b + n + ".bias", (d,)
    yield m + "final_layer_norm.weight", (d,)
    yield m + "final_layer_norm.bias", (d,)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("out")
    p.add_argument("--lm-layers", type=int, default=32)
    p.add_argument("--vision-layers", type=int, default=39)
    p.add_argument("--tokenizer", default="tests/golden/blip2/lavis/opt")
    a = p.parse_args()
    out = pathlib.Path(a.out)
    out.mkdir(parents=True)
    noise = (np.random.default_rng(0).standard_normal(16 << 20) * 0.02).astype(np.float16)
    shards, size = [[]], 0
    for name, shape in tensors(a):
        n = 2 * int(np.prod(shape))
        if size + n > SHARD:
            shards.append([])
            size = 0
        shards[-1].append((name, shape, n))
        size += n
    where = {}
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        head, at = {}, 0
        for name, shape, n in shard:
            head[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + n]}
            at += n
            where[name] = file
        text = json.dumps(head).encode()
        text += b" " * (-len(text) % 8)
        with open(out / file, "wb") as f:
            f.write(len(text).to_bytes(8, "little") + text)
            for k, (name, shape, n) in enumerate(shard):
                norm = name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "LayerNorm.weight", "layernorm.weight"))
                left, from_ = n // 2, (k * 7919) % (1 << 20)
                while left:
                    part = noise[from_:from_ + left]
                    f.write((np.ones_like(part) if norm else part).tobytes())
                    left -= len(part)
                    from_ = 0
    (out / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (out / "config.json").write_text(json.dumps({
        "model_type": "blip-2", "architectures": ["Blip2ForConditionalGeneration"], "num_query_tokens": 32, "torch_dtype": "float16",
        "vision_config": {"hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": a.vision_layers, "num_attention_heads": 16, "patch_size": 14,
                          "image_size": 224, "hidden_act": "gelu", "layer_norm_eps": 1e-6, "qkv_bias": True},
        "qformer_config": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "encoder_hidden_size": 1408,
                           "cross_attention_frequency": 2, "vocab_size": 30522},
        "text_config": {"model_type": "opt", "hidden_size": 2560, "num_hidden_layers": a.lm_layers, "num_attention_heads": 32, "ffn_dim": 10240,
                        "word_embed_proj_dim": 2560, "max_position_embeddings": 2048, "vocab_size": 50304, "eos_token_id": 50118, "bos_token_id": 2,
                        "pad_token_id": 1, "activation_function": "relu", "do_layer_norm_before": True},
        "use_decoder_only_language_model": True, "image_token_index": 50265}))
    (out / "generation_config.json").write_text(json.dumps({"eos_token_id": 50118, "bos_token_id": 2, "pad_token_id": 1}))
    for f in pathlib.Path(a.tokenizer).iterdir():
        if f.suffix in (".json", ".txt") and f.name != "config.json":
            shutil.copy(f, out / f.name)
    (out / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "BlipImageProcessor", "do_resize": True, "size": {"height": 224, "width": 224}, "resample": 3, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True, "do_convert_rgb": True, "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711]}))


main()
