#!/usr/bin/env python3
"""match, embed, caption and ask with BLIP-2 against the references' results on the tiny models: the authors' files in their parts,
folders in both layouts, and what is said about parts that are not there."""
import json
import shutil
import signal
import sqlite3
import subprocess

from harness import BINARY, SHARED, TMP, check, close, contains, equal, exits, finish, golden, read_npy, read_safetensors, run, skip, write_npy

IMAGES = [golden("blip2", "images", f"image{i}.png") for i in range(4)]
VOCAB = SHARED / "blip2" / "bert_vocab.txt"
NAMES = {"num_beams": "beams", "max_length": "max-length", "min_length": "min-length", "num_captions": "n-best", "num_return_sequences": "n-best",
         "max_new_tokens": "max-new", "min_new_tokens": "min-new", "repetition_penalty": "repetition-penalty", "length_penalty": "length-penalty"}


def load(name, tensors=None):
    return json.loads(golden("blip2", f"{name}.json").read_text()), read_safetensors(golden("blip2", f"{tensors or name}.safetensors"))


def config(arch, name):
    """What the tensors do not show."""
    path = TMP / f"{name}.config.json"
    v, q = arch["vision"], arch["qformer"]
    path.write_text(json.dumps({
        "vision_config": {"num_attention_heads": v["heads"], "layer_norm_eps": v["layer_norm_eps"]},
        "qformer_config": {"num_attention_heads": q["num_attention_heads"], "layer_norm_eps": q["layer_norm_eps"]}}))
    return path


def listed(option, values):
    return [x for v in values for x in (option, v)]


def flags(settings):
    out = []
    for key, value in settings.items():
        out += ["--greedy"] if key == "num_beams" and value == 1 else [f"--{NAMES[key]}", str(value)]
    return out


def stage1(*more):
    j, _ = load("stage1", "stage1_features")
    return ["-m", golden("blip2", "lavis", "blip2_pretrained.pth"), "--config", config(j["arch"], "stage1"), "--dtype", "f32", *more]


def stage2(kind, *more):
    j, _ = load(kind)
    file, folder = {"opt": ("blip2_pretrained_opt.pth", "opt"), "t5": ("blip2_pretrained_flant5.pth", "flan_t5")}[kind]
    return ["-m", golden("blip2", "lavis", file), "--language-model", golden("blip2", "lavis", folder), "--config", config(j["arch"], kind), "--dtype", "f32",
            *more]


