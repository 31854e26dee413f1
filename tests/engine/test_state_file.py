from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch

from ppl.engine.random_state import random_state, set_random_state
from ppl.engine.state_file import changed_keys, load_state, save_state
from ppl.errors import PPLValueError


def draw():
    return random.random(), np.random.rand(), np.random.randn(), torch.rand(2).tolist()  # noqa: NPY002


def test_all_random_numbers_continue_after_a_round_trip_through_a_file(tmp_path):
    np.random.randn()  # noqa: NPY002 - keeps the second number of a pair in the state
    save_state(tmp_path / "state.pt", {"rng": random_state()})
    expected = draw(), draw()
    set_random_state(load_state(tmp_path / "state.pt")["rng"])
    assert (draw(), draw()) == expected


def test_reading_a_state_runs_no_code(tmp_path):
    class Harm:
        def __reduce__(self):
            return (pytest.fail, ("code ran",))

    torch.save({"done": Harm()}, tmp_path / "state.pt")
    with pytest.raises(PPLValueError, match="is not a training state"):
        load_state(tmp_path / "state.pt")


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps([1, 2], protocol=2)])
def test_files_of_other_content_are_refused(content, tmp_path):
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(PPLValueError, match="delete it to start afresh"):
        load_state(tmp_path / "state.pt")


@pytest.mark.parametrize("content", [{"epoch": 1}, {"format": 0, "epoch": 1}, [1, 2]])
def test_a_state_of_another_version_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "state.pt")
    with pytest.raises(PPLValueError, match="no training state of format 2"):
        load_state(tmp_path / "state.pt")


def test_an_interrupted_write_leaves_the_old_state(tmp_path):
    save_state(tmp_path / "state.pt", {"epoch": 1})

    class Broken:
        def __reduce__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_state(tmp_path / "state.pt", {"epoch": 2, "broken": Broken()})
    assert load_state(tmp_path / "state.pt") == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_changes_are_named_with_both_values():
    assert changed_keys({"a": (1, 2), "b": None}, {"a": [1, 2], "b": None}) == []
    assert changed_keys({"lr": 1e-3, "old": 1}, {"lr": 1e-4, "new": 2}) == [
        *("lr (0.001 -> 0.0001)", "new (None -> 2)", "old (1 -> None)")
    ]
