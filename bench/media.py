#!/usr/bin/env python3
"""Image throughput on one thread, side by side with Pillow + torchvision: JPEG bytes -> CLIP tensor.

usage: bench/media.py [BUILD_DIR] [FOLDER]     (FOLDER: *.jpg, default ../shared/data/coco256/images)
Times are milliseconds of processor time per image, the fastest of several passes; ratio = peer / ours, above 1 we are faster."""
import glob, io, json, os, subprocess, sys, time
import torch, torchvision, PIL
from PIL import Image
from torchvision import transforms as T

here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
build = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "build")
folder = sys.argv[2] if len(sys.argv) > 2 else os.path.join(here, "../shared/data/coco256/images")
torch.set_num_threads(1)
files = [open(f, "rb").read() for f in sorted(glob.glob(os.path.join(folder, "*.jpg")))]
geometry = T.Compose([T.Resize(224, T.InterpolationMode.BICUBIC), T.CenterCrop(224)])
transform = T.Compose([geometry, lambda i: i.convert("RGB"), T.ToTensor(),
                       T.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))])


def decode(b):
    i = Image.open(io.BytesIO(b))
    i.load()
    return i


def best(fn, items, passes=5):
    t = []
    for _ in range(passes):
        start = time.process_time()
        for i in items:
            fn(i)
        t.append((time.process_time() - start) / len(items) * 1e3)
    return min(t)


pictures = [decode(b) for b in files]
peer = {"full_ms": best(lambda b: transform(decode(b)), files), "decode_ms": best(decode, files),
        "preprocess_ms": best(transform, pictures)}
ours = json.loads(subprocess.run([os.path.join(build, "bench_media"), folder], capture_output=True, text=True, check=True).stdout)
print(f"{ours['images']} images, {ours['cpu']}; Pillow {PIL.__version__}, torchvision {torchvision.__version__}; one thread")
print(f"{'':12}{'noema':>10}{'Pillow':>10}{'ratio':>8}")
for k in ("full_ms", "decode_ms", "preprocess_ms"):
    print(f"{k[:-3]:12}{ours[k]:10.3f}{peer[k]:10.3f}{peer[k] / ours[k]:8.2f}")
