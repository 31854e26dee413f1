from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

from ppl.errors import PPLValueError
from ppl.io import FileWriteError
from ppl.report import Picture, Report, Table, read_run, write_report


@pytest.fixture
def run(tmp_path):
    for folder, mode, gain in (("run", "progressive", 0.1), ("run/compare/baseline", "baseline", 0.0)):
        path = tmp_path / folder
        path.mkdir(parents=True)
        manifest = {
            "mode": mode,
            "notes": ["chosen on val"],
            "scores": {"val": {"CAM mIoU": 0.4 + gain, "refined mIoU": None}},
            "per_class": {"val": {"CAM": {"background": 0.8, "cat": 0.2 + gain, "dog": math.nan}}},
            "per_image": {"val": {f"i{n}": n / 20 for n in range(20)}},
        }
        (path / "manifest.json").write_text(json.dumps(manifest))
        (path / "metrics.jsonl").write_text('{"epoch": 0, "loss": 0.6}\n{"epoch": 1, "loss": 0.4}\n')
    Image.new("RGB", (40, 30)).save(tmp_path / "run" / "image_grid.png")
    return tmp_path / "run"


def text(path):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", path.read_text().split("<body>")[1]))


def test_a_run_folder_becomes_a_report(run):
    page = write_report(read_run(run), run / "report.html")
    words = text(page)
    for expected in (
        "Scores on val, % model CAM mIoU refined mIoU baseline 40.0 – progressive 50.0 –",
        "class baseline, CAM progressive, CAM background 80.0 80.0 cat 20.0 30.0 dog – –",
        "Best and worst images of val, IoU in % best IoU worst IoU i19 95.0 i0 0.0 i18 90.0 i1 5.0",
        "chosen on val",
    ):
        assert expected in words
    html = page.read_text()
    assert '<td class="number best">50.0</td>' in html
    assert "<svg" in html


def test_the_best_values_are_bold_where_rows_compete():
    rows = [["a", 0.5, 7, 0.1], ["b", 0.5, 8, 0.2], ["c", None, 9, math.nan]]

    def best(**options):
        return [[cell.best for cell in row] for row in Table("t", list("nxyz"), rows, **options).cells()]

    assert best() == [[False] * 4, [False, False, False, True], [False] * 4]
    assert best(compare="row") == [[False, True, False, False]] * 2 + [[False] * 4]
    assert best(compare=None) == [[False] * 4] * 3


def test_the_report_needs_no_other_file(run):
    html = write_report(read_run(run), run / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert any(source.startswith("data:image/png;base64,") for source in sources)
    assert "<script" not in html


def test_names_cannot_break_the_html(tmp_path):
    evil = "<b>&\"'"
    report = Report(evil, evil, [evil], [Table(evil, [evil], [[evil]], evil)], {evil: [{"epoch": 0, "loss": 1.0}]})
    report.pictures.append(Picture(evil, np.zeros((2, 2, 3), np.uint8), evil))
    report.manifest = {evil: evil}
    assert "<b>" not in write_report(report, tmp_path / "a.html").read_text()


def test_an_empty_report_and_an_empty_folder(tmp_path):
    (tmp_path / "run").mkdir()
    report = read_run(tmp_path / "run")
    assert report == Report("run")
    report.history = {"a": [{"epoch": 0}]}
    assert "<h1>run</h1>" in write_report(report, tmp_path / "a.html").read_text()


def test_missing_and_damaged_files(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="draw the picture 'x'"):
        write_report(Report("a", pictures=[Picture("x", tmp_path / "none.png")]), tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()
    with pytest.raises(FileNotFoundError, match="give a run folder"):
        read_run(tmp_path / "none")
    (run / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json is not JSON"):
        read_run(run)
    (tmp_path / "b.html").mkdir()
    with pytest.raises(FileWriteError):
        write_report(Report("a"), tmp_path / "b.html")


def test_numbers_of_numpy_and_torch_are_numbers():
    table = Table("t", ["class", "IoU"], [["a", torch.tensor(0.5)], ["b", np.float32(0.25)], ["c", np.int64(3)]])
    assert [[cell.text for cell in row] for row in table.cells()] == [["a", "50.0"], ["b", "25.0"], ["c", "3"]]
    assert table.is_number(1) and table.cells()[0][1].best


def test_a_manifest_that_is_not_an_object_is_named(tmp_path):
    (tmp_path / "manifest.json").write_text("[1]")
    with pytest.raises(PPLValueError, match=r"manifest\.json"):
        read_run(tmp_path)


def test_the_working_directory_has_its_own_name(tmp_path, monkeypatch):
    (tmp_path / "my_run").mkdir()
    (tmp_path / "my_run" / "metrics.jsonl").write_text('{"epoch": 0, "loss": 1.0}\n')
    monkeypatch.chdir(tmp_path / "my_run")
    report = read_run(".")
    assert report.title == "my_run"
    assert list(report.history) == ["my_run"]


def test_sections_that_are_null_are_left_out_and_other_ones_are_named(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(dict.fromkeys(("mode", "notes", "scores", "per_class", "per_image"))))
    assert read_run(tmp_path).tables == []
    path.write_text('{"scores": {"val": null}, "per_class": {"val": {"CAM": null}}, "per_image": {"val": null}}')
    write_report(read_run(tmp_path), tmp_path / "report.html")
    path.write_text('{"scores": [1]}')
    with pytest.raises(PPLValueError, match=r"scores = \[1\]; expected"):
        read_run(tmp_path)
