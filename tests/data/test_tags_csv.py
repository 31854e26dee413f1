"""Tags in the dialects of spreadsheets and annotation tools."""

from __future__ import annotations

import pytest
from PIL import Image

from ppl.data import read_folder
from ppl.data.tags_csv import read_tag_rows
from ppl.errors import PPLValueError

TAGS = [("a.jpg", ("dog",)), ("b.jpg", ("cat", "dog")), ("c.jpg", ())]

DIALECTS = {
    "semicolons between columns": "image;labels\na.jpg;dog\nb.jpg;cat|dog\nc.jpg;\n",
    "semicolons between columns, quoted tags": 'image;labels\na.jpg;dog\nb.jpg;"cat;dog"\nc.jpg;\n',
    "tabs": "image\tlabels\na.jpg\tdog\nb.jpg\tcat;dog\nc.jpg\t\n",
    "bars between tags": "image,labels\na.jpg,dog\nb.jpg,cat|dog\nc.jpg,\n",
    "lists": "image,labels\na.jpg,['dog']\nb.jpg,\"['cat', 'dog']\"\nc.jpg,[]\n",
    "choices of Label Studio": 'image,labels\na.jpg,dog\nb.jpg,"{""choices"":[""cat"",""dog""]}"\nc.jpg,\n',
    "other names of columns": "Filename,Width,Tags\na.jpg,4,dog\nb.jpg,4,cat;dog\nc.jpg,4,\n",
    "columns of 0 and 1": "image,cat,dog\na.jpg,0,1\nb.jpg,1,1\nc.jpg,0,0\n",
    "columns of 0 and 1 by Roboflow": "filename, cat, dog\na.jpg, 0, 1\nb.jpg, 1, 1\nc.jpg, 0, 0\n",
    "columns of 0 and 1, semicolons": "cat;image;dog\n0;a.jpg;1.0\n1;b.jpg;1.0\n0;c.jpg;0.0\n",
    "the separator on a line of its own": "sep=;\nimage;labels\na.jpg;dog\nb.jpg;cat|dog\nc.jpg;\n",
    "columns of 0 and 1 by pandas": ",Image Name,cat,dog\n0,a.jpg,0,1\n1,b.jpg,1,1\n2,c.jpg,0,0\n",
    "columns of truth values": "image,cat,dog\na.jpg,False,True\nb.jpg,TRUE,TRUE\nc.jpg,false,false\n",
    "one row per box": (
        "filename,width,height,class,xmin,ymin,xmax,ymax\n"
        "a.jpg,4,3,dog,0,0,1,1\nb.jpg,4,3,cat,0,0,1,1\nb.jpg,4,3,dog,1,1,2,2\nb.jpg,4,3,dog,1,1,2,2\nc.jpg,4,3,,,,,\n"
    ),
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_every_dialect_gives_the_same_tags(tmp_path, dialect, encoding):
    (tmp_path / "labels.csv").write_text(DIALECTS[dialect], encoding=encoding)
    rows, _ = read_tag_rows(tmp_path / "labels.csv")
    assert [(row.image, tuple(sorted(set(row.tags)))) for row in rows] == TAGS


@pytest.mark.parametrize("cell", ['"cat, dog"', "cat dog", "cat|dog", "cat;dog"])
def test_known_classes_tell_where_a_tag_ends(tmp_path, cell):
    (tmp_path / "labels.csv").write_text(f"image,labels\na.jpg,{cell}\n")
    (row,), _ = read_tag_rows(tmp_path / "labels.csv", ("cat", "dog"))
    assert row.tags == ("cat", "dog")
    (row,), _ = read_tag_rows(tmp_path / "labels.csv", (cell.strip('"'),))
    assert row.tags == (cell.strip('"'),) if cell != "cat;dog" else ("cat", "dog")


UNCLEAR = {
    "commas, no list of classes": ('image,labels\na.jpg,"cat, dog"\n', r"line 2: the tags 'cat, dog' hold ','"),
    "two separators": ("image,labels\na.jpg,cat|dog\nb.jpg,cat;dog\n", "hold ';' and '|', so where one ends is not"),
    "a column of numbers": (
        "image,cat,width\na.jpg,1,640\n",
        "column 'width' holds '640'; write the tags into",
    ),
    "an empty cell among zeros": ("image,cat,dog\na.jpg,1,\n", "line 2: column 'dog' holds ''"),
    "minus one": ("image,cat,dog\na.jpg,1,-1\n", "line 2: column 'dog' holds '-1'"),
    "no header": ("a.jpg;cat\nb.jpg;dog\n", "line 1: the header is 'a.jpg;cat'; it must hold image,labels"),
    "one column": ("image\na.jpg\n", "line 1: the header is 'image'; it must hold image,labels"),
    "a row of another length": ("image;labels\na.jpg;cat;dog\n", "line 2: 3 cells instead of 2; put quotes around"),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_what_is_not_clear_is_named_and_not_guessed(tmp_path, name):
    content, words = UNCLEAR[name]
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(PPLValueError) as caught:
        read_tag_rows(tmp_path / "labels.csv")
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "images").mkdir()
    for name, _ in TAGS:
        Image.new("RGB", (4, 3)).save(tmp_path / "images" / name)
    return tmp_path


def test_columns_of_0_and_1_are_the_classes_in_their_order(photos):
    (photos / "labels.csv").write_text("image,dog,cat\na.jpg,1,0\nb.jpg,1,1\nc.jpg,0,0\n")
    dataset = read_folder(photos)
    assert dataset.classes == ("dog", "cat")
    assert [sample.labels for sample in dataset] == [(0,), (0, 1), ()]
    (photos / "classes.txt").write_text("cat\ndog\n")
    assert [sample.labels for sample in read_folder(photos)] == [(1,), (0, 1), ()]
    (photos / "classes.txt").write_text("cat\nbird\n")
    with pytest.raises(PPLValueError, match="column 'dog' is not in classes"):
        read_folder(photos)


def test_pictures_without_a_row_are_counted_and_named(photos):
    (photos / "labels.csv").write_text("image,cat,dog\na.jpg,1,0\n")
    with pytest.warns(UserWarning, match=r"2 of 3 pictures in .*images have no row in labels\.csv .*: 'b', 'c'"):
        assert read_folder(photos).image_ids == ("a",)


def test_a_table_may_have_one_row_per_tag(tmp_path):
    (tmp_path / "labels.csv").write_text("image,label\na.jpg,dog\nb.jpg,cat\nb.jpg,dog\n")
    rows, _ = read_tag_rows(tmp_path / "labels.csv")
    assert [(row.image, row.tags) for row in rows] == [("a.jpg", ("dog",)), ("b.jpg", ("cat", "dog"))]


def test_yes_and_no_are_one_and_zero(tmp_path):
    (tmp_path / "labels.csv").write_text("image,cat,dog\na.jpg,yes,No\n")
    (row,), columns = read_tag_rows(tmp_path / "labels.csv")
    assert (row.tags, columns) == (("cat",), ("cat", "dog"))
