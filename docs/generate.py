"""Write the parts of the pages that follow from the code: recipes, commands, refiners, measured tables.

    python docs/generate.py            brings the pages up to date
    python docs/generate.py --check    only says whether they are

What stands between `<!-- begin NAME -->` and `<!-- end NAME -->` is replaced; the rest of a page is written by hand.
"""

from __future__ import annotations

import csv
import inspect
import json
import re
import sys
import types
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ppl.cli.app import app
from ppl.data import DatasetConfig
from ppl.models import ModelConfig
from ppl.parameters import known_parameters
from ppl.pipeline import AffinityRecipe, CamRecipe, Recipe
from ppl.refine import PRESETS, REFINERS
from ppl.refine.affinity import AffinityConfig
from ppl.refine.pixels import PixelConfig
from ppl.refine.refiners import main_option
from ppl.segment import SegmentConfig
from ppl.train import TrainConfig

DOCS = Path(__file__).parent
ROOT = DOCS.parent
RESULTS = ROOT / "benchmarks" / "refine" / "results"

WORDS = {int: "integer", float: "number", str: "text", bool: "true or false", Path: "path", Any: "anything"}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "min_length": "length at least"}


def kind(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """A type in words."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind(inside[0], [*inside[1:], *metadata])
    if origin is Literal:
        return ", ".join(json.dumps(value) for value in inside)
    if origin in (Union, types.UnionType):
        words = [kind(member) for member in inside if member is not type(None)]
        text = " or ".join(words) + (" or null" if type(None) in inside else "")
    elif origin is list:
        word = kind(inside[0])
        text = f"list of ({word})" if " or " in word else f"list of {plural(word)}"
    elif origin is tuple:
        text = f"list of {plural(kind(inside[0]))}" if inside[-1] is Ellipsis else f"[{', '.join(map(kind, inside))}]"
    elif origin is dict:
        text = "mapping"
    elif callable(annotation) and annotation in WORDS:
        text = WORDS[annotation]
    else:
        text = getattr(annotation, "__name__", str(annotation)).lower()
    return ", ".join([text, *bounds(metadata)])


def plural(words: str) -> str:
    """Of the first word, where it is a plain one."""
    return re.sub(r"^(integer|number|path)\b", r"\1s", words)


def bounds(metadata: Iterable[Any]) -> list[str]:
    """Limits of a number, in words."""
    found = []
    for item in metadata:
        if isinstance(item, FieldInfo):
            found += bounds(item.metadata)
        found += [f"{word} {getattr(item, name)}" for name, word in BOUNDS.items() if hasattr(item, name)]
    return found


def shown(value: Any) -> str:
    """A default as a recipe would write it."""
    if value is PydanticUndefined or value is inspect.Parameter.empty:
        return "required"
    return f"`{json.dumps(value, default=str)}`"


def table(header: list[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def keys(model: type[BaseModel], leave_out: Iterable[str] = ()) -> str:
    """The fields of a pydantic model."""
    rows = []
    for name, field in model.model_fields.items():
        if name not in leave_out:
            rows.append(
                [f"`{name}`", kind(field.annotation, field.metadata), shown(field.default), field.description or ""]
            )
    return table(["key", "value", "default", "meaning"], rows)


def recipe_keys() -> str:
    """Every key of a recipe, section by section."""
    sections: dict[str, type[BaseModel]] = {
        "data": DatasetConfig,
        "model": ModelConfig,
        "train": TrainConfig,
        "cam": CamRecipe,
        "affinity": AffinityRecipe,
        "affinity.train": AffinityConfig,
        "pixels": PixelConfig,
        "segment": SegmentConfig,
    }
    parts = []
    for name, model in sections.items():
        summary = (inspect.getdoc(model) or "").split("\n")[0]
        inner = [other.removeprefix(f"{name}.") for other in sections if other.startswith(f"{name}.")]
        parts.append(f"## `{name}`\n\n{summary}\n\n{keys(model, leave_out=inner)}")
    parts.append(f"## On the top level\n\n{keys(Recipe, leave_out=sections)}")
    return "\n\n".join(parts)


def refiners() -> str:
    """Every refiner with its options."""
    parts = []
    for name, refiner in REFINERS.items():
        if not Path(refiner.__code__.co_filename).is_relative_to(ROOT / "ppl"):  # registered by an example
            continue
        text = inspect.getdoc(refiner) or ""
        meanings = arguments(text)
        rows = []
        for option, default in known_parameters(refiner).items():
            main = " (main)" if option == main_option(name) else ""
            rows.append([f"`{option}`{main}", shown(default), meanings[option]])
        summary = " ".join(text.split("\n\n")[0].split())
        parts.append(f"### `{name}`\n\n{summary}\n\n{table(['option', 'default', 'meaning'], rows)}")
    return "\n\n".join(parts)


def arguments(docstring: str) -> dict[str, str]:
    """The Args of a Google docstring."""
    section = re.search(r"^Args:\n(.*?)(?:^\S|\Z)", docstring, re.MULTILINE | re.DOTALL)
    entries = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", section[1] if section else "", re.MULTILINE | re.DOTALL)
    return {name: " ".join(meaning.split()) for name, meaning in entries}


def presets() -> str:
    """The settings of the dense CRF."""
    rows = [
        [
            f"`{name}`",
            f"{preset.gaussian_sxy:g}, {preset.gaussian_compat:g}",
            f"{preset.bilateral_sxy:g}, {preset.bilateral_srgb:g}, {preset.bilateral_compat:g}",
            str(preset.iterations),
            "hard labels" if preset.energies_from == "labels" else "probabilities",
            preset.source,
        ]
        for name, preset in PRESETS.items()
    ]
    header = ["name", "Gaussian sxy, compat", "bilateral sxy, srgb, compat", "iterations", "starts from", "used by"]
    return table(header, rows)


def measured(file: str) -> list[dict[str, str]]:
    """The rows of a table that a benchmark of refinement wrote."""
    with (RESULTS / file).open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def gains(file: str) -> str:
    """Return the gains of all refiners, one column per kind of maps that they started from."""
    lines = measured(file)
    starts = list(dict.fromkeys(line["start"] for line in lines))
    found = {(line["start"], line["refine"]): line for line in lines}
    rows = []
    for name in dict.fromkeys(line["refine"] for line in lines):
        cells = [found.get((start, name)) for start in starts]
        if name != "none" and all(cells):
            numbers = [f"{float(cell['gain']):+.1f}" for cell in cells if cell]
            seconds = max(float(cell["cpu_s_per_image"]) for cell in cells if cell)
            rows.append([f"`{name}`", *numbers, f"{seconds:.2f}"])
    before = ", ".join(f"{float(found[start, 'none']['miou_before']):.1f} ({start})" for start in starts)
    return f"Mean IoU before refinement: {before}.\n\n" + table(["refiner", *starts, "CPU s"], rows)


def learned() -> str:
    """Return the gains of random walks on learned affinities."""
    rows = [
        [line["walk"], f"{float(line['miou']):.1f}", f"{float(line['gain']):+.1f}", line["train_cpu_s"] or "-",
         f"{float(line['cpu_s_per_image']):.2f}"]
        for line in measured("learned_clothing.csv")
    ]  # fmt: skip
    return table(["maps", "mIoU", "gain", "CPU s of training", "CPU s"], rows)


def commands() -> str:
    """Every command with its arguments and options."""
    parts = []
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        rows = []
        for parameter in command.params:
            names = [*parameter.opts, *parameter.secondary_opts]
            word = " ".join(names) if parameter.param_type_name == "option" else (parameter.name or "").upper()
            meaning = " ".join((getattr(parameter, "help", None) or "").replace("<", "&lt;").split())
            rows.append([f"`{word}`", meaning + (" Required." if parameter.required else "")])
        text = " ".join((command.help or "").split())
        parts.append(f"## `ppl {name}`\n\n{text}\n\n{table(['argument, option', 'meaning'], rows)}")
    return "\n\n".join(parts)


def crf_speed() -> str:
    """The native CRF against pydensecrf, one thread each."""
    rows = [
        [f"`{line['preset']}`", line["labels"], line["pydensecrf_ms"], line["native_ms"], line["ratio"],
         line["least_ratio"], f"{float(line['least_agreement']):.4%}"]
        for line in measured("crf_speed.csv")
    ]  # fmt: skip
    header = ["setting", "labels", "pydensecrf, ms", "native, ms", "ratio", "least", "same label, least"]
    return table(header, rows)


def crf_folder() -> str:
    """A folder of images, all costs included."""
    names = {"theirs,1": "a loop over pydensecrf", "theirs,2": "pydensecrf in two processes", "ours,2": "`crf_many`"}
    rows = [
        [f"`{line['preset']}`", names[line["engine"]], line["wall_s"], line["times_the_loop"],
         line["times_two_processes"] or "-"]
        for line in measured("crf_folder.csv")
    ]  # fmt: skip
    return table(["setting", "engine", "seconds", "times the loop", "times two processes"], rows)


def tail_times() -> str:
    """What the benchmark of patched branches measured, per model and size of the images."""
    rows = []
    for file in ("patched_tail.csv", "patched_tail_swin.csv"):
        with (ROOT / "benchmarks" / "backbones" / "results" / file).open(newline="", encoding="utf-8") as lines:
            rows += list(csv.DictReader(lines))
    cells = []
    for model, size in dict.fromkeys((row["model"], row["size"]) for row in rows):
        chosen = [row for row in rows if (row["model"], row["size"]) == (model, size)]
        each = [f"`{row['cut']}` {float(row['ratio']):.2f} ({float(row['floor']):.2f})" for row in chosen]
        cells.append([model, f"{size}x{size}", ", ".join(each)])
    return table(["model", "images", "times as long from each default cut (floor)"], cells)


PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "backbones.md": {"times": tail_times},
    "reference/command_line.md": {"commands": commands},
    "recipe.md": {"keys": recipe_keys},
    "refinement.md": {
        "refiners": refiners,
        "presets": presets,
        "gains on CAMs": partial(gains, "which_clothing_cams.csv"),
        "gains on sharpened CAMs": partial(gains, "which_clothing_layercam.csv"),
        "gains": partial(gains, "which_clothing_corrupted.csv"),
        "learned": learned,
        "CRF speed": crf_speed,
        "CRF folder": crf_folder,
    },
}


def rendered(page: str) -> str:
    """A page with its generated parts as they should be now."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for name, make in PARTS[page].items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{make()}\n\n{end}{rest.split(end)[1]}"
    return text


def main() -> None:
    """Bring the pages up to date, or say which are not."""
    stale = [page for page in PARTS if rendered(page) != (DOCS / page).read_text(encoding="utf-8")]
    if "--check" in sys.argv:
        sys.exit(f"stale: {', '.join(stale)}; run python docs/generate.py" if stale else 0)
    for page in stale:
        (DOCS / page).write_text(rendered(page), encoding="utf-8")
        print(f"wrote {page}")


if __name__ == "__main__":
    main()
