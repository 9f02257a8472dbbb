#!/usr/bin/env python3
"""`data caption` and `data filter` (CapFilt) with tiny BLIP, BLIP-2 and CLIP: equal to `caption`, `match` and `embed` of the same pictures; sources and
counts; damaged, missing and tiny pictures; kill -9, ctrl-C and resume; inputs of every format."""
import io
import json
import os
import signal
import struct
import subprocess
import tarfile
import time
import zlib

from harness import BINARY, OWN, SHARED, TMP, check, close, contains, equal, exits, f32, finish, golden, run, skip, tiny_merges

IMAGES = [golden("blip", "images", f"image{i}.png") for i in range(4)]
VOCAB = TMP / "vocab.txt" # 401 lines, with the real special ids: what the tiny models' rows and the ids of [DEC] and [ENC] fit
TEXTS = ["a boat on the water", "사진 두 장", "the dog", "x" * 10000]


def png(k, size=20):
    rows = b"".join(b"\0" + bytes((x * 7 + y * (k + 3) + c * 40 + k * 31) % 256 for x in range(size) for c in range(3)) for y in range(size))
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def model(file, arch):
    config = TMP / f"{file}.config.json"
    config.write_text(json.dumps({
        "vision_config": {"num_attention_heads": arch["vision"]["heads"], "layer_norm_eps": arch["vision"]["layer_norm_eps"]},
        "text_config": {"num_attention_heads": arch["text"]["heads"]}}))
    return ["-m", golden("blip", file), "--config", config, "--tokenizer", VOCAB, "--dtype", "f32"]


def samples(folder):
    """(source, text, picture, class) of all samples in order."""
    out = []
    for shard in sorted(folder.glob("*.tar")):
        got = {}
        with tarfile.open(shard) as t:
            for m in t.getmembers():
                key, suffix = m.name.split(".", 1)
                got.setdefault(key, {})[suffix] = t.extractfile(m).read()
        for key, x in got.items():
            picture = next(x[s] for s in ("png", "jpg", "webp") if s in x)
            out.append((x["source"].decode(), x["txt"].decode(), picture, x.get("cls", b"").decode()))
    return out


def files(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def tar(path, members):
    with tarfile.open(path, "w") as t:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))


