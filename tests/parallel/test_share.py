from __future__ import annotations

from types import SimpleNamespace

import pytest

from ppl.errors import PPLValueError
from ppl.parallel import Record, Share, current_share, shard


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_image_is_in_one_share_and_a_part_of_a_part_is_the_part(count):
    jobs = [SimpleNamespace(image_id=f"folder/image {index}") for index in range(40)]
    parts = [Share(index, count).part(jobs) for index in range(count)]
    assert sorted(job.image_id for part in parts for job in part) == sorted(job.image_id for job in jobs)
    assert all(Share(index, count).part(part) == part for index, part in enumerate(parts))


def test_a_name_is_in_the_same_share_however_its_accents_are_stored():
    for index in range(5):
        assert Share(index, 5).owns("caf\u00e9") == Share(index, 5).owns("cafe\u0301")


@pytest.mark.parametrize("name", ["0/4", "5/4", "4", "a/b", "1/0", "-1/4"])
def test_a_shard_that_does_not_exist_is_refused(name):
    with pytest.raises(PPLValueError, match="is not understood; the shards of 8 are 1/8, 2/8"), shard(name):
        pass


def test_shards_and_the_processes_of_a_launch_exclude_each_other(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(PPLValueError, match="the 2 processes of a launch exclude each other"), shard("1/4"):
        pass


def test_the_environment_tells_the_share(monkeypatch):
    assert current_share() == Share(0, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    assert current_share() == Share(2, 4) and not current_share().is_first


def test_shards_keep_parts_of_a_record_which_a_process_alone_joins(tmp_path):
    files = {name: tmp_path / f"{name}.png" for name in "abc"}
    for file in files.values():
        file.write_bytes(b"mask")
    path = tmp_path / "record.jsonl"
    records = []
    for name in ("1/2", "2/2"):
        with shard(name):
            records.append(Record(path))
    for record, name in zip(records, "ab", strict=True):
        record.begin({"background": 0.3})
        record.add(name, f"key of {name}", files[name])
    assert not list(path.read_text().splitlines())[1:]  # the record has the settings alone
    records[1].remove(["b"])
    alone = Record(path)
    assert set(alone) == {"a"} and alone.has_parts
    records[1].add("b", "new key of b", files["b"])
    alone = Record(path)
    alone.begin({"background": 0.3})
    assert not alone.has_parts and alone.is_finished("b", "new key of b", files["b"])
    alone.add("c", "key of c", files["c"])
    assert set(Record(path)) == {"a", "b", "c"}


def test_parts_of_other_settings_do_not_count(tmp_path):
    (tmp_path / "a.png").write_bytes(b"mask")
    path = tmp_path / "record.jsonl"
    with shard("1/2"):
        record = Record(path)
    record.begin({"background": 0.3})
    record.add("a", "key", tmp_path / "a.png")
    part = next(tmp_path.glob("record.part-*"))
    content = part.read_bytes()
    Record(path).begin({"background": 0.4})
    assert not part.exists()
    part.write_bytes(content)  # a kill came before the removal
    assert len(Record(path)) == 0