def vectors():
    _, t = load("stage1", "stage1_features")
    r = run("embed", *stage1(), *IMAGES)
    exits(r, 0, "pictures without a tokenizer")
    close([x for row in r.rows() for v in row["embedding"] for x in v], t["image_embeds_proj"][2], 5e-6, "image_embeds_proj")
    equal([(row["dim"], len(row["embedding"])) for row in r.rows()], [(20, 8)] * 4, "a vector per query")
    r = run("embed", *stage1(), *IMAGES, "--out", TMP / "v.npy")
    exits(r, 0, "--out")
    equal(tuple(read_npy(TMP / "v.npy")[1]), (4, 8, 20), "[n, queries, dim]")
    close(read_npy(TMP / "v.npy")[2], t["image_embeds_proj"][2], 5e-6, "in --out")
    write_npy(TMP / "p.npy", t["pixel_values"][1], t["pixel_values"][2])
    r = run("embed", *stage1(), TMP / "p.npy")
    close([x for row in r.rows() for v in row["embedding"] for x in v], t["image_embeds_proj"][2][:2 * 8 * 20], 5e-6, "tensors")
    r = run("inspect", "activations", *stage1(), *IMAGES, "--out", TMP / "a.safetensors")
    exits(r, 0, "activations")
    a = read_safetensors(TMP / "a.safetensors")
    for name in [n for n in t if n.startswith(("vision.", "image.")) and "mask" not in n]:
        close(a[name][2], t[name][2], 1e-4, name)
    close(a["image_embeds"][2], t["image_embeds"][2], 1e-4, "image_embeds")
    exits(run("classify", *stage1(), "--labels", "a,b", IMAGES[0]), 3, "texts need a tokenizer")
    e, et = load("eva_resized")
    size = str(e["run_image_size"])
    r = run("inspect", "activations", *stage1("--image-size", size), *IMAGES, "--out", TMP / "b.safetensors")
    exits(r, 0, "another size")
    b = read_safetensors(TMP / "b.safetensors")
    close(b["vision.ln_vision"][2][:len(et["ln_vision"][2])], et["ln_vision"][2], 5e-5, "ln_vision at another size")
    close(b["image_embeds"][2], et["image_embeds"][2], 1e-4, "image_embeds at another size")
    c, ct = load("clip_vit_L")
    cfg = TMP / "clip.config.json"
    cfg.write_text(json.dumps({"vision_config": {"num_attention_heads": c["arch"]["heads"]}, "qformer_config": {"num_attention_heads": 4}}))
    base = ["-m", golden("blip2", "lavis", "blip2_pretrained.pth"), "--vision", golden("blip2", "lavis", "clip_vit_L.pth"), "--config", cfg, "--dtype", "f32"]
    r = run("inspect", "activations", *base, *IMAGES, "--out", TMP / "c.safetensors")
    exits(r, 0, "CLIP's image encoder")
    got = read_safetensors(TMP / "c.safetensors")
    for name in ("ln_pre", "block.0", "block.1"):
        close(got[f"vision.{name}"][2], ct[name][2], 5e-5, f"clip {name}")
    r = run("inspect", "activations", *base, "--image-size", "70", IMAGES[0], "--out", TMP / "d.safetensors")
    close(read_safetensors(TMP / "d.safetensors")["vision.block.1"][2], ct["size70.output"][2], 5e-5, "clip at another size")
    exits(run("embed", *stage2("opt"), IMAGES[0]), 3, "stage 2 has no vectors")
    r = run("inspect", "activations", *stage2("opt"), *IMAGES, "--out", TMP / "o.safetensors")
    exits(r, 0, "stage 2 activations")
    close(read_safetensors(TMP / "o.safetensors")["opt_proj"][2], load("opt")[1]["opt_proj"][2], 1e-4, "opt_proj")
    r = run("embed", *stage1("--tokenizer", VOCAB), "--text", "a", IMAGES[0], "--out", TMP / "n.npy")
    exits(r, 1, "texts and pictures in one file")


def matching():
    j, t = load("stage1", "stage1_features")
    m = stage1("--tokenizer", VOCAB)
    args = listed("--image", IMAGES) + listed("--text", j["captions"])
    row = run("match", *m, *args).rows()[0]
    close(sum(row["scores"], []), t["itc"][2], 5e-6, "itc")
    temp = j["losses"]["temp"]
    check(row["probs"] is not None and abs(sum(row["probs"][0]) - 1) < 1e-5, "softmax over temp")
    check(abs(row["probs"][0][1] / row["probs"][0][0] - 2.718281828 ** ((row["scores"][0][1] - row["scores"][0][0]) / temp)) < 1e-3, "temp divides")
    for token in (None, "cls"):
        row = run("match", *m, *args, "--head", "itm", *(["--itm-token", token] if token else [])).rows()[0]
        close(sum(row["scores"], []), t["itm_logits"][2][1::2], 3e-5, "itm logits")
        close(sum(row["probs"], []), t["itm_prob"][2], 1e-5, "itm probabilities")
    r = run("match", *m, *args, "--head", "itm", "--itm-token", "enc")
    exits(r, 3, "no [ENC]")
    contains(r.err, "[ENC]", "why")
    r = run("embed", *m, *listed("--text", j["captions"]))
    first = [x for i in range(4) for x in t["text_embeds_proj"][2][i * 11 * 20:i * 11 * 20 + 20]]
    close([x for row in r.rows() for x in row["embedding"]], first, 5e-6, "text_embeds_proj")
    row = run("classify", *m, "--labels", "two dogs playing in the snow,a small blue boat", IMAGES[0]).rows()[0]
    itc = t["itc"][2]
    want = 1 / (1 + 2.718281828 ** (100 * (itc[2] - itc[1])))
    close([x["prob"] for x in row["labels"] if x["label"].startswith("two")], [want], 1e-3, "classes by the best query")
    r = run("inspect", "activations", *m, *listed("--text", j["captions"]), IMAGES[0], "--out", TMP / "both.safetensors")
    exits(r, 0, "activations of texts and a picture")
    both = read_safetensors(TMP / "both.safetensors")
    close(both["multimodal.layer.2.query_after_cross_attention"][2], t["multimodal_image0.layer.2.query_after_cross_attention"][2], 1e-4, "the joint pass")
    equal(both["vision.ln_vision"][1], [1, 17, 32], "shown once")
    long = "two dogs " * 400
    exits(run("match", *m, "--image", IMAGES[0], "--text", long, "--head", "itm"), 0, "a long text is cut")
    k = j["retrieval"]
    args = listed("--image", IMAGES) + listed("--text", k["texts"])
    itc, itm = run("match", *m, *args).rows()[0]["scores"], run("match", *m, *args, "--head", "itm").rows()[0]["scores"]
    for i in range(4):
        for n in range(6):
            if k["score_i2t"][i][n] > -99:
                close([itc[i][n] + itm[i][n]], [k["score_i2t"][i][n]], 1e-4, "rerank")


