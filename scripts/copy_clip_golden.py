#!/usr/bin/env python3
"""Copies our own figures of the shared golden data (golden/clip) to tests/golden/clip: models with random weights and expected
values, without what derives from public pictures and vocabularies (pixel_values, bpe_tiny, hf_clip's vocabulary).
Run: python3 scripts/copy_clip_golden.py SHARED/golden/clip"""
import json
import pathlib
import shutil
import struct
import sys

MODELS = ["openai_vit.pt", "openai_rn_state_dict.pt", "openclip_vit.safetensors", "openclip_vit_train.pt", "openclip_vit.config.json",
          "siglip_openclip.safetensors", "siglip_openclip.config.json", "openclip_xlmr.bin", "openclip_xlmr.config.json", "coca.safetensors",
          "coca.config.json"]
FOLDERS = ["hf_clip_bf16", "hf_siglip"]
CASES = ["openai_vit", "openai_rn", "openclip_vit", "openclip_vit_gelu", "openclip_vit_pos_24x24", "openclip_vit_pos_32x56",
         "openclip_vit_pos_48x48", "openclip_vit_textctx50", "hf_clip_bf16", "siglip_openclip", "hf_siglip", "openclip_xlmr", "coca"]


def strip(src, dst):
    raw = src.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header, body, out = json.loads(raw[8:8 + size]), raw[8 + size:], b""
    keep = {}
    for name, t in header.items():
        if name in ("pixel_values", "__metadata__"):
            continue
        begin, end = t["data_offsets"]
        keep[name] = {"dtype": t["dtype"], "shape": t["shape"], "data_offsets": [len(out), len(out) + end - begin]}
        out += body[begin:end]
    text = json.dumps(keep, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    dst.write_bytes(struct.pack("<Q", len(text)) + text + out)


shared, here = pathlib.Path(sys.argv[1]), pathlib.Path(__file__).resolve().parents[1] / "tests/golden/clip"
here.mkdir(parents=True, exist_ok=True)
for name in MODELS:
    shutil.copyfile(shared / name, here / name)
for name in FOLDERS:
    (here / name).mkdir(exist_ok=True)
    for f in ("config.json", "model.safetensors", "preprocessor_config.json"):
        if (shared / name / f).exists():
            shutil.copyfile(shared / name / f, here / name / f)
for name in CASES:
    strip(shared / f"{name}.expected.safetensors", here / f"{name}.expected.safetensors")
    shutil.copyfile(shared / f"{name}.expected.json", here / f"{name}.expected.json")
