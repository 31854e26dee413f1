"""`ppl env`: what a report of a bug needs."""

from __future__ import annotations

from ppl.cli.show import print_line

__all__ = ["env"]


def env() -> None:
    """Print the versions of Python, the system and the packages, and the devices: paste them into a bug report."""
    import os

    import torch

    from ppl.io.versions import versions

    for name, found in versions().items():
        print_line(f"{name}: {found}")
    print_line(f"cores: {os.cpu_count()}, threads of torch: {torch.get_num_threads()}")
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    print_line(f"GPUs: {', '.join(devices) or 'none'}")
