"""Model cards: the page of a model on the Hugging Face Hub, from the manifest of its run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCardData

from ppl.errors import PPLFileNotFoundError, PPLValueError

__all__ = ["model_card"]

_TASKS = {"PPLNet": "image-classification", "Segmenter": "image-segmentation"}
_LOADS = {"PPLNet": "from ppl import PPLNet", "Segmenter": "from ppl.segment import Segmenter"}


def model_card(
    kind: str,
    config: Mapping[str, Any],
    classes: Sequence[str] | None,
    run: str | os.PathLike[str] | None = None,
    repo_id: str | None = None,
) -> str:
    """Return a model card: data, recipe, scores, and thresholds with the split that they were chosen on.

    Args:
        kind: "PPLNet" or "Segmenter".
        config: the arguments that build the model.
        classes: names of the classes, or None.
        run: folder of the run that trained the model; without it the card says that the training is not known.
        repo_id: name of the model on the Hub, for the lines that load it.

    Raises:
        PPLFileNotFoundError: if `run` holds no manifest.
        PPLValueError: if `run` trained a model of other classes.
    """
    tags = ["class-activation-map" if kind == "PPLNet" else "semantic-segmentation", "weakly-supervised-segmentation"]
    origin = "a classifier" if kind == "PPLNet" else "a segmentation network"
    if config.get("cuts"):
        tags.append("arxiv:2209.07828")
        origin += " of Progressive Patch Learning (Li et al., IEEE TMM 2022)"
    head = ModelCardData(library_name="ppl", pipeline_tag=_TASKS[kind], tags=tags).to_yaml()
    facts = {key: value for key, value in config.items() if value not in (None, {}, [])}
    parts = [
        f"---\n{head}\n---",
        f"# {repo_id or kind}",
        f"A `{kind}` of the Python package ppl-wsss: {origin}.",
        f"```python\n{_LOADS[kind]}\n\nmodel = {kind}.from_pretrained({repo_id or 'FOLDER'!r})\n```",
        "## Network",
        _table(("argument", "value"), [(key, f"`{json.dumps(value)}`") for key, value in facts.items()]),
        f"Classes: {', '.join(classes)}." if classes else "The classes have no names.",
        *(
            _run_parts(Path(run), classes)
            if run is not None
            else ["The data and the recipe of its training: not known."]
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _run_parts(run: Path, classes: Sequence[str] | None) -> list[str]:
    if not (run / "manifest.json").is_file():
        raise PPLFileNotFoundError(f"{run} holds no manifest.json: give the folder that `ppl run` wrote")
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    trained = manifest.get("classes")
    if classes is not None and trained is not None and list(classes) != trained:
        raise PPLValueError(
            f"{run} trained on the classes {', '.join(trained)}, but the model has {', '.join(classes)}: give the "
            "run that trained the model"
        )
    data = manifest.get("data", {})
    counts = ", ".join(f"{number} of {split}" for split, number in data.get("images", {}).items())
    parts = ["## Data", f"`{Path(data.get('root', 'unknown')).name}`: images: {counts or 'not known'}."]
    if data.get("left_out"):
        parts.append(f"{len(data['left_out'])} images could not be read and were left out.")
    parts += ["## Scores", *_scores(manifest), "## Thresholds", *_thresholds(manifest)]
    parts += [f"* {note}" for note in manifest.get("notes", [])]
    recipe = run / "recipe.yaml"
    if recipe.is_file():
        text = yaml.safe_dump(_without_folders(yaml.safe_load(recipe.read_text(encoding="utf-8"))), sort_keys=False)
        parts += ["## Recipe", f"```yaml\n{text}```"]
    versions = manifest.get("versions", {})
    return [*parts, "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "."]


def _scores(manifest: Mapping[str, Any]) -> list[str]:
    rows = [
        (split, name, "-" if value is None else f"{100 * value:.1f}", str(manifest["scored"][split]["images"]))
        for split, scores in manifest.get("scores", {}).items()
        for name, value in scores.items()
        if value is not None
    ]
    if not rows:
        return ["The run has scored nothing."]
    return [
        _table(("split", "score", "percent", "images"), rows),
        "mIoU counts the background as a class. Masks of CAMs know the tags of each image, the segmenter does not.",
    ]


def _thresholds(manifest: Mapping[str, Any]) -> list[str]:
    rows = [
        (split, str(rule["default"]), f"{rule['best']:g}", f"{rule['best_chosen_on']} ({rule['images']} images)")
        for split, rule in manifest.get("thresholds", {}).items()
    ]
    if not rows:
        return ["No threshold was chosen on masks."]
    header = ("scored split", "background rule of the masks", "best constant", "best constant chosen on")
    return [_table(header, rows), "The best constant serves the score `CAM best` alone; no mask was cut by it."]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _without_folders(value: Any) -> Any:
    """Replace absolute paths, which mean nothing on another machine, by their last part."""
    if isinstance(value, dict):
        return {key: _without_folders(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_without_folders(member) for member in value]
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value
