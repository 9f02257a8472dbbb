#!/usr/bin/env python3
"""Writes configs.jsonl: configuration files in the two dialects, and the digests that open_clip 3.3 and transformers 5.23 (PIL
backend) give for some of our own figures. Needs both packages; run once, the results are committed."""
import hashlib, importlib, json, os, warnings
import numpy as np
from PIL import Image

warnings.simplefilter("ignore")
HERE = os.path.dirname(os.path.abspath(__file__))
IMAGES = ["syn_gray.jpg", "syn_palette_trns.png", "syn_rgba_interlaced.png", "syn_7x300.png", "syn_crop_odd3.png", "syn_1bit.png",
          "syn_lossy.webp"]
HF = [
    ("clip", "CLIP", [{}, {"size": 100}, {"size": {"shortest_edge": 96}, "crop_size": {"height": 80, "width": 64}},
                      {"size": {"height": 70, "width": 90}, "crop_size": 64}, {"size": {"shortest_edge": 50}, "crop_size": 80},
                      {"do_center_crop": False, "size": {"shortest_edge": 64}}, {"do_normalize": False, "size": 60, "crop_size": 60},
                      {"do_resize": False, "crop_size": 100}, {"resample": 2, "size": 60, "crop_size": 60},
                      {"resample": 1, "size": 60, "crop_size": 60}, {"resample": 0, "size": 60, "crop_size": 60},
                      {"do_rescale": False, "size": 60, "crop_size": 60},
                      {"image_mean": [.1, .2, .3], "image_std": [.5, .6, .7], "size": 60, "crop_size": 60}]),
    ("siglip", "Siglip", [{"size": {"height": 64, "width": 96}}]),
    ("blip", "Blip", [{}, {"size": 64}]),
    ("vit", "ViT", [{"do_convert_rgb": True, "size": {"height": 30, "width": 40}}]),
    ("deit", "DeiT", [{"do_convert_rgb": True}]),
    ("bit", "Bit", [{"do_convert_rgb": True}]),
    ("chinese_clip", "ChineseCLIP", [{}]),
    ("convnext", "ConvNext", [{"do_convert_rgb": True}, {"do_convert_rgb": True, "size": {"shortest_edge": 64}, "crop_pct": 0.9}]),
]
OPEN_CLIP = [{"size": 96}, {"size": [64, 96]}, {"size": [96, 64], "resize_mode": "longest"}, {"size": 80, "resize_mode": "squash",
             "interpolation": "bilinear"}, {"size": 80, "resize_mode": "longest", "fill_color": 50},
             {"size": 64, "interpolation": "bilinear", "mean": [.1, .2, .3], "std": [1, 1, 1]}]


def rows(config, fn):
    for name in IMAGES:
        try:
            a = np.ascontiguousarray(fn(Image.open(os.path.join(HERE, "images", name))), dtype=np.float32)
        except ValueError:
            continue
        yield {"config": config, "image": name, "shape": list(a.shape), "f32": hashlib.sha256(a.tobytes()).hexdigest()[:16]}


def main():
    from open_clip.transform import PreprocessCfg, image_transform_v2
    out = []
    for module, name, configs in HF:
        cls = getattr(importlib.import_module(f"transformers.models.{module}.image_processing_pil_{module}"), name + "ImageProcessorPil")
        for c in configs:
            p = cls(**c)
            out += rows(dict(c, image_processor_type=name + "ImageProcessor"),
                        lambda i: p(images=i, return_tensors="np")["pixel_values"][0])
    for c in OPEN_CLIP:
        t = image_transform_v2(PreprocessCfg(**{k: tuple(v) if isinstance(v, list) else v for k, v in c.items()}), is_train=False)
        out += rows({"preprocess_cfg": c}, lambda i: t(i).numpy())
    with open(os.path.join(HERE, "configs.jsonl"), "w") as f:
        for r in out:
            f.write(json.dumps(r, separators=(",", ":")) + "\n")


main()
