#!/usr/bin/env python3
"""`noema eval` of vectors: figures against plain Python over random vectors, goldens where they are, files of a tiny model, bad input."""
import gzip
import json
import math
import random
import struct

from harness import OWN, TMP, check, contains, equal, exits, finish, golden, run, skip, write_png

rng = random.Random(5)


def npy(name, shape, values, kind="<f8"):
    path = TMP / name
    head = repr({"descr": kind, "fortran_order": False, "shape": tuple(shape)}).encode()
    head += b" " * ((-len(head) - 11) % 64) + b"\n"
    body = struct.pack(f"<{len(values)}{ {'<f8': 'd', '<f4': 'f', '<i8': 'q'}[kind] }", *values)
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + body)
    return path


def flat(rows):
    return [x for r in rows for x in r]


def unit(v):
    n = math.sqrt(sum(x * x for x in v))
    return [x / n for x in v]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def png(path, colour, size=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, size, size, bytes(colour) * (size * size))


def report(*args, code=0):
    r = run("eval", *args)
    if not exits(r, code, f"eval {args}"):
        return {"metrics": {}}
    rows = r.rows()
    equal(len(rows), 1, f"eval {args}: objects")
    return rows[0]


def metric(got, name, want, tol=1e-12):
    v = got["metrics"].get(name)
    check(v is not None and abs(v - want) <= tol, f"{got.get('task')}: {name}: expected {want!r}, got {v!r}")


def zeroshot():
    n, classes, dim = 60, 7, 5
    images = [[rng.gauss(0, 1) for _ in range(dim)] for _ in range(n)]
    texts = [[rng.gauss(0, 1) for _ in range(dim)] for _ in range(classes)]
    labels = [rng.randrange(classes - 1) for _ in range(n)]
    scores = [[dot(unit(i), unit(t)) for t in texts] for i in images]
    ranks = [sum(s > row[c] for s in row) for row, c in zip(scores, labels)]
    got = report("zeroshot", "--images", npy("i.npy", [n, dim], flat(images)), "--texts", npy("t.npy", [classes, dim], flat(texts)),
                 "--labels", npy("l.npy", [n], labels, "<i8"), "--k", "3", "--predictions", TMP / "p.npy")
    metric(got, "acc1", sum(r < 1 for r in ranks) / n)
    metric(got, "acc3", sum(r < 3 for r in ranks) / n)
    metric(got, "acc5", sum(r < 5 for r in ranks) / n)
    recalls = [[r == 0 for r, c in zip(ranks, labels) if c == k] for k in range(classes)]
    present = [sum(r) / len(r) for r in recalls if r]
    metric(got, "mean_per_class_recall", sum(present) / len(present))
    equal(got["n"], n, "n")
    equal((TMP / "p.npy").read_bytes()[:6], b"\x93NUMPY", "predictions")
    low, high = got["ci95"]["acc1"]
    check(low < got["metrics"]["acc1"] < high, f"Wilson's interval holds the figure: {low} {high}")
    again = report("zeroshot", "--scores", npy("s.npy", [n, classes], flat(scores)), "--labels", TMP / "l.npy", "--bootstrap", "200", "--seed", "3")
    metric(again, "acc1", got["metrics"]["acc1"])
    check(set(again["ci95"]) >= {"acc1", "acc5", "mean_per_class_recall"}, "bootstrap intervals")
    third = report("zeroshot", "--scores", TMP / "s.npy", "--labels", TMP / "l.npy", "--bootstrap", "200", "--seed", "3")
    equal(third["ci95"], again["ci95"], "the same seed, the same intervals")
    # scaled vectors have the same cosines; as they are, another scale of the scores
    twice = report("zeroshot", "--images", npy("i2.npy", [n, dim], [3 * x for x in flat(images)]), "--texts", TMP / "t.npy", "--labels", TMP / "l.npy")
    metric(twice, "acc1", got["metrics"]["acc1"])


