#!/usr/bin/env python3
"""The contract of the command line: help, exit codes, streams, inputs, interrupted and resumed jobs, broken checkpoints."""
import json
import os
import pathlib
import random
import select
import shutil
import signal
import struct
import subprocess
import time
import zlib

from harness import BINARY, TMP, check, contains, equal, exits, finish, golden, read_npy, run, write_npy

MODEL = golden("clip", "openclip_vit.safetensors")
CONFIG = golden("clip", "openclip_vit.config.json")
XLMR = golden("clip", "openclip_xlmr.bin")
M = ["-m", MODEL, "--config", CONFIG, "--dtype", "f32"]
T = ["-m", XLMR, "--config", golden("clip", "openclip_xlmr.config.json"), "--tokenizer", golden("tokenizers", "xlmr.tokenizer.json"), "--dtype", "f32"]


def png(path, seed, size=40):
    """A picture of our own, so that the tests need no other."""
    rnd = random.Random(seed)
    a, b, c = rnd.randrange(1, 9), rnd.randrange(1, 9), rnd.randrange(256)
    rows = b"".join(b"\0" + bytes(v for x in range(size) for v in ((x * a + y * b + c) & 255, (x * y + c) & 255, (y * a * 3) & 255)) for y in range(size))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) +
                     chunk(b"IEND", b""))
    return path


def verbs():
    """Every verb that the help lists."""
    r = run("--help")
    exits(r, 0, "--help")
    equal(r.err, "", "help goes to stdout")
    names = []
    for line in r.out.split("verbs:")[1].split("\n\n")[0].splitlines():
        if line.startswith("  ") and line.strip():
            names.append(line[2:22].strip() if len(line) > 22 else line.strip())
    return names


def help_texts():
    names = verbs()
    for need in ("embed", "classify", "match", "index", "search", "similar", "inspect tokens", "inspect pixels", "inspect weights", "inspect activations",
                 "models list", "models info", "models pull", "models convert", "verify", "bench"):
        check(need in names, f"verb {need} is listed")
    for name in names:
        r = run(*name.split(), "--help")
        exits(r, 0, f"{name} --help")
        contains(r.out, "example:", f"{name} --help")
        contains(r.out, f"noema {name}", f"{name} --help")
        r = run(*name.split(), "--no-such-option")
        exits(r, 1, f"{name} with an unknown option")
        contains(r.err, "--no-such-option", f"{name}: named")
        equal(r.out, "", f"{name}: a usage error prints nothing on stdout")
    r = run("--version")
    exits(r, 0, "--version")
    check(r.out.startswith("noema "), "version")


def usage():
    for args in ([], ["nosuch"], ["inspect"], ["inspect", "nosuch"], ["embed"], ["embed", "--text"], ["embed", "--dtype", "f64", "--text", "a"],
                 ["embed", "--threads", "many", "--text", "a"], ["embed", "--threads=-1", "--text", "a"], ["embed", "--device", "gpu", "--text", "a"],
                 ["embed", "--resume", "--text", "a"], ["embed", "--image-size", "x", "--text", "a", *M], ["classify", "x.png"],
                 ["classify", "--labels", "a,b"], ["classify", "--labels", " , ", "x.png"], ["match", "--image", "a.png"], ["match", "--text", "a"],
                 ["embed", "--quiet=1", "--text", "a"], ["embed", "-Z"]):
        r = run(*args)
        exits(r, 1, f"usage {args}")
        check(r.err != "" and r.out == "", f"usage {args}: message on stderr only")
    r = run("inspect", "--help")
    exits(r, 0, "help of a group")


