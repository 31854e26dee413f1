"""Fill the tables of the page of results from the study's CSV files.

    python benchmarks/study/page.py docs/results.md

A table stands between `<!-- cells KEY=VALUE ... SHOWN -->` and `<!-- end -->`. The keys select cells of one setting;
SHOWN is `scores` (with differences to baseline and control), `maps` (the same without CRF) or `errors`. Tables of
`results/readings.csv` stand between `<!-- readings KEY=VALUE ... -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterator
from pathlib import Path

from summarize import COLUMNS, ERRORS, HERE, SETTING, read, table

from ppl.io import atomic_write

TABLE = re.compile(r"(<!-- (cells|readings)([^>]*) -->\n).*?(<!-- end -->)", re.DOTALL)
SHOWN = {
    "scores": (COLUMNS, "miou_best"),
    "maps": ({key: name for key, name in COLUMNS.items() if not key.startswith("crf")}, "miou_best"),
    "errors": (ERRORS, ""),
}
AGAINST = [("baseline", "whole"), ("control", "whole")]
READINGS = {
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
    chosen = dict(word.split("=") for word in words if "=" in word)
    columns, key = SHOWN[next(word for word in words if "=" not in word)]
    found = [
        cells
        for setting, cells in read(HERE / "results" / "cells.csv").items()
        if chosen.items() <= dict(zip(SETTING, setting, strict=True)).items()
    ]
    if len(found) != 1:
        raise SystemExit(f"{chosen} selects {len(found)} settings of cells.csv instead of one: name more keys")
    return table(found[0], columns, AGAINST if key else (), key)


def readings_table(words: list[str]) -> Iterator[str]:
    chosen = dict(word.split("=") for word in words)
    yield "| " + " | ".join(READINGS.values()) + " |"
    yield "|" + " --- |" * len(READINGS)
    with (HERE / "results" / "readings.csv").open() as file:
        for row in csv.DictReader(file):
            if chosen.items() <= row.items():
                yield "| " + " | ".join(row[key] for key in READINGS) + " |"


def filled(match: re.Match[str]) -> str:
    makes = cells_table if match[2] == "cells" else readings_table
    return match[1] + "\n" + "\n".join(makes(match[3].split())) + "\n\n" + match[4]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    page = parser.parse_args().page
    text = TABLE.sub(filled, page.read_text())
    with atomic_write(page, "w") as file:
        file.write(text)


if __name__ == "__main__":
    main()
