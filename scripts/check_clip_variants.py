#!/usr/bin/env python3
"""Draws small open_clip models of every kind that configurations allow, saves them as open_clip does and compares noema's vectors
with open_clip's. Needs torch and open_clip_torch; a development check, not part of the build.
Run: python3 scripts/check_clip_variants.py build/libnoema.so MERGES.txt.gz"""
import ctypes
import json
import os
import sys
import tempfile

import numpy as np
import open_clip
import torch
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file

lib = ctypes.CDLL(sys.argv[1])


class Err(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("message", ctypes.c_char * 1020)]


class Options(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("dtype", ctypes.c_int), ("tokenizer", ctypes.c_char_p), ("config", ctypes.c_char_p),
                ("preprocess", ctypes.c_char_p), ("image_height", ctypes.c_int), ("image_width", ctypes.c_int), ("activation", ctypes.c_int),
                ("offline", ctypes.c_int), ("reserved", ctypes.c_void_p * 16)]


P = ctypes.c_void_p
err = Err()
ctx = P()
lib.noema_context_create(ctypes.byref(ctx), None, ctypes.byref(err))


def run(weights, config, merges, dim, pixels, texts):
    o = Options(ctypes.sizeof(Options), 1, merges.encode(), config.encode())
    m, s, e = P(), P(), Err()
    def ok(code):
        if code:
            raise RuntimeError(e.message.decode())
    ok(lib.noema_model_open(ctypes.byref(m), ctx, weights.encode(), ctypes.byref(o), ctypes.byref(e)))
    ok(lib.noema_session_create(ctypes.byref(s), m, ctypes.byref(e)))
    img, txt = np.zeros((len(pixels), dim), np.float32), np.zeros((len(texts), dim), np.float32)
    ok(lib.noema_embed_tensors(s, ctypes.c_size_t(len(pixels)), pixels.ctypes.data_as(P), 1, img.ctypes.data_as(P), ctypes.byref(e)))
    arr = (ctypes.c_char_p * len(texts))(*[t.encode() for t in texts])
    ok(lib.noema_embed_texts(s, ctypes.c_size_t(len(texts)), arr, None, 1, txt.ctypes.data_as(P), ctypes.byref(e)))
    lib.noema_session_free(s)
    lib.noema_model_free(m)
    return img, txt


def cfg(vision=None, text=None, **more):
    v = dict(image_size=32, layers=2, width=64, patch_size=8)
    t = dict(context_length=20, vocab_size=49408, width=32, heads=2, layers=2)
    v.update(vision or {})
    t.update(text or {})
    return dict(embed_dim=24, vision_cfg=v, text_cfg=t, **more)