def inputs():
    folder = TMP / "입력"
    (folder / "더 깊이").mkdir(parents=True)
    files = [png(folder / "가.png", 1), png(folder / "나 b.png", 2), png(folder / "더 깊이" / "다.png", 3)]
    alone = [run("embed", *M, f).rows()[0] for f in files]
    r = run("embed", *M, "-r", folder)
    exits(r, 0, "folder")
    equal([row["input"] for row in r.rows()], [str(files[0]), str(files[1]), str(files[2])], "order of a folder")
    equal(r.err, "", "a folder with pictures needs no word")
    (TMP / "빈").mkdir()
    r = run("embed", *M, "-r", TMP / "빈", folder)
    equal(len(r.rows()), 3, "an empty folder beside another")
    contains(r.err, f"{TMP / '빈'}: no pictures", "an empty folder is named")
    equal([row["embedding"] for row in r.rows()], [row["embedding"] for row in alone], "alone or together: the same numbers")
    r = run("embed", *M, "-", files[0], stdin=f"{files[2]}\n{files[1]}\n".encode())
    equal([row["input"] for row in r.rows()], [str(files[2]), str(files[1]), str(files[0])], "stdin, then the next argument")
    for extra in (["--batch", "1"], ["--batch", "2"], ["--threads", "1"], ["--threads", "3", "--batch", "3"]):
        r = run("embed", *M, *extra, "-r", folder)
        equal([row["embedding"] for row in r.rows()], [row["embedding"] for row in alone], f"{extra}: the same numbers")
    r = run("embed", *M, "-", stdin=f"{files[2]}\r\n\r\n{files[1]}\r\n".encode())
    equal([row["input"] for row in r.rows()], [str(files[2]), str(files[1])], "a list with \\r\\n and an empty line")
    r = run("embed", *M, "--", "-", stdin=str(files[0]).encode())
    exits(r, 0, "after --, - is still the list; a line needs no line feed")
    # tensors: all rows, one row, a wrong shape, a wrong type
    h, w = run("models", "info", *M).rows()[0]["image_size"]
    values = [((i * 31) % 97) / 50 - 1 for i in range(3 * 3 * h * w)]
    write_npy(TMP / "t.npy", [3, 3, h, w], values)
    r = run("embed", *M, TMP / "t.npy")
    equal([row["input"] for row in r.rows()], [f"{TMP / 't.npy'}#{k}" for k in range(3)], "rows of an .npy")
    one = run("embed", *M, f"{TMP / 't.npy'}#1")
    equal(one.rows()[0]["embedding"], r.rows()[1]["embedding"], "a row by its number")
    exits(run("embed", *M, f"{TMP / 't.npy'}#7"), 3, "a row that is not there")
    write_npy(TMP / "wrong.npy", [1, 3, h + 1, w], [0.0] * (3 * (h + 1) * w))
    r = run("embed", *M, TMP / "wrong.npy", TMP / "t.npy")
    exits(r, 2, "tensors of another size")
    equal(len(r.rows()), 3, "the others are done")
    (TMP / "cut.npy").write_bytes((TMP / "t.npy").read_bytes()[:-8])
    exits(run("embed", *M, TMP / "cut.npy"), 3, "a truncated .npy")


def broken_inputs():
    folder = TMP / "broken"
    folder.mkdir()
    good = png(folder / "good.png", 4)
    (folder / "zero.png").write_bytes(b"")
    (folder / "text.jpg").write_text("this is no picture")
    (folder / "cut.png").write_bytes(good.read_bytes()[:200])
    shutil.copy(good, folder / "misnamed.jpg")  # a PNG by content: fine
    out = TMP / "broken.npy"
    r = run("embed", *M, "-r", folder, folder / "nothing.png", "--out", out)
    exits(r, 2, "some inputs failed")
    for name in ("zero.png", "text.jpg", "cut.png", "nothing.png"):
        contains(r.err, name, "named on stderr")
    equal(read_npy(out)[1][0], 2, "failed inputs have no row")
    rows = [json.loads(s) for s in pathlib.Path(f"{out}.inputs.jsonl").read_text().splitlines()][1:]
    equal({pathlib.Path(x["input"]).name: x["row"] for x in rows},
          {"cut.png": None, "good.png": 0, "misnamed.jpg": 1, "text.jpg": None, "zero.png": None, "nothing.png": None}, "which row is whose")
    r = run("embed", *M, folder / "zero.png", "--out", TMP / "none.npy")
    exits(r, 3, "nothing could be done")
    check(not (TMP / "none.npy").exists() and not (TMP / "none.npy.part").exists(), "no file of nothing")
    r = run("embed", *T, "--text", "good", b"--text=\xff\xfe")
    exits(r, 2, "invalid UTF-8 in a text")
    equal(len(r.rows()), 1, "the good text is done")
    name = os.fsencode(folder) + b"/\xff\xfe.png"
    try:
        shutil.copy(good, name)
        r = run("embed", *M, name)
        exits(r, 0, "a file name that is no UTF-8")
        contains(r.rows()[0]["input"], "\ufffd", "printed with replacement characters")
    except OSError:
        pass  # this file system refuses such names