def stage1_captions():
    j, _ = load("stage1", "stage1_features")
    m = stage1("--tokenizer", VOCAB)
    for c in j["captions_generated"]:
        n = c["num_beams"]
        row = run("caption", *m, "--beams", str(n), "--max-length", str(c["max_length"]), "--min-length", str(c["min_length"]),
                  golden("blip2", "images", c["image"])).rows()[0]
        equal(row["caption"], c["caption"], f"stage 1, {n} beams")
        if n > 1:
            close([row["score"]], [c["score"]], 1e-4, "score")
    want = [c for c in j["captions_generated"] if c["num_beams"] == 3 and c["max_length"] == 30 and c["min_length"] == 10]
    equal([x["caption"] for x in run("caption", *m, *[golden("blip2", "images", c["image"]) for c in want]).rows()], [c["caption"] for c in want],
          "the authors' defaults")
    exits(run("ask", *m, "--question", "what?", IMAGES[0]), 3, "stage 1 answers nothing")


def written(kind):
    j, _ = load(kind)
    m = stage2(kind)
    for r in j["runs"]:
        s = dict(r["settings"])
        if kind == "t5" and "max_length" in s:
            s["max_new_tokens"] = s.pop("max_length")  # T5's generate() there counts new ids alone
        out = run("caption", *m, *flags(s), *(["--prompt", r["prompt"]] if r["prompt"] else []), golden("blip2", "images", r["image"]))
        exits(out, 0, r["name"])
        row = out.rows()[0]
        equal(row["caption"], r["captions"][0], f"{kind} {r['name']} {r['image']}")
        if r.get("scores"):
            close([row["score"]], r["scores"][:1], 1e-4, f"{kind} {r['name']}")
        if len(r["captions"]) > 1:
            equal([x["caption"] for x in row["n_best"]], r["captions"], "n best")
            close([x["score"] for x in row["n_best"]], r["scores"], 1e-4, "n best")
    default = [r for r in j["runs"] if r["name"] == "default"]
    out = run("caption", *m, *[golden("blip2", "images", r["image"]) for r in default])
    equal([x["caption"] for x in out.rows()], [r["captions"][0] for r in default], "several pictures at once")
    v = j["vqa"]
    for i, q in enumerate(v["questions"]):
        row = run("ask", *m, "--question", q, "--prompt", "{}", IMAGES[i]).rows()[0]
        equal(row["answer"], v["single_answers"][i], q)
        equal(row["question"], q, "question")
    a = run("ask", *m, "--question", "what is it?", IMAGES[0]).rows()[0]
    b = run("ask", *m, "--question", "Question: what is it? Short answer:", "--prompt", "{}", IMAGES[0]).rows()[0]
    equal([a["answer"], a["score"]], [b["answer"], b["score"]], "the template")
    first = run("caption", *m, "--sample", "--seed", "5", *IMAGES)
    equal(first.out, run("caption", *m, "--sample", "--seed", "5", *IMAGES).out, "the same seed")
    r = run("caption", *m, IMAGES[0], TMP / "none.png", IMAGES[1])
    exits(r, 2, "one bad picture")
    equal(len(r.rows()), 2, "the others are done")
    r = run("ask", *m, "--question", "what is in the picture " * 450, IMAGES[0])
    exits(r, 0, "a question of 10,000 characters")
    ranked_list(m, kind)


