#!/usr/bin/env python3
"""Writes tests/golden/train/xlmr: tiny open_clip models with XLM-RoBERTa text towers (mean pooling and two-layer projection; pooler and linear
projection), three epochs of AdamW in PyTorch (f32, no dropout): losses per step, also with the text tower locked in several ways and with layer
decay, and the epoch file after two epochs (of the second model with its parameters in the order of transformers 4).
usage: gen_train_xlmr.py OUT_FOLDER   (needs open_clip's source, 4.2, and transformers)"""
import copy
import json
import math
import pathlib
import sys

import open_clip
import torch
from open_clip.hf_model import HFTextEncoder
from safetensors.torch import save_file
from transformers import XLMRobertaConfig

out = pathlib.Path(sys.argv[1])
torch.set_num_threads(1)
HF = {"model_type": "xlm-roberta", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "hidden_act": "gelu",
      "max_position_embeddings": 14, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "vocab_size": 64, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
VISION = {"image_size": 24, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
EMBED, BATCH, LR, DECAY = 12, 16, 1e-3, 0.2


def model(pooler, proj):
    text = HFTextEncoder("tiny", EMBED, XLMRobertaConfig(**HF, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), pooler_type=pooler, proj_type=proj,
                         pretrained=False)
    m = open_clip.CLIP(embed_dim=EMBED, vision_cfg=open_clip.CLIPVisionCfg(**VISION), text_cfg=open_clip.CLIPTextCfg(width=16, heads=2, layers=1))

    class Custom(torch.nn.Module):  # CustomTextCLIP without the registry of names
        def __init__(self):
            super().__init__()
            self.visual, self.text = m.visual, text
            self.logit_scale = torch.nn.Parameter(m.logit_scale.detach().clone())

        def forward(self, image, ids):
            i, t = self.visual(image), self.text(ids)
            return torch.nn.functional.normalize(i, dim=-1), torch.nn.functional.normalize(t, dim=-1), self.logit_scale.exp()
    return Custom()


def decayed(name, p):
    return p.ndim > 1 and not any(w in name for w in ("position_embeddings", "token_type_embeddings", "positional_embedding"))


def layer_scales(text, decay):
    groups = text.layer_groups()
    return {id(p): decay ** (len(groups) - 1 - i) for i, (_, members) in enumerate(groups) for mod in members for p in mod.parameters()}


def train(drawn, images, ids, lock=None, layer_decay=None, save=None, old_order=False):
    m = copy.deepcopy(drawn)
    if lock:
        m.text.lock(**lock)
    scales = layer_scales(m.text, layer_decay) if layer_decay else {}
    named = [(n, p) for n, p in m.named_parameters() if p.requires_grad]
    if old_order:  # of transformers 4
        at = next(i for i, (n, _) in enumerate(named) if n.endswith("position_embeddings.weight"))
        position = named.pop(at)
        named.insert(1 + next(i for i, (n, _) in enumerate(named) if n.endswith("word_embeddings.weight")), position)
    wanted = sorted({scales.get(id(p), 1.0) for _, p in named})
    groups = [{"params": [p for n, p in named if decayed(n, p) == d and scales.get(id(p), 1.0) == s], "weight_decay": DECAY if d else 0.0, "lr": LR * s}
              for d in (False, True) for s in wanted]
    opt = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.98), eps=1e-6)
    loss_of, steps = open_clip.ClipLoss(), []
    m.train()
    for step in range(6):
        at = step % 2 * BATCH
        loss = loss_of(*m(images[at:at + BATCH], ids[at:at + BATCH]))
        opt.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([p for _, p in named], 1e9)
        opt.step()
        with torch.no_grad():
            m.logit_scale.clamp_(0, math.log(100))
        steps.append({"loss": loss.item(), "grad_norm": norm.item()})
        if save and step == 3:
            torch.save({"epoch": 2, "name": "xlmr", "state_dict": m.state_dict(), "optimizer": opt.state_dict()}, save)
    return steps


torch.manual_seed(3)
images, ids = torch.randn(32, 3, 24, 24), torch.full((32, 12), 1)
for i in range(32):
    n = 4 + i % 9
    ids[i, 0], ids[i, n - 1] = 0, 2
    ids[i, 1:n - 1] = torch.randint(3, 64, (n - 2,))
save_file({"image": images, "text": ids}, out / "data.safetensors")
expected = {}
for name, pooler, proj in (("mean", "mean_pooler", "mlp"), ("cls", "cls_pooler", "linear")):
    m = model(pooler, proj)
    save_file({k: v.clone().contiguous() for k, v in m.state_dict().items()}, out / f"{name}.safetensors")
    (out / f"{name}.json").write_text(json.dumps({"model_cfg": {"embed_dim": EMBED, "custom_text": True, "vision_cfg": VISION, "text_cfg": {
        "context_length": 12, "hf_model_name": "xlm-roberta-tiny", "hf_model_pretrained": False, "hf_proj_type": proj, "hf_pooler_type": pooler}},
        "hf_text_config": HF}, indent=1) + "\n")
    expected[name] = {"all": train(m, images, ids, save=out / f"epoch_2_{name}.pt", old_order=name == "cls"),
                      "locked": train(m, images, ids, {"unlocked_layers": 0, "freeze_layer_norm": False}),
                      "frozen": train(m, images, ids, {"unlocked_layers": 0, "freeze_layer_norm": True}),
                      "unlocked2": train(m, images, ids, {"unlocked_layers": 2, "freeze_layer_norm": True}),
                      "decay": train(m, images, ids, layer_decay=0.6), "keys": list(m.state_dict())}
(out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
