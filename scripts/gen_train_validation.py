#!/usr/bin/env python3
"""Writes tests/golden/train/e2e/validation.json: what open_clip's evaluate() says of the tiny CLIP of that folder on its training rows: drawn weights, all
rows and the first 30, and the weights after 30 steps.
usage: gen_train_validation.py FOLDER   (needs open_clip's source, 4.2, for open_clip_train)"""
import json
import pathlib
import sys

import open_clip
import torch
import torch.nn.functional as F
from open_clip_train.metrics import get_clip_metrics
from safetensors.torch import load_file

folder = pathlib.Path(sys.argv[1])
torch.set_num_threads(1)
cfg = json.loads((folder / "model_config.json").read_text())["model_cfg"]
data = load_file(folder / "data.safetensors")
m = open_clip.CLIP(embed_dim=cfg["embed_dim"], vision_cfg=open_clip.CLIPVisionCfg(**cfg["vision_cfg"]), text_cfg=open_clip.CLIPTextCfg(**cfg["text_cfg"])).eval().double()


def evaluate(weights, batch, rows):
    missing = m.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys and all("attn_mask" in k for k in missing.missing_keys), missing
    images, texts, loss = [], [], 0.0
    with torch.inference_mode():
        for at in range(0, rows, batch):
            i, t, scale = m(data["image"][at:min(at + batch, rows)].double(), data["text"][at:min(at + batch, rows)])[:3]
            logits = scale * i @ t.T
            labels = torch.arange(len(i))
            loss += (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2 * len(i)
            images.append(i)
            texts.append(t)
        # two texts of the data occur twice: in double, whole, so that their scores are equal and not equal but for the last bit
        metrics = get_clip_metrics(torch.cat(images), torch.cat(texts), scale, retrieval_chunk_size=0, retrieval_dtype="model")
    return {"batch_size": batch, "num_samples": rows, "clip_val_loss": (loss / rows).item(), **{k: float(v) for k, v in metrics.items()}}


init = load_file(folder / "init.safetensors")
final = {k[len("final."):]: v for k, v in load_file(folder / "final.safetensors").items() if k.startswith("final.")}
cases = [evaluate(init, 20, 48), evaluate(init, 20, 30), evaluate(final, 16, 48)]
(folder / "validation.json").write_text(json.dumps(cases, indent=1) + "\n")
