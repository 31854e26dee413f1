"""`ppl evaluate MASKS --data DATASET`: the meaning of 0 and 255 in the true masks is an option."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ppl.cli import main
from ppl.io import write_mask


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as leaving:
        main([str(argument) for argument in arguments])
    return int(leaving.value.code or 0)


@pytest.fixture
def cracks(tmp_path: Path) -> Path:
    """One image whose mask is black and white, and a prediction of the right half of the object."""
    (tmp_path / "set" / "images").mkdir(parents=True)
    Image.new("RGB", (4, 1)).save(tmp_path / "set" / "images" / "a.png")
    (tmp_path / "set" / "classes.txt").write_text("crack\n")
    (tmp_path / "set" / "labels.csv").write_text("image,labels\na,crack\n")
    write_mask(tmp_path / "set" / "masks" / "a.png", np.array([[0, 0, 255, 255]]))
    write_mask(tmp_path / "predicted" / "a.png", np.array([[0, 0, 0, 1]]))
    return tmp_path


def test_white_objects_are_scored(cracks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("evaluate", cracks / "predicted", "--data", cracks / "set")
    assert call(*command) != 0
    assert "the only values of the masks are 0 and 255: object or ignore?" in capsys.readouterr().err
    assert call(*command, "--white", "object") == 0
    assert "mIoU of 1 of 1 images: 58.3" in capsys.readouterr().out  # background 2 of 3, crack 1 of 2


def test_an_unknown_meaning_is_named(cracks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("evaluate", cracks / "predicted", "--data", cracks / "set", "--zero", "nothing") != 0
    assert "zero: Input should be 'background' or 'ignore' (got 'nothing')" in capsys.readouterr().err
