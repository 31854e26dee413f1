from __future__ import annotations

import sys

import pytest
from PIL import Image

from ppl.data import open_dataset
from ppl.errors import MissingExtraError, PPLValueError


@pytest.fixture
def root(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a", "b", "c"):
        Image.new("RGB", (4, 3)).save(tmp_path / "images" / f"{name}.jpg")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    return tmp_path


def write(root, **columns):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), root / "labels.parquet")


@pytest.mark.parametrize(
    "columns",
    [
        {"labels": [["dog"], ["cat", "dog"], []]},
        {"labels": [["dog"], ["cat", "dog"], None]},
        {"tags": ["dog", "cat;dog", ""]},
        {"cat": [0, 1, 0], "dog": [1, 1, 0]},
        {"cat": [False, True, False], "dog": [True, True, False]},
    ],
)
def test_every_form_gives_the_tags_that_the_csv_gives(root, columns):
    write(root, image=["a.jpg", "b.jpg", "c"], **columns)
    found = open_dataset(root)
    (root / "labels.parquet").unlink()
    (root / "labels.csv").write_text("image,labels\na.jpg,dog\nb.jpg,cat;dog\nc,\n")
    assert found == open_dataset(root)
    assert [sample.labels for sample in found] == [(1,), (0, 1), ()]


def test_faulty_rows_are_named(root):
    write(root, image=["a.jpg", "b.jpg"], labels=[["dog"], ["cow"]])
    with pytest.raises(PPLValueError, match=r"labels\.parquet line 2: tag 'cow' of image 'b\.jpg'"):
        open_dataset(root)
    write(root, image=["a.jpg", "b.jpg"], cat=[0, 2])
    with pytest.raises(PPLValueError, match="line 2: column 'cat' holds 2"):
        open_dataset(root)
    write(root, picture=["a.jpg"], labels=[["dog"]])
    with pytest.raises(PPLValueError, match="has the columns picture, labels"):
        open_dataset(root)
    (root / "labels.parquet").write_bytes(b"no table")
    with pytest.raises(PPLValueError, match="no whole Parquet file"):
        open_dataset(root)


def test_two_tables_are_one_too_many(root):
    for name in ("labels.csv", "labels.parquet"):
        (root / name).write_text("image,labels\na,cat\n")
    with pytest.raises(PPLValueError, match="remove one of them"):
        open_dataset(root)


def test_a_missing_package_is_named_with_the_line_that_installs_it(root, monkeypatch):
    (root / "labels.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"ppl-wsss\[parquet\]"):
        open_dataset(root)
