"""One process at a time writes into a folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ppl.io import FileWriteError
from ppl.parallel.lock import FolderInUseError, folder_lock
from ppl.parallel.share import shard

HOLD = """
import sys
from ppl.parallel.lock import folder_lock
with folder_lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of a folder until its standard input is closed."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_and_names_the_first_until_that_is_killed(tmp_path: Path) -> None:
    with holder(tmp_path / "run") as process:
        with pytest.raises(FolderInUseError) as refused, folder_lock(tmp_path / "run"):
            pass
        message = str(refused.value)
        assert f"another process is at work in {(tmp_path / 'run').resolve()}: pid {process.pid} on " in message
        assert ", since 2" in message and "`-c " in message
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / "run" / ".ppl.lock.json").exists()
        with folder_lock(tmp_path / "run"):
            assert f'"pid": {os.getpid()}' in (tmp_path / "run" / ".ppl.lock.json").read_text()


def test_the_lock_can_be_taken_again_by_its_holder(tmp_path: Path) -> None:
    with folder_lock(tmp_path):
        with folder_lock(tmp_path):
            pass
        assert (tmp_path / ".ppl.lock.json").exists()
    assert not (tmp_path / ".ppl.lock.json").exists()


def test_another_thread_is_refused(tmp_path: Path) -> None:
    refused: list[FolderInUseError] = []

    def take() -> None:
        try:
            with folder_lock(tmp_path):
                pass
        except FolderInUseError as error:
            refused.append(error)

    with folder_lock(tmp_path):
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
    assert len(refused) == 1


def test_an_error_in_the_block_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), folder_lock(tmp_path):
        raise RuntimeError
    with folder_lock(tmp_path):
        pass


def test_only_the_main_process_takes_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with folder_lock(tmp_path):
        assert not (tmp_path / ".ppl.lock").exists()


def test_a_place_that_cannot_be_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileWriteError, match="cannot write into"), folder_lock(tmp_path / "file"):
        pass


def test_shards_share_a_folder_with_each_other_and_with_nobody_else(tmp_path: Path) -> None:
    with shard("1/2"), folder_lock(tmp_path, "cam"):
        with shard("2/2"), folder_lock(tmp_path, "cam"):
            pass
        for other, job in (("2/2", "refine"), ("2/3", "cam")):
            with shard(other), pytest.raises(FolderInUseError, match="at work"), folder_lock(tmp_path, job):
                pass
    with shard("1/2"), folder_lock(tmp_path, "cam"):
        pass


def test_the_call_that_closes_the_work_removes_the_locks_of_shards(tmp_path: Path) -> None:
    for name in ("1/2", "2/2"):
        with shard(name), folder_lock(tmp_path, "cam"):
            pass
    assert len(list(tmp_path.glob(".ppl.shards*"))) == 2
    with folder_lock(tmp_path), shard("1/2"), pytest.raises(FolderInUseError), folder_lock(tmp_path, "cam"):
        pass
    with folder_lock(tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} <= {".ppl.lock"}
