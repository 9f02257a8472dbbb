#!/usr/bin/env python3
"""`noema probe` against scikit-learn's logistic regression on the features of a small tower (tests/golden/train/finetune), the choice of
C, pictures in files, and bad input."""
import json
import math

from harness import OWN, TMP, check, close, finish, ran, read_npy, read_safetensors, write_png, write_safetensors

GOLDEN = OWN / "train"
FINE = GOLDEN / "finetune"
MODEL = ["-m", str(GOLDEN / "e2e/init.safetensors"), "--config", str(GOLDEN / "e2e/model_config.json"), "--quiet"]
DATA = str(FINE / "data.safetensors")
WANT = json.loads((FINE / "finetune.json").read_text())["logistic_regression"]
ROWS, CLASSES, DIM = 40, 10, 32
C = 0.316  # WANT["reference"]


def probe(*extra, code=0):
    r = ran("probe", *MODEL, *extra, code=code)
    return json.loads(r.out) if code in (0, 2) else r.err


def tensors(path):
    """name -> (shape, numbers)"""
    return {k: v[1:] for k, v in read_safetensors(path).items()}


def write_rows(path, rows):
    """The given rows of the golden data as a file of their own."""
    t, each = tensors(DATA), 3 * 24 * 24
    write_safetensors(path, {"image": ("F32", [len(rows), 3, 24, 24], [x for i in rows for x in t["image"][1][i * each:(i + 1) * each]]),
                             "label": ("I64", [len(rows)], [t["label"][1][i] for i in rows])})


def png(path, color):
    write_png(path, 24, 24, bytes(color) * (24 * 24))


def golden(tmp):
    want = tensors(FINE / "expected.safetensors")
    r = probe("--train-data", DATA, "--C", C, "--out", tmp / "head.safetensors", "--predictions", tmp / "p.npy")
    check(list(r) == ["C", "train_accuracy", "val_accuracy"], f"keys {list(r)}")
    check(r["C"] == C and abs(r["train_accuracy"] - WANT["train_accuracy"]) < 1e-12 and r["val_accuracy"] is None, f"result {r}")
    _, shape, p = read_npy(tmp / "p.npy")
    check(shape == (ROWS, CLASSES), f"predictions {shape}")
    close(p, want["logreg.probabilities"][1], 1e-4, "probabilities")
    head = tensors(tmp / "head.safetensors")
    check(head["head.weight"][0] == [CLASSES, DIM] and head["head.bias"][0] == [CLASSES], "shapes of the head")
    close(head["head.weight"][1], want["logreg.weight"][1], 1e-4, "weight")
    # the bias is defined up to a constant
    got, ref = head["head.bias"][1], want["logreg.bias"][1]
    close([b - got[0] for b in got], [b - ref[0] for b in ref], 1e-4, "bias")
    # threads do not change a bit
    for n in (1, 3):
        probe("--train-data", DATA, "--C", C, "--threads", n, "--out", tmp / f"head{n}.safetensors")
        check((tmp / f"head{n}.safetensors").read_bytes() == (tmp / "head.safetensors").read_bytes(), f"{n} threads change the head")
    # another C is another head
    probe("--train-data", DATA, "--C", 10 * C, "--predictions", tmp / "q.npy")
    check(max(abs(a - b) for a, b in zip(read_npy(tmp / "q.npy")[2], p)) > 1e-2, "C has no effect")


def sweep(tmp):
    data = tmp / "twice.safetensors"  # every class must have five rows for one to be held out
    write_rows(data, list(range(ROWS)) * 2)
    val = tmp / "val.safetensors"
    write_rows(val, [7, 3, 11])
    a = probe("--train-data", data)
    steps = 8 * math.log10(a["C"])
    check(-48.001 <= steps <= 48.001 and abs(steps - round(steps)) < 1e-9, f"C {a['C']} is not on the grid")
    check(a["val_accuracy"] > 0.5, f"copies of the training rows are held out: {a}")
    check(probe("--train-data", data) == a, "two sweeps differ")
    b = probe("--train-data", data, "--val-data", val, "--predictions", tmp / "v.npy")
    check(b["C"] == a["C"], "--val-data must not decide on C")
    _, shape, p = read_npy(tmp / "v.npy")
    check(shape == (3, CLASSES) and all(abs(sum(p[i * CLASSES:(i + 1) * CLASSES]) - 1) < 1e-5 for i in range(3)), "predictions of --val-data")
    labels = tensors(val)["label"][1]
    right = sum(max(range(CLASSES), key=lambda k: p[i * CLASSES + k]) == labels[i] for i in range(3))
    check(abs(b["val_accuracy"] - right / 3) < 1e-12, f"val_accuracy {b}, {right} of 3 by the predictions")


