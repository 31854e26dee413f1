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
from ppl.report import Gallery, Picture, Report, Stages, Table, read_run, write_report


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
            "thresholds": {"val": {"best": 0.2}},
            "faithfulness": {"val": {"images": 2, "maps": 3, "scores": {"CAM": {"deletion": 0.2, "insertion": gain}}}},
            "per_image": {"val": {f"i{n}": n / 20 for n in range(20)}},
        }
        (path / "manifest.json").write_text(json.dumps(manifest))
        (path / "thresholds_val.csv").write_text("threshold,miou\n0.10,0.3\n0.20,0.4\n")
        (path / "confusion_val.csv").write_text(
            "masks,true class,background,cat,dog,ignored\n"
            "CAM,background,9,1,0,0\nCAM,cat,1,1,0,0\nCAM,dog,0,0,0,0\n"
            "refined,background,8,2,0,0\nrefined,cat,1,3,0,0\nrefined,dog,0,0,0,0\n"
        )
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
        "image IoU rank i19 95.0 1 i18 90.0 2 i17 85.0 3 i16 80.0 4 i15 75.0 5 i4 20.0 16 i3 15.0 17",
        "Over 3 CAMs of 2 images.",
        "baseline: CAM 20.0 0.0 progressive: CAM 20.0 10.0",
        "Best, chosen on these masks: baseline 0.2, progressive 0.2.",
        "Confusion matrix of val, refined, %",
        "true class background cat dog ignored background 80.0 20.0 0.0 0.0 cat 25.0 75.0 0.0 0.0 dog – – – –",
        "chosen on val",
    ):
        assert expected in words
    html = page.read_text()
    assert '<td class="number best" data-value="0.5">50.0</td>' in html
    assert html.count("data:image/svg+xml") == 2  # the threshold curve and the training


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
    assert not re.search(r"<script [^>]*src|@import|url\(", html)


def test_names_cannot_break_the_html(tmp_path):
    evil = "<b>&\"'"
    picture = Picture(evil, np.zeros((2, 2, 3), np.uint8), evil)
    gallery = Gallery(evil, [Stages(evil, [picture], evil)], evil, evil, [evil])
    report = Report(evil, evil, [evil], [Table(evil, [evil], [[evil]], evil), picture, gallery], {evil: evil})
    assert "<b>" not in write_report(report, tmp_path / "a.html").read_text()


def test_an_empty_report_and_an_empty_folder(tmp_path):
    (tmp_path / "run").mkdir()
    report = read_run(tmp_path / "run")
    assert report == Report("run")
    (tmp_path / "run" / "metrics.jsonl").write_text('{"epoch": 0}\n')
    assert read_run(tmp_path / "run") == report  # there is no number to draw
    assert "<h1>run</h1>" in write_report(report, tmp_path / "a.html").read_text()


def test_missing_and_damaged_files(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="draw the picture 'x'"):
        write_report(Report("a", parts=[Picture("x", tmp_path / "none.png")]), tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()
    with pytest.raises(FileNotFoundError, match="give a run folder"):
        read_run(tmp_path / "none")
    (run / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json is not JSON"):
        read_run(run)
    (run / "manifest.json").write_text('{"scores": {"val": {}}}')
    (run / "confusion_val.csv").write_text("masks,true class,cat,ignored\nCAM,cat,x,0\n")
    with pytest.raises(ValueError, match=r"confusion_val\.csv is damaged .*ppl evaluate"):
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
    assert [part.title for part in report.parts] == ["Training"]


def test_sections_that_are_null_are_left_out_and_other_ones_are_named(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(dict.fromkeys(("mode", "notes", "scores", "per_class", "per_image"))))
    assert read_run(tmp_path).parts == []
    path.write_text('{"scores": {"val": null}, "per_class": {"val": {"CAM": null}}, "per_image": {"val": null}}')
    write_report(read_run(tmp_path), tmp_path / "report.html")
    path.write_text('{"scores": [1]}')
    with pytest.raises(PPLValueError, match=r"scores = \[1\]; expected"):
        read_run(tmp_path)


def test_a_large_confusion_matrix_becomes_a_list_of_its_largest_entries(tmp_path):
    names = [f"c{n}" for n in range(60)]
    counts = np.eye(60, 61, dtype=int) * 10
    counts[7, 3], counts[5, 60] = 30, 40  # 40 pixels of c5 were ignored, not taken for another class
    lines = ["x", *(",".join(["CAM", name, *map(str, row)]) for name, row in zip(names, counts, strict=True))]
    (tmp_path / "manifest.json").write_text('{"scores": {"val": {"CAM mIoU": 0.5}}}')
    (tmp_path / "confusion_val.csv").write_text("\n".join(lines))
    table = read_run(tmp_path).parts[-1]
    assert table.title == "Largest confusions of val, CAM, %"
    assert table.rows == [["c7", "c3", 0.75]]


def test_a_run_without_masks_says_how_to_judge_it(tmp_path):
    steps = {"cams/val": {"seconds": 3.4, "finished": True}}
    (tmp_path / "manifest.json").write_text(json.dumps({"steps": steps, "data": {"images": {"train": 9, "val": 4}}}))
    report = read_run(tmp_path)
    assert "faithfulness" in report.notes[-1]
    assert report.summary == "images: train 9, val 4"
    assert report.parts[-1].rows == [["cams/val", 3, "yes"]]
