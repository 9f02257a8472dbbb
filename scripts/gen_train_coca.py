#!/usr/bin/env python3
"""Writes tests/golden/train/coca: tiny CoCas of open_clip under its own CoCaLoss in PyTorch (f32): losses, gradient norms of every parameter, an epoch
file with AdamW's state and the steps after it.
usage: gen_train_coca.py OUT_FOLDER   (needs open_clip_torch; written with 3.3.0)

Four models: `fused` (tower width = embed_dim, one pool, texts shorter than the context), `split` (tower width != embed_dim: q, k and v apart, texts as
long as the context), `parallel` (a second, contrastive pool), `resnet` (open_clip has no such tower: its ModifiedResNet up to a stage, then its AttentionalPooler
as in its VisionTransformer). Texts have the padding id inside and behind them."""
import json
import math
import pathlib
import sys

import open_clip
import torch
from open_clip.loss import CoCaLoss
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import AttentionalPooler, LayerNorm
from safetensors.torch import save_file

N, VOCAB, LENGTH = 16, 64, 7
out = pathlib.Path(sys.argv[1])
torch.set_num_threads(1)


def config(width, embed, context, pool):
    text = {"context_length": context, "vocab_size": VOCAB, "width": embed, "heads": 2, "layers": 1}
    return {"embed_dim": embed, "custom_text": True,
            "vision_cfg": {"image_size": 16, "layers": 1, "width": width, "head_width": 8, "patch_size": 8, "attentional_pool": pool, "attn_pooler_queries": 3,
                           "attn_pooler_heads": 2, "output_tokens": True},
            "text_cfg": {**text, "embed_cls": True, "output_tokens": True}, "multimodal_cfg": {**text, "attn_pooler_heads": 2}}


class PooledResNet(ModifiedResNet):
    def __init__(self, embed_dim, vision):
        super().__init__(vision["layers"], embed_dim, 1, vision["image_size"], vision["width"])
        stage = vision["attn_pooler_stage"]
        del self.attnpool
        for k in range(stage, 4):
            delattr(self, f"layer{k + 1}")
        self.stage, channels = stage, vision["width"] * 2 ** (stage + 1)
        self.attn_pool = AttentionalPooler(embed_dim, channels, n_head=vision["attn_pooler_heads"], n_queries=vision["attn_pooler_queries"])
        self.ln_post = LayerNorm(embed_dim)
        self.proj = torch.nn.Parameter(torch.randn(embed_dim, embed_dim) / embed_dim ** 0.5)

    def forward(self, x):
        x = self.stem(x)
        for k in range(self.stage):
            x = getattr(self, f"layer{k + 1}")(x)
        x = self.ln_post(self.attn_pool(x.flatten(2).permute(0, 2, 1)))
        return x[:, 0] @ self.proj, x[:, 1:]


def build(cfg, seed):
    torch.manual_seed(seed)
    resnet = isinstance(cfg["vision_cfg"]["layers"], list)
    vision = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8} if resnet else cfg["vision_cfg"]
    m = open_clip.CoCa(**{k: v for k, v in cfg.items() if k != "custom_text"} | {"vision_cfg": vision})
    if resnet:
        m.visual = PooledResNet(cfg["embed_dim"], cfg["vision_cfg"])
    with torch.no_grad():
        for n, p in m.named_parameters():
            if n == "text_decoder.text_projection":  # torch.empty: never initialised there
                p.normal_(std=0.2)
            if n.endswith("bn3.weight"):
                p.fill_(0.5)  # drawn as zero: the blocks would be silent at first
            if p.ndim == 1 and p.numel() > 1:  # ones and zeros hide mistakes
                p.add_(0.1 * torch.randn_like(p))
    return m.train()