def ranked_list(m, kind):
    """Ranking depends neither on the other pictures nor on how many answers are scored together; empty lines are no answers."""
    words = [a + b for a in ("", "re", "un", "blue ", "big red ") for b in ("boat", "dog", "two", "yes", "no", "on the water")]
    file = TMP / "answers.txt"
    file.write_text("\n\n".join(words) + "\n\n\r\n")
    r = run("ask", *m, "--question", "what is it?", "--answers", file, "--candidates", "1000", *IMAGES)
    exits(r, 0, f"{kind}: ranked answers")
    for image, row in zip(IMAGES, r.rows()):
        equal(sorted(x["answer"] for x in row["answers"]), sorted(words), f"{kind}: every answer")
        equal(row["answers"], sorted(row["answers"], key=lambda x: -x["score"]), f"{kind}: best first")
        equal((row["answer"], row["score"]), (row["answers"][0]["answer"], row["answers"][0]["score"]), f"{kind}: the best")
        equal(run("ask", *m, "--question", "what is it?", "--answers", file, "--candidates", "1000", image).rows()[0], row, f"{kind}: alone")
    scores = {x["answer"]: x["score"] for x in row["answers"]}
    two = TMP / "two.txt"
    two.write_text("big red dog\nno")
    got = run("ask", *m, "--question", "what is it?", "--answers", two, IMAGES[-1]).rows()[0]
    close([x["score"] for x in got["answers"]], [scores[x["answer"]] for x in got["answers"]], 2e-5, f"{kind}: among few as among many")
    equal(len(run("ask", *m, "--question", "what is it?", "--answers", file, "--candidates", "3", IMAGES[0]).rows()[0]["answers"]), 3, f"{kind}: --candidates")
    two.write_text("\n \n\n")
    r = run("ask", *m, "--question", "what is it?", "--answers", two, IMAGES[0])
    exits(r, 3, f"{kind}: no answers")
    contains(r.err, "two.txt", f"{kind}: the file is named")
    r = run("ask", *m, "--question", "what is in the picture " * 450, "--answers", file, IMAGES[0], TMP / "none.png")
    exits(r, 2, f"{kind}: a question of 10,000 characters, a picture that is not there")
    equal(len(r.rows()), 1, f"{kind}: the other is done")


def ranked_folder(kind):
    """transformers' log-likelihoods (scripts/gen_blip2_ranked.py)."""
    j = json.loads(golden("blip2", "ranked.json").read_text())
    file = TMP / "golden_answers.txt"
    file.write_text("\n".join(j["answers"]))
    row = run("ask", "-m", SHARED / "blip2" / f"hf_{kind}", "--dtype", "f32", "--question", j["question"], "--answers", file,
              golden("blip2", "images", j["image"])).rows()[0]
    got = {x["answer"]: x["score"] for x in row["answers"]}
    close([got[a] for a in j["answers"]], j["scores"][kind], 2e-5, f"hf {kind}: scores of ranked answers")