CASES = {
    "plain": cfg(),
    "quick_gelu": cfg(quick_gelu=True),
    "custom_text": cfg(custom_text=True),
    "non-square": cfg(dict(image_size=[24, 40])),
    "no_ln_pre": cfg(dict(no_ln_pre=True)),
    "avg": cfg(dict(pool_type="avg")),
    "avg, ln after": cfg(dict(pool_type="avg", final_ln_after_pool=True)),
    "tok, ln after": cfg(dict(final_ln_after_pool=True)),
    "clipa": cfg(dict(no_ln_pre=True, pool_type="avg", final_ln_after_pool=True), dict(no_causal_mask=True, pool_type="last")),
    "layer scale": cfg(dict(ls_init_value=0.3, mlp_ratio=3.3, head_width=32), dict(ls_init_value=0.4, mlp_ratio=2.7)),
    "text first": cfg(text=dict(pool_type="first", no_causal_mask=True)),
    "text eos": cfg(text=dict(pool_type="eos", eos_id=49407)),
    "text eos missing": cfg(text=dict(pool_type="eos", eos_id=5)),
    "proj bias": cfg(text=dict(proj_bias=True), custom_text=True),
    "proj none": cfg(text=dict(proj_type="none", width=24, heads=3), custom_text=True),
    "norm, act kwargs": cfg(dict(norm_kwargs=dict(eps=1e-3), act_kwargs=dict(approximate="tanh")), dict(norm_kwargs=dict(eps=1e-2), act_kwargs=dict(approximate="tanh"))),
    "logit bias": cfg(init_logit_bias=-10.0, custom_text=True),
    "attentional pool": cfg(dict(attentional_pool=True, attn_pooler_queries=5, attn_pooler_heads=4), custom_text=True),
    "attentional avg": cfg(dict(attentional_pool=True, attn_pooler_queries=5, attn_pooler_heads=4, pool_type="avg"), custom_text=True),
    "attentional parallel": cfg(dict(attentional_pool="parallel", attn_pooler_queries=5, attn_pooler_heads=4, width=24, head_width=8), custom_text=True),
    "attentional cascade": cfg(dict(attentional_pool="cascade", attn_pooler_queries=5, attn_pooler_heads=4, width=24, head_width=8), custom_text=True),
    "coca": cfg(dict(attentional_pool=True, attn_pooler_queries=5, attn_pooler_heads=4, output_tokens=True), dict(embed_cls=True, output_tokens=True, width=24, heads=3),
                multimodal_cfg=dict(width=24, heads=3, layers=2, context_length=20), custom_text=True),
    "resnet": cfg(dict(layers=[1, 2, 1, 1], width=16, image_size=64, patch_size=None)),
    "resnet quick": cfg(dict(layers=[2, 1, 1, 1], width=32, image_size=96, patch_size=None, head_width=32), quick_gelu=True),
    "siglip": cfg(dict(timm_model_name="vit_base_patch32_siglip_256", timm_model_pretrained=False, timm_pool="map", timm_proj="none", image_size=256),
                  dict(no_causal_mask=True, pool_type="last", proj_bias=True, norm_kwargs=dict(eps=1e-6), act_kwargs=dict(approximate="tanh"),
                       tokenizer_kwargs=dict(clean="canonicalize")), init_logit_bias=-10.0, custom_text=True),
    "siglip erf": cfg(dict(timm_model_name="vit_base_patch16_siglip_224", timm_model_pretrained=False, timm_pool="map", timm_proj="none", image_size=224),
                  dict(no_causal_mask=True, pool_type="last", proj_bias=True, norm_kwargs=dict(eps=1e-6)), init_logit_bias=-10.0, custom_text=True),
    "timm gap linear": cfg(dict(timm_model_name="vit_base_patch32_224", timm_model_pretrained=False, timm_pool="avg", timm_proj="linear", image_size=224), custom_text=True),
    "timm token linear bias": cfg(dict(timm_model_name="vit_small_patch32_224", timm_model_pretrained=False, timm_pool="token", timm_proj="linear",
                                  timm_proj_bias=True, image_size=224), custom_text=True),
}
CASES["siglip"]["embed_dim"] = CASES["siglip erf"]["embed_dim"] = 768
TEXTS = ["a photo of a cat", "dog", "", "a very long sentence " * 8, "hello, world! 12", "x"]
only = sys.argv[3:]
bad = 0
for name, c in CASES.items():
    if only and name not in only:
        continue
    torch.manual_seed(3)
    args = json.loads(json.dumps(c))
    custom = args.pop("custom_text", False)
    cls = CoCa if "multimodal_cfg" in args else CustomTextCLIP if custom else CLIP
    model = cls(**args).eval()
    with torch.no_grad():
        for p_name, p in model.named_parameters():
            p.add_(torch.randn_like(p) * (0.05 if p.ndim > 1 else 0.2))
        for b_name, b in model.named_buffers():
            if b_name.endswith("running_var"):
                b.add_(torch.rand_like(b))
            if b_name.endswith("running_mean"):
                b.add_(torch.randn_like(b) * 0.2)
    size = args["vision_cfg"]["image_size"]
    h, w = (size, size) if isinstance(size, int) else size
    pixels = np.random.default_rng(1).standard_normal((3, 3, h, w)).astype(np.float32)
    tok = SimpleTokenizer(context_length=20, clean=c["text_cfg"].get("tokenizer_kwargs", {}).get("clean", "lower"))
    with torch.no_grad():
        want_i = model.encode_image(torch.from_numpy(pixels), normalize=True).numpy().reshape(3, -1)
        want_t = model.encode_text(tok(TEXTS), normalize=True).numpy()
    with tempfile.TemporaryDirectory() as d:
        wf, cf = os.path.join(d, "m.safetensors"), os.path.join(d, "c.json")
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, wf)
        json.dump({"model_cfg": dict(c), "preprocess_cfg": {}}, open(cf, "w"))
        try:
            img, txt = run(wf, cf, sys.argv[2], args["embed_dim"], pixels, TEXTS)
            di, dt = abs(img - want_i).max(), abs(txt - want_t).max()
            flag = "" if di < 1e-5 and dt < 1e-5 else "  <-- BAD"
            bad += bool(flag)
            print(f"{name:28s} image {di:.2g} text {dt:.2g}{flag}")
        except RuntimeError as ex:
            bad += 1
            print(f"{name:28s} {ex}")
sys.exit(bad != 0)
