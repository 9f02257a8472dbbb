#!/usr/bin/env python3
"""The built-in model: what verbs take without -m, where it is looked for, and that it still finds emoji by English and Korean names."""
import json

import pathlib
import shutil

from harness import ROOT, TMP, check, contains, equal, exits, finish, run

MODEL = ROOT / "models" / "noema-mini"
FONT = pathlib.Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
CLDR = pathlib.Path("/usr/share/unicode/cldr/common/annotations")
DATA = ROOT.parent / "shared" / "data"
RECIPE = ROOT / "recipes" / "noema-mini"

def picture():
    path = TMP / "p.ppm"
    path.write_bytes(b"P6 40 30 255 " + bytes((i * 7) % 256 for i in range(40 * 30 * 3)))
    return path

def verbs():
    p = picture()
    a, b = run("embed", "--text", "고양이", p), run("embed", "-m", "noema-mini", "--text", "고양이", p)
    if exits(a, 0, "embed without -m") and exits(b, 0, "embed -m noema-mini"):
        equal(a.out, b.out, "both are the same model")
        equal([r["dim"] for r in a.rows()], [256, 256], "dimensions")
    r = run("classify", "--labels", "cat,강아지", p)
    exits(r, 0, "classify")
    check(abs(sum(x["prob"] for x in r.rows()[0]["labels"]) - 1) < 1e-5, "probabilities")
    for args in (["match", "--image", p, "--text", "a cat"], ["inspect", "tokens", "--text", "a cat"], ["inspect", "pixels", p],
                 ["inspect", "weights"], ["models", "info"], ["index", "--collection", TMP / "c", p],
                 ["search", "--collection", TMP / "c", "고양이"], ["similar", "--collection", TMP / "c", p]):
        exits(run(*args), 0, " ".join(map(str, args[:2])))
    equal(json.loads(run("inspect", "pixels", p).out)["shape"], [3, 64, 64], "its pictures")
    size = sum(f.stat().st_size for f in MODEL.iterdir())
    check(size <= 12 << 20, f"at most 12 MB: {size}")

def captioner():
    p, folder = picture(), ROOT / "models" / "noema-mini-caption"
    if not (folder / "open_clip_config.json").exists():
        print("SKIPPED: models/noema-mini-caption is not in this tree")
        equal(run("caption", p).code, 3, "no captioner")
        return
    size = sum(f.stat().st_size for f in folder.iterdir())
    check(size <= 8 << 20, f"at most 8 MB: {size}")
    for language, hangul in (("en", False), ("ko", True)):
        r, named = run("caption", "--language", language, p), run("caption", "-m", "noema-mini-caption", "--language", language, p)
        if exits(r, 0, f"caption --language {language}"):
            text = r.rows()[0]["caption"]
            check(bool(text) and any("가" <= c <= "힣" for c in text) == hangul, f"a caption in {language}: {text!r}")
            equal(named.out, r.out, "by name")

def places():
    r = run("embed", "--text", "a", env={"NOEMA_DATA_DIR": str(TMP / "nowhere")})
    exits(r, 3, "a folder without it")
    contains(r.err, "noema-mini", "the message names it")
    shutil.copytree(MODEL, TMP / "data" / "noema-mini")
    exits(run("embed", "--text", "a", env={"NOEMA_DATA_DIR": str(TMP / "data")}, cwd=TMP), 0, "NOEMA_DATA_DIR")

def emoji():
    if not FONT.exists() or not (CLDR / "ko.xml").exists():
        print("SKIPPED: fonts-noto-color-emoji or unicode-cldr-core is not installed")
        return
    r = run("data", "emoji", "--out", TMP / "emoji", "--names", "en,ko")
    exits(r, 0, "data emoji --names")
    rows = [line.split("\t") for line in (TMP / "emoji" / "emoji.tsv").read_text().splitlines()]
    check(len(rows) > 1000 and all(len(x) == 6 for x in rows), f"emoji.tsv: {len(rows)} rows")
    check(any(x[1] == "emoji:1f355" and x[2] == "pizza" and x[3] == "피자" for x in rows), "the pizza's names")
    for k, language, floor in ((2, "en", FLOOR_EN), (3, "ko", FLOOR_KO)):
        (TMP / "e.jsonl").write_text("".join(json.dumps({"filepath": f"emoji/{x[0]}", "title": x[k]}) + "\n" for x in rows if x[k]))
        r = run("eval", "retrieval", TMP / "e.jsonl", "--k", "1,5", "--json", timeout=600)
        if exits(r, 0, f"emoji by {language} name"):
            got = json.loads(r.out)["metrics"]["image_retrieval_recall@5"]
            print(f"emoji by {language} name: R@5 {got:.3f}")
            check(got >= floor, f"emoji by {language} name: R@5 {got:.3f}, at least {floor}")

def photos():
    if not (DATA / "cifar10").exists():
        print(f"SKIPPED: {DATA} is not there")
        return
    names = [line.split("\t") for line in (RECIPE / "names.tsv").read_text().splitlines()]
    for part, rows, data, floor in (("CIFAR-10", names[200:], "cifar10/test-00000-of-00001.parquet", FLOOR_CI),
                                    ("Tiny ImageNet", names[:200], "tiny-imagenet-32/val-00000-of-00001.parquet", FLOOR_TI)):
        for k, language in ((1, "en"), (2, "ko")):
            (TMP / "n.txt").write_text("".join(x[k].split("|")[0] + "\n" for x in rows))
            r = run("eval", "zeroshot", "--classes", TMP / "n.txt", "--templates", RECIPE / f"eval.{language}.txt", "--limit", "1000", DATA / data, "--json",
                    timeout=600)
            if exits(r, 0, f"{part}, {language}"):
                got = json.loads(r.out)["metrics"]["acc1"]
                print(f"{part}, {language} names: {got:.3f} of 1000")
                check(got >= floor, f"{part}, {language}: {got:.3f}, at least {floor}")

FLOOR_EN, FLOOR_KO, FLOOR_CI, FLOOR_TI = 0.97, 0.97, 0.82, 0.27 # three deviations of a thousand pictures below the page's figures
if (MODEL / "open_clip_config.json").exists():
    verbs()
    captioner()
    places()
    emoji()
    photos()
else:
    print("SKIPPED: models/noema-mini is not in this tree")
finish()
