"""Fill the tables of the pages of results from the study's CSV files.

    python benchmarks/study/page.py docs/results.md benchmarks/study/pages/*.md

A table stands between `<!-- cells KEY=VALUE ... SHOWN -->` and `<!-- end -->`. The keys select cells of one setting
(`scales=1,1.5`), and some `rows=ARM:READING,...`, one `reading` or one `seed` if they are named, or only the arms of at
least so many seeds (`least=3`). SHOWN is `scores` (with differences to baseline and control, or those
`against=ARM:READING,...`), `maps` (the same without CRF), `errors` or `classes` (IoU of each). Between `<!-- search
KEY=VALUE ... -->` and `<!-- end -->` stand arms that were trained at several rates or lengths (`file=search.csv`: by
`search.py`), between `<!-- readings KEY=VALUE ... -->` or `<!-- reach KEY=VALUE ... -->` and `<!-- end -->` rows of
`results/readings.csv` or `results/reach.csv`.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from arms import ARMS
from scoring import READINGS
from summarize import COLUMNS, ERRORS, HERE, SETTING, Cells, chosen, named, read, table

from ppl.io import atomic_write

TABLE = re.compile(r"(<!-- (cells|search|readings|reach)([^>]*) -->\n).*?(<!-- end -->)", re.DOTALL)
SHOWN = {
    "scores": (COLUMNS, "miou_best"),
    "maps": ({key: name for key, name in COLUMNS.items() if not key.startswith("crf")}, "miou_best"),
    "errors": (ERRORS, ""),
}
AGAINST = "baseline:whole control:whole"
WAYS = {
    "arm": "arm",
    "size": "crops",
    "stride": "stride",
    "scales": "scales",
    "map": "map",
    "evidence": "evidence",
    "miou_auto": "auto",
    "miou_best": "best",
    "threshold": "threshold",
}


def cells_table(words: list[str]) -> Iterator[str]:
    keys = dict(word.replace(",", " ").split("=") for word in words if "=" in word)
    shown = next(word for word in words if "=" not in word)
    reading, seed, least = keys.pop("reading", ""), keys.pop("seed", ""), int(keys.pop("least", 1))
    names = named(keys.pop("rows", "").split()) or list(product(ARMS, [reading] if reading else READINGS))
    against = keys.pop("against", "")
    found = [
        cells
        for setting, cells in read(HERE / "results" / "cells.csv").items()
        if keys.items() <= dict(zip(SETTING, setting, strict=True)).items()
    ]
    if len(found) != 1:
        raise SystemExit(f"{keys} selects {len(found)} settings of cells.csv instead of one: name more keys")
    cells = {}
    for name in names:
        own = {number: row for number, row in found[0].get(name, {}).items() if seed in ("", str(number))}
        if len(own) >= least:
            cells[name] = own
    columns, key = SHOWN.get(shown) or (class_columns(cells), "")
    others = chosen(found[0] if against else cells, named((against or AGAINST).split()))
    return table(cells, columns, others if key else {}, key)


def class_columns(cells: Cells) -> dict[str, str]:
    row = next(row for rows in cells.values() for row in rows.values())
    return {name: name.removeprefix("iou ") for name in row if name.startswith("iou ")}


def search_table(words: list[str]) -> Iterator[str]:
    """Arms by rate and length: mIoU at the best threshold, and mAP behind it."""
    chosen = dict(word.replace(",", " ").split("=") for word in words)
    found: dict[str, dict[tuple[int, float], str]] = {}
    with (HERE / "results" / chosen.pop("file", "cells.csv")).open() as file:
        for row in csv.DictReader(file):
            if chosen.items() <= row.items():
                scores = f"{float(row['miou_best']):.1f} ({float(row['map']):.0f})"
                found.setdefault(row["arm"], {})[int(row["epochs"]), float(row["lr"])] = scores
    searched = {arm: found[arm] for arm in ARMS if len(found.get(arm, ())) > 1}
    settings = sorted({setting for scores in searched.values() for setting in scores})
    yield "| arm | " + " | ".join(f"{epochs} epochs at {rate:g}" for epochs, rate in settings) + " |"
    yield "|" + " --- |" * (1 + len(settings))
    for arm, scores in searched.items():
        yield f"| {arm} | " + " | ".join(scores.get(setting, "") for setting in settings) + " |"


def readings_table(words: list[str]) -> Iterator[str]:
    chosen = dict(word.split("=") for word in words)
    yield "| " + " | ".join(WAYS.values()) + " |"
    yield "|" + " --- |" * len(WAYS)
    with (HERE / "results" / "readings.csv").open() as file:
        for row in csv.DictReader(file):
            if chosen.items() <= row.items():
                yield "| " + " | ".join(row[key] for key in WAYS) + " |"


def reach_table(words: list[str]) -> Iterator[str]:
    chosen = dict(word.split("=") for word in words)
    yield "| arm | seed | half within | 90% within |"
    yield "| --- | --- | --- | --- |"
    with (HERE / "results" / "reach.csv").open() as file:
        for row in csv.DictReader(file):
            if chosen.items() <= row.items():
                yield f"| {row['arm']} | {row['seed']} | {row['half_px']} pixels | {row['most_px']} pixels |"


TABLES = {"cells": cells_table, "search": search_table, "readings": readings_table, "reach": reach_table}


def filled(match: re.Match[str]) -> str:
    makes = TABLES[match[2]]
    return match[1] + "\n" + "\n".join(makes(match[3].split())) + "\n\n" + match[4]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path, nargs="+")
    for page in parser.parse_args().pages:
        text = TABLE.sub(filled, page.read_text())
        with atomic_write(page, "w") as file:
            file.write(text)


if __name__ == "__main__":
    main()
