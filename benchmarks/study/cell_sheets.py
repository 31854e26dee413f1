"""Draw the pictures on which one trained cell's CAMs beat another's most, and those on which they lose most.

    python benchmarks/study/cell_sheets.py DATASET SPLIT WEIGHTS BASELINE/epoch4.pt PROGRESSIVE/epoch4.pt --out sheets

The cells are those of `train_cells.py`. Each is cut at the threshold that is best for it, which is chosen on the masks.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sheets import compare
from trained_cells import arm_of, cell_maps, part

from ppl.cam import CamConfig
from ppl.data import open_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("split")
    parser.add_argument("weights", type=Path)
    parser.add_argument("cells", type=Path, nargs=2, help="weights of one epoch of two arms")
    parser.add_argument("--method", default="cam")
    parser.add_argument("--scales", type=float, nargs="+", default=CamConfig().scales)
    parser.add_argument("--images", default="::", help="START:STOP:STEP of the split")
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("runs/study/sheets"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = part(open_dataset(options.data, options.split), options.images)
    cams = {arm_of(cell): list(cell_maps(cell, images, options, method=options.method)) for cell in options.cells}
    compare(cams, images, options.rows, options.out)


if __name__ == "__main__":
    main()
