#!/usr/bin/env python3
"""`inspect tokens` on every golden string, through --text-file where a line can hold it and --text where it has line feeds."""
import json

from harness import SHARED, TMP, check, contains, equal, exits, finish, golden, run, skip


def lines(path):
    return [json.loads(s) for s in path.read_text(encoding="utf-8").splitlines()]


def expected(folder, name, base=None, change=lambda ids: ids):
    """i -> ids; a file of differences is laid over its base."""
    out = dict(base or {})
    rows = lines(folder / f"{name}.jsonl")
    for row in rows:
        if "i" in row and row.get("ids") is not None:
            out[row["i"]] = change(row["ids"])
        elif "i" in row:
            out.pop(row["i"], None)
    return out


def tokens(strings, *args):
    """ids by string number, and the strings that were refused."""
    flat = [i for i, s in strings.items() if "\n" not in s]
    other = [i for i, s in strings.items() if "\n" in s and "\0" not in s]
    path = TMP / "texts.txt"
    path.write_bytes("".join(strings[i] + "\n" for i in flat).encode("utf-8"))
    r = run("inspect", "tokens", *args, *[f"--text={strings[i]}" for i in other], "--text-file", path)
    by_text = {row["text"]: row["ids"] for row in r.rows()}
    return {i: by_text.get(strings[i]) for i in flat + other}, r


def case(strings, name, want, *args):
    got, r = tokens(strings, *args)
    wrong = [i for i in got if i in want and got[i] != want[i]]
    check(len(got) > 250, f"{name}: only {len(got)} strings")
    check(r.code in (0, 2), f"{name}: exit {r.code}: {r.err[-300:]}")
    for i in wrong[:3]:
        check(False, f"{name}: string {i} {strings[i]!r}: expected {want[i]}, got {got[i]}")
    check(not wrong, f"{name}: {len(wrong)} of {len(got)} strings differ")


def config(text_cfg):
    path = TMP / "config.json"
    path.write_text(json.dumps({"model_cfg": {"text_cfg": text_cfg}}))
    return ["--config", path]


def own_cases(g):
    strings = {row["i"]: row["text"] for row in lines(g / "strings.jsonl")}
    case(strings, "gpt2", expected(g, "gpt2"), "--tokenizer", g / "bytelevel.tokenizer.json")
    t5 = expected(g, "t5")
    case(strings, "t5", t5, "--tokenizer", g / "t5.tokenizer.json")
    case(strings, "t5_spm", {i: ids[:-1] for i, ids in expected(g, "t5_spm", t5).items()}, "--tokenizer", g / "t5.spiece.model")
    case(strings, "xlmr", expected(g, "xlmr"), "--tokenizer", g / "xlmr.tokenizer.json")
    case(strings, "gemma_style", expected(g, "gemma_style"), "--tokenizer", g / "gemma_style.model")
    lines_of_files(["--tokenizer", g / "t5.tokenizer.json"])


def shared_cases(g):
    strings = {row["i"]: row["text"] for row in lines(g / "strings.jsonl")}
    bpe = ["--tokenizer", g / "bpe_simple_vocab_16e6.txt.gz"]
    case(strings, "clip_openai", expected(g, "clip_openai"), *bpe)
    plain = expected(g, "clip_openclip")
    case(strings, "clip_openclip", plain, *bpe, *config({"context_length": 77, "vocab_size": 49408}))
    case(strings, "clip_openclip_ctx32", expected(g, "clip_openclip_ctx32", plain), *bpe, *config({"context_length": 32, "vocab_size": 49408}))
    for mode in ("whitespace", "canonicalize"):
        case(strings, f"clip_openclip_{mode}", expected(g, f"clip_openclip_{mode}", plain), *bpe,
             *config({"context_length": 77, "vocab_size": 49408, "tokenizer_kwargs": {"clean": mode}}))
    case(strings, "bert_uncased", expected(g, "bert_uncased"), "--tokenizer", g / "bert_uncased.vocab.txt")


def lines_of_files(args):
    # a line is kept as it is
    (TMP / "odd.txt").write_bytes("  앞뒤 \r\n\n끝".encode())
    r = run("inspect", "tokens", *args, "--text-file", TMP / "odd.txt")
    equal([row["text"] for row in r.rows()], ["  앞뒤 \r", "", "끝"], "lines of a text file")
    # what cannot be tokenised
    (TMP / "bad.txt").write_bytes(b"good\n\xff\xfe bad\nalso good\n")
    r = run("inspect", "tokens", *args, "--text-file", TMP / "bad.txt")
    exits(r, 2, "invalid UTF-8")
    equal(len(r.rows()), 2, "the others are done")
    r = run("inspect", "tokens", *args, "--text-file", TMP / "no-such-file")
    exits(r, 3, "no such text file")
    contains(r.err, "no-such-file", "named")


def hostile():
    for name, data in (("empty.txt.gz", b""), ("cut.txt.gz", b"\x1f\x8b\x08\0\0\0\0\0"), ("tokenizer.json", b'{"model":{"type":"BPE"'),
                       ("x.model", b"\x0a\xff\xff\xff\xff\x0f"), ("vocab.txt", b"")):
        path = TMP / name
        path.write_bytes(data)
        r = run("inspect", "tokens", "--tokenizer", path, "--text", "a")
        exits(r, 3, f"broken {name}")
        contains(r.err, name, "the file is named")
    r = run("inspect", "tokens", "--tokenizer", TMP / "nothing", "--text", "a")
    exits(r, 3, "no tokenizer there")


if (SHARED / "tokenizers").is_dir():
    shared_cases(SHARED / "tokenizers")
else:
    skip("shared/golden/tokenizers: CLIP's and BERT's vocabularies")
own_cases(golden("tokenizers"))
hostile()
finish()
