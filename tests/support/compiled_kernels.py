"""Compiles the kernels of a training step for a GPU, without one: Triton brings the assembler.

``python -m tests.support.compiled_kernels 90 8 16`` compiles what a network of 8 and 16 filters
launches, for compute capability 9.0, and prints a line per kernel: its name, its channels, the
widest load of its PTX in bits, and its arguments.  Nothing is run on a GPU.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import torch

from lesion_core.kernels import head, network, norm, pooling, weights
from lesion_core.unet import UNet3d

KINDS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.uint8: "u8", torch.int64: "i64"}


class Launches:
    """Stands for a kernel, and notes what it would be launched with."""

    found: dict[str, tuple[Any, dict[str, str], dict[str, Any], dict]]

    def __init__(self, kernel: Any, found: dict) -> None:
        self.kernel, self.found = kernel, found

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*args: Any, **kwargs: Any) -> None:
            values = dict(zip(self.kernel.arg_names, args, strict=False)) | kwargs
            fixed = {self.kernel.arg_names[p.num] for p in self.kernel.params if p.is_constexpr}
            signature, constants, attributes = {}, {}, {}
            for place, name in enumerate(self.kernel.arg_names):
                value = values[name]
                if name in fixed or value is None or (isinstance(value, int) and value == 1):
                    signature[name], constants[name] = "constexpr", value
                elif isinstance(value, torch.Tensor):
                    signature[name] = "*" + KINDS[value.dtype]
                    attributes[(place,)] = [["tt.divisibility", 16]]
                else:
                    signature[name] = "fp32" if isinstance(value, float) else "i32"
                    if isinstance(value, int) and value % 16 == 0:
                        attributes[(place,)] = [["tt.divisibility", 16]]
            key = f"{self.kernel.__name__} {signature} {constants}"
            self.found[key] = self.kernel, signature, constants, attributes

        return launch


def launched(filters: tuple[int, ...]) -> dict:
    """What a step in bf16 launches, and a prediction in fp32; nothing is computed."""
    found: dict = {}
    for module in (head, norm, pooling, weights):
        for name, value in list(vars(module).items()):
            if hasattr(value, "arg_names") and name != "_rectified":
                setattr(module, name, Launches(value, found))
    side = 2 ** len(filters)
    made = UNet3d(2, filters).to(memory_format=torch.channels_last_3d)  # pyright: ignore[reportCallIssue]
    volumes = torch.zeros(2, 2, side, side, side)
    with torch.autocast("cpu", torch.bfloat16):
        network.logits_of(made, volumes).sum().backward()
    with torch.no_grad():
        network.logits_of(made, volumes)
    return found


def main(capability: int, filters: tuple[int, ...]) -> None:
    from triton.backends.compiler import GPUTarget  # pyright: ignore[reportMissingImports]
    from triton.compiler import ASTSource, compile  # pyright: ignore[reportMissingImports]

    for kernel, signature, constants, attributes in launched(filters).values():
        source = ASTSource(kernel, signature, constants, attributes)
        built = compile(source, target=GPUTarget("cuda", capability, 32))
        loads = re.findall(r"ld\.global\S*?(?:\.v(\d))?\.b(\d+)", built.asm["ptx"])
        widest = max((int(number or 1) * int(bits) for number, bits in loads), default=0)
        assert built.asm["cubin"]
        kinds = " ".join(kind for kind in signature.values() if kind != "constexpr")
        channels = constants.get("CHANNELS", constants.get("OUT"))
        print(kernel.__name__, channels, widest, kinds)


if __name__ == "__main__":
    main(int(sys.argv[1]), tuple(map(int, sys.argv[2:])))
