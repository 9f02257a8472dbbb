#!/usr/bin/env python3
"""As check_clip_variants.py for folders of transformers: CLIP, SigLIP, BERT, RoBERTa, MPNet with unusual configurations.
Run: python3 scripts/check_hf_variants.py build/libnoema.so TOKENIZERS (golden/tokenizers)"""
import ctypes
import json
import os
import pathlib
import shutil
import sys
import tempfile

import numpy as np
import torch
from transformers import (BertConfig, BertModel, CLIPConfig, CLIPModel, MetaClip2Config, MetaClip2Model, MPNetConfig, MPNetModel, PreTrainedTokenizerFast, SiglipConfig, SiglipModel,
                          XLMRobertaConfig, XLMRobertaModel)

lib = ctypes.CDLL(sys.argv[1])
TOK = pathlib.Path(sys.argv[2])
P = ctypes.c_void_p


class Err(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("message", ctypes.c_char * 1020)]


class Options(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("dtype", ctypes.c_int), ("tokenizer", ctypes.c_char_p), ("config", ctypes.c_char_p),
                ("preprocess", ctypes.c_char_p), ("image_height", ctypes.c_int), ("image_width", ctypes.c_int), ("activation", ctypes.c_int),
                ("offline", ctypes.c_int), ("reserved", ctypes.c_void_p * 16)]


ctx = P()
lib.noema_context_create(ctypes.byref(ctx), None, None)


def run(folder, dim, pixels, texts, size=None):
    o = Options(ctypes.sizeof(Options), 1)
    if size:
        o.image_height, o.image_width = size
    m, s, e = P(), P(), Err()
    def ok(code):
        if code:
            raise RuntimeError(e.message.decode())
    ok(lib.noema_model_open(ctypes.byref(m), ctx, folder.encode(), ctypes.byref(o), ctypes.byref(e)))
    ok(lib.noema_session_create(ctypes.byref(s), m, ctypes.byref(e)))
    img = txt = None
    if pixels is not None:
        img = np.zeros((len(pixels), dim), np.float32)
        ok(lib.noema_embed_tensors(s, ctypes.c_size_t(len(pixels)), pixels.ctypes.data_as(P), 1, img.ctypes.data_as(P), ctypes.byref(e)))
    if texts:
        txt = np.zeros((len(texts), dim), np.float32)
        arr = (ctypes.c_char_p * len(texts))(*[t.encode() for t in texts])
        ok(lib.noema_embed_texts(s, ctypes.c_size_t(len(texts)), arr, None, 1, txt.ctypes.data_as(P), ctypes.byref(e)))
    lib.noema_session_free(s)
    lib.noema_model_free(m)
    return img, txt


def jitter(model):
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * (0.05 if p.ndim > 1 else 0.2))
    return model.eval()


def unit(x):
    return torch.nn.functional.normalize(x, dim=-1).numpy()


def report(name, pairs):
    out, good = name.ljust(28), True
    for what, got, want in pairs:
        d = abs(got - want).max()
        good &= bool(d < 1e-5)
        out += f" {what} {d:.2g}"
    print(out + ("" if good else "  <-- BAD"))
    return not good


TEXTS = ["a photo of a cat", "dog", "", "the quick brown fox " * 12, "안녕하세요 세계", "x"]
bad = 0
torch.manual_seed(5)
px = np.random.default_rng(1).standard_normal((3, 3, 32, 32)).astype(np.float32)

text = dict(hidden_size=32, intermediate_size=50, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=30, vocab_size=2000)
vision = dict(hidden_size=48, intermediate_size=90, num_hidden_layers=2, num_attention_heads=3, image_size=32, patch_size=8)
clip_cases = {
    "clip eos pooling": dict(text_config=dict(text, eos_token_id=1), vision_config=vision, projection_dim=20),
    "clip eos 2 is argmax": dict(text_config=dict(text, eos_token_id=2), vision_config=vision, projection_dim=20),
    "clip gelu, eps": dict(text_config=dict(text, eos_token_id=1, hidden_act="gelu", layer_norm_eps=1e-3), vision_config=dict(vision, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-2), projection_dim=40),
    "metaclip 2, eos 2": dict(text_config=dict(text, eos_token_id=2), vision_config=vision, projection_dim=20),
    "clip config_dict": dict(text_config=dict(text, hidden_act="gelu"), text_config_dict=dict(text, eos_token_id=1), vision_config=dict(vision, hidden_act="gelu"), vision_config_dict=vision, projection_dim=20),
}
for name, c in clip_cases.items():
    for part in ("text_config", "text_config_dict"):
        if part in c:
            c[part].update(vocab_size=576)
            if c[part].get("eos_token_id") == 1:
                c[part]["eos_token_id"] = 575
    with tempfile.TemporaryDirectory() as d:
        kind, conf = (MetaClip2Model, MetaClip2Config) if "metaclip" in name else (CLIPModel, CLIPConfig)
        model = jitter(kind(conf(**json.loads(json.dumps(c)))))
        model.save_pretrained(d, max_shard_size="40KB" if "gelu" in name else "1GB")
        if "config_dict" in name:
            j = json.load(open(d + "/config.json"))
            j.update(text_config=c["text_config"], text_config_dict=c["text_config_dict"], vision_config=c["vision_config"], vision_config_dict=c["vision_config_dict"])
            json.dump(j, open(d + "/config.json", "w"))
        for f in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
            shutil.copy(TOK / "../clip/hf_clip" / f, d)
        t = PreTrainedTokenizerFast.from_pretrained(d)
        ids = t(TEXTS, return_tensors="pt", padding=True, truncation=True, max_length=30)
        with torch.no_grad():
            wi = unit(model.get_image_features(pixel_values=torch.from_numpy(px)).pooler_output)
            wt = unit(model.get_text_features(input_ids=ids.input_ids, attention_mask=ids.attention_mask).pooler_output)
            big = np.random.default_rng(2).standard_normal((2, 3, 40, 56)).astype(np.float32)
            wb = unit(model.get_image_features(pixel_values=torch.from_numpy(big), interpolate_pos_encoding=True).pooler_output)
        try:
            gi, gt = run(d, c["projection_dim"], px, TEXTS)
            gb, _ = run(d, c["projection_dim"], big, None, (40, 56))
            bad += report(name, [("image", gi, wi), ("text", gt, wt), ("interpolated", gb, wb)])
        except RuntimeError as ex:
            bad += 1
            print(name, ex)

