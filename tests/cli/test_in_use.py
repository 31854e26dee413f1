"""Two commands at once in one run folder, and a command that is interrupted or killed: real processes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import Child

from ppl.cli import main
from ppl.data import make_creatures

TINY = [
    *("--backbone", "test_resnet", "--mode", "baseline", "--epochs", "2", "--quiet"),
    *("--set", "model.pretrained=false", "--set", "train.size=[64, 64]", "--set", "train.num_workers=0"),
    *("--set", "train.batch_size=4", "--set", "cam.scales=[1.0]", "--set", "refine=[]"),
    *("--set", "device=cpu", "--set", "num_workers=1"),
    *("--set", "segment=null", "--set", "preset=null", "--set", "faithfulness=0"),
]
PAUSED = """
import time
import ppl.train.task as task
from ppl.cli import main

validate, calls = task.validate, []


def pause_in_the_second_epoch(*args, **kwargs):
    calls.append(1)
    if len(calls) == 2:
        print("paused", flush=True)
        time.sleep(600)
    return validate(*args, **kwargs)


task.validate = pause_in_the_second_epoch
main()
"""
"""`ppl`, but its training stands still at the end of the second epoch."""


@pytest.fixture
def ppl(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`ppl(*words)`: the command in this process, with its exit code and what it prints."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main([str(word) for word in words])
        printed = capsys.readouterr()
        return int(leaving.value.code or 0), printed.out, " ".join(printed.err.split())

    return call


@pytest.fixture(scope="module")
def creatures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_creatures(tmp_path_factory.mktemp("creatures") / "set", train=8, val=4, size=64)


@contextmanager
def paused_run(creatures: Path, out: Path) -> Iterator[Child]:
    """A run that has trained one epoch, and stands still."""
    with Child(PAUSED, "run", creatures, "--out", out, *TINY) as process:
        process.wait_for("paused")
        yield process


def epochs(out: Path) -> int:
    return len((out / "metrics.jsonl").read_text().splitlines())


def test_a_second_command_in_a_run_folder_stops_and_names_the_first(
    creatures: Path, tmp_path: Path, ppl: Callable[..., tuple[int, str, str]]
) -> None:
    out = tmp_path / "run"
    with paused_run(creatures, out) as process:
        files = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
        for words in (("run", creatures, "--out", out, *TINY, "--set", "train.lr=0.5"), ("report", out)):
            code, _, error = ppl(*words)
            assert code == 2
            assert f"another process is at work in {out.resolve()}: pid {process.pid} on " in error
            assert f"run {creatures} --out {out}" in error
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == files
        code, out_text, _ = ppl("evaluate", creatures / "masks", "--data", creatures, "--split", "val")
        assert code == 0 and "mIoU of 4 of 4 images: 100.0" in out_text  # reads only, and elsewhere


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_the_same_command_goes_on_after_an_end(
    creatures: Path, tmp_path: Path, ppl: Callable[..., tuple[int, str, str]], sent: int, code: int
) -> None:
    out = tmp_path / "run"
    with paused_run(creatures, out) as process:
        process.send_signal(sent)
        _, error = process.communicate()
        assert process.returncode == code
        assert ("interrupted; the same command goes on from here" in error) is (sent == signal.SIGINT)
    assert epochs(out) == 1
    code, _, error = ppl("run", creatures, "--out", out, *TINY)
    assert code == 0, error
    assert epochs(out) == 2 and len(list((out / "masks" / "val").glob("*.png"))) == 4