def folder(kind):
    j, _ = json.loads(golden("blip2", f"hf_{kind}.json").read_text()), None
    m = ["-m", SHARED / "blip2" / f"hf_{kind}", "--dtype", "f32"]
    for r in j["runs"]:
        if "per_image" not in r:
            for i, prompt in enumerate(r["prompts"]):
                row = run("caption", *m, "--beams", "3", "--max-new", "10", "--prompt", prompt, IMAGES[i]).rows()[0]
                equal(row["caption"], r["texts"][i][len(prompt):].strip() if kind == "opt" else r["texts"][i].strip(), r["name"])
            continue
        options = ["--prompt", r["prompt"]] if r["prompt"] else []
        for want in r["per_image"]:
            row = run("caption", *m, *options, *flags(r["settings"]), golden("blip2", "images", want["image"])).rows()[0]
            cut = len(r["prompt"]) if kind == "opt" else 0
            equal(row["caption"], want["texts"][0][cut:].strip(), f"hf {kind} {r['name']}")
            if want.get("scores"):
                equal([x["caption"] for x in row["n_best"]], [x[cut:].strip() for x in want["texts"]], f"hf {kind} {r['name']}")
                close([x["score"] for x in row["n_best"]], want["scores"], 1e-4, f"hf {kind} {r['name']}")
    if kind == "t5":  # newer configurations say apart from the file whether the decoder's rows are scaled
        scaled = TMP / "scaled"
        shutil.copytree(SHARED / "blip2" / "hf_t5", scaled)
        (scaled / "config.json").chmod(0o644)
        outs = []
        for value in (False, True):
            cfg = json.loads((SHARED / "blip2" / "hf_t5" / "config.json").read_text())
            cfg["text_config"]["scale_decoder_outputs"] = value
            (scaled / "config.json").write_text(json.dumps(cfg))
            outs.append(run("caption", "-m", scaled, "--dtype", "f32", "--beams", "3", IMAGES[0]).rows()[0]["score"])
        equal(outs[0], run("caption", *m, "--beams", "3", IMAGES[0]).rows()[0]["score"], "not scaled")
        check(outs[1] != outs[0], "scaled")
    old = TMP / f"old_{kind}"
    shutil.copytree(SHARED / "blip2" / f"hf_{kind}", old)
    cfg = json.loads((old / "config.json").read_text())
    cfg.pop("image_token_index")
    (old / "config.json").chmod(0o644)
    (old / "config.json").write_text(json.dumps(cfg))
    new = run("caption", *m, *IMAGES)
    equal(run("caption", "-m", old, "--dtype", "f32", *IMAGES).out, new.out, "the older layout writes the same")
    texts = {r["name"]: r.get("prompt") for r in j["runs"]}
    for r in json.loads(golden("blip2", "hf_old_layout.json").read_text())[kind]:
        prompt = texts[r["run"]]
        row = run("caption", "-m", old, "--dtype", "f32", "--beam-rule", "4.33", *flags(r["settings"]), *(["--prompt", prompt] if prompt else []),
                  golden("blip2", "images", r["image"])).rows()[0]
        if r["scores"]:
            close([x["score"] for x in row["n_best"]], r["scores"], 1e-4, f"older layout {r['run']}")


def retrieval_folder():
    j, t = load("hf_itm")
    m = ["-m", SHARED / "blip2" / "hf_itm", "--dtype", "f32"]
    args = listed("--image", IMAGES) + listed("--text", j["captions"])
    row = run("match", *m, *args).rows()[0]
    close(sum(row["scores"], []), t["itc"][2], 5e-6, "itc of a folder")
    equal(row["probs"], None, "no temperature")
    row = run("match", *m, *args, "--head", "itm").rows()[0]
    close(sum(row["scores"], []), t["itm_logits"][2][1::2], 3e-5, "itm of a folder")
    close([x for row in run("embed", *m, *IMAGES).rows() for v in row["embedding"] for x in v], t["image_embeds"][2], 5e-6, "image_embeds of a folder")
    close([x for row in run("embed", *m, *listed("--text", j["captions"])).rows() for x in row["embedding"]], t["text_embeds"][2], 5e-6,
          "text_embeds of a folder")
    exits(run("caption", *m, IMAGES[0]), 3, "writes nothing")
    r = run("verify", *m)
    check(any(x["check"] == "f32: one by one" and x["ok"] for x in r.rows()), "verify compares all vectors of a picture")


