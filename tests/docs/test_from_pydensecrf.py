"""The page "From pydensecrf": each pair of calls gives the same result."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data

from ppl.refine import crf

densecrf = pytest.importorskip("pydensecrf.densecrf")
utils = pytest.importorskip("pydensecrf.utils")

PAGE = (Path(__file__).parents[2] / "docs" / "from_pydensecrf.md").read_text(encoding="utf-8")
EXAMPLE = re.search(r"^```py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PAIRS = re.findall(r"^\| `(d\..*?)` \| `(crf\(.*?\))` \|$", PAGE, re.MULTILINE)


def names() -> dict[str, Any]:
    height, width = 60, 75
    image = np.ascontiguousarray(skimage.data.astronaut()[100:160, 150:225])
    smooth = np.kron(np.random.default_rng(0).normal(size=(3, 6, 5)), np.ones((10, 15)))
    probs = (np.exp(smooth) / np.exp(smooth).sum(axis=0)).astype(np.float32)
    return {
        "np": np,
        "dcrf": densecrf,
        **{name: getattr(utils, name) for name in dir(utils) if name.startswith(("unary_from", "create_"))},
        "crf": crf,
        "height": height,
        "width": width,
        "image": image,
        "probs": probs,
        "labels": probs.argmax(axis=0),
        "unary": np.ascontiguousarray(-np.log(probs) + 0.1 * smooth, np.float32),
        "features": np.concatenate([image, image[..., :1] ** 0.5], axis=2).astype(np.float32),
        "matrix": np.array([[0, 10, 4], [10, 0, 7], [4, 7, 1]], np.float32),
    }


def changed(line: str) -> str:
    """The example with one of its lines replaced."""
    assert EXAMPLE
    replaced = {
        "d.setUnaryEnergy(": "d.setUnaryEnergy(",
        "d.addPairwiseGaussian(": "d.addPairwiseGaussian(",
        "d.addPairwiseBilateral(": "d.addPairwiseBilateral(",
        "d.addPairwiseEnergy(": "d.addPairwiseBilateral(",
        "d.inference(": "Q = ",
    }
    (start,) = [old for new, old in replaced.items() if line.startswith(new)]
    new = f"Q = np.array({line}).reshape(3, height, width)" if start == "Q = " else line
    lines = EXAMPLE[1].splitlines()
    assert sum(old.startswith(start) for old in lines) == 1
    return "\n".join(new if old.startswith(start) else old for old in lines)


def test_the_page_has_pairs_for_every_kind_of_call():
    assert len(PAIRS) >= 15
    assert PAGE.count("| `d.") == len(PAIRS)


@pytest.mark.parametrize(("theirs", "ours"), PAIRS, ids=[ours for _, ours in PAIRS])
def test_both_calls_of_a_pair_give_the_same(theirs, ours):
    known = names()
    exec(changed(theirs), known)
    found = eval(ours, known)
    assert (found.argmax(axis=0) == known["Q"].argmax(axis=0)).mean() >= 0.9999
    assert np.abs(found - known["Q"]).mean() < 1e-5
