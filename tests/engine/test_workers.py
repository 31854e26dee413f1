"""Worker processes, which must not run the user's script again."""

from __future__ import annotations

import multiprocessing
import sys
from types import SimpleNamespace

import pytest

from ppl.engine.batches import loader_workers
from ppl.errors import PPLValueError


@pytest.fixture
def run_as(tmp_path, monkeypatch):
    def run(source, method):
        (tmp_path / "script.py").write_text(source)
        monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__=str(tmp_path / "script.py")))
        monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none=False: method)

    return run


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_missing_main_guard_is_named(run_as, method):
    run_as("fit()\n", method)
    with pytest.raises(PPLValueError, match=r"num_workers=2 starts.*script\.py would be run again.*`if __name__ =="):
        loader_workers(2)
    assert loader_workers(0) == 0
    with pytest.warns(UserWarning, match=r"without worker processes, because .*script\.py would be run again"):
        assert loader_workers(None) == 0


def test_a_guarded_script_and_forks_have_workers(run_as):
    run_as('if __name__ == "__main__":\n    fit()\n', "spawn")
    assert loader_workers(2) == 2
    run_as("fit()\n", "fork")
    assert loader_workers(2) == 2
