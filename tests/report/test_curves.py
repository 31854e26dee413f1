from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from ppl.report import curves, fonts, read_history

HISTORY = [
    {"epoch": 0, "phase": 0, "loss": 0.7, "val_mAP": None, "lr": [0.1, 1.0]},
    {"epoch": 1, "phase": 1, "loss": 0.5, "val_mAP": 0.4, "lr": [0.05, 0.5]},
]


def test_the_drawing_is_whole_svg(tmp_path):
    drawing = curves({"a<b": HISTORY, "other": HISTORY[:1]}, tmp_path / "curves.png")
    assert ElementTree.fromstring(drawing).tag.endswith("svg")
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="nothing to draw: no epoch holds any of loss, val_mAP, lr"):
        curves({"a": [{"epoch": 0, "loss": float("nan")}]})


def test_history_survives_a_kill_but_not_damage(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 0}\n\n{"epoch": 1}\n{"epo')
    assert read_history(path) == [{"epoch": 0}, {"epoch": 1}]
    path.write_text('{"epoch": 0}\n{"epo\n{"epoch": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl line 2 is not a JSON object"):
        read_history(path)
    with pytest.raises(FileNotFoundError, match="train first"):
        read_history(tmp_path / "none")


def test_names_of_runs_are_not_formulas_and_may_begin_with_an_underscore():
    history = [{"epoch": 0, "loss": 0.7}, {"epoch": 1, "loss": 0.4}]
    drawing = curves({"a_$x^$": history, "_hidden": history})
    for name in ("a_$x^$", "_hidden"):
        assert f"<!-- {name} -->" in drawing or f"<!-- {name.replace('$', chr(92) + '$')} -->" in drawing


def test_a_last_line_cut_inside_a_character_is_left_out(tmp_path):
    whole = b'{"epoch": 0}\n'
    (tmp_path / "metrics.jsonl").write_bytes(whole + '{"note": "é'.encode()[:-1])
    assert read_history(tmp_path / "metrics.jsonl") == [{"epoch": 0}]


def test_a_byte_order_mark_and_line_separators_inside_text_are_read(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes('\ufeff{"note": "a\u2028b"}\r\n'.encode())
    assert read_history(tmp_path / "metrics.jsonl") == [{"note": "a\u2028b"}]


def test_an_epoch_that_is_null_counts_as_the_number_of_its_line():
    unnamed = [{**line, "epoch": None} for line in HISTORY]
    assert len(re.findall("<use ", curves({"a": unnamed}))) == len(re.findall("<use ", curves({"a": HISTORY})))


def test_a_run_name_that_dejavu_lacks_takes_an_installed_font(monkeypatch, recwarn):
    font = fonts.dejavu().parent / "STIXGeneral.ttf"
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [str(font)])
    curves({"ᶁ": HISTORY, "other": HISTORY})
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