def class_order():
    """Names of a file that are not the data's words: they have the data's numbers, or its WordNet numbers."""
    m, data = ["-m", "noema-mini", "--dtype", "f32", "--quiet"], OWN / "parquet" / "classlabel.parquet"  # zinnober, apfel, meer are 0, 1, 2
    names, wnids = ["red", "green", "blue"], ["n04066270", "n01000000", "n02960352"]
    colours = [(220, 20, 20), (20, 200, 30), (30, 60, 230)]
    rows = []
    for k, wnid in enumerate(wnids):
        for i in range(4):
            png(TMP / "folders" / wnid / f"{i}.png", [min(255, x + 5 * i) for x in colours[k]], 16)
            rows.append({"filepath": f"folders/{wnid}/{i}.png", "label": k})
    (TMP / "numbers.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (TMP / "colours.txt").write_text("\n".join(names) + "\n")
    (TMP / "turned.txt").write_text("".join(f"{w} {n}\n" for w, n in reversed(list(zip(wnids, names)))))
    (TMP / "objects.json").write_text(json.dumps([{"label": k, "wnid": wnids[k], "synset": names[k]} for k in (2, 0, 1)]))
    (TMP / "object.json").write_text(json.dumps({str(k): n for k, n in enumerate(names)}))
    want = report("zeroshot", *m, "--classes", TMP / "colours.txt", TMP / "numbers.jsonl")
    check(want["metrics"].get("acc1", 0) > 0.6, f"the model knows colours: {want['metrics']}")
    for source, file, order in ((data, "colours.txt", "numbers"), (data, "objects.json", "numbers"), (data, "object.json", "numbers"),
                                (TMP / "folders", "turned.txt", "wnids"), (TMP / "folders", "objects.json", "wnids")):
        got = report("zeroshot", *m, "--classes", TMP / file, source)
        for key in ("acc1", "mean_per_class_recall", "macro_f1"):
            metric(got, key, want["metrics"][key])
        equal(got.get("class_order"), order, f"{file} for {source.name}")
    sorted_names = report("zeroshot", *m, "--classes", TMP / "colours.txt", TMP / "folders")  # folders without a number: their order
    equal(sorted_names.get("class_order"), "sorted names", "names for folders")
    (TMP / "two.txt").write_text("red\ngreen\n")
    r = run("eval", "zeroshot", *m, "--classes", TMP / "two.txt", data)
    exits(r, 3, "two names for three classes")
    contains(r.err, "2 class names for 3 classes", "two names for three classes")


def retrieval():
    n, per, dim = 12, 3, 4
    images = [unit([rng.gauss(0, 1) for _ in range(dim)]) for _ in range(n)]
    owner = [rng.randrange(n) for _ in range(n * per)]
    texts = [unit([x + rng.gauss(0, 0.6) for x in images[o]]) for o in owner]
    ir = [sum(dot(images[k], t) > dot(images[o], t) for k in range(n)) for o, t in zip(owner, texts)]
    tr = []
    for i in range(n):
        s = [dot(images[i], t) for t in texts]
        mine = [s[j] for j in range(len(texts)) if owner[j] == i]
        if mine:
            tr.append(sum(x > max(mine) for x in s))
    got = report("retrieval", "--images", npy("i.npy", [n, dim], flat(images)), "--texts", npy("t.npy", [n * per, dim], flat(texts)),
                 "--pairs", npy("o.npy", [n * per], owner, "<i8"), "--bootstrap", "100")
    for k in (1, 5, 10):
        metric(got, f"image_retrieval_recall@{k}", sum(r < k for r in ir) / len(ir))
        metric(got, f"text_retrieval_recall@{k}", sum(r < k for r in tr) / len(tr))
    metric(got, "image_retrieval_mean_rank", sum(r + 1 for r in ir) / len(ir))
    s = sorted(r + 1 for r in tr)
    metric(got, "text_retrieval_median_rank", (s[(len(s) - 1) // 2] + s[len(s) // 2]) / 2)
    r = run("eval", "retrieval", "--images", TMP / "i.npy", "--texts", npy("odd.npy", [5, dim], flat(texts[:5])))
    exits(r, 3, "5 texts for 12 images")
    contains(r.err, "--pairs", "5 texts for 12 images")


def ties():
    """The table of the specification: each rule its own figure."""
    s = npy("ties.npy", [4, 4], [3, 3, 1, 0, 2, 5, 5, 5, 0, 0, 0, 0, 1, 2, 4, 4])
    for rule, one, two in (("lowest", 0.5, 0.75), ("highest", 0.25, 0.75), ("optimistic", 1, 1), ("pessimistic", 0, 0.5)):
        got = report("retrieval", "--scores", s, "--ties", rule, "--k", "1,2")
        metric(got, "text_retrieval_recall@1", one)
        metric(got, "text_retrieval_recall@2", two)
        equal(got["text_retrieval_ties"], 4, "tied queries")


def composition():
    got = report("composition", "--scores", npy("w.npy", [2, 2, 2], [2, 1, 0, 3, 1, 1, 0, 3]))
    metric(got, "text_score", 1)
    metric(got, "image_score", 0.5)
    metric(got, "group_score", 0.5)
    got = report("composition", "--scores", npy("c.npy", [4, 3], [3, 2, 1, 2, 2, 1, 1, 2, 3, 5, 1, 4]))
    metric(got, "acc", 0.5)


def digits():
    folder = golden("eval", "linear_probe")
    if folder is None:
        return
    want = json.loads((folder / "expected.json").read_text())
    rows = [[float(x) for x in line.split(",")] for line in gzip.open(folder / "digits.csv.gz", "rt")]
    files = []
    for name, part in (("train", rows[:1000]), ("test", rows[1000:])):
        files += [npy(f"{name}_x.npy", [len(part), 64], [v / 16 for r in part for v in r[:64]], "<f4"),
                  npy(f"{name}_y.npy", [len(part)], [int(r[64]) for r in part], "<i8")]
    args = ["--train-images", files[0], "--train-labels", files[1], "--images", files[2], "--labels", files[3]]
    for c, w in want["logistic_regression"].items():
        got = report("probe", *args, "--C", c)
        metric(got, "lp_acc1", w["test_acc"])
        metric(got, "mean_per_class_recall", w["test_mean_per_class_recall"], 1e-9)
        metric(got, "lp_objective", w["objective_C_sum_ce_plus_half_w2"], 1e-6 * w["objective_C_sum_ce_plus_half_w2"])
    for k, w in want["knn_cosine"].items():
        metric(report("knn", *args, "--k", k, "--temperature", "0"), "knn_acc1", w["majority_acc"])
        metric(report("knn", *args, "--k", k), "knn_acc1", w["softmax_t0.07_acc"])


def golden_classification():
    path = golden("eval", "embeddings", "classification.json")
    if path is None:
        return
    w = json.loads(path.read_text())
    n, classes = len(w["logits"]), len(w["logits"][0])
    s = npy("logits.npy", [n, classes], flat(w["logits"]))
    got = report("zeroshot", "--scores", s, "--labels", npy("label.npy", [n], w["label"], "<i8"))
    for name in ("acc1", "acc5", "mean_per_class_recall"):
        metric(got, name, w[name])
    got = report("zeroshot", "--scores", s, "--labels", npy("many.npy", [n, classes], flat(w["multilabel"]), "<i8"))
    metric(got, "mean_average_precision", w["mAP"])
    check(all(abs(a - b) < 1e-12 for a, b in zip(got["average_precision"], w["AP_per_class"])), "AP of each class")


def bad_input():
    few = npy("few.npy", [3, 2], [1, 0, 0, 1, 1, 1])
    nan = npy("nan.npy", [2, 2], [1, float("nan"), 0, 1])
    label = npy("lab.npy", [3], [0, 1, 5], "<i8")
    half = npy("half.npy", [3], [0, 1.5, 1])
    cases = [
        (("zeroshot",), "expected pictures with labels"),
        (("zeroshot", "--images", few, "--texts", few), "--labels"),
        (("zeroshot", "--images", few, "--texts", few, "--labels", label), "label 5, there are 3 classes"),
        (("zeroshot", "--images", few, "--texts", few, "--labels", half), "expected whole numbers, got 1.5"),
        (("zeroshot", "--scores", few, "--labels", npy("l2.npy", [2], [0, 1], "<i8")), "expected labels [3]"),
        (("retrieval", "--images", nan, "--texts", nan), "not finite"),
        (("retrieval", "--images", few, "--texts", npy("wide.npy", [3, 3], list(range(1, 10)))), "numbers a row"),
        (("geometry", "--images", TMP / "none.npy"), "none.npy"),
        (("composition", "--scores", few, "--bootstrap", "5"), None),
        (("knn", "--images", few, "--labels", label), "expected training and test"),
        (("zeroshot", "--data", TMP / "no.jsonl"), "-m"),
    ]
    for args, message in cases:
        r = run("eval", *args)
        exits(r, 0 if message is None else 3, f"eval {args}")
        if message:
            contains(r.err, message, f"eval {args}")
    exits(run("eval", "retrieval", "--scores", few, "--k", "0"), 1, "k 0")
    exits(run("eval", "retrieval", "--ties", "none"), 1, "an unknown rule")


def with_model():
    model, tokenizer = golden("clip", "siglip_openclip.safetensors"), golden("tokenizers", "t5.tokenizer.json")
    config = golden("clip", "siglip_openclip.config.json")
    if not (model and tokenizer and config):
        return
    m = ["-m", model, "--tokenizer", tokenizer, "--config", config, "--dtype", "f32", "--quiet"]
    colours = {"red": (220, 20, 20), "green": (20, 200, 30), "하늘색": (30, 160, 230)}
    rows, names = [], list(colours)
    for k, (name, c) in enumerate(colours.items()):
        for i in range(3):
            png(TMP / "pics" / f"{k}_{i}.png", [min(255, x + 9 * i) for x in c])
            rows.append({"filepath": f"{k}_{i}.png", "label": name, "title": f"a {name} square {i}"})
    data = TMP / "pics" / "rows.jsonl"
    data.write_text("".join(json.dumps(r) + "\n" for r in rows))
    (TMP / "names.txt").write_text("\n".join(reversed(names)) + "\n")
    cache = TMP / "cache"
    got = report("zeroshot", *m, "--cache", cache, data)
    equal((got["n"], got["classes"], got["templates"]), (9, 3, 1), "zeroshot: counts")
    # the names in another order are the same classes: labels go by name
    turned = report("zeroshot", *m, "--cache", cache, "--classes", TMP / "names.txt", data)
    equal(turned["metrics"], got["metrics"], "labels are matched by name")
    # prompts in CLIP_benchmark's layout
    prompts = TMP / "en_classnames.json"
    prompts.write_text(json.dumps({"colours": names, "imagenet1k": ["x"]}, ensure_ascii=False))
    (TMP / "en_zeroshot_classification_templates.json").write_text(json.dumps({"colours": ["{c}"]}))
    same = report("zeroshot", *m, "--prompts-dir", TMP, "--dataset", "wds/colours", data)
    for name, value in got["metrics"].items():  # a template brings one more rounding
        metric(same, name, value, 1e-5)
    same = report("zeroshot", *m, "--prompts", prompts, "--prompts", TMP / "en_zeroshot_classification_templates.json", "--dataset", "colours", data)
    for name, value in got["metrics"].items():
        metric(same, name, value, 1e-5)
    r = run("eval", "zeroshot", *m, "--prompts", prompts, "--dataset", "flowers", data)
    exits(r, 3, "no such data set")
    contains(r.err, "flowers", "no such data set")
    # the same by vectors
    run("embed", *m, "--out", TMP / "i.npy", *[TMP / "pics" / f"{k}_{i}.png" for k in range(3) for i in range(3)])
    run("embed", *m, "--out", TMP / "c.npy", *[x for n in names for x in ("--text", n)])
    by_vectors = report("zeroshot", "--images", TMP / "i.npy", "--texts", TMP / "c.npy",
                        "--labels", npy("l.npy", [9], [k for k in range(3) for _ in range(3)], "<i8"))
    for name in ("acc1", "mean_per_class_recall", "macro_f1"):
        metric(got, name, by_vectors["metrics"][name], 1e-6)
    # the cache: a part of it is taken and the rest computed again, with the same figures
    files = sorted(cache.iterdir())
    check(len(files) > 1 and all(f.suffix == ".f32" for f in files), f"cache: {files}")
    for f in files:
        f.write_bytes(f.read_bytes()[:len(f.read_bytes()) // 2 + 1])
    equal(report("zeroshot", *m, "--cache", cache, data), got, "a cut cache")
    two = run("eval", "zeroshot", *m, *m, data).rows()
    equal(len(two), 2, "two models, two objects")
    equal(two[0]["metrics"], two[1]["metrics"], "the same model twice")
    # captions
    got = report("retrieval", *m, data)
    equal((got["images"], got["texts"]), (9, 9), "retrieval: counts")
    coco = TMP / "pics" / "coco.json"
    coco.write_text(json.dumps({"images": [{"id": 10 + i, "file_name": r["filepath"]} for i, r in enumerate(rows)],
                                "annotations": [{"image_id": 10 + i, "caption": r["title"]} for i, r in enumerate(rows)]}))
    equal(report("retrieval", *m, coco)["metrics"], got["metrics"], "COCO captions")
    crepe = TMP / "pics" / "crepe.json"
    crepe.write_text(json.dumps({str(i): {"filename": r["filepath"], "caption": r["title"], "negative_caption": "nothing of it"}
                                 for i, r in enumerate(rows)}))
    equal(report("composition", *m, crepe)["n"], 9, "SugarCrepe's layout")
    wino = TMP / "pics" / "wino.jsonl"
    wino.write_text(json.dumps({"image_0": "0_0.png", "image_1": "1_0.png", "caption_0": "red", "caption_1": "green"}) + "\n")
    check("group_score" in report("composition", *m, wino)["metrics"], "Winoground's layout")
    # one bad picture: the others count
    rows.insert(2, {"filepath": "gone.png", "label": "red", "title": "gone"})
    data.write_text("".join(json.dumps(r) + "\n" for r in rows))
    r = run("eval", "zeroshot", *m, data)
    exits(r, 2, "a missing picture")
    contains(r.err, "gone.png", "a missing picture")
    got = r.rows()[0]
    equal((got["n"], got["failed"]), (9, 1), "a missing picture")
    r = run("eval", "retrieval", *m, data)
    exits(r, 2, "retrieval with a missing picture")
    equal((r.rows()[0]["images"], r.rows()[0]["texts"]), (9, 9), "its caption goes too")


def published():
    table = TMP / "published.csv"
    table.write_text("acc1,acc5,dataset,model,pretrained,task\n0.5,0.9,cifar10,ViT-L-14,openai,zeroshot_classification\n"
                     "0.75,,vtab/cifar10,ViT-B-32,openai,zeroshot_classification\n")
    wide = TMP / "wide.csv"
    wide.write_text('name,pretrained,params (M),ImageNet 1k,CIFAR-10\n"ViT-B-32",openai,151,0.6332,0.8983\n')
    s, l = npy("s.npy", [4, 2], [1, 0, 1, 0, 1, 0, 0, 1]), npy("l.npy", [4], [0, 0, 1, 1], "<i8")
    for file, want in ((table, 0.75), (wide, 0.8983)):
        got = report("zeroshot", "--scores", s, "--labels", l, "--dataset", "cifar10", "--published", file, "--published-name", "ViT-B-32 openai")
        equal(got["published"]["metrics"]["acc1"], want, f"{file.name}: the row")
        check(abs(got["published"]["difference"]["acc1"] - (0.75 - want)) < 1e-12, f"{file.name}: the difference")
    got = report("zeroshot", "--scores", s, "--labels", l, "--dataset", "cifar10", "--published", table, "--published-name", "nobody")
    equal(got["published"], None, "no such row")
    for name in ("clip_benchmark.csv", "openclip_results.csv"):
        file = golden("eval", "published", name)
        if file:
            got = report("zeroshot", "--scores", s, "--labels", l, "--dataset", "imagenet1k", "--published", file, "--published-name", "ViT-B-32 openai")
            check(abs(got["published"]["metrics"]["acc1"] - 0.633) < 5e-4, f"{name}: {got['published']}")


for part in (zeroshot, class_order, retrieval, ties, composition, digits, golden_classification, bad_input, with_model, published):
    part()
finish()
