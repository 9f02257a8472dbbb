#!/usr/bin/env python3
"""Writes tests/golden/train/resnet: a tiny ModifiedResNet CLIP of open_clip, three epochs of SGD in PyTorch (f32), losses per step; the same with the
image tower locked, its last two groups locked or not, statistics frozen or not.
usage: gen_train_resnet.py OUT_FOLDER   (needs open_clip_torch)"""
import copy
import json
import math
import pathlib
import sys

import open_clip
import torch
from open_clip.utils import freeze_batch_norm_2d
from safetensors.torch import save_file

out = pathlib.Path(sys.argv[1])
torch.manual_seed(0)
torch.set_num_threads(1)
cfg = {"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": [1, 1, 2, 1], "width": 4, "patch_size": None, "head_width": 64},
       "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}}
m = open_clip.CLIP(embed_dim=16, vision_cfg=open_clip.CLIPVisionCfg(image_size=32, layers=(1, 1, 2, 1), width=4, patch_size=None),
                   text_cfg=open_clip.CLIPTextCfg(context_length=8, vocab_size=64, width=32, heads=2, layers=1))
with torch.no_grad():
    for n, p in m.named_parameters():
        if n.endswith("bn3.weight"):
            p.fill_(0.5)  # drawn as zero: the blocks would be silent at first
state = {k: v.clone() for k, v in m.state_dict().items() if "attn_mask" not in k}
save_file({k: v.contiguous() for k, v in state.items()}, out / "init.safetensors")
images, text = torch.randn(32, 3, 32, 32), torch.randint(1, 62, (32, 8))
text[:, 6], text[:, 7] = 63, 0
save_file({"image": images, "text": text}, out / "data.safetensors")
drawn, STATISTICS = m, ("visual.bn1.running_mean", "visual.layer4.0.bn3.running_var")


def train(**lock):
    m = copy.deepcopy(drawn)
    if lock:
        m.lock_image_tower(**lock)
    if lock.get("freeze_bn_stats"):  # open_clip 4.2 drops the frozen norms of the stem (a group's member is the norm itself); 3.3 has them
        for name in ("bn1", "bn2", "bn3"):
            setattr(m.visual, name, freeze_batch_norm_2d(getattr(m.visual, name)))
    named = [(n, p) for n, p in m.named_parameters() if p.requires_grad]
    bare = {n for n, p in named if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n}
    opt = torch.optim.SGD([{"params": [p for n, p in named if n in bare], "weight_decay": 0.0},
                           {"params": [p for n, p in named if n not in bare], "weight_decay": 0.1}], lr=1e-3, momentum=0.9)
    loss_of, steps = open_clip.ClipLoss(), []
    m.train()
    for step in range(6):
        at = step % 2 * 16
        loss = loss_of(*m(images[at:at + 16], text[at:at + 16])[:3])
        opt.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([p for _, p in named], 1e9)
        opt.step()
        with torch.no_grad():
            m.logit_scale.clamp_(0, math.log(100))
        steps.append({"loss": loss.item(), "grad_norm": norm.item(), "logit_scale": m.logit_scale.item()})
    return {"steps": steps, "statistics": {k: v.tolist() for k, v in m.state_dict().items() if k in STATISTICS}}


keys = list(m.state_dict())
(out / "model_config.json").write_text(json.dumps(cfg))
(out / "expected.json").write_text(json.dumps({**train(), "keys": keys}))
locked = [{"unlocked_groups": n, "freeze_bn_stats": freeze} for freeze in (False, True) for n in (0, 2)]
(out / "locked.json").write_text(json.dumps([{**lock, **train(**lock)} for lock in locked]))
