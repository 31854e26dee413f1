from __future__ import annotations

import sys

import pytest

from ppl.parallel import progress_bar, tracked


@pytest.mark.parametrize(
    ("terminal", "show", "drawn"), [(True, True, True), (False, True, False), (True, False, False)]
)
def test_the_bar_is_drawn_on_terminals_only(terminal, show, drawn, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with progress_bar("training", 4, completed=1, unit="batches", show=show) as advance:
        advance(1, "epoch 1/2")
    out, err = capsys.readouterr()
    assert out == ""
    assert ("epoch 1/2" in err) is drawn


def test_the_bar_counts_what_was_finished_before(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bar("maps", 4, completed=1) as advance:
        advance(2)
    assert "3/4" in capsys.readouterr().err


def test_tracked_items_come_in_order_and_an_error_passes_through():
    def items():
        yield 1
        yield 2
        raise KeyError("third")

    stream = tracked(items(), "numbers", 3)
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(KeyError, match="third"):
        next(stream)