def groups(m, wd):  # open_clip_train/optim.py: all of one dimension, and what the towers name
    no = {"text.positional_embedding", "text.cls_emb", "visual.positional_embedding", "visual.class_embedding"}
    named = list(m.named_parameters())
    return [{"params": [p for n, p in named if p.ndim <= 1 or n in no], "weight_decay": 0.0},
            {"params": [p for n, p in named if not (p.ndim <= 1 or n in no)], "weight_decay": wd}]


def step(m, opt, loss_of, images, text):
    m.zero_grad()
    x = m(images, text)
    # open_clip leaves the one query's dimension of a contrastive pool standing
    parts = loss_of(x["image_features"].flatten(1), x["text_features"], x["logits"], x["labels"], x["logit_scale"], output_dict=True)
    sum(parts.values()).backward()
    norm = torch.nn.utils.clip_grad_norm_(m.parameters(), 1e9)
    grads = {n: p.grad.double().norm().item() for n, p in m.named_parameters() if p.grad is not None}
    opt.step()
    with torch.no_grad():
        m.logit_scale.clamp_(0, math.log(100))
    return {k: v.item() for k, v in parts.items()} | {"grad_norm": norm.item(), "logit_scale": m.logit_scale.item()}, grads


expected = {}
resnet = config(4, 16, 9, True)
resnet["vision_cfg"] = {k: v for k, v in resnet["vision_cfg"].items() if k != "head_width"} | {"image_size": 32, "layers": [1, 1, 1, 1], "patch_size": None, "attn_pooler_stage": 3}
for seed, (name, cfg) in enumerate({"fused": config(16, 16, 12, True), "split": config(24, 16, LENGTH, True), "parallel": config(16, 16, 9, "parallel"),
                                    "resnet": resnet}.items()):
    torch.manual_seed(100 + seed)
    size = cfg["vision_cfg"]["image_size"]
    images, text = torch.randn(N, 3, size, size), torch.randint(1, VOCAB - 2, (N, LENGTH))
    for i in range(N):
        end = 2 + i % (LENGTH - 2)
        text[i, end], text[i, end + 1:] = VOCAB - 1, 0
    text[5, 2] = text[12, 1] = 0  # a token that is the padding's id
    context = cfg["text_cfg"]["context_length"]
    padded = torch.cat([text, torch.zeros(N, context - LENGTH, dtype=torch.long)], 1)
    save_file({"image": images, "text": text}, out / f"{name}.data.safetensors")
    (out / f"{name}.json").write_text(json.dumps(cfg))
    m = build(cfg, seed)
    start = {k: v.clone().contiguous() for k, v in m.state_dict().items() if "attn_mask" not in k}
    save_file(start, out / f"{name}.safetensors")
    runs = {}
    for run, caption, contrastive in (("both", 2.0, 1.0), ("captions", 1.5, 0.0)):
        m.load_state_dict(start, strict=False)
        opt, loss_of, steps = torch.optim.SGD(groups(m, 0.1), lr=0.02, momentum=0.9), CoCaLoss(caption, contrastive), []
        for k in range(6):
            got, grads = step(m, opt, loss_of, images, padded)
            steps.append(got)
            if k == 0:
                first = grads
        runs[run] = {"caption": caption, "contrastive": contrastive, "steps": steps, "gradients": first}
    expected[name] = {"runs": runs, "keys": [n for n, _ in m.named_parameters()]}
    if name == "fused":  # an epoch file to go on from, as open_clip_train/main.py writes it
        m.load_state_dict(start, strict=False)
        opt, loss_of = torch.optim.AdamW(groups(m, 0.2), lr=1e-3, betas=(0.9, 0.98), eps=1e-6), CoCaLoss(2.0, 1.0)
        for _ in range(3):
            step(m, opt, loss_of, images, padded)
        torch.save({"epoch": 3, "name": "coca", "state_dict": m.state_dict(), "optimizer": opt.state_dict(), "global_step": 3}, out / "fused.epoch_3.pt")
        expected[name]["resumed"] = [step(m, opt, loss_of, images, padded)[0] for _ in range(3)]
(out / "expected.json").write_text(json.dumps(expected))
