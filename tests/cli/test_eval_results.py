#!/usr/bin/env python3
"""`noema eval` of result files: captions, VQA and NLVR2 answers against published and scorer's figures, and bad input."""
import csv
import gzip
import json
import signal
import subprocess
import time

from harness import BINARY, SHARED, TMP, check, contains, equal, exits, finish, golden, read_npy, run, skip


def report(*args, code=0):
    r = run("eval", *args)
    if not exits(r, code, f"eval {args}"):
        return {"metrics": {}}
    return r.rows()[0]


def metric(got, name, want, tol=1e-12):
    v = got["metrics"].get(name)
    check(v is not None and abs(v - want) <= tol, f"{got.get('task')}: {name}: expected {want!r}, got {v!r}")


def write(name, content):
    path = TMP / name
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))
    return path


def small_captions():
    """Sentences whose figures nlg-eval and aac-metrics publish."""
    hyp = write("h.txt", "this is a good test\n")
    refs = ["--references", write("r1.txt", "this is a test\n"), "--references", write("r2.txt", "this is also a test\n")]
    got = report("captions", *refs, "--results", hyp, "--tokens", "space")
    for name, want, tol in (("Bleu_1", 0.799999, 1e-6), ("Bleu_2", 0.632455, 1e-6), ("Bleu_3", 0.5108729, 1e-6), ("Bleu_4", 9.03602e-05, 1e-9),
                            ("ROUGE_L", 0.9070631, 1e-6), ("CIDEr_D", 0, 0)):
        metric(got, name, want, tol)
    refs = write("refs.json", {"a": ["a man speaks.", "someone speaks.", "a man is speaking while a bird is chirping in the background"],
                               "b": ["rain is falling hard on a surface"]})
    hyps = write("hyps.json", {"a": "a man is speaking", "b": "rain falls"})
    items = TMP / "items.csv"
    got = report("captions", "--references", refs, "--results", hyps, "--per-item", items, "--bootstrap", "50")
    metric(got, "Bleu_1", 0.4278, 5e-5)
    metric(got, "CIDEr_D", 0.9614, 5e-5)
    rows = list(csv.DictReader(items.open()))
    check(abs(float(rows[0]["CIDEr_D"]) - 1.3641) < 5e-5 and abs(float(rows[1]["CIDEr_D"]) - 0.5587) < 5e-5, f"CIDEr-D of each: {rows}")
    check(set(got["ci95"]) >= {"Bleu_4", "ROUGE_L", "CIDEr_D"}, "intervals")
    # the same as COCO's files; the frequencies of these references given from outside give the same CIDEr
    names = {"a": 7, "b": 9}
    r = json.loads(refs.read_text())
    coco = write("coco.json", {"images": [{"id": i, "file_name": f"{k}.jpg"} for k, i in names.items()],
                               "annotations": [{"image_id": names[k], "caption": c} for k, cs in r.items() for c in cs]})
    results = write("results.json", [{"image_id": names[k], "caption": c} for k, c in json.loads(hyps.read_text()).items()])
    equal(report("captions", "--references", coco, "--results", results)["metrics"],
          report("captions", "--references", refs, "--results", hyps)["metrics"], "COCO's layout")
    df = {}
    for cs in r.values():
        seen = set()
        for c in cs:
            w = c.rstrip(".").split()
            seen |= {" ".join(w[i:i + n]) for n in range(1, 5) for i in range(len(w) - n + 1)}
        for g in seen:
            df[g] = df.get(g, 0) + 1
    got = report("captions", "--references", refs, "--results", hyps, "--document-frequency", write("df.json", {"images": 2, "df": df}))
    metric(got, "CIDEr_D", 0.9614, 5e-5)
    # an empty caption, one picture: no NaN
    got = report("captions", "--references", write("one.json", {"x": ["a dog"]}), "--results", write("empty.json", {"x": ""}))
    check(all(v == v and v is not None for v in got["metrics"].values()), f"an empty caption: {got['metrics']}")
    metric(got, "CIDEr_D", 0)
    # Korean words are words
    got = report("captions", "--references", write("ko.json", {"1": ["고양이 두 마리가 잔다."], "2": ["비가 온다"]}),
                 "--results", write("koh.json", {"1": "고양이 두 마리가 잔다", "2": "눈이 온다"}))
    metric(got, "Bleu_1", 5 / 6, 1e-6)


