from __future__ import annotations

import pytest

from ppl.data import open_dataset


def test_an_unknown_layout_says_what_was_looked_for(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(FileNotFoundError, match=r"labels\.csv \(folder\), .* JPEGImages \(voc\), .* holds pictures"):
        open_dataset(tmp_path)
    with pytest.raises(ValueError, match="no layout named 'png'"):
        open_dataset(tmp_path, layout="png")


def test_a_named_layout_is_not_guessed(root):
    assert len(open_dataset(root, layout="folder")) == 3
    with pytest.raises(FileNotFoundError, match="JPEGImages"):
        open_dataset(root, layout="voc")
