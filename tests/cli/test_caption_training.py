#!/usr/bin/env python3
"""A captioner from a CLIP's image tower: `train --config --init` takes the trunk, pool and decoder learn captions in two languages, `caption --language` writes
them, and `caption` without -m takes the built-in captioner where there is one."""
import json
import shutil

from harness import TMP, check, contains, equal, exits, finish, read_safetensors, run

CAPTIONS = {"en": ["a red square", "a green circle", "two blue bars"], "ko": ["빨간 네모", "초록 동그라미", "파란 막대 두 개"]}
VISION = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
TEXT = {"context_length": 24, "width": 32, "heads": 2, "layers": 1}


def prepare():
    """Three pictures, a vocabulary of their captions, a CLIP with drawn weights and the captioner's configuration."""
    for k, colour in enumerate(((220, 30, 30), (20, 200, 40), (30, 40, 210))):
        pixels = bytes(c if (x // 8 + y // 8 * k) % (k + 1) == 0 else 255 - c for y in range(32) for x in range(32) for c in colour)
        (TMP / f"{k}.ppm").write_bytes(b"P6 32 32 255 " + pixels)
    rows = [{"filepath": f"{k}.ppm", "title": f"{language}: {text}"} for language, texts in CAPTIONS.items() for k, text in enumerate(texts)]
    (TMP / "rows.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    (TMP / "texts.txt").write_text("".join(r["title"] + "\n" for r in rows) * 4)
    r = run("data", "vocab", "--text-file", TMP / "texts.txt", "--size", "560", "--out", TMP / "bpe_simple_vocab_16e6.txt.gz")
    exits(r, 0, "data vocab")
    text = TEXT | {"vocab_size": 560}
    clip = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": text}
    coca = {"model_cfg": {"embed_dim": 32, "vision_cfg": VISION | {"attentional_pool": True, "attn_pooler_queries": 3, "attn_pooler_heads": 2},
                          "text_cfg": text | {"embed_cls": True}, "multimodal_cfg": text},
            "caption_cfg": {"languages": {"en": "en:", "ko": "ko:"}}}
    (TMP / "clip.json").write_text(json.dumps(clip))
    (TMP / "coca.json").write_text(json.dumps(coca))
    exits(run("models", "new", "--config", TMP / "clip.json", "--out", TMP / "clip", "--seed", "5"), 0, "models new: the CLIP")
    shutil.copy(TMP / "bpe_simple_vocab_16e6.txt.gz", TMP / "clip")


def train(name, *args):
    return run("train", "--config", TMP / "coca.json", "--tokenizer", TMP / "bpe_simple_vocab_16e6.txt.gz", "--train-data", TMP / "rows.jsonl", "--batch-size", "6",
               "--coca-contrastive-loss-weight", "0", "--warmup", "0", "--no-augment", "--logs", TMP, "--name", name, *args)


def initialised():
    r = train("init", "--init", TMP / "clip", "--epochs", "1", "--lr", "0")
    exits(r, 0, "--init")
    contains(r.err, "weights are those of", "it says how many were taken")
    clip, got = read_safetensors(TMP / "clip/open_clip_model.safetensors"), read_safetensors(TMP / "init/open_clip_model.safetensors")
    for name in ("visual.conv1.weight", "visual.layer4.0.conv2.weight"):
        equal(got[name][2], clip[name][2], f"--init takes {name}")
    equal(got["text.token_embedding.weight"][2], clip["token_embedding.weight"][2], "--init: a text tower without its prefix is the same one")
    check(got["text.positional_embedding"][1] != clip["positional_embedding"][1], "of another shape: drawn")
    drawn = train("drawn", "--epochs", "1", "--lr", "0")
    exits(drawn, 0, "without --init")
    check(read_safetensors(TMP / "drawn/open_clip_model.safetensors")["visual.conv1.weight"][2] != clip["visual.conv1.weight"][2], "drawn weights are others")
    exits(train("both", "--init", TMP / "clip", "-m", TMP / "clip"), 1, "--init and -m")


def languages():
    r = train("captions", "--init", TMP / "clip", "--epochs", "150", "--lr", "3e-3", "--wd", "0", "--lock-image", "--lock-image-unlocked-groups", "1",
              "--lock-image-freeze-bn-stats", "--keep", "1", "--quiet")
    exits(r, 0, "captions are trained")
    model, pictures = TMP / "captions", [TMP / f"{k}.ppm" for k in range(3)]
    for language, texts in CAPTIONS.items():
        r = run("caption", "-m", model, "--language", language, "--dtype", "f32", *pictures)
        if exits(r, 0, f"--language {language}"):
            equal([x["caption"] for x in r.rows()], texts, f"captions in {language}, without the word that asks for it")
    first = run("caption", "-m", model, "--dtype", "f32", *pictures)
    equal([x["caption"] for x in first.rows()], CAPTIONS["en"], "unasked: the first language")
    prompted = run("caption", "-m", model, "--dtype", "f32", "--language", "ko", "--prompt", "빨간", pictures[0])
    equal([x["caption"] for x in prompted.rows()], ["네모"], "a prompt stands behind the language")
    r = run("caption", "-m", model, "--language", "fr", pictures[0])
    check(r.code != 0, f"a language it has not: exit {r.code}")
    contains(r.err, "en, ko", "the message names those it has")
    # what the model is told survives saving; a model without languages refuses
    exits(run("models", "convert", "-m", model, "--out", TMP / "f16", "--dtype", "f16"), 0, "models convert")
    equal(json.loads((TMP / "f16/open_clip_config.json").read_text())["caption_cfg"], {"languages": {"en": "en:", "ko": "ko:"}}, "caption_cfg is kept")
    config = json.loads((TMP / "f16/open_clip_config.json").read_text())
    del config["caption_cfg"]
    shutil.copytree(TMP / "f16", TMP / "plain")
    (TMP / "plain/open_clip_config.json").write_text(json.dumps(config))
    exits(run("caption", "-m", TMP / "plain", pictures[0]), 0, "no languages")
    r = run("caption", "-m", TMP / "plain", "--language", "en", pictures[0])
    check(r.code != 0 and "languages" in r.err, f"no languages to choose from: {r.code} {r.err[-200:]}")


def builtin():
    data, picture = TMP / "data", TMP / "1.ppm"
    (data / "noema-mini-caption").mkdir(parents=True)
    for f in (TMP / "f16").iterdir():
        shutil.copy(f, data / "noema-mini-caption")
    env = {"NOEMA_DATA_DIR": str(data)}
    r, named = run("caption", "--language", "ko", picture, env=env), run("caption", "-m", "noema-mini-caption", "--language", "ko", picture, env=env)
    if exits(r, 0, "caption without -m") and exits(named, 0, "by name"):
        equal([x["caption"] for x in r.rows()], [CAPTIONS["ko"][1]], "the built-in captioner")
        equal(named.out, r.out, "by name")
    r = run("embed", "--text", "a", env=env)
    exits(r, 3, "other verbs keep noema-mini")
    contains(r.err, "noema-mini is not", "and name it")
    (TMP / "empty").mkdir()
    r = run("caption", picture, env={"NOEMA_DATA_DIR": str(TMP / "empty")})
    exits(r, 3, "no captioner")
    equal(run("caption", "-m", "noema-mini-caption", picture, env={"NOEMA_DATA_DIR": str(TMP / "empty")}).code, 3, "no captioner, by name")


prepare()
initialised()
languages()
builtin()
finish()