def collections():
    """index, search and similar with a vector per query: ITC's scores, whatever the store keeps."""
    m = ["-m", SHARED / "blip2" / "hf_itm", "--dtype", "f32"]
    texts = json.loads(golden("blip2", "hf_itm.json").read_text())["captions"]
    want = run("match", *m, *listed("--image", IMAGES), *listed("--text", texts)).rows()[0]["scores"]
    for store, tol in (("f32", 2e-6), ("f16", 1e-3)):
        col = TMP / f"col-{store}"
        r = run("index", *m, "--collection", col, "--store", store, *IMAGES, *listed("--text", texts[:2]))
        exits(r, 0, "index")
        equal(r.rows()[-1]["items"], 6, "items")
        for i, text in enumerate(texts):
            got = run("search", "--collection", col, "--kind", "image", "--text", text).rows()[0]["results"]
            scores = {x["path"]: x["score"] for x in got}
            close([scores[str(p.resolve())] if str(p.resolve()) in scores else scores[str(p)] for p in IMAGES], [row[i] for row in want], tol, f"{store}: cosines of match")
            equal([x["score"] for x in got], sorted((x["score"] for x in got), reverse=True), "best first")
        got = run("search", "--collection", col, "--kind", "text", "--image", IMAGES[0]).rows()[0]["results"]
        close([{x["path"]: x["score"] for x in got}[t] for t in texts[:2]], want[0][:2], tol, f"{store}: texts for a picture")
        got = run("similar", "--collection", col, IMAGES[1]).rows()[0]["results"]
        check(got[0]["path"].endswith("image1.png") and abs(got[0]["score"] - 1) < 1e-3, f"{store}: a picture is most like itself")
        exits(run("search", "--collection", col, f'{texts[0]} - 0.5* {texts[1]}'), 0, "sums of texts")
        exits(run("search", "--collection", col, f"{texts[0]} + @{IMAGES[2]}"), 0, "a text and a picture")
        r = run("index", *m, "--collection", col, *IMAGES)
        equal(r.rows()[-1]["unchanged"], 4, "nothing to do")
        exits(run("collections", "compact", col), 0, "compact")
        exits(run("collections", "check", col), 0, "check")
    with sqlite3.connect(TMP / "col-f16" / "catalog.sqlite") as db:
        db.execute("UPDATE meta SET value = '3' WHERE key = 'vectors'")
    db.close()
    r = run("search", "--collection", TMP / "col-f16", "--text", texts[0])
    exits(r, 3, "a catalogue whose vectors do not divide the rows")
    contains(r.err, "vectors", "which is said")
    r = run("index", "-m", SHARED / "blip2" / "hf_opt", "--dtype", "f32", "--collection", TMP / "none", IMAGES[0])
    exits(r, 3, "no ITC head")
    contains(r.err, "no ITC head", "which is said")


