from __future__ import annotations

import numpy as np
import pytest

from ppl.data import PartMasks
from ppl.errors import PPLValueError
from ppl.io import write_mask


def test_names_and_masks_are_those_of_the_folder(tmp_path):
    assert not PartMasks(tmp_path) and PartMasks(tmp_path).names is None
    write_mask(tmp_path / "masks_parts" / "a.png", np.array([[0, 1, 2]], np.uint8))
    assert PartMasks(tmp_path) and PartMasks(tmp_path).names is None
    (tmp_path / "masks_parts" / "parts.txt").write_text("wing\n tail \n\n")
    parts = PartMasks(tmp_path)
    assert parts.names == ("wing", "tail")
    assert parts.read("a").tolist() == [[0, 1, 2]] and parts.read("b") is None


@pytest.mark.parametrize("text", ["", "\n", "head\nhead\n"])
def test_names_that_cannot_be_told_apart_are_refused(tmp_path, text):
    (tmp_path / "masks_parts").mkdir()
    (tmp_path / "masks_parts" / "parts.txt").write_text(text)
    with pytest.raises(PPLValueError, match=r"parts\.txt holds the names"):
        PartMasks(tmp_path)
