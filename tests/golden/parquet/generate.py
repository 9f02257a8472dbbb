#!/usr/bin/env python3
"""Writes the Parquet files that tests/golden/test_parquet.c reads, with pyarrow: the same 300 rows in every codec, encoding and page
version. The rows follow the formulas below, which the test repeats. Usage: generate.py [DIR]"""
import json
import pathlib
import struct
import sys
import zlib

import pyarrow as pa
import pyarrow.parquet as pq

N = 300
FEATURES = '{"info": {"features": {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog", "한국"], "_type": "ClassLabel"}}}}'


def table():
    rows = range(N)
    image = [None if i % 13 == 5 else {"bytes": bytes((i * k) & 255 for k in range(i % 17)), "path": None if i % 3 else f"p{i}.png"} for i in rows]
    return pa.table({
        "id": pa.array([i * 7 - 3 for i in rows], pa.int64()),
        "small": pa.array([None if i % 5 == 0 else i * i - 500 for i in rows], pa.int32()),
        "unsigned": pa.array([(1 << 31) + i for i in rows], pa.uint32()),
        "real": pa.array([i / 8 for i in rows], pa.float64()),
        "single": pa.array([None if i % 4 == 1 else -i / 4 for i in rows], pa.float32()),
        "flag": pa.array([i % 3 == 1 for i in rows], pa.bool_()),
        "title": pa.array([None if i % 7 == 3 else f"row {i // 2} 한글" for i in rows], pa.string()),
        "fixed": pa.array([bytes([i & 255, i >> 8, 7]) for i in rows], pa.binary(3)),
        "image": pa.array(image, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "tags": pa.array([None if i % 11 == 0 else [None if k == 2 else f"t{i}.{k}" for k in range(i % 4)] for i in rows], pa.list_(pa.string())),
        "marks": pa.array([[i + k for k in range(i % 3)] for i in rows], pa.list_(pa.int64())),
        "label": pa.array([i % 3 for i in rows], pa.int64()),
    }, metadata={"huggingface": FEATURES})


def png(colour, size=16):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress((b"\0" + bytes(colour) * size) * size)) + chunk(b"IEND", b""))


def coloured():
    """Pictures of one colour (tests/cli/test_eval.py); the order of the names is not that of the alphabet."""
    names = ["zinnober", "apfel", "meer"]
    features = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}}}
    colours = [(220, 20, 20), (20, 200, 30), (30, 60, 230)]
    rows = [(k, [min(255, x + 5 * i) for x in colours[k]]) for i in range(4) for k in (2, 0, 1)]
    return pa.table({"image": pa.array([{"bytes": png(c), "path": None} for _, c in rows], pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
                     "label": pa.array([k for k, _ in rows], pa.int64())}, metadata={"huggingface": json.dumps(features)})


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    t = table()
    base = dict(row_group_size=120, data_page_size=700, write_batch_size=16)
    for codec in ("none", "snappy", "gzip", "zstd", "lz4", "brotli"):
        pq.write_table(t, out / f"codec_{codec}.parquet", compression=codec, **base)
    pq.write_table(t, out / "v2_dictionary.parquet", compression="zstd", data_page_version="2.0", **base)
    pq.write_table(t, out / "plain_v1.parquet", compression="none", use_dictionary=False, write_page_checksum=True, **base)
    pq.write_table(t, out / "plain_v2.parquet", compression="snappy", use_dictionary=False, data_page_version="2.0", **base)
    ints, reals, texts = ["id", "small", "unsigned", "label", "marks.list.element"], ["real", "single"], ["title", "image.bytes", "image.path", "tags.list.element"]
    for name, encoding in (("length", "DELTA_LENGTH_BYTE_ARRAY"), ("bytes", "DELTA_BYTE_ARRAY")):
        columns = {c: "DELTA_BINARY_PACKED" for c in ints} | {c: "BYTE_STREAM_SPLIT" for c in reals} | {c: encoding for c in texts}
        columns |= {"flag": "RLE", "fixed": "DELTA_BYTE_ARRAY" if name == "bytes" else "BYTE_STREAM_SPLIT"}
        for version in ("1.0", "2.0"):
            pq.write_table(t, out / f"delta_{name}_v{version[0]}.parquet", compression="zstd" if version == "1.0" else "none", use_dictionary=False,
                           column_encoding=columns, data_page_version=version, **base)
    columns = {"id": "BYTE_STREAM_SPLIT", "small": "BYTE_STREAM_SPLIT", "fixed": "BYTE_STREAM_SPLIT"}
    pq.write_table(t, out / "split_ints.parquet", compression="gzip", use_dictionary=False, column_encoding=columns, **base)
    pq.write_table(coloured(), out / "classlabel.parquet", compression="zstd")
    pq.write_table(t.slice(0, 0), out / "no_rows.parquet")
    required = pa.schema([pa.field("id", pa.int64(), nullable=False), pa.field("title", pa.string(), nullable=False)])
    pq.write_table(pa.table({"id": t["id"], "title": pa.array([f"row {i // 2} 한글" for i in range(N)])}, schema=required), out / "required.parquet")


main()