def meteor():
    """The figures of METEOR 1.5 that need no data; stages with small files of its formats."""
    def score(hyp, refs, *more):
        files = [x for i, r in enumerate(refs) for x in ("--references", write(f"m{i}.txt", r + "\n"))]
        got = report("captions", *files, "--results", write("mh.txt", hyp + "\n"), "--tokens", "space", *more)
        return next((k, v) for k, v in got["metrics"].items() if k.startswith("METEOR"))

    for hyp, refs, want in (("this is a good test", ["this is a test", "this is also a test"], 0.44434387),
                            ("Le test est en français.", ["Test en français.", "Le test en français."], 0.483723790503)):
        name, value = score(hyp, refs)
        check(name.startswith("METEOR_exact") and abs(value - want) < 1e-8, f"{hyp}: {name} {value}")
    check(score("a dog runs", ["a dog runs"])[1] == 1, "equal sentences have no penalty")
    check(score("x", ["y"])[1] == 0, "no match")
    without = score("a hound sleeps", ["a dog sleeps"])[1]
    sets = write("synsets", "hound\n12 7\ndog\n7\n")
    name, value = score("a hound sleeps", ["a dog sleeps"], "--meteor-synonyms", sets)
    # words: 1 function, 2 content; weights 1, 0.8, 1; one chunk over both sentences
    check("synonym" in name and abs(value - (0.25 + 0.75 * 1.8) / (0.25 + 0.75 * 2)) < 1e-12 and value > without, f"synonyms: {name} {value}")
    phrases = write("phrases", "0.5\ndog\nfour legged friend\n")
    name, value = score("a four legged friend sleeps", ["a dog sleeps"], "--meteor-paraphrases", phrases)
    p, r = (0.25 + 0.75 * (3 * 0.6 + 1)) / (0.25 + 0.75 * 4), (0.25 + 0.75 * 1.6) / (0.25 + 0.75 * 2)
    check("paraphrase" in name and abs(value - p * r / (0.85 * p + 0.15 * r)) < 1e-12, f"paraphrases: {name} {value}")
    r = run("eval", "captions", "--references", TMP / "m0.txt", "--results", TMP / "mh.txt", "--meteor-synonyms", write("bad_sets", "dog\nseven\n"))
    exits(r, 3, "a damaged synonym file")
    contains(r.err, "line 2", "a damaged synonym file")
    # a line as long as can be, one byte more, and a gzip that is cut off
    args = ("eval", "captions", "--references", TMP / "m0.txt", "--results", TMP / "mh.txt")
    exits(run(*args, "--meteor-words", write("long_words", "a\n" + "x" * 65534 + "\nb\n")), 0, "a line of 65,534 bytes")
    r = run(*args, "--meteor-words", write("longer_words", "a\n" + "x" * 65535 + "\nb\n"))
    exits(r, 3, "a line of 65,535 bytes")
    contains(r.err, "line 2", "which is named")
    packed = gzip.compress("".join(f"word{i * 7919 % 10007}\n" for i in range(20000)).encode())
    (TMP / "whole.gz").write_bytes(packed)
    (TMP / "cut.gz").write_bytes(packed[:len(packed) // 2])
    exits(run(*args, "--meteor-words", TMP / "whole.gz"), 0, "a gzip")
    r = run(*args, "--meteor-words", TMP / "cut.gz")
    exits(r, 3, "a gzip that is cut off")
    contains(r.err, "cut.gz", "which is named")


def golden_captions():
    folder = golden("eval", "captions")
    if folder is None:
        return
    want = json.loads((folder / "expected.json").read_text())
    w = want["coco_val2014_1000"]
    items = TMP / "items.csv"
    got = report("captions", "--references", folder / "coco_val2014_1000_refs.json", "--results", folder / "captions_val2014_fakecap_results.json",
                 "--tokens", "space", "--per-item", items)
    for name in ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr_D"):
        metric(got, name, w[name])
    metric(got, "CIDEr", w["CIDEr_plain_recomputed"], 1e-10)
    equal((got["testlen"], got["reflen"], got["guess"], got["correct"]), (w["testlen"], w["reflen"], w["guess"], w["correct"]), "counts")
    mine = {r["image_id"]: r for r in csv.DictReader(items.open())}
    pairs = (("bleu1", "Bleu_1"), ("bleu4", "Bleu_4"), ("rouge_l", "ROUGE_L"), ("cider_d", "CIDEr_D"), ("cider_plain", "CIDEr"))
    worst = max(abs(float(r[a]) - float(mine[r["image_id"]][b])) for r in csv.DictReader((folder / "expected_per_image.csv").open()) for a, b in pairs)
    check(worst < 1e-8, f"per picture: {worst}")
    for kind in ("good", "bad"):
        got = report("captions", "--references", folder / "clipscore_refs.json", "--results", folder / f"clipscore_{kind}_captions.json")
        for name in ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr_D"):
            metric(got, name, want[f"clipscore_{kind}"][name], 5.1e-5)
    got = report("captions", "--references", folder / "nlg_ref1.txt", "--references", folder / "nlg_ref2.txt", "--results", folder / "nlg_hyp.txt",
                 "--tokens", "space")
    for name in ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr_D"):
        metric(got, name, want["nlg_eval_two_sentences"][name], 1e-6)


def vqa():
    ten = lambda *groups: [{"answer": a, "answer_id": i} for i, a in enumerate(x for a, n in groups for x in [a] * n)]
    cases = [  # answers, prediction, percent
        (ten(("yes", 8), ("no", 2)), "no", 60), (ten(("yes", 7), ("no", 3)), "no", 90), (ten(("yes", 9), ("no", 1)), "no", 30),
        (ten(("Yes.", 10)), "yes", 0), (ten(("Yes.", 9), ("no", 1)), "yes", 100), (ten(("a dog", 5), ("dog", 5)), "The Dog", 100),
        (ten(("10,000", 6), ("10000", 4)), "10,000", 100), (ten(("dont", 5), ("don't", 5)), "don't", 100), (ten(("none", 6), ("zero", 4)), "0", 100),
        (ten(("t-shirt", 5), ("t shirt", 4), ("x", 1)), "t-shirt", 100), (ten(("3.30", 3), ("3:30", 7)), "3.30", 90),
    ]
    rows = [{"question_id": 100 + i, "image_id": i, "answer_type": "other" if i % 2 else "yes/no", "question_type": "what", "answers": a}
            for i, (a, _, _) in enumerate(cases)]
    annotations = write("ann.json", {"annotations": rows})
    for i, (a, p, want) in enumerate(cases):
        got = report("vqa", "--annotations", write("one_ann.json", {"annotations": rows[i:i + 1]}),
                     "--results", write("one_res.json", [{"question_id": 100 + i, "answer": p}]))
        metric(got, "overall", want, 1e-9)
    results = write("res.json", [{"question_id": 100 + i, "answer": p} for i, (_, p, _) in enumerate(cases)])
    got = report("vqa", "--annotations", annotations, "--results", results)
    metric(got, "overall", sum(w for _, _, w in cases) / len(cases), 1e-9)
    metric(got, "other", sum(w for _, _, w in cases[1::2]) / len(cases[1::2]), 1e-9)
    r = run("eval", "vqa", "--annotations", annotations, "--results", write("short.json", [{"question_id": 100, "answer": "x"}]))
    exits(r, 3, "an answer is missing")
    contains(r.err, "question 101", "an answer is missing")
    path = golden("eval", "vqa", "vqa_small.json")
    if path:
        w = json.loads(path.read_text())
        got = report("vqa", "--annotations", path)
        metric(got, "overall", w["overall"], 1e-9)
        for kind, v in w["per_answer_type"].items():
            metric(got, kind, v, 5e-7)
        for kind, v in w["per_question_type"].items():
            check(abs(got["per_question_type"][kind] - v) < 5e-7, kind)
        for q in w["questions"]:
            one = report("vqa", "--annotations", write("q.json", {"questions": [q]}))
            metric(one, "overall", q["accuracy_percent"], 1e-9)


def nlvr():
    rows = [{"identifier": f"dev-{g}-{k}-0", "sentence": f"sentence {g}", "label": "True" if (g + k) % 2 else "False"} for g in range(3) for k in range(2)]
    ann = write("nlvr.json", "".join(json.dumps(r) + "\n" for r in rows))
    right = {r["identifier"]: r["label"] for r in rows}
    right["dev-1-0-0"] = "False" if right["dev-1-0-0"] == "True" else "True"
    got = report("nlvr", "--annotations", ann, "--results", write("pred.csv", "".join(f"{k},{v}\n" for k, v in right.items())))
    metric(got, "acc", 5 / 6)
    metric(got, "consistency", 2 / 3)
    got = report("nlvr", "--annotations", ann, "--results", write("pred.json", {k: v == "True" for k, v in right.items()}))
    metric(got, "acc", 5 / 6)
    del right["dev-0-0-0"]
    r = run("eval", "nlvr", "--annotations", ann, "--results", write("pred.json", {k: v == "True" for k, v in right.items()}))
    exits(r, 3, "a prediction is missing")
    contains(r.err, "dev-0-0-0", "a prediction is missing")


def with_blip():
    """Captions, answers and judgements of tiny BLIP files are those of caption, ask and match; their figures those of the results."""
    vocab = golden("blip", "tiny_vocab.txt")
    if vocab is None:
        return
    images = [golden("blip", "images", f"image{i}.png") for i in range(4)]

    def model(name, file):
        arch = json.loads(golden("blip", f"{name}.json").read_text())["arch"]
        config = TMP / f"{name}.config.json"
        config.write_text(json.dumps({"vision_config": {"num_attention_heads": arch["vision"]["heads"], "layer_norm_eps": arch["vision"]["layer_norm_eps"]},
                                      "text_config": {"num_attention_heads": arch["text"]["heads"]}}))
        return ["-m", golden("blip", file), "--config", config, "--dtype", "f32", "--tokenizer", vocab, "--quiet"]

    m = model("pretrain_features", "model_pretrain.pth")
    refs = write("blip_refs.json", {"images": [{"id": i, "file_name": str(p)} for i, p in enumerate(images)],
                                    "annotations": [{"image_id": i, "caption": "a boat on the water"} for i in range(4)]})
    out = TMP / "captions.json"
    got = report("caption", *m, "--references", refs, "--predictions", out)
    texts = [r["caption"] for r in run("caption", *m, *images).rows()]
    equal([r["caption"] for r in json.loads(out.read_text())], texts, "eval caption writes what caption prints")
    equal(report("captions", "--references", refs, "--results", out)["metrics"], got["metrics"], "and measures that")
    data = json.loads(refs.read_text())
    data["images"][1]["file_name"] = "gone.png"
    r = run("eval", "caption", *m, "--references", write("blip_gone.json", data))
    exits(r, 2, "a missing picture")
    contains(r.err, "gone.png", "a missing picture")
    equal(r.rows()[0]["images"], 3, "the others are measured")
    # re-ranking: the recalls of the authors' rule on the golden pairs (captions there are not cleaned: these ones stay as they are)
    j = json.loads(golden("blip", "retrieval.json").read_text())
    m = model("retrieval", "model_retrieval.pth")
    pairs = write("blip_pairs.json", {"images": [{"id": i, "file_name": str(p)} for i, p in enumerate(images)],
                                      "annotations": [{"image_id": i, "caption": c} for i, c in zip(j["txt2img"], j["texts"])]})
    got = report("retrieval", *m, "--rerank", f"{j['k_image_to_text']},{j['k_text_to_image']}", pairs)
    for kind, key in (("text", "recall_i2t_1_5_10"), ("image", "recall_t2i_1_5_10")):
        for k, want in zip((1, 5, 10), j[key]):
            metric(got, f"{kind}_retrieval_recall@{k}", want / 100, 1e-6)
    equal((got["rerank_texts"], got["rerank_images"]), (j["k_image_to_text"], j["k_text_to_image"]), "re-ranked")
    exits(run("eval", "retrieval", *m, "--rerank", "0", pairs), 1, "--rerank 0")
    m = model("vqa", "model_vqa.pth")
    ann = write("blip_vqa.json", [{"question_id": i, "image": str(p), "question": "What is IT? (now)", "answers": ["a boat"] * 10}
                                  for i, p in enumerate(images[:2])])
    got = report("vqa", *m, "--annotations", ann, "--predictions", TMP / "answers.json")
    want = [r["answer"] for r in run("ask", *m, "--question", "what is it? now", *images[:2]).rows()]
    equal([r["answer"] for r in json.loads((TMP / "answers.json").read_text())], want, "eval vqa answers as ask, with the authors' clean-up")
    equal(report("vqa", "--annotations", ann, "--results", TMP / "answers.json")["metrics"], got["metrics"], "and measures that")
    m = model("nlvr", "model_nlvr.pth")
    prob = run("match", *m, "--image", images[0], "--image", images[1], "--text", "there are two boats").rows()[0]["probs"][0][0]
    ann = write("blip_nlvr.json", [{"sentence": "There are two boats.", "label": "True" if prob > 0.5 else "False",
                                    "images": [str(images[0]), str(images[1])]}])
    metric(report("nlvr", *m, "--annotations", ann), "acc", 1)
    statements = [{"identifier": f"s{i}-0-0", "sentence": "There are two boats.", "label": "True", "images": [str(images[i % 4]), str(images[(i + 1) % 4])]}
                  for i in range(11)]
    ann = write("many_nlvr.json", statements + [{**statements[0], "identifier": "gone-0-0", "images": [str(images[0]), "gone.png"]}])
    got = report("nlvr", *m, "--annotations", ann, "--predictions", TMP / "judged.json", code=2)
    judged = json.loads((TMP / "judged.json").read_text())
    alone = {}
    for x in statements:
        row = run("match", *m, "--image", x["images"][0], "--image", x["images"][1], "--text", x["sentence"].lower().rstrip(".")).rows()[0]
        alone[x["identifier"]] = row["probs"][0][0] > 0.5
    equal(judged, alone, "pairs of a batch are judged as alone; a missing picture costs its own pair")
    equal(got["failed"], 1, "which is counted")
    ann = write("again_nlvr.json", statements)
    equal(report("nlvr", "--annotations", ann, "--results", TMP / "judged.json")["metrics"], got["metrics"], "and the predictions can be measured")


def interrupted():
    """Calls that are killed or stopped go on with what they had, and end as one that ran through."""
    images = [golden("blip", "images", f"image{i}.png") for i in range(4)]
    vocab = SHARED / "blip" / "tiny_vocab.txt"
    if not vocab.exists():
        return skip("blip/tiny_vocab.txt")

    def model(name, file):
        arch = json.loads(golden("blip", f"{name}.json").read_text())["arch"]
        config = TMP / f"{name}.config.json"
        config.write_text(json.dumps({"vision_config": {"num_attention_heads": arch["vision"]["heads"], "layer_norm_eps": arch["vision"]["layer_norm_eps"]},
                                      "text_config": {"num_attention_heads": arch["text"]["heads"]}}))
        return ["-m", golden("blip", file), "--config", config, "--dtype", "f32", "--tokenizer", vocab, "--quiet", "--threads", "1"]

    n = 160
    names = [str(images[i % 4]) if i != 20 else "gone.png" for i in range(n)]
    refs = write("long_refs.json", {"images": [{"id": i, "file_name": p} for i, p in enumerate(names)],
                                    "annotations": [{"image_id": i, "caption": "a boat on the water"} for i in range(n)]})
    questions = write("long_vqa.json", [{"question_id": i, "image": p, "question": "what? " * 1700 if i == 3 else f"what is {'this' if i % 3 else 'it'}?", "answers": ["a boat"] * 10}
                                        for i, p in enumerate(names)])
    for task, args in (("caption", [*model("pretrain_features", "model_pretrain.pth"), "--references", refs]),
                       ("vqa", [*model("vqa", "model_vqa.pth"), "--annotations", questions])):
        whole, out, kills = TMP / f"{task}_whole.json", TMP / f"{task}.json", 0
        want = report(task, *args, "--predictions", whole, code=2)
        part = TMP / f"{task}.json.part"
        for lines, how in ((17, signal.SIGKILL), (65, signal.SIGINT), (113, signal.SIGKILL)):
            before = part.read_bytes().count(b"\n") if part.exists() else 0
            p = subprocess.Popen([BINARY, "eval", task, *map(str, args), "--predictions", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            while p.poll() is None and (part.read_bytes().count(b"\n") if part.exists() else 0) < max(lines, before + 1):
                time.sleep(0.001)
            if p.poll() is None:
                p.send_signal(how)
            kept = part.read_bytes() if part.exists() else b""
            p.communicate()
            if p.returncode != 2:
                kills += 1
                equal(p.returncode, -9 if how == signal.SIGKILL else 130, f"{task}: the exit code after {how}")
                check(part.read_bytes().startswith(kept[:kept.rfind(b"\n") + 1]) and part.read_bytes().count(b"\n") >= lines, f"{task}: nothing lost by {how}")
        check(kills > 0, f"{task}: interrupted at least once")
        if part.exists():
            part.write_bytes(part.read_bytes() + b'{"row":')
            r = run("eval", task, *args, "--limit", "50", "--predictions", out)
            exits(r, 3, f"{task}: other inputs do not mix")
            contains(r.err, ".part", f"{task}: and the file is named")
        got = report(task, *args, "--predictions", out, code=2)
        equal(got, want, f"{task}: the same figures")
        equal(out.read_text(), whole.read_text(), f"{task}: the same predictions")
        check(not part.exists(), f"{task}: nothing is left behind")


def clipscore():
    model, tokenizer, config = golden("clip", "siglip_openclip.safetensors"), golden("tokenizers", "t5.tokenizer.json"), golden("clip", "siglip_openclip.config.json")
    if not (model and tokenizer and config):
        return
    m = ["-m", model, "--tokenizer", tokenizer, "--config", config, "--dtype", "f32", "--quiet"]
    images = [golden("blip", "images", f"image{i}.png") for i in range(2)]
    texts, refs = ["a boat", "two dogs"], [["a ship", "boats"], ["dogs"]]
    run("embed", *m, *images, "--out", TMP / "i.npy")
    prompted = ["A photo depicts " + t for t in texts + refs[0] + refs[1]]
    run("embed", *m, *[x for t in prompted for x in ("--text", t)], "--out", TMP / "t.npy")
    (_, shape, i), (_, _, t) = read_npy(TMP / "i.npy"), read_npy(TMP / "t.npy")
    d = shape[1]
    cos = lambda a, b: sum(x * y for x, y in zip(a, b))
    row = lambda v, k: v[k * d:(k + 1) * d]
    clip = [2.5 * max(0, cos(row(i, k), row(t, k))) for k in range(2)]
    best = [max(cos(row(t, 0), row(t, 2)), cos(row(t, 0), row(t, 3))), cos(row(t, 1), row(t, 4))]
    ref = [2 * c * b / (c + b) if c + b > 0 else 0 for c, b in zip(clip, best)]
    results, references = write("cs_h.json", {"image0": texts[0], "image1": texts[1]}), write("cs_r.json", {"image0": refs[0], "image1": refs[1]})
    got = report("clipscore", *m, "--results", results, "--references", references, "--image-dir", images[0].parent)
    metric(got, "CLIPScore", sum(clip) / 2, 1e-6)
    metric(got, "RefCLIPScore", sum(ref) / 2, 1e-6)
    both = report("captions", *m, "--results", results, "--references", references, "--image-dir", images[0].parent)
    metric(both, "CLIPScore", sum(clip) / 2, 1e-6)
    check("Bleu_4" in both["metrics"], "captions with -m: both kinds of figures")


def bad_input():
    refs, hyps = write("refs.json", {"1": ["a dog"]}), write("hyps.json", {"1": "a dog"})
    cases = [
        (("captions", "--results", hyps), "--references"),
        (("captions", "--references", refs), "--results"),
        (("captions", "--references", refs, "--results", write("x1.json", {"2": "a cat"})), "picture 2"),
        (("captions", "--references", refs, "--results", write("x2.json", [{"image_id": 1, "caption": "a"}, {"image_id": 1, "caption": "b"}])), "two captions"),
        (("captions", "--references", refs, "--results", write("x3.json", "{")), "x3.json"),
        (("captions", "--references", refs, "--results", write("x4.json", {"1": 5})), "expected a caption"),
        (("captions", "--references", refs, "--results", write("x5.json", [{"caption": "a"}])), "image_id"),
        (("captions", "--references", write("y.json", {"1": []}), "--results", hyps), "picture 1"),
        (("captions", "--references", refs, "--results", hyps, "--document-frequency", write("z.json", {"df": {}})), "images"),
        (("vqa",), "--annotations"),
        (("vqa", "--annotations", write("v.json", {"annotations": [{"question_id": 1, "answers": []}]}), "--results",
          write("w.json", [{"question_id": 1, "answer": "x"}])), "no \"answers\""),
        (("nlvr", "--annotations", write("n.jsonl", '{"identifier": "a-0"}\n'), "--results", write("n.csv", "a-0,True\n")), "label"),
        (("clipscore", "--results", hyps, "-m", "none.pt"), "none.pt"),
    ]
    for args, message in cases:
        r = run("eval", *args)
        exits(r, 3, f"eval {args}")
        contains(r.err, message, f"eval {args}")
    r = run("eval", "caption", "--references", refs)
    exits(r, 3, "caption without a model: the built-in one does not caption")
    contains(r.err, "writes no captions", "caption without a model")


for part in (small_captions, meteor, golden_captions, vqa, nlvr, with_blip, interrupted, clipscore, bad_input):
    part()
finish()