def files(tmp):
    rows = []
    for i in range(6):
        png(tmp / f"{i}.png", (255 - i, i, 0) if i % 2 else (0, i, 255 - i))
        rows.append({"filepath": f"{i}.png", "label": "red" if i % 2 else "blue"})
    train, val = tmp / "train.jsonl", tmp / "val.jsonl"
    train.write_text("".join(json.dumps(r) + "\n" for r in rows))
    val.write_text("".join(json.dumps(r) + "\n" for r in rows[3:]))  # red comes first: names, not numbers, must match
    r = probe("--train-data", train, "--val-data", val, "--C", 10)
    check(r["train_accuracy"] == 1 and r["val_accuracy"] == 1, f"red and blue: {r}")
    columns = ["--csv-img-key", "그림", "--csv-label-key", "반"]
    table = tmp / "train.csv"
    table.write_text("그림,반\n" + "".join(f'{x["filepath"]},{x["label"]}\n' for x in rows), encoding="utf-8-sig")
    check(probe("--train-data", table, "--val-data", table, "--C", 10, *columns) == r, "other columns of training and validation data")
    marked = tmp / "marked.jsonl"
    marked.write_text(train.read_text(), encoding="utf-8-sig")
    check(probe("--train-data", marked, "--val-data", val, "--C", 10) == r, "JSON lines behind a byte order mark")
    (tmp / "2.png").write_bytes(b"no picture")
    r = probe("--train-data", train, "--C", 10, "--predictions", tmp / "f.npy", code=2)
    check(r["train_accuracy"] == 1, "the other rows")
    _, _, p = read_npy(tmp / "f.npy")
    check([math.isnan(v) for v in p] == [i // 2 == 2 for i in range(12)], f"row 2 alone must be NaN: {p}")
    val.write_text('{"filepath": "0.png", "label": "green"}\n')
    check("val.jsonl" in probe("--train-data", train, "--val-data", val, "--C", 10, code=3), "an unknown class")
    check("--C" in probe("--train-data", train, code=3), "too few rows to hold any out")
    train.write_text('{"filepath": "0.png", "label": 0}\n{"filepath": "1.png", "title": "red", "label": 1}\n{"filepath": "1.png", "title": "red"}\n')
    check("row 2" in probe("--train-data", train, "--C", 1, code=3), "a row without label")
    train.write_text('{"filepath": "0.png", "label": 1000000000000}\n')
    check("classes" in probe("--train-data", train, "--C", 1, code=3), "too many classes")


def shots(tmp):
    r = probe("--train-data", DATA, "--C", C, "--shots", 2, "--seeds", 3, "--out", tmp / "shots.safetensors")
    check(list(r)[:3] == ["C", "train_accuracy", "val_accuracy"] and r["shots"] == 2 and r["seeds"] == 3, f"keys {r}")
    each, mean = r["val_accuracies"], r["val_accuracy"]
    check(len(each) == 3 and abs(sum(each) / 3 - mean) < 1e-12, f"the mean: {r}")
    check(abs(math.sqrt(sum((x - mean) ** 2 for x in each) / 2) - r["val_accuracy_std"]) < 1e-12, f"the deviation: {r}")
    # every seed is a run of its own; the head is that of the first
    for i in range(3):
        one = probe("--train-data", DATA, "--C", C, "--shots", 2, "--seed", i, "--out", tmp / f"shots{i}.safetensors")
        check(one["val_accuracy"] == each[i] and one["val_accuracy_std"] is None, f"seed {i}: {one}, {each}")
    heads = [(tmp / f"shots{x}.safetensors").read_bytes() for x in ("", 0, 1)]
    check(heads[0] == heads[1] != heads[2], "whose head is written")
    # 20 rows drawn of 40, the other 20 measured: multiples of 1/20
    check(all(abs(20 * x - round(20 * x)) < 1e-9 for x in each), f"what is measured without --val-data: {each}")
    v = probe("--train-data", DATA, "--val-data", DATA, "--C", C, "--shots", 4)
    check(v["val_accuracy"] == v["train_accuracy"] == WANT["train_accuracy"], f"4 shots are all rows: {v}")
    check(probe("--train-data", DATA, "--shots", 2)["C"] > 0, "C is swept on the last shot of each class")
    r = probe("--train-data", DATA, "--C", C, "--shots", 5, code=3)
    check("class 0 has 4 rows" in r, f"too few rows: {r}")
    for bad in (["--shots", 0], ["--seeds", 2], ["--shots", 2, "--seeds", 65]):
        probe("--train-data", DATA, "--C", C, *bad, code=1)


def usage():
    probe(code=1)
    probe("--train-data", DATA, "--C", 0, code=1)
    probe("--train-data", DATA, "--C", -1, code=1)
    check("nowhere" in probe("--train-data", "nowhere.jsonl", "--C", 1, code=3), "a missing file")


for part in (golden, sweep, files, shots):
    part(TMP)
usage()
finish()
