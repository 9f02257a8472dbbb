#!/usr/bin/env python3
"""Writes the seed corpora of the checkpoint fuzz targets: tests/fuzz/corpus/{safetensors,torch,npy}. Needs torch, numpy, safetensors;
the seeds are committed, so that building and testing need none of them."""
import argparse, pathlib, struct
import numpy as np
import torch
from safetensors.torch import save_file

out = pathlib.Path(__file__).resolve().parents[1] / "tests/fuzz/corpus"
for name in ("safetensors", "torch", "npy"):
    (out / name).mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)
dtypes = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool)
small = {f"t.{i}": torch.ones(2, 3).to(t) for i, t in enumerate(dtypes)}
base = torch.arange(12.).reshape(3, 4)
tree = {"epoch": 1, "name": "run", "state_dict": {"module.a": base, "module.t": base.t(), "module.s": torch.tensor(1.)},
        "optimizer": {"state": {0: {"step": torch.tensor(1.)}}, "param_groups": [{"lr": .1, "betas": (.9, .99)}]},
        "args": argparse.Namespace(x=1), "np": np.float64(2), "arr": np.asfortranarray(np.eye(2, dtype=np.float32)), "e": torch.empty(0, 2)}

save_file(small, out / "safetensors/dtypes.safetensors", metadata={"format": "pt"})
save_file({"scalar": torch.tensor(2.), "empty": torch.empty(0, 3), "ü.w": torch.ones(1, 1, 2)}, out / "safetensors/shapes.safetensors")
header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[1,5]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
(out / "safetensors/unaligned.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(5))

torch.save(small, out / "torch/dtypes.pt")
for protocol in (2, 4, 5):
    torch.save(tree, out / f"torch/tree{protocol}.pt", pickle_protocol=protocol)
    torch.save(tree, out / f"torch/legacy{protocol}.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=False)


class Tower(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(2, 2)
        self.scale = torch.nn.Parameter(torch.tensor(1.))

    def forward(self, x):
        return self.fc(x) * self.scale


torch.jit.save(torch.jit.script(Tower()), out / "torch/script.pt")
np.save(out / "npy/f4.npy", np.ones((2, 3), np.float32))
np.save(out / "npy/fortran.npy", np.asfortranarray(np.ones((2, 3), np.float64)))
np.save(out / "npy/scalar.npy", np.int64(3))
np.savez(out / "npy/stored.npz", a=np.ones(3, np.float16), b=np.zeros((2, 2), bool))
np.savez_compressed(out / "npy/deflated.npz", a=np.ones((8, 8), np.float32), b=np.arange(5))
