"""Records of finished work: kept by content and size, whatever happens to the folder."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from ppl.errors import PPLValueError
from ppl.parallel.records import Record


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.png").write_text(name * 9)
    record = Record(folder / "record.jsonl")
    record.begin({"refine": ["crf"]})
    for name in ("a", "b", "c"):
        record.add(name, f"key of {name}", folder / f"{name}.png")
    return folder


def finished(folder):
    record = Record(folder / "record.jsonl")
    return [name for name in "abcd" if record.is_finished(name, f"key of {name}", folder / f"{name}.png")]


def test_finished_results_are_known_to_the_next_process(folder):
    assert finished(folder) == ["a", "b", "c"]
    assert Record(folder / "record.jsonl").settings == {"refine": ["crf"]}
    assert len(Record(folder / "record.jsonl")) == 3


def test_a_result_of_another_key_is_not_finished(folder):
    record = Record(folder / "record.jsonl")
    assert not record.is_finished("a", "key of another picture", folder / "a.png")
    record.add("a", "key of another picture", folder / "a.png")
    assert finished(folder) == ["b", "c"]
    assert Record(record.path).is_finished("a", "key of another picture", folder / "a.png")


def test_a_copied_folder_keeps_its_results_whatever_its_times(folder):
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)
    for number, path in enumerate(sorted(copy.iterdir())):
        os.utime(path, (number * 1e8, number * 1e8))
    assert finished(copy) == ["a", "b", "c"]


def test_a_missing_or_cut_file_is_not_a_finished_result(folder):
    (folder / "a.png").unlink()
    (folder / "b.png").write_text("b" * 4)
    assert finished(folder) == ["c"]


def test_a_file_that_was_missing_when_it_was_recorded_is_not_finished(folder):
    record = Record(folder / "record.jsonl")
    record.add("d", "key of d", folder / "d.png")
    assert "d" in record and finished(folder) == ["a", "b", "c"]


def test_all_files_of_a_result_count(folder):
    record = Record(folder / "record.jsonl")
    record.add("a", "key of a", folder / "a.png", folder / "b.png")
    assert record.is_finished("a", "key of a", folder / "a.png", folder / "b.png")
    assert not record.is_finished("a", "key of a", folder / "a.png")


@pytest.mark.parametrize("lost", range(1, 40, 6))
def test_a_line_that_a_kill_cut_off_loses_its_own_result_only(folder, lost):
    path = folder / "record.jsonl"
    path.write_bytes(path.read_bytes()[:-lost])
    assert finished(folder) == ["a", "b"]
    Record(path).add("c", "key of c", folder / "c.png")
    assert finished(folder) == ["a", "b", "c"]


def test_other_settings_remove_all_entries_and_the_same_ones_none(folder):
    record = Record(folder / "record.jsonl")
    record.begin({"refine": ["crf"]})
    assert finished(folder) == ["a", "b", "c"]
    record.begin({"refine": ("random_walk",)})
    assert finished(folder) == [] and Record(record.path).settings == {"refine": ["random_walk"]}


def test_removed_entries_are_gone_for_the_next_process(folder):
    Record(folder / "record.jsonl").remove(["b", "nothing"])
    assert finished(folder) == ["a", "c"]
    assert "b" not in Record(folder / "record.jsonl")


def test_threads_record_at_the_same_time(folder):
    names = [f"{number}/ü" for number in range(400)]
    record = Record(folder / "record.jsonl")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: record.add(name, name, folder / "a.png"), names))
    again = Record(record.path)
    assert all(again.is_finished(name, name, folder / "a.png") for name in names)


def test_a_file_of_something_else_is_refused(folder):
    (folder / "record.jsonl").write_text('{"epoch": 1}\n')
    with pytest.raises(PPLValueError, match=r'record\.jsonl is not a record.*"epoch"'):
        Record(folder / "record.jsonl")
