#!/usr/bin/env python3
"""`noema verify` on this machine, with a drawn model and with a checkpoint."""
from harness import check, contains, equal, exits, finish, golden, run

r = run("verify")
exits(r, 0, "verify")
rows = {row["check"]: row for row in r.rows()}
bad = [row for row in rows.values() if row["ok"] is False]
check(not bad, f"checks that failed: {bad}")
for name in ("decoders", "preprocessing openai", "preprocessing hf5_clip", "preprocessing hf5_siglip", "preprocessing blip", "f32: one by one",
             "f32: one thread", "bf16: three threads", "int8: one by one"):
    equal(rows.get(name, {}).get("ok"), True, name)
check(sum("against plain C" in n for n in rows) == 14, "every instruction set with every type, but the reference itself")
bpe = golden("tokenizers", "bpe_simple_vocab_16e6.txt.gz")
model = golden("clip", "openai_vit.pt")
r = run("verify", "-m", model, *(["--tokenizer", bpe] if bpe else []))
rows = {row["check"]: row for row in r.rows()}
if bpe:
    equal(rows["tokens"]["ok"], True, "tokens with CLIP's vocabulary")
# it can fail: a model that is not there
r = run("verify", "-m", "/no/such/model")
exits(r, 2, "no such model")
contains(r.out, "/no/such/model", "named")
finish()
