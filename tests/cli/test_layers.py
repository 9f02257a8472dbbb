#!/usr/bin/env python3
"""Arrows point one way: every #include of src/ goes to the same layer or one below it; cli/ and server/ include only the
public headers (and their own)."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# layer -> layers it may use besides itself
LAYERS = {
    "base": [],
    "kernels": ["base"],
    "tensor": ["base", "kernels"],
    "weights": ["base", "tensor"],
    "tokenizer": ["base"],
    "media": ["base", "kernels"],
    "nn": ["base", "kernels", "tensor", "weights"],
    "hub": ["base"],
    "models": ["base", "kernels", "tensor", "weights", "tokenizer", "media", "nn", "hub"],
    "generate": ["base", "kernels", "tensor", "weights", "tokenizer", "media", "nn", "models", "data"],
    "index": ["base", "kernels", "media", "models"],
    "data": ["base", "media", "tokenizer", "weights"],
    "train": ["base", "kernels", "tensor", "weights", "tokenizer", "media", "nn", "models", "data"],
    "eval": ["base", "kernels", "tensor", "weights", "tokenizer", "media", "nn", "models", "data", "generate", "index", "train"],
}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def main():
    bad, seen = [], 0
    for path in sorted((ROOT / "src").rglob("*.[ch]")):
        layer = path.relative_to(ROOT / "src").parts[0]
        if layer not in LAYERS:
            bad.append(f"{path}: folder {layer} is not a layer of docs/design.md")
            continue
        for inc in INCLUDE.findall(path.read_text()):
            top = inc.split("/")[0]
            seen += 1
            if top in LAYERS and top != layer and top not in LAYERS[layer]:
                bad.append(f"{path.relative_to(ROOT)}: {layer} must not include {inc}")
    for folder in ("cli", "server"):
        for path in sorted((ROOT / folder).glob("*.[ch]")):
            for inc in INCLUDE.findall(path.read_text()):
                seen += 1
                top = inc.split("/")[0]
                if top in LAYERS:
                    bad.append(f"{path.relative_to(ROOT)}: programs use include/noema only, not {inc}")
    print("\n".join(bad))
    print(f"{seen} includes, {len(bad)} against the layers")
    return 1 if bad or seen < 20 else 0


sys.exit(main())
