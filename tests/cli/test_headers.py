#!/usr/bin/env python3
"""Each public header compiles alone, as C99 and as C++17, without a warning."""
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
CC, CXX = os.environ.get("CC", "cc"), os.environ.get("CXX", "c++")


def main():
    headers = sorted((ROOT / "include/noema").glob("*.h"))
    failed = 0
    with tempfile.TemporaryDirectory() as tmp:
        for h in headers:
            for compiler, flags, ext in ((CC, ["-std=c99", "-Wstrict-prototypes"], "c"), (CXX, ["-std=c++17"], "cpp")):
                src = pathlib.Path(tmp) / f"t.{ext}"
                src.write_text(f"#include <noema/{h.name}>\nint main(void) {{ return 0; }}\n")
                cmd = [compiler, *flags, "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", "-I", str(ROOT / "include"), str(src)]
                r = subprocess.run(cmd, capture_output=True, text=True)
                if r.returncode:
                    failed += 1
                    print(f"{h.name} as {ext}:\n{r.stderr}")
    print(f"{len(headers)} headers, {failed} failures")
    return 1 if failed or len(headers) < 5 else 0


sys.exit(main())
