#!/usr/bin/env python3
"""`noema describe` against clip-interrogator 0.6.0: prompts of golden/clip-interrogator, cache files, CSV, analysis, bad input.
The CLIP vocabulary is not ours to copy: without ../shared this test says so and passes."""
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

NOEMA = sys.argv[1]
SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared/golden"
G = SHARED / "clip-interrogator"
TOK = SHARED / "tokenizers/bpe_simple_vocab_16e6.txt.gz"
if not G.exists() or not TOK.exists():
    print("SKIPPED: ../shared/golden/clip-interrogator and the CLIP vocabulary are not here")
    sys.exit(0)
checks = 0


def check(ok, what):
    global checks
    checks += 1
    if not ok:
        print("FAILED:", what)
        sys.exit(1)


def exe(*args):
    r = subprocess.run([NOEMA, *map(str, args)], capture_output=True, text=True)
    check(r.returncode == 0, f"{args}: exit {r.returncode}: {r.stderr[-400:]}")
    return r.stdout


def describe(*args, code=0):
    r = subprocess.run([NOEMA, "describe", "-m", str(G / "model"), "--tokenizer", str(TOK), "--dtype", "f32", "--quiet", *map(str, args)],
                       capture_output=True, text=True)
    check(r.returncode == code, f"{args}: exit {r.returncode}: {r.stderr[-400:]}")
    return r


def captioner():
    """A caption model that writes nothing, and tensors that are CLIP's alone."""
    if not (SHARED / "blip/hf_caption").exists():
        return
    silent = tmp / "silent"
    shutil.copytree(SHARED / "blip/hf_caption", silent)
    data = bytearray((silent / "model.safetensors").read_bytes())
    n = int.from_bytes(data[:8], "little")
    at = json.loads(data[8:8 + n])["text_decoder.cls.predictions.bias"]["data_offsets"][0] + 8 + n
    data[at + 4 * 102:at + 4 * 103] = struct.pack("<f", 1e4)  # [SEP] at once
    (silent / "model.safetensors").write_bytes(data)
    lists, image = ["--lists", G / "data", "--cache", tmp / "cache", "--caption-model", silent], G / golden["images"][0]["image"]
    got = {mode: json.loads(describe(*lists, "--mode", mode, image).stdout) for mode in ("best", "fast", "classic")}
    check(got["fast"]["prompt"].startswith(", ") and got["classic"]["prompt"].startswith(", "), "upstream goes on from an empty caption")
    check(got["best"]["score"] >= max(got["fast"]["score"], got["classic"]["score"]) and not got["best"]["prompt"].startswith(", "), "best begins with a phrase")
    exe("inspect", "pixels", "-m", G / "model", image, "--out", tmp / "p.npy")
    r = describe("--mode", "fast", "--caption-model", SHARED / "blip/hf_caption", tmp / "p.npy", code=3)
    check("[3,48,48]" in r.stderr, "a tensor of CLIP's size is not read as the caption model's")
    describe("--mode", "fast", "--caption", "a dog", tmp / "p.npy")


def blank_start():
    """The chain retold over embeddings, with a blank phrase among those it may begin with."""
    lists, words = tmp / "blank", ["", "mossy workshop", "film grain", "braided glacier", "velvet orchard"]
    shutil.copytree(G / "data", lists)
    (lists / "flavors.txt").write_text("\n".join(words) + "\n")
    (lists / "negative.txt").write_text("soft focus\n")
    rows = [json.loads(x) for x in exe("embed", "-m", G / "model", "--dtype", "f32", *[G / f"images/{n}.png" for n in ("img0_rgb", "img3_big")]).splitlines()]
    known = {}

    def cosine(image, text):
        if text not in known:
            known[text] = json.loads(exe("embed", "-m", G / "model", "--tokenizer", TOK, "--dtype", "f32", "--text", text))["embedding"]
        return sum(a * b for a, b in zip(image, known[text]))

    begun = 0
    for row in rows:
        pool, v = words + ["soft focus"], row["embedding"]
        word = cur = min(pool, key=lambda w: cosine(v, w))
        begun += cur == ""
        best, best_sim = cur, -cosine(v, cur)
        for _ in range(2):
            pool.remove(word)
            word = min(pool, key=lambda w: cosine(v, f"{cur}, {w}"))
            cur = f"{cur}, {word}"
            if -cosine(v, cur) > best_sim:
                best, best_sim = cur, -cosine(v, cur)
        got = json.loads(describe("--lists", lists, "--mode", "negative", "--max-flavors", 2, row["input"]).stdout)
        check(got["prompt"] == best, f"negative: want {best!r}, got {got['prompt']!r}")
    check(begun > 0, "no picture begins with the blank phrase")


