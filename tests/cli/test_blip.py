#!/usr/bin/env python3
"""match, embed, caption and ask with BLIP against the references' results on the tiny models."""
import json
import math
import shutil

from harness import OWN, SHARED, TMP, check, close, contains, equal, exits, finish, golden, read_npy, read_safetensors, run, skip, write_npy, write_safetensors

IMAGES = [golden("blip", "images", f"image{i}.png") for i in range(4)]
VOCAB = SHARED / "blip" / "tiny_vocab.txt"


def load(name):
    return json.loads(golden("blip", f"{name}.json").read_text()), read_safetensors(golden("blip", f"{name}.safetensors"))


def model(file, arch, vocab=VOCAB):
    """Options that open a checkpoint: what its tensors do not show comes from a configuration."""
    config = TMP / f"{file}.config.json"
    config.write_text(json.dumps({
        "vision_config": {"num_attention_heads": arch["vision"]["heads"], "layer_norm_eps": arch["vision"]["layer_norm_eps"]},
        "text_config": {"num_attention_heads": arch["text"]["heads"]}}))
    out = ["-m", golden("blip", file), "--config", config, "--dtype", "f32"]
    return out + (["--tokenizer", vocab] if vocab and vocab.exists() else [])


def pairs(values, n):
    return [values[i * n:(i + 1) * n] for i in range(len(values) // n)]


def listed(option, values):
    return [x for v in values for x in (option, v)]


def without_vocabulary():
    """What needs no text needs no tokenizer."""
    j, t = load("pretrain_features")
    m = model("model_pretrain.pth", j["arch"], None)
    r = run("embed", *m, *IMAGES)
    exits(r, 0, "pictures without a tokenizer")
    close([x for row in r.rows() for x in row["embedding"]], t["image_feat"][2], 5e-6, "image_feat")
    write_npy(TMP / "p.npy", t["pixel_values"][1], t["pixel_values"][2])
    r = run("embed", *m, TMP / "p.npy", "--out", TMP / "v.npy")
    exits(r, 0, "tensors")
    close(read_npy(TMP / "v.npy")[2], t["image_feat"][2], 5e-6, "image_feat of tensors")
    r = run("match", "-m", OWN / "blip" / "model_pretrain.pth", *m[2:], "--image", IMAGES[0], "--text", "a boat")
    exits(r, 3, "a text without a tokenizer")
    contains(r.err, "--tokenizer", "the missing part is named")
    r = run("embed", "-m", golden("blip", "model_pretrain.pth"), IMAGES[0])
    exits(r, 3, "heads are not known")
    contains(r.err, "num_attention_heads", "what is missing")
    r = run("inspect", "activations", *m, IMAGES[0])
    exits(r, 0, "activations")
    contains(r.out, "vision.block.1", "named as in the checkpoint")


def matching():
    j, t = load("pretrain_features")
    m = model("model_pretrain.pth", j["arch"])
    args = listed("--image", IMAGES) + listed("--text", j["captions"])
    r = run("match", *m, *args)
    exits(r, 0, "match")
    row = r.rows()[0]
    equal(row["texts"], j["captions"], "texts")
    close(sum(row["scores"], []), t["itc_cosine"][2], 5e-6, "cosines")
    close(sum(row["probs"], []), t["itc_softmax_over_texts"][2], 5e-5, "softmax over temp")
    for token, key in ((None, "enc"), ("enc", "enc"), ("cls", "cls")):
        r = run("match", *m, *args, "--head", "itm", *(["--itm-token", token] if token else []))
        row = r.rows()[0]
        close(sum(row["scores"], []), [x[1] for x in pairs(t[f"itm_logits_{key}"][2], 2)], 1e-4, f"itm logits {token}")
        close(sum(row["probs"], []), t[f"itm_prob_{key}"][2], 1e-5, f"itm probabilities {token}")
    r = run("match", *m, "--image", TMP / "none.png", *args)
    exits(r, 2, "one bad picture")
    contains(r.err, "none.png", "named")
    equal(r.rows()[0]["images"], [str(x) for x in IMAGES], "the others are there")
    close(sum(r.rows()[0]["scores"], []), t["itc_cosine"][2], 5e-6, "and their cosines")
    exits(run("match", *m, "--image", TMP / "none.png", "--text", "a"), 3, "no picture at all")
    r = run("embed", *m, *listed("--text", j["captions"]))
    close([x for row in r.rows() for x in row["embedding"]], t["text_feat"][2], 5e-6, "text_feat")


def pair_of_pictures():
    j, t = load("nlvr")
    m = model("model_nlvr.pth", j["arch"])
    for i, p in enumerate(j["pairs"]):
        two = [golden("blip", "images", p["image0"]), golden("blip", "images", p["image1"])]
        for images, key in ((two, "logits"), (two[::-1], "logits_images_swapped")):
            r = run("match", *m, *listed("--image", images), "--text", p["text"])
            exits(r, 0, key)
            no, yes = pairs(t[key][2], 2)[i]
            row = r.rows()[0]
            equal([len(row["scores"]), len(row["images"])], [1, 2], "one row for the pair")
            close(row["scores"][0], [yes], 1e-4, key)
            close(row["probs"][0], [1 / (1 + math.exp(no - yes))], 2e-5, key)
    exits(run("match", *m, "--image", IMAGES[0], "--text", "a"), 3, "half a pair")
    exits(run("match", *m, "--image", IMAGES[0], "--image", TMP / "none.png", "--text", "a"), 3, "a pair with a missing picture")


def captions():
    j, _ = load("caption_resized")
    m = [*model("model_pretrain.pth", j["arch"]), "--image-size", "80"]
    for r in j["runs"]:
        s = r["settings"]
        options = ["--greedy"] if s["num_beams"] == 1 else ["--beams", str(s["num_beams"])]
        options += ["--max-length", str(s["max_length"]), "--min-length", str(s["min_length"])]
        options += ["--repetition-penalty", str(s["repetition_penalty"])] if "repetition_penalty" in s else []
        out = run("caption", *m, *options, *IMAGES)
        exits(out, 0, s["name"])
        equal([x["caption"] for x in out.rows()], [x["caption"] for x in r["per_image"]], s["name"])
        for row, want in zip(out.rows(), r["per_image"]):
            if "best_score" in want:
                close([row["score"]], [want["best_score"]], 2e-4, s["name"])
            else:
                equal(row["score"], None, "greedy has no score")
    default = next(r for r in j["runs"] if r["settings"]["name"].startswith("default"))
    equal([x["caption"] for x in run("caption", *m, *IMAGES).rows()], [x["caption"] for x in default["per_image"]], "defaults of the authors")
    for v in j["beam_variants"]:
        n = v["num_beams"]
        out = run("caption", *m, IMAGES[v["image"]], "--beams", str(n), "--n-best", str(n), "--max-length", str(v["max_length"]), "--min-length",
                  str(v["min_length"]), "--length-penalty", str(v["length_penalty"]), "--repetition-penalty", str(v["repetition_penalty"]),
                  *(["--early-stopping"] if v["early_stopping"] else []))
        best = out.rows()[0]["n_best"]
        equal([x["caption"] for x in best], [x[13:].strip() for x in v["texts"]], "n best")
        close([x["score"] for x in best], v["scores"], 2e-4, "scores")
    first = run("caption", *m, "--sample", "--seed", "5", *IMAGES)
    again = run("caption", *m, "--sample", "--seed", "5", *IMAGES)
    other = run("caption", *m, "--sample", "--seed", "6", *IMAGES)
    exits(first, 0, "sampling")
    equal(first.out, again.out, "the same seed")
    check(first.out != other.out, "another seed")
    one = run("caption", *m, "--sample", "--seed", "5", IMAGES[2])
    equal(one.rows(), first.rows()[2:3], "alone as among others")
    r = run("caption", *m, IMAGES[0], TMP / "none.png", IMAGES[1])
    exits(r, 2, "one bad picture")
    equal(len(r.rows()), 2, "the others are done")
    exits(run("caption", *m, "--greedy", "--sample", IMAGES[0]), 1, "two ways at once")
    exits(run("caption", *m, "--beams", "2", "--n-best", "3", IMAGES[0]), 1, "more than the beams")
    exits(run("caption", *m, "--max-length", "4", IMAGES[0]), 3, "no room behind the prompt")
    exits(run("caption", *m), 1, "no picture")
    exits(run("ask", *m, "--question", "what?", IMAGES[0]), 3, "no answers from this one")


def answers():
    j, _ = load("vqa")
    m = model("model_vqa.pth", j["arch"])
    for want in j["generate"]["single"]:
        image = golden("blip", "images", want["image"])
        row = run("ask", *m, "--question", want["question"], image).rows()[0]
        equal(row["answer"], want["answer"], want["question"])
        close([row["score"]], [want["score"]], 2e-4, want["question"])
        equal(row["question"], want["question"], "question")
    row = run("ask", *m, "--question", "the horse", "--prompt", "what color is {}?", IMAGES[0]).rows()[0]
    equal(row["answer"], j["generate"]["single"][0]["answer"], "template")
    rank = j["rank"]
    (TMP / "answers.txt").write_text("\n".join(rank["answer_list"]) + "\n")
    for r in rank["runs"]:
        for i, question in enumerate(j["questions"]):
            row = run("ask", *m, "--question", question, "--answers", TMP / "answers.txt", "--candidates", str(r["k"]), IMAGES[i]).rows()[0]
            equal(row["answer"], r["best"][i], question)
            scored = sorted(zip(r["log_prob_sum"][i], (rank["answer_list"][k] for k in r["topk_index"][i])), reverse=True)
            equal([x["answer"] for x in row["answers"]], [x[1] for x in scored], "best first")
            close([x["score"] for x in row["answers"]], [x[0] for x in scored], 5e-4, "sums")
            equal(row["score"], row["answers"][0]["score"], "score")
    (TMP / "gaps.txt").write_text("\n\n".join(rank["answer_list"]) + "\n\n\n")
    full = run("ask", *m, "--question", j["questions"][0], "--answers", TMP / "answers.txt", IMAGES[0])
    equal(run("ask", *m, "--question", j["questions"][0], "--answers", TMP / "gaps.txt", IMAGES[0]).out, full.out, "empty lines are no answers")
    (TMP / "windows.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(rank["answer_list"]).encode() + b"\r\n")
    equal(run("ask", *m, "--question", j["questions"][0], "--answers", TMP / "windows.txt", IMAGES[0]).out, full.out, "a list as Windows writes it")
    (TMP / "empty.txt").write_text("\n\n")
    exits(run("ask", *m, "--question", "a", "--answers", TMP / "empty.txt", IMAGES[0]), 3, "a list of empty lines")
    (TMP / "tiny.ppm").write_bytes(b"P6\n1 1\n255\n\x80\x40\x20")
    exits(run("ask", *m, "--question", j["questions"][0], TMP / "tiny.ppm"), 0, "a picture of one pixel")
    exits(run("ask", *m, "--question", "what is it " * 1000, IMAGES[0]), 0, "a question of 10,000 characters is cut")
    exits(run("ask", *m, IMAGES[0]), 1, "no question")
    exits(run("ask", *m, "--question", "a", "--answers", TMP / "none.txt", IMAGES[0]), 3, "no such list")
    r = run("embed", *m, IMAGES[0])
    exits(r, 3, "no vectors")
    contains(r.err, "ITC", "why")


def folders():
    j = json.loads((SHARED / "blip" / "hf_caption.json").read_text())
    m = ["-m", SHARED / "blip" / "hf_caption", "--dtype", "f32"]
    names = {"num_beams": "beams", "max_length": "max-length", "min_length": "min-length", "num_return_sequences": "n-best", "max_new_tokens": "max-new",
             "repetition_penalty": "repetition-penalty", "length_penalty": "length-penalty"}
    for r in j["runs"]:
        options = ["--prompt", r["prompt"]] if r["prompt"] else []
        for key, value in r["settings"].items():
            options += ["--early-stopping"] if value is True else [f"--{names[key]}", str(value)]
        out = run("caption", *m, *options, *IMAGES).rows()
        cut = len(r["prompt"] or "")
        equal([x["caption"] for x in out], [x["texts"][0][cut:].strip() for x in r["per_image"]], r["name"])
        for row, want in zip(out, r["per_image"]):
            if want.get("scores"):
                close([x["score"] for x in row["n_best"]], want["scores"], 2e-4, r["name"])
    j, t = json.loads((SHARED / "blip" / "hf_itm.json").read_text()), read_safetensors(SHARED / "blip" / "hf_itm.safetensors")
    m = ["-m", SHARED / "blip" / "hf_itm", "--dtype", "f32"]
    args = listed("--image", IMAGES) + listed("--text", j["captions"])
    row = run("match", *m, *args).rows()[0]
    close(sum(row["scores"], []), t["itc"][2], 5e-6, "itc")
    equal(row["probs"], None, "no temperature")
    row = run("match", *m, *args, "--head", "itm").rows()[0]
    close(sum(row["probs"], []), t["itm_prob"][2], 1e-5, "itm")
    row = run("match", *m, "--image", IMAGES[0], *listed("--text", j["captions"]), "--head", "itm", "--itm-token", "enc").rows()[0]
    close(row["scores"][0], [x[1] for x in pairs(t["itm_logits_with_enc_image0"][2], 2)], 1e-4, "[ENC] in a folder")
    j = json.loads((SHARED / "blip" / "hf_vqa.json").read_text())
    for r in j["runs"]:
        options = [x for key, value in r["settings"].items() for x in (f"--{names[key]}", str(value))]
        row = run("ask", "-m", SHARED / "blip" / "hf_vqa", "--dtype", "f32", "--question", r["question"], *options,
                  golden("blip", "images", r["image"])).rows()[0]
        equal(row["answer"], r["answers"][0], r["question"])


def generation_file():
    """What generation_config.json says is what the options would say, and the options win."""
    plain, own = ["-m", SHARED / "blip" / "hf_caption", "--dtype", "f32"], TMP / "folder"
    shutil.copytree(SHARED / "blip" / "hf_caption", own)

    def says(rules, options, *more):
        (own / "generation_config.json").write_text(json.dumps(rules))
        equal([(x["caption"], x["score"]) for x in run("caption", "-m", own, "--dtype", "f32", *more, *IMAGES).rows()],
              [(x["caption"], x["score"]) for x in run("caption", *plain, *options, *IMAGES).rows()], str(rules))

    says({"num_beams": 3, "max_length": 14, "min_length": 5, "length_penalty": 2.0, "early_stopping": True, "repetition_penalty": 1.3},
         ["--beams", "3", "--max-length", "14", "--min-length", "5", "--length-penalty", "2", "--early-stopping", "--repetition-penalty", "1.3"])
    says({"min_new_tokens": 9, "max_new_tokens": 12}, ["--min-new", "9", "--max-new", "12"])
    says({"do_sample": True, "top_k": 1}, ["--greedy"])
    says({"do_sample": True, "top_k": 7, "top_p": 0.8, "temperature": 1.7}, ["--sample", "--top-k", "7", "--top-p", "0.8", "--temperature", "1.7", "--seed", "3"],
         "--seed", "3")
    says({"do_sample": True, "num_beams": 3}, ["--beams", "2"], "--beams", "2")
    says({"top_p": 0.4}, ["--sample", "--top-p", "0.4"], "--sample")
    says({}, ["--sample", "--top-p", "1"], "--sample")


def few_positions():
    """A default length beyond the position table is cut to it; one that was asked for is refused."""
    short = TMP / "short"
    shutil.copytree(SHARED / "blip" / "hf_caption", short)
    tensors = read_safetensors(short / "model.safetensors")
    name = "text_decoder.bert.embeddings.position_embeddings.weight"
    kind, (_, width), values = tensors[name]
    write_safetensors(short / "model.safetensors", dict(tensors, **{name: (kind, [12, width], values[:12 * width])}))
    m = ["-m", short, "--dtype", "f32"]
    r = run("caption", *m, *IMAGES)
    exits(r, 0, "the default of 20")
    equal(r.out, run("caption", *m, "--max-length", "12", *IMAGES).out, "is 12 where there are no more positions")
    exits(run("caption", *m, "--max-length", "13", *IMAGES), 3, "13 were asked for")


def numbers():
    """Borders of the options: what has no meaning is a usage error, nothing is silently replaced by a default."""
    m = ["-m", SHARED / "blip" / "hf_caption", "--dtype", "f32"]
    for option in (["--temperature", "0"], ["--repetition-penalty", "0"], ["--top-p", "1.5"], ["--top-p", "-1"], ["--n-best", "0"], ["--beams", "0"]):
        exits(run("caption", *m, *option, IMAGES[0]), 1, " ".join(option))
    exits(run("ask", "-m", SHARED / "blip" / "hf_vqa", "--question", "a", "--candidates", "0", IMAGES[0]), 1, "no candidates")
    r = run("caption", *m, "--n-best", "3", IMAGES[0])
    exits(r, 3, "three texts of a folder that searches greedily")
    contains(r.err, "expected at least 3 beams", "what to do")
    greedy = [x["caption"] for x in run("caption", *m, "--greedy", *IMAGES).rows()]
    equal([x["caption"] for x in run("caption", *m, "--sample", "--top-p", "0", *IMAGES).rows()], greedy, "top-p 0 is the likeliest id")
    wide = ["--sample", "--temperature", "4", "--top-p", "1"]
    check(run("caption", *m, *wide, "--top-k", "0", *IMAGES).out == run("caption", *m, *wide, "--top-k", "403", *IMAGES).out != run("caption", *m, *wide, *IMAGES).out,
          "top-k 0 takes all")


without_vocabulary()
if VOCAB.exists():
    matching()
    pair_of_pictures()
    captions()
    answers()
    folders()
    generation_file()
    few_positions()
    numbers()
else:
    skip("shared/golden/blip: everything with texts")
finish()
