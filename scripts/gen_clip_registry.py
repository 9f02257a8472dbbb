#!/usr/bin/env python3
"""Writes src/models/clip_registry.inc: architectures and published checkpoints of open_clip that noema can run, from an
installed open_clip_torch (MIT). Run: python3 scripts/gen_clip_registry.py > src/models/clip_registry.inc"""
import json
import re
import pathlib

import open_clip
from open_clip.pretrained import _PRETRAINED

ROOT = pathlib.Path(open_clip.__file__).parent / "model_configs"
OPENAI = {"RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336"}


def wanted(name, cfg):
    v, t = cfg["vision_cfg"], cfg["text_cfg"]
    timm = v.get("timm_model_name")
    if timm and "siglip" not in timm:
        return False
    hf = t.get("hf_model_name")
    if hf and "roberta" not in hf:
        return False
    return not name.startswith("coca_roberta") and name != "coca_base"


def c_string(s):
    return '"' + s.replace("\\", "\\\\").replace('"', '\\"') + '"'


def rule(cfg):
    """The preprocessing of a tag as one letter: see registry.c."""
    mean, mode, interp = cfg["mean"], cfg["resize_mode"], cfg["interpolation"]
    half, imagenet = abs(mean[0] - 0.5) < 1e-6, abs(mean[0] - 0.485) < 1e-6
    key = ("half" if half else "imagenet" if imagenet else "openai", interp, mode)
    return {("openai", "bicubic", "shortest"): "NM_PRE_OPENAI", ("half", "bicubic", "shortest"): "NM_PRE_HALF",
            ("openai", "bicubic", "squash"): "NM_PRE_OPENAI_SQUASH", ("half", "bicubic", "squash"): "NM_PRE_SIGLIP",
            ("imagenet", "bilinear", "squash"): "NM_PRE_CLIPA"}.get(key)


archs = {}
for f in sorted(ROOT.glob("*.json")):
    cfg = json.loads(f.read_text())
    if "embed_dim" in cfg and wanted(f.stem, cfg):
        archs[f.stem] = cfg

print("/* Made by scripts/gen_clip_registry.py from open_clip %s (MIT). */" % open_clip.__version__)
print("static const nm_arch archs[] = {")
for name in sorted(archs, key=lambda s: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", s.lower())]):
    print("    { %s, %s }," % (c_string(name), c_string(json.dumps(archs[name], separators=(",", ":")))))
print("};\n\nstatic const nm_published published[] = {")
for arch, tags in _PRETRAINED.items():
    if arch not in archs:
        continue
    for tag, cfg in tags.items():
        url, hub = cfg.get("url", ""), cfg.get("hf_hub", "").rstrip("/")
        pre = rule(cfg)
        if not pre or not hub and not url:
            continue
        openai = url.split("/models/")[1] if "openaipublic" in url else ""
        file = url.rsplit("/", 1)[-1] if url and not openai else ""
        print("    { %s, %s, %s, %s, %s, %s, %s }," % (c_string(arch), c_string(tag), c_string(hub), c_string(openai), c_string(file),
                                                       "true" if cfg.get("quick_gelu") else "false", pre))
print("};")
