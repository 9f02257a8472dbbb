#!/usr/bin/env python3
"""tests/golden/blip2/ranked.json: log-likelihoods of answers by transformers' Blip2ForConditionalGeneration, as LAVIS' predict_class sums them.

    gen_blip2_ranked.py NAME=FOLDER... PIXELS.npy > ranked.json      (PIXELS: `noema inspect pixels -m FOLDER image0.png --out PIXELS.npy`)
Needs torch and transformers; never to build or run."""
import json
import sys

import numpy as np
import torch
from transformers import AutoTokenizer, Blip2ForConditionalGeneration

QUESTION, PROMPT = "what is it?", "Question: what is it? Short answer:"
ANSWERS = ["a red boat", "two", "a boat on the water", "dog", "yes", "no"]


def scores(folder, pixels):
    model, tokenizer = Blip2ForConditionalGeneration.from_pretrained(folder).eval().float(), AutoTokenizer.from_pretrained(folder)
    opt = model.config.text_config.model_type == "opt"
    row = [model.config.image_token_index] * model.config.num_query_tokens + tokenizer(PROMPT).input_ids
    end = model.generation_config.eos_token_id
    out = []
    for answer in ANSWERS:
        ids = tokenizer(" " + answer, add_special_tokens=False).input_ids + [end] if opt else tokenizer(answer).input_ids
        whole = torch.tensor([row + ids if opt else row])
        with torch.no_grad():
            z = model(pixel_values=pixels, input_ids=whole, attention_mask=torch.ones_like(whole), **({} if opt else {"labels": torch.tensor([ids])})).logits[0]
        p = torch.log_softmax(z.double(), -1)
        first = len(row) - 1 if opt else 0
        out.append(sum(p[first + i, x].item() for i, x in enumerate(ids)))
    return out


pixels = torch.from_numpy(np.load(sys.argv[-1]))
print(json.dumps({"question": QUESTION, "answers": ANSWERS, "image": "image0.png",
                  "scores": {name: scores(folder, pixels) for name, folder in (a.split("=") for a in sys.argv[1:-1])}}, indent=1))
