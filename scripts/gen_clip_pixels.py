#!/usr/bin/env python3
"""Writes tests/golden/clip/own_pixels.safetensors: drawn picture tensors and what open_clip and transformers make of them with the
tiny models of tests/golden/clip, so that image towers are tested where the public pictures are not. Needs torch, open_clip_torch,
transformers. Run: python3 scripts/gen_clip_pixels.py"""
import json
import pathlib

import torch
import open_clip
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP, VisionTransformer, build_model_from_openai_state_dict
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, SiglipModel

HERE = pathlib.Path(__file__).resolve().parents[1] / "tests/golden/clip"
torch.manual_seed(11)
out = {f"pixels.{s}": torch.randn(2, 3, s, s) for s in (32, 48, 64)}


def unit(x):
    return torch.nn.functional.normalize(x, dim=-1)


@torch.no_grad()
def put(name, model, size):
    x = model.encode_image(out[f"pixels.{size}"]) if hasattr(model, "encode_image") else model.get_image_features(out[f"pixels.{size}"]).pooler_output
    out[name] = unit(x.float())


def openclip(config):
    cfg = json.load(open(HERE / config))["model_cfg"]
    custom = cfg.pop("custom_text", False)
    return (CoCa if "multimodal_cfg" in cfg else CustomTextCLIP if custom else CLIP)(**cfg).eval()


m = openclip("openclip_vit.config.json")
m.load_state_dict(load_file(HERE / "openclip_vit.safetensors"))
put("openclip_vit", m, 32)
m = openclip("coca.config.json")
m.load_state_dict({k: v.float() for k, v in load_file(HERE / "coca.safetensors").items()})
put("coca", m, 32)
sd = {k: v.float() for k, v in torch.load(HERE / "openai_rn_state_dict.pt").items()}
put("openai_rn", build_model_from_openai_state_dict(sd, cast_dtype=torch.float32).float().eval(), 64)
cfg = json.load(open(HERE / "openclip_xlmr.config.json"))["model_cfg"]
v = VisionTransformer(image_size=32, patch_size=16, width=32, layers=2, heads=2, mlp_ratio=4.0, output_dim=24).eval()
v.load_state_dict({k[7:]: t.float() for k, t in torch.load(HERE / "openclip_xlmr.bin").items() if k.startswith("visual.")})
v.encode_image = v.forward
put("openclip_xlmr", v, 32)
put("hf_clip_bf16", CLIPModel.from_pretrained(HERE / "hf_clip_bf16", torch_dtype=torch.float32).eval(), 32)
put("hf_siglip", SiglipModel.from_pretrained(HERE / "hf_siglip", torch_dtype=torch.float32).eval(), 48)
save_file({k: t.contiguous() for k, t in out.items()}, HERE / "own_pixels.safetensors")
print({k: tuple(t.shape) for k, t in out.items()})
