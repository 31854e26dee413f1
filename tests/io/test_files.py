from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys

import pytest

from ppl.errors import PPLError
from ppl.io import FileWriteError, atomic_folder, atomic_write


def test_text_and_bytes_are_written(tmp_path):
    with atomic_write(tmp_path / "deep" / "a.txt", "w") as handle:
        handle.write("é")
    with atomic_write(tmp_path / "b.bin") as handle:
        handle.write(b"\x00\x01")
    assert (tmp_path / "deep" / "a.txt").read_bytes() == "é".encode()
    assert (tmp_path / "b.bin").read_bytes() == b"\x00\x01"


def test_an_error_inside_the_block_leaves_the_old_file_and_no_temporary_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="mine"), atomic_write(path, "w") as handle:
        handle.write("new")
        raise RuntimeError("mine")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_oserror_of_the_caller_passes_through(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, atomic_write(tmp_path / "a"):
        (tmp_path / "missing-source").read_text()
    assert not isinstance(caught.value, PPLError)


@pytest.mark.parametrize("opener", [atomic_write, atomic_folder])
def test_a_full_disk_is_named_in_one_line(tmp_path, opener):
    with pytest.raises(FileWriteError, match=r"No space left .*free some space") as caught, opener(tmp_path / "a"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert isinstance(caught.value, OSError)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_disk_that_fills_up_while_writing(tmp_path, monkeypatch):
    real = os.open

    def full(path, flags, *rest):
        return real("/dev/full", os.O_WRONLY) if str(path).endswith(".tmp") else real(path, flags, *rest)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(FileWriteError, match="free some space"), atomic_write(tmp_path / "a.bin") as handle:
        handle.write(b"x" * 100_000)


def test_a_folder_in_the_files_place(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(FileWriteError, match="cannot write"), atomic_write(tmp_path / "a") as handle:
        handle.write(b"")
    with pytest.raises(FileWriteError), atomic_write(tmp_path / "a" / "b") as handle:
        handle.write(b"")
        (tmp_path / "a" / "b").mkdir()


def test_a_file_as_parent(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(FileWriteError, match=r"cannot write .*b\.txt"), atomic_write(tmp_path / "a" / "b.txt"):
        pass


def test_the_new_file_follows_the_umask(tmp_path):
    old = os.umask(0o022)
    try:
        with atomic_write(tmp_path / "a") as handle:
            handle.write(b"")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    code = (
        "import os, signal, sys; from ppl.io import atomic_write\n"
        "with atomic_write(sys.argv[1], 'w') as h: h.write('new'); h.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.read_text() == "old"


def test_mode_is_checked(tmp_path):
    with pytest.raises(ValueError, match="'rb'"), atomic_write(tmp_path / "a", "rb"):
        pass


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "set") as folder:
        (folder / "half").write_text("")
        raise RuntimeError
    assert os.listdir(tmp_path) == []
    with atomic_folder(tmp_path / "set") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "set").exists()
    assert (tmp_path / "set" / "a").read_text() == "1"
    with pytest.raises(FileWriteError, match="already holds something"), atomic_folder(tmp_path / "set"):
        pass
    (tmp_path / "empty").mkdir()
    with atomic_folder(tmp_path / "empty"):
        pass


@pytest.mark.parametrize("name", ["図" * 80 + ".png", "a" * 250, "é" * 120])
def test_a_long_name_that_the_disk_takes_can_be_written(tmp_path, name):
    with atomic_write(tmp_path / name, "w") as handle:
        handle.write("x")
    assert os.listdir(tmp_path) == [name]