def parts():
    """What is missing is named."""
    alone = TMP / "alone"
    alone.mkdir()
    for name in ("blip2_pretrained.pth", "blip2_pretrained_opt.pth", "blip2_pretrained_flant5.pth"):
        shutil.copy(golden("blip2", "lavis", name), alone / name)
    j, _ = load("stage1", "stage1_features")
    cfg = config(j["arch"], "alone")
    r = run("embed", "-m", alone / "blip2_pretrained.pth", "--config", cfg, IMAGES[0])
    exits(r, 3, "no image encoder")
    contains(r.err, "--vision", "named")
    contains(r.err, "eva_vit_g.pth", "named")
    for name in ("blip2_pretrained_opt.pth", "blip2_pretrained_flant5.pth"):
        r = run("caption", "-m", alone / name, "--vision", golden("blip2", "lavis", "eva_vit_g.pth"), "--config", cfg, IMAGES[0])
        exits(r, 3, "no language model")
        contains(r.err, "--language-model", "named")
    r = run("caption", "-m", alone / "blip2_pretrained_opt.pth", "--vision", golden("blip2", "lavis", "eva_vit_g.pth"), "--language-model", TMP / "nowhere",
            "--config", cfg, IMAGES[0])
    exits(r, 3, "no such folder")
    r = run("caption", *stage2("opt")[:2], "--language-model", golden("blip2", "lavis", "flan_t5"), "--config", cfg, IMAGES[0])
    exits(r, 3, "a language model of the other kind")
    r = run("embed", "-m", golden("blip2", "lavis", "blip2_pretrained.pth"), IMAGES[0])
    exits(r, 3, "heads are not known")
    contains(r.err, "num_attention_heads", "what is missing")
    r = run("embed", *stage1(), "--vision", golden("blip2", "lavis", "blip2_pretrained.pth"), IMAGES[0])
    exits(r, 3, "no image encoder in that file")
    bare = TMP / "bare"
    bare.mkdir()
    for name in ("config.json", "pytorch_model.bin"):
        shutil.copy(golden("blip2", "lavis", "opt", name), bare / name)
    r = run("caption", *[bare if x == golden("blip2", "lavis", "opt") else x for x in stage2("opt")], IMAGES[0])
    exits(r, 3, "a language model without its tokenizer")
    contains(r.err, "in the folder of the language model", "named")
    (alone / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "dog"]) + "\n")
    r = run("caption", "-m", alone / "blip2_pretrained_opt.pth", "--vision", golden("blip2", "lavis", "eva_vit_g.pth"), "--language-model", bare, "--config",
            stage2("opt")[5], IMAGES[0])
    exits(r, 3, "the Q-Former's word list beside the checkpoint is not the language model's tokenizer")
    r = run("models", "info", *stage1())
    exits(r, 0, "models info")
    contains(r.out, "blip2", "family")
    equal(r.rows()[0]["image_vectors"], 8, "vectors of a picture")


def memory():
    """Weights read from the mapped file give the same numbers as packed ones, in every compute type."""
    for dtype in ("f32", "bf16", "int8"):
        m = [dtype if x == "f32" else x for x in stage2("opt")]
        packed = run("caption", *m, "--weights", "packed", *IMAGES)
        exits(packed, 0, dtype)
        equal(run("caption", *m, "--weights", "mapped", *IMAGES).out, packed.out, f"mapped {dtype}")
    t5 = stage2("t5")
    f = run("inspect", "activations", *t5, "--weights", "mapped", IMAGES[0], "--out", TMP / "m.safetensors")
    exits(f, 0, "mapped T5")


def hard_pictures():
    """One pixel, and a stop in the middle of many."""
    tiny = TMP / "tiny.ppm"
    tiny.write_bytes(b"P6\n1 1\n255\n\x80\x40\x20")
    for m in (stage2("opt"),):
        r = run("caption", *m, tiny, IMAGES[0])
        exits(r, 0, "a picture of one pixel")
        equal(len(r.rows()), 2, "both written")
    folder = TMP / "many"
    folder.mkdir()
    for i in range(200):
        shutil.copy(IMAGES[i % 4], folder / f"{i:03d}.png")
    p = subprocess.Popen([BINARY, "caption", *map(str, stage2("opt")), "--batch", "2", "-r", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    first = p.stdout.readline()
    p.send_signal(signal.SIGINT)
    rest, _ = p.communicate(timeout=120)
    rows = [json.loads(x) for x in (first + rest).decode().splitlines()]
    check(2 <= len(rows) <= 200, f"what was done is written: {len(rows)} lines")
    equal([x["input"] for x in rows], [str(folder / f"{i:03d}.png") for i in range(len(rows))], "whole lines in order")


vectors()
parts()
memory()
hard_pictures()
written("opt")
if VOCAB.exists():
    matching()
    stage1_captions()
    written("t5")
    folder("opt")
    folder("t5")
    ranked_folder("opt")
    ranked_folder("t5")
    retrieval_folder()
    collections()
else:
    skip("shared/golden/blip2: everything with BERT's or T5's vocabulary")
finish()