golden = json.loads((G / "interrogate.json").read_text())
with tempfile.TemporaryDirectory() as tmp:
    tmp = pathlib.Path(tmp)
    for n, im in enumerate(golden["images"]):
        for conf, modes in im["modes"].items():
            c = golden["configurations"][conf]
            for name, want in modes.items():
                if (n + len(name)) % 2 and name not in ("best", "negative"):
                    continue  # half of the quick ones: every mode still runs on two pictures
                st = want["settings"]
                args = ["--lists", G / "data", "--mode", name.split("_")[0], "--compat", "--caption", im["caption"], "--cache", tmp / "cache",
                        "--chunk-size", c["chunk_size"], "--flavor-intermediate-count", c["flavor_intermediate_count"], G / im["image"]]
                for key in ("max_flavors", "min_flavors"):
                    if key in st:
                        args += ["--" + key.replace("_", "-"), st[key]]
                got = json.loads(describe(*args).stdout)
                check(got["prompt"] == want["output"], f"{im['image']} {conf} {name}:\n want {want['output']}\n got  {got['prompt']}")
    # the cache files are upstream's: its names after the model's, about its size
    files = sorted((tmp / "cache").glob("*.safetensors"))
    check(len(files) == 6, f"cache: {files}")
    for f in files:
        theirs = next((G / "cache").glob("*_" + f.name.rsplit("_", 1)[1]))
        check(abs(f.stat().st_size - theirs.stat().st_size) < 200, f"{f.name}: size")
    # a damaged cache file is made again
    files[0].write_bytes(b"broken")
    im = golden["images"][0]
    want = im["modes"]["plain"]["fast"]["output"]
    base = ["--lists", G / "data", "--mode", "fast", "--caption", im["caption"], "--cache", tmp / "cache"]
    check(json.loads(describe(*base, G / im["image"]).stdout)["prompt"] == want, "after a damaged cache file")
    check(files[0].stat().st_size > 100, "the damaged cache file was not replaced")
    # a folder, with CSV; a broken picture fails alone
    shutil.copytree(G / "images", tmp / "images")
    (tmp / "images/bad.png").write_bytes(b"")
    r = describe(*base, "-r", tmp / "images", "--csv", tmp / "desc.csv", code=2)
    check(len(r.stdout.splitlines()) == 4 and "bad.png" in r.stderr, "one bad picture among four")
    check((tmp / "desc.csv").read_text().startswith("image,prompt\n") and len((tmp / "desc.csv").read_text().splitlines()) == 5, "CSV")
    # a second call goes on: a record cut in the middle is done again, the others are left out
    whole = (tmp / "desc.csv").read_bytes()
    (tmp / "desc.csv").write_bytes(whole[:-7])
    r = describe(*base, "-r", tmp / "images", "--csv", tmp / "desc.csv", code=2)
    check(len(r.stdout.splitlines()) == 1 and (tmp / "desc.csv").read_bytes() == whole, "CSV goes on")
    (tmp / "other.csv").write_text("a,b\n")
    check("image,prompt" in describe(*base, "--csv", tmp / "other.csv", G / im["image"], code=3).stderr, "another CSV is not overwritten")
    check((tmp / "other.csv").read_text() == "a,b\n", "another CSV is left as it is")
    got = json.loads(describe(*base, "--analyze", G / im["image"]).stdout)
    check(set(got["analysis"]) == {"mediums", "artists", "movements", "trendings", "flavors"} and len(got["analysis"]["flavors"]) == 5, "analysis")
    many = [describe(*base, "--max-flavors", n, "--flavor-intermediate-count", n, G / im["image"]).stdout for n in (1000, 2 ** 32, 2 ** 31 - 1)]
    check(many[0] == many[1] == many[2], "more phrases than there are")
    # noema's own lists
    check(json.loads(describe("--mode", "classic", "--caption", "a thing", G / im["image"]).stdout)["prompt"].startswith("a thing"), "own lists")
    ko = json.loads(describe("--mode", "classic", "--language", "ko", "--caption", "사진", G / im["image"]).stdout)["prompt"]
    check(ko.startswith("사진") and any(w in ko for w in (" 작품", " 화풍")), f"Korean lists: {ko}")
    describe("--mode", "best", G / im["image"], code=1)
    check("artists.txt" in describe("--lists", tmp / "none", "--caption", "x", G / im["image"], code=3).stderr, "a missing list is named")
    captioner()
    blank_start()
print(f"{checks} checks passed")
