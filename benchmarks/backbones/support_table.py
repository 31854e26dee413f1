"""Write the table of docs/backbones.md: which timm variants can be cut, and where. The whole table takes hours.

python benchmarks/backbones/support_table.py --state rows.jsonl
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from torch import nn

from ppl.backbones.check import BackboneReport, check_model, random_model
from ppl.backbones.cut import CutBackbone
from ppl.backbones.dry_run import resolve_stages
from ppl.backbones.stages import default_cuts
from ppl.errors import PPLError

_BEGIN, _END = "<!-- begin variants -->\n", "<!-- end variants -->"


@cache
def variants() -> tuple[tuple[str, str], ...]:
    """Return pairs (file of timm, variant): one or a few small variants per file."""
    with Path(__file__).with_name("variants.tsv").open(encoding="utf-8", newline="") as file:
        return tuple((row["module"], row["variant"]) for row in csv.DictReader(file, delimiter="\t"))


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    module: str
    variant: str
    tier: int
    cuts: str
    layout: str
    stride: int
    output_stride: bool
    speed: float | None
    remark: str


def support_table(
    path: str | Path,
    *,
    names: Iterable[str] | None = None,
    state: str | Path | None = None,
    speed: bool = True,
    progress: bool = True,
) -> list[Row]:
    """Check every variant, one model in memory at a time, and write the table as Markdown.

    Args:
        path: the Markdown file to write; in a page with `<!-- begin variants -->` and `<!-- end variants -->` only the
            part between the two marks is replaced.
        names: variants to check; all by default.
        state: a JSON-lines file of finished rows, with which a stopped run continues.
        speed: also measure the time of a patched pass.
        progress: show a bar on a terminal.

    Returns:
        The rows.
    """
    from rich.console import Console
    from rich.progress import track

    wanted = None if names is None else set(names)
    chosen = [pair for pair in variants() if wanted is None or pair[1] in wanted]
    done: dict[str, Row] = {}
    if state is not None and Path(state).exists():
        done = {row.variant: row for row in (Row(**json.loads(line)) for line in Path(state).read_text().splitlines())}
    console = Console(stderr=True)
    for module, variant in track(chosen, "checking", console=console, disable=not (progress and console.is_terminal)):
        if variant in done:
            continue
        done[variant] = check_variant(module, variant, speed=speed)
        gc.collect()
        if state is not None:
            with Path(state).open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(done[variant])) + "\n")
    rows = [done[variant] for _, variant in chosen]
    page = Path(path)
    before, after = "", ""
    if page.exists() and _BEGIN in (text := page.read_text(encoding="utf-8")):
        before, after = text.partition(_BEGIN)[0], text.partition(_END)[2]
    page.write_text(f"{before}{_BEGIN}\n{render(rows)}\n{_END}{after or chr(10)}", encoding="utf-8")
    return rows


def check_variant(module: str, variant: str, *, speed: bool = True) -> Row:
    """Return one row: the report of `check_backbone`, `output_stride` and the time of a patched pass."""
    model = random_model(variant)
    cuts: Sequence[int] | None = None
    total = 0
    try:
        found = resolve_stages(model)
        total = len(found) - 1
        if total > 6:
            cuts = sorted({0, total // 4, total // 2, 3 * total // 4, total - 1})
    except PPLError:  # The report states the refusal.
        pass
    report = check_model(variant, model, 2, cuts=cuts)
    if not report.supported:
        return Row(module, variant, 0, "", "", 0, False, None, report.reason)
    cut_names = ", ".join(f"`{name}`" for name in report.cuts)
    if cuts is not None:
        cut_names += f" (tried, of {total})"
    return Row(
        module=module,
        variant=variant,
        tier=report.tier,
        cuts=cut_names,
        layout="/".join(dict.fromkeys(cut.layout for cut in report.stages)),
        stride=report.stride,
        output_stride=takes_output_stride(variant),
        speed=patched_time(model, report) if speed else None,
        remark="; ".join(part for part in (*report.notes, report.reason) if part),
    )


def takes_output_stride(variant: str) -> bool:
    """Tell whether timm builds the variant with `output_stride=16` and declares that stride."""
    import timm

    try:
        with torch.device("meta"):
            model = timm.create_model(variant, pretrained=False, num_classes=0, output_stride=16)
        return int(model.feature_info[-1]["reduction"]) == 16
    except Exception:  # Families without the argument raise errors of many types.
        return False


def patched_time(model: nn.Module, report: BackboneReport, repeats: int = 2) -> float:
    """Return the CPU time of a patched pass from the middle default cut, relative to a plain forward."""
    stages = resolve_stages(model)
    candidates = [name for name in default_cuts(stages) if name in report.cuts] or list(report.cuts)
    cutter = CutBackbone(model.eval(), [candidates[len(candidates) // 2]])
    x = torch.randn(1, 3, *report.input_size)
    ratios = []
    with torch.no_grad():
        for repeat in range(repeats + 1):
            start = time.process_time()
            final, features = cutter.forward_features(x, [0])
            middle = time.process_time()
            cutter.patched(0, features[0], report.grid, (int(final.shape[-2]), int(final.shape[-1])))
            if repeat:  # The first round warms up.
                ratios.append((time.process_time() - middle) / (middle - start))
    return statistics.median(ratios)


def render(rows: Sequence[Row]) -> str:
    """Return the table as Markdown, below the number of usable variants."""
    usable = sum(row.tier > 0 for row in rows)
    lines = [f"{usable} of {len(rows)} variants can be cut at one stage or more.", ""]
    lines += ["| file | variant | tier | cuts | layout | stride | os16 | speed | remark |", "|" + "---|" * 9]
    for row in rows:
        speed = "" if row.speed is None else f"{row.speed:.2f}"
        stride = str(row.stride or "")
        cells = (
            row.module,
            row.variant,
            str(row.tier),
            row.cuts,
            row.layout,
            stride,
            "yes" if row.output_stride else "",
        )
        lines.append("| " + " | ".join((*cells, speed, row.remark.replace("|", "/"))) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse the command line and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="variants; all by default")
    parser.add_argument("--out", type=Path, default=Path("docs/backbones.md"))
    parser.add_argument("--state", type=Path, help="file of finished rows, with which a stopped run continues")
    options = parser.parse_args()
    support_table(options.out, names=options.names or None, state=options.state)


if __name__ == "__main__":
    main()
