"""Compare bfloat16 with float32 on this CPU, and with the choice of `half_precision`: forward passes, one thread.

python benchmarks/backbones/half_precision.py
"""

from __future__ import annotations

import statistics
import time
import warnings

import timm
import torch

from ppl.backbones.half import half_precision


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    model = timm.create_model("mobilenetv2_100", output_stride=16).eval().to(memory_format=torch.channels_last)
    x = torch.randn(8, 3, 256, 192).contiguous(memory_format=torch.channels_last)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(4):
        for half, values in seconds.items():
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                model(x)
            values.append(time.perf_counter() - start)
    plain, half = (statistics.median(values[1:]) for values in seconds.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chosen = half_precision(torch.device("cpu"))
    faster, taken = half < plain, chosen is not None
    print(f"float32 {len(x) / plain:.1f} images/s, bfloat16 {len(x) / half:.1f}, ratio {plain / half:.2f}")
    print(f"half_precision takes {chosen or torch.float32}: {'right' if faster == taken else 'WRONG'}")


if __name__ == "__main__":
    main()