def checkpoints():
    data = MODEL.read_bytes()
    header = struct.unpack("<Q", data[:8])[0]
    flipped = bytearray(data)
    flipped[20] ^= 0x40  # inside the header
    cases = {"empty.safetensors": b"", "cut.safetensors": data[:len(data) // 2], "header.safetensors": data[:8 + header // 2],
             "huge.safetensors": struct.pack("<Q", 1 << 60) + data[8:], "flipped.safetensors": bytes(flipped), "text.safetensors": b"hello" * 100,
             "cut.pt": golden("clip", "openai_vit.pt").read_bytes()[:70000], "zip.pt": b"PK\x03\x04" + bytes(100)}
    for name, content in cases.items():
        (TMP / name).write_bytes(content)
        for verb in (["models", "info"], ["inspect", "weights"]):
            r = run(*verb, "-m", TMP / name, *(["--config", CONFIG] if verb[0] == "models" and name.endswith("safetensors") else []))
            exits(r, 3, f"{' '.join(verb)}: {name}")
            contains(r.err, name, f"{' '.join(verb)}: names the file")
    for m in ("/no/such/file.pt", "no-such-name", "ViT-B-32/no_such_tag", str(TMP)):
        exits(run("models", "info", "-m", m, "--offline"), 3, f"model {m}")
    r = run("embed", "-m", MODEL, "--config", CONFIG, "--text", "a", env={"HOME": str(TMP), "XDG_CACHE_HOME": str(TMP / "c")})
    if not (MODEL.parent / "bpe_simple_vocab_16e6.txt.gz").exists():
        exits(r, 3, "no tokenizer")
        contains(r.err, "--tokenizer", "says what to give")


def streams():
    write_npy(TMP / "many.npy", [200, 3, 32, 32], [((i * 13) % 89) / 40 - 1 for i in range(200 * 3 * 32 * 32)])
    with open("/dev/full", "w") as full:
        p = subprocess.run([BINARY, "embed", *map(str, M), str(TMP / "many.npy")], stdout=full, stderr=subprocess.PIPE)
    equal(p.returncode, 3, "a full disk below stdout")
    contains(p.stderr.decode(), "No space left", "says why")
    p = subprocess.Popen([BINARY, "embed", *map(str, M), str(TMP / "many.npy")], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    p.stdout.read(10)
    p.stdout.close()
    err = p.stderr.read().decode()
    p.wait()
    check(p.returncode in (-signal.SIGPIPE, 0), f"closed stdout: ended with {p.returncode}")
    equal(err, "", "closed stdout: no message")
    os.mkfifo(TMP / "pipe.npy")
    r = run("embed", *M, TMP / "many.npy", "--out", TMP / "pipe.npy")
    exits(r, 3, "--out that is no regular file")
    import resource

    def little_disk():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    p = subprocess.run([BINARY, "embed", *map(str, M), str(TMP / "many.npy"), "--out", str(TMP / "full.npy")], preexec_fn=little_disk, capture_output=True)
    equal(p.returncode, 3, "a disk that fills up below --out")
    contains(p.stderr.decode(), "cannot write", "says so")
    check(not (TMP / "full.npy").exists(), "no result of a part")
    check(0 < read_npy(TMP / "full.npy.part")[1][0] < 200, "the part can be read")
    r = run("embed", *M, TMP / "many.npy", "--out", TMP / "full.npy", "--resume")
    exits(r, 0, "with room again it goes on")
    equal(read_npy(TMP / "full.npy")[1], (200, 32), "all rows")
    r = run("embed", *M, TMP / "many.npy", "--out", TMP / "no" / "folder" / "x.npy")
    exits(r, 3, "--out in a folder that is not there")
    r = run("embed", *M, "--quiet", TMP / "many.npy")
    equal(r.err, "", "--quiet says nothing")


def wait_rows(path, n):
    """Until the part has n rows (the job may also have ended)."""
    for _ in range(600):
        try:
            if read_npy(path)[1][0] >= n:
                return
        except (OSError, AssertionError, struct.error, SyntaxError):
            pass
        time.sleep(0.01)


def early_results():
    """Each batch's results come when it is done, to a pipe as well."""
    a, b = png(TMP / "s1.png", 5), png(TMP / "s2.png", 6)
    p = subprocess.Popen([BINARY, "embed", *map(str, M), "--batch", "1", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    p.stdin.write(f"{a}\n{b}\n".encode())
    p.stdin.flush()
    early = select.select([p.stdout], [], [], 30)[0]
    check(bool(early), "the first picture's result while more are expected")
    p.stdin.close()
    equal(len(p.stdout.read().splitlines()), 2, "both in the end")
    p.wait()


def interrupted():
    n = 4000
    with open(TMP / "long.txt", "w") as f:
        png(TMP / "p.png", 9)
        f.write(f"{TMP / 'p.png'}\n" * n)
    whole = TMP / "whole.npy"
    exits(run("embed", *M, "-", "--out", whole, stdin=(TMP / "long.txt").read_bytes()), 0, "an undisturbed job")
    for k, sig in enumerate((signal.SIGKILL, signal.SIGINT)):
        out = TMP / f"out{k}.npy"
        args = [BINARY, "embed", *map(str, M), "--batch", "4", "--out", str(out), "-"]
        with open(TMP / "long.txt") as stdin:
            p = subprocess.Popen(args, stdin=stdin, stderr=subprocess.PIPE)
            wait_rows(f"{out}.part", 40)
            p.send_signal(sig)
            err = p.communicate()[1].decode()
        check(not out.exists(), f"{sig.name}: no result yet")
        rows = read_npy(f"{out}.part")[1][0]
        check(0 < rows < n, f"{sig.name}: {rows} rows so far")
        if sig == signal.SIGINT:
            equal(p.returncode, 130, "exit code of an interrupt")
            contains(err, "--resume", "says how to go on")
        with open(TMP / "long.txt") as stdin:
            p = subprocess.run([*args[:-1], "-", "--resume"], stdin=stdin, stderr=subprocess.PIPE)
        equal(p.returncode, 0, f"{sig.name}: resumed: {p.stderr.decode()[-300:]}")
        equal(out.read_bytes(), whole.read_bytes(), f"{sig.name}: the same file as undisturbed")
        equal(pathlib.Path(f"{out}.inputs.jsonl").read_bytes(), pathlib.Path(f"{whole}.inputs.jsonl").read_bytes(), f"{sig.name}: the same list")
    # another job's part is not taken
    out = TMP / "other.npy"
    for end in ("part", "part.inputs.jsonl"):
        shutil.copy(f"{whole}" if end == "part" else f"{whole}.inputs.jsonl", f"{out}.{end}")
    r = run("embed", *M, TMP / "p.png", TMP / "t.npy", "--out", out, "--resume")
    exits(r, 3, "resumed with other inputs")
    contains(r.err, "another job", "says so")


def pty_progress():
    """The bar appears on a terminal only."""
    import pty
    master, slave = pty.openpty()
    p = subprocess.Popen([BINARY, "embed", *map(str, M), "--batch", "8", str(TMP / "many.npy")], stdout=subprocess.DEVNULL, stderr=slave)
    os.close(slave)
    seen = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        seen += part
    p.wait()
    os.close(master)
    equal(p.returncode, 0, "on a terminal")
    check(b"\r" in seen or seen == b"", f"a bar rewrites its line: {seen[:80]!r}")


def completions():
    for shell in ("bash", "zsh", "fish"):
        r = run("completions", shell)
        exits(r, 0, shell)
        for name in ("classify", "--labels" if shell != "fish" else "-l labels", "bf16"):
            contains(r.out, name, f"{shell} knows {name}")
        (TMP / shell).write_text(r.out)
    if shutil.which("bash"):
        script = f"source {TMP / 'bash'}; COMP_WORDS=(noema classify --dt); COMP_CWORD=2; _noema; echo ${{COMPREPLY[@]}}"
        p = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
        equal(p.stdout.strip(), "--dtype", f"bash completes an option {p.stderr}")
    exits(run("completions", "csh"), 1, "a shell that is not known")


def conversion():
    before = run("embed", *M, TMP / "t.npy").rows()
    for dtype, tol in (("f32", 1e-6), ("f16", 5e-3), ("bf16", 3e-2)):
        out = TMP / f"conv-{dtype}"
        exits(run("models", "convert", "-m", MODEL, "--config", CONFIG, "--dtype", dtype, "--out", out), 0, f"convert to {dtype}")
        after = run("embed", "-m", out, "--dtype", "f32", TMP / "t.npy").rows()
        worst = max(abs(x - y) for a, b in zip(before, after) for x, y in zip(a["embedding"], b["embedding"]))
        check(len(after) == 3 and worst <= tol, f"converted to {dtype}: differs by {worst}")
    exits(run("models", "new", "--config", CONFIG, "--seed", "3", "--out", TMP / "new"), 0, "a new model")
    exits(run("models", "new", "--config", CONFIG, "--seed", "3", "--out", TMP / "new2"), 0, "the same again")
    exits(run("models", "new", "--config", CONFIG, "--seed", "4", "--out", TMP / "new3"), 0, "another seed")
    name = "open_clip_model.safetensors"
    equal((TMP / "new" / name).read_bytes(), (TMP / "new2" / name).read_bytes(), "a seed means the same weights")
    check((TMP / "new" / name).read_bytes() != (TMP / "new3" / name).read_bytes(), "another seed, other weights")
    exits(run("models", "new", "--arch", "no-such-arch", "--out", TMP / "x"), 3, "an architecture that is not known")
    r = run("models", "list")
    exits(r, 0, "list")
    check(any(row["name"] == "ViT-B-32/laion2b_s34b_b79k" for row in r.rows()), "published names")


help_texts()
usage()
inputs()
broken_inputs()
checkpoints()
streams()
early_results()
interrupted()
pty_progress()
completions()
conversion()
finish()