# one tower alone
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection
for name in ("text tower alone", "image tower alone"):
    with tempfile.TemporaryDirectory() as d:
        is_text = name[0] == "t"
        model = jitter(CLIPTextModelWithProjection(CLIPTextConfig(**dict(text, vocab_size=576, eos_token_id=575, projection_dim=20))) if is_text else
                       CLIPVisionModelWithProjection(CLIPVisionConfig(**dict(vision, projection_dim=20))))
        model.save_pretrained(d)
        for f in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
            shutil.copy(TOK / "../clip/hf_clip" / f, d)
        try:
            with torch.no_grad():
                if is_text:
                    ids = PreTrainedTokenizerFast.from_pretrained(d)(TEXTS, return_tensors="pt", padding=True, truncation=True, max_length=30)
                    bad += report(name, [("text", run(d, 20, None, TEXTS)[1], unit(model(input_ids=ids.input_ids, attention_mask=ids.attention_mask).text_embeds))])
                else:
                    bad += report(name, [("image", run(d, 20, px, None)[0], unit(model(pixel_values=torch.from_numpy(px)).image_embeds))])
        except RuntimeError as ex:
            bad += 1
            print(name, ex)

sig = dict(text_config=dict(text, projection_size=48), vision_config=vision)
for name, c in {"siglip": sig, "siglip gelu": dict(text_config=dict(text, hidden_act="gelu", hidden_size=48, projection_size=48), vision_config=dict(vision, hidden_act="gelu"))}.items():
    with tempfile.TemporaryDirectory() as d:
        model = jitter(SiglipModel(SiglipConfig(**json.loads(json.dumps(c)))))
        model.save_pretrained(d)
        shutil.copy(TOK / "t5.spiece.model", d + "/spiece.model")
        json.dump({"tokenizer_class": "SiglipTokenizer", "model_max_length": 30, "pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>", "do_lower_case": True}, open(d + "/tokenizer_config.json", "w"))
        from transformers import SiglipTokenizer
        t = SiglipTokenizer.from_pretrained(d)
        ids = t(TEXTS, return_tensors="pt", padding="max_length", truncation=True, max_length=30)
        with torch.no_grad():
            wi = unit(model.get_image_features(pixel_values=torch.from_numpy(px)).pooler_output)
            wt = unit(model.get_text_features(input_ids=ids.input_ids).pooler_output)
        try:
            gi, gt = run(d, 48, px, TEXTS)
            bad += report(name, [("image", gi, wi), ("text", gt, wt)])
        except RuntimeError as ex:
            bad += 1
            print(name, ex)


def sentence(name, cls, config, tok_file, pads, pool, normalize=True, old=False):
    with tempfile.TemporaryDirectory() as d:
        model = jitter(cls(config))
        model.save_pretrained(d)
        shutil.copy(TOK / tok_file, d + ("/vocab.txt" if tok_file.endswith("txt") else "/tokenizer.json"))
        json.dump([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                   {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}], open(d + "/modules.json", "w"))
        os.mkdir(d + "/1_Pooling")
        json.dump({"word_embedding_dimension": 32, "pooling_mode_cls_token": pool == "cls", "pooling_mode_mean_tokens": pool == "mean"}, open(d + "/1_Pooling/config.json", "w"))
        json.dump({"max_seq_length": 20}, open(d + "/sentence_bert_config.json", "w"))
        if tok_file.endswith("txt"):
            from transformers import BertTokenizer
            t = BertTokenizer.from_pretrained(d) if False else BertTokenizer(d + "/vocab.txt")
        else:
            t = PreTrainedTokenizerFast(tokenizer_file=d + "/tokenizer.json", pad_token="<pad>")
        b = t(TEXTS, return_tensors="pt", padding=True, truncation=True, max_length=20)
        with torch.no_grad():
            h = model(input_ids=b.input_ids, attention_mask=b.attention_mask).last_hidden_state
        mask = b.attention_mask.unsqueeze(-1)
        w = unit(h[:, 0] if pool == "cls" else (h * mask).sum(1) / mask.sum(1))
        try:
            _, g = run(d, config.hidden_size, None, TEXTS)
            return report(name, [("text", g, w)])
        except RuntimeError as ex:
            print(name, ex)
            return 1


enc = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=70, max_position_embeddings=64)
bad += sentence("bert mean", BertModel, BertConfig(vocab_size=30522, **enc), "bert_uncased.vocab.txt", 0, "mean")
bad += sentence("bert cls", BertModel, BertConfig(vocab_size=30522, **enc), "bert_uncased.vocab.txt", 0, "cls")
bad += sentence("xlm-roberta mean", XLMRobertaModel, XLMRobertaConfig(vocab_size=2002, pad_token_id=1, layer_norm_eps=1e-5, type_vocab_size=1, **enc), "xlmr.tokenizer.json", 1, "mean")
bad += sentence("mpnet mean", MPNetModel, MPNetConfig(vocab_size=2002, pad_token_id=1, **enc), "xlmr.tokenizer.json", 1, "mean")
sys.exit(bad != 0)