def write_sets():
    """The same five rows as JSON lines and as shards: the third picture is damaged."""
    pictures = [p.read_bytes() for p in IMAGES[:2]] + [b"\x89PNG\r\n\x1a\nbroken", IMAGES[2].read_bytes(), png(0, 1)]
    texts = [TEXTS[0], TEXTS[1], "gone", TEXTS[2], TEXTS[3]]
    for i, data in enumerate(pictures):
        (TMP / f"p{i}.png").write_bytes(data)
    rows = [{"filepath": f"p{i}.png", "title": texts[i], "label": i} for i in range(5)]
    (TMP / "pairs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    for s, part in enumerate(((0, 1, 2), (3, 4))):
        tar(TMP / f"web-{s}.tar", [m for i in part for m in ((f"{i}.png", pictures[i]), (f"{i}.txt", texts[i].encode()), (f"{i}.cls", str(i).encode()))])
    return pictures, texts


def captions(m, pictures, texts):
    out = TMP / "cap"
    r = run("data", "caption", *m, "--seed", "7", "--shard-rows", "2", "--out", out, TMP / "pairs.jsonl")
    exits(r, 2, "one damaged picture")
    contains(r.err, "p2.png", "the damaged picture is named")
    want = []
    for i in (0, 1, 3, 4):
        one = run("caption", *m, "--sample", "--top-p", "0.9", "--min-length", "5", "--max-length", "20", "--seed", str(7 + i), TMP / f"p{i}.png").rows()[0]["caption"]
        want += [("web", texts[i], pictures[i], str(i))] + ([("synthetic", one, pictures[i], str(i))] if one else [])
    got, row, written = samples(out), r.rows()[0], len(want) - 4
    check(written > 1, "captions have words")
    equal(got, want, "texts of the web as they are, captions as `noema caption` with seed 7 + row, pictures, classes")
    equal([row[k] for k in ("rows", "skipped", "web", "synthetic")], [5, 1, 4, written], "counts")
    ledger = [json.loads(x) for x in (out / "skipped.jsonl").read_text().splitlines()]
    equal([(x["row"], x["input"].endswith("p2.png"), bool(x["error"])) for x in ledger], [(2, True, True)], "the ledger")
    sizes = json.loads((out / "sizes.json").read_text())
    equal((sorted(sizes), sum(sizes.values())), (["00000.tar", "00001.tar", "00002.tar"], len(got)), "sizes")
    info = run("data", "info", out, "--rows", "0").rows()[0]
    equal((info["rows"], [p["format"] for p in info["parts"]]), (len(got), ["webdataset"] * 3), "data info reads it")

    r = run("data", "caption", *m, "--seed", "7", "--shard-rows", "2", "--batch", "3", "--out", TMP / "cap-tar", TMP / "web-0.tar", TMP / "web-1.tar")
    exits(r, 2, "shards")
    equal(samples(TMP / "cap-tar"), got, "shards and JSON lines, other batches: the same samples")
    r = run("data", "caption", *m, "--beams", "3", "--prompt", "a", "--n-best", "2", "--out", TMP / "beam", TMP / "pairs.jsonl")
    exits(r, 2, "beams")
    one = run("caption", *m, "--beams", "3", "--prompt", "a", "--n-best", "2", "--min-length", "5", "--max-length", "20", TMP / "p0.png").rows()[0]
    first = json.loads((TMP / "beam" / "00000.jsonl").read_text().splitlines()[0])
    equal([x["text"] for x in first["texts"][1:]], [x["caption"] for x in one["n_best"]], "the two best of the beams")
    equal([f32(x["score"]) for x in first["texts"][1:]], [f32(x["score"]) for x in one["n_best"]], "scores")


def limits(m):
    r = run("data", "caption", *m, "--max-skipped", "0", "--out", TMP / "limit", TMP / "pairs.jsonl")
    exits(r, 3, "more than --max-skipped")
    contains(r.err, "--max-skipped 0", "the limit")
    check(not list((TMP / "limit").glob("*.tar")), "no shard")
    exits(run("data", "caption", *m, "--seed", "8", "--out", TMP / "cap", TMP / "pairs.jsonl"), 1, "other options in the same folder")
    exits(run("data", "caption", *m, "--out", TMP / "none", TMP / "absent.jsonl"), 3, "no such data")
    exits(run("data", "caption", *m, TMP / "pairs.jsonl"), 1, "no --out")
    exits(run("data", "caption", *m, "--shard-rows", "0", "--out", TMP / "none", TMP / "pairs.jsonl"), 1, "no rows a shard")
    r = run("data", "caption", "-m", OWN / "blip/model_pretrain.pth", "--config", m[3], "--out", TMP / "none", TMP / "pairs.jsonl")
    exits(r, 3, "a model without its tokenizer")
    contains(r.err, "--tokenizer", "the missing part is named")
    r = run("data", "caption", "--out", TMP / "none2", "-m", OWN / "clip/openclip_vit.safetensors", "--config", OWN / "clip/openclip_vit.config.json", TMP / "pairs.jsonl")
    exits(r, 3, "CLIP writes no captions")


def filtering(m):
    out = TMP / "kept"
    truth = [run("match", *m, "--head", "itm", "--image", TMP / f"p{i}.png", "--text", t).rows()[0]["probs"][0][0] for i, t in
             ((0, TEXTS[0]), (1, TEXTS[1]), (3, TEXTS[2]), (4, TEXTS[3]))]
    middle = sorted(truth)[2]
    r = run("data", "filter", *m, "--threshold", repr(middle), "--shard-rows", "3", "--out", out, TMP / "pairs.jsonl")
    exits(r, 2, "filter")
    lines = [json.loads(x) for s in sorted(out.glob("0*.jsonl")) for x in s.read_text().splitlines()]
    equal([f32(x["texts"][0]["score"]) for x in lines if "texts" in x], [f32(p) for p in truth], "probabilities as `match --head itm`")
    equal([x["texts"][0]["kept"] for x in lines if "texts" in x], [p >= middle for p in truth], "from the threshold on")
    row = r.rows()[0]
    equal([row[k] for k in ("rows", "skipped", "web", "synthetic", "web_kept", "synthetic_kept")], [5, 1, 4, 0, 2, 0], "counts")
    equal([x[1] for x in samples(out)], [t for t, p in zip(TEXTS, truth) if p >= middle], "what is kept")
    r = run("data", "filter", *m, "--threshold", "0", "--out", TMP / "both", TMP / "cap")
    exits(r, 0, "captioned shards")
    row = r.rows()[0]
    n = sum(x[0] == "synthetic" for x in samples(TMP / "cap"))
    equal([row[k] for k in ("web", "synthetic", "web_kept", "synthetic_kept")], [4, n, 4, n], "by source")
    equal(samples(TMP / "both"), samples(TMP / "cap"), "threshold 0 keeps everything as it was")
    r = run("data", "filter", *m, "--threshold", "2", "--out", TMP / "nothing", TMP / "cap")
    equal([r.rows()[0][k] for k in ("web_kept", "synthetic_kept")], [0, 0], "nothing above 1")
    r = run("data", "convert", "--out", TMP / "again", TMP / "cap")
    exits(r, 0, "convert")
    check(b"synthetic" in (TMP / "again/00000.tar").read_bytes(), "convert keeps the source")


def cosines(m):
    exits(run("data", "filter", *m, "--head", "itc", "--out", TMP / "itc", TMP / "pairs.jsonl"), 1, "a cosine has no default threshold")
    clip = ["-m", OWN / "clip/openclip_vit.safetensors", "--config", OWN / "clip/openclip_vit.config.json", "--tokenizer", tiny_merges(), "--dtype", "f32"]
    r = run("data", "filter", *clip, "--out", TMP / "clip-itm", TMP / "pairs.jsonl")
    exits(r, 3, "CLIP has no ITM head")
    contains(r.err, "no ITM head", "which is said")
    for name, mm in (("blip", m), ("clip", clip)):
        r = run("data", "filter", *mm, "--head", "itc", "--threshold", "-1", "--out", TMP / f"{name}-itc", TMP / "pairs.jsonl")
        exits(r, 2, f"{name}: itc")
        lines = [json.loads(x) for x in (TMP / f"{name}-itc/00000.jsonl").read_text().splitlines()]
        want = []
        for i, t in ((0, TEXTS[0]), (1, TEXTS[1]), (3, TEXTS[2])):
            a = run("embed", *mm, TMP / f"p{i}.png").rows()[0]["embedding"]
            b = run("embed", *mm, "--text", t).rows()[0]["embedding"]
            want.append(sum(x * y for x, y in zip(a, b)))
        close([x["texts"][0]["score"] for x in lines if "texts" in x][:3], want, 1e-5, f"{name}: cosines")


def written(folder):
    return sum(x.read_bytes().count(b"\n") for x in folder.glob("0*.jsonl"))


def interrupted(m):
    """Killed again and again, the folder ends up as that of a call that ran through."""
    with open(TMP / "long.jsonl", "w") as f:
        for i in range(60):
            (TMP / f"long{i}.png").write_bytes(b"no picture" if i == 25 else png(i))
            f.write(json.dumps({"filepath": f"long{i}.png", "title": f"title {i}"}) + "\n")
    args = ["data", "caption", *m, "--seed", "1", "--batch", "2", "--shard-rows", "20", "--threads", "1", TMP / "long.jsonl"]
    exits(run(*args, "--out", TMP / "whole"), 2, "in one go")
    whole, out, kills = files(TMP / "whole"), TMP / "killed", 0
    for lines, how in ((3, signal.SIGKILL), (23, signal.SIGKILL), (35, signal.SIGINT), (50, signal.SIGKILL)):
        before = written(out)
        p = subprocess.Popen([BINARY, *map(str, args), "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while p.poll() is None and written(out) < max(lines, before + 1):
            time.sleep(0.002)
        if p.poll() is None:
            p.send_signal(how)
            kills += 1
        p.communicate()
        equal(p.returncode, -9 if how == signal.SIGKILL else 130, f"ended by the signal after {lines} lines") if p.returncode != 2 else None
        if how == signal.SIGINT and p.returncode == 130:
            before = {n: d for n, d in files(out).items() if n.endswith(".tar")}
            check(before and all(whole[n] == d for n, d in before.items()), "ctrl-C: finished shards stand as they will be")
    check(kills > 0, "the call was interrupted at least once")
    open(out / "00002.jsonl", "ab").write(b'{"row":59,"inp') # a line that was half written
    (out / "00001.tar").unlink(missing_ok=True)
    r = run(*args, "--out", out)
    exits(r, 2, "goes on")
    equal([r.rows()[0][k] for k in ("rows", "skipped", "web")], [60, 1, 59], "counts of all calls together")
    again = files(out)
    equal(sorted(n for n in again if ".tmp." not in n), sorted(whole), "the same files")
    check(all(again[n] == whole[n] for n in whole), "with the same bytes")
    exits(run(*args, "--out", out), 2, "nothing left to do")


def blip2():
    """LAVIS' stage 1 writes and matches."""
    j = golden("blip2", "hf_itm.json")
    folder = SHARED / "blip2" / "hf_itm"
    if not j or not folder.exists():
        return skip("blip2/hf_itm")
    m = ["-m", folder, "--dtype", "f32"]
    r = run("data", "filter", *m, "--threshold", "0", "--out", TMP / "b2", TMP / "pairs.jsonl")
    exits(r, 2, "BLIP-2 filter")
    want = [run("match", *m, "--head", "itm", "--image", TMP / f"p{i}.png", "--text", t).rows()[0]["probs"][0][0] for i, t in ((0, TEXTS[0]), (3, TEXTS[2]))]
    lines = [json.loads(x) for x in (TMP / "b2/00000.jsonl").read_text().splitlines()]
    equal([f32(lines[i]["texts"][0]["score"]) for i in (0, 3)], [f32(x) for x in want], "BLIP-2: probabilities as `match`")


def folder():
    """A folder samples as BLIP's authors do too, not with its own top-p of 1."""
    captioner = SHARED / "blip" / "hf_caption"
    if not captioner.exists():
        return skip("blip/hf_caption")
    m = ["-m", captioner, "--dtype", "f32"]
    exits(run("data", "caption", *m, "--temperature", "3", "--seed", "2", "--out", TMP / "cap-folder", TMP / "pairs.jsonl"), 2, "a folder")
    got = [x[1] for x in samples(TMP / "cap-folder") if x[0] == "synthetic"]
    for p, same in (("0.9", True), ("1", False)):
        want = [run("caption", *m, "--sample", "--top-p", p, "--temperature", "3", "--min-length", "5", "--max-length", "20", "--seed", str(2 + i), TMP / f"p{i}.png")
                .rows()[0]["caption"] for i in (0, 1, 3, 4)]
        equal(got == want, same, f"top-p {p}")


def main():
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = ["[PAD]", *[f"[unused{i}]" for i in range(99)], "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *[f"##{c}" for c in letters]]
    VOCAB.write_text("".join(w + "\n" for w in words + [a + b for a in ("bos", "car", "dom", "fel", "gin", "hub") for b in letters][:401 - len(words)]))
    pictures, texts = write_sets()
    m = model("model_pretrain.pth", json.loads(golden("blip", "pretrain_features.json").read_text())["arch"])
    captions(m, pictures, texts)
    limits(m)
    filtering(m)
    cosines(m)
    interrupted(m)
    blip2()
    folder()


main()
finish()
