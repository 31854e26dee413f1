"""One set of defaults: functions, recipes and commands take theirs from the settings classes."""

from __future__ import annotations

import importlib
import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer
from typer.main import get_command

from ppl.cam import CamConfig
from ppl.cli.app import app
from ppl.config import Config
from ppl.data import DatasetConfig
from ppl.models import ModelConfig
from ppl.pipeline import AffinityRecipe, CamRecipe, Recipe
from ppl.refine import CrfConfig, sam, sam_segments, superpixel_segments, superpixels
from ppl.refine.affinity import AffinityConfig, ConfidentLabelConfig
from ppl.refine.pixels import PixelConfig
from ppl.segment import SegmentConfig
from ppl.train import TrainConfig

OWNERS: dict[str, list[tuple[type[Config], set[str] | None]]] = {
    "ppl.models": [(ModelConfig, None)],
    "ppl.cam": [(CamConfig, None)],
    "ppl.data": [(DatasetConfig, None)],
    "ppl.train": [(TrainConfig, None)],
    "ppl.refine": [(CamConfig, {"background"}), (Recipe, {"num_workers"})],
    "ppl.refine.crf": [(CrfConfig, None)],
    "ppl.refine.affinity": [(ConfidentLabelConfig, None), (Recipe, {"num_workers"}), (AffinityConfig, None)],
    "ppl.refine.pixels": [(CamConfig, {"background"}), (Recipe, {"num_workers"}), (PixelConfig, None)],
    "ppl.segment": [(SegmentConfig, None)],
    "ppl.pipeline": [(CamRecipe, None), (Recipe, None)],
}
"""The settings classes, and their fields (None: all), that public functions of a package may have as parameters."""

UNLIKE = {
    "PPLNet.train(mode)": "torch.nn.Module.train",
    "load_model(backbone)": "a module in place of timm's",
    "check_maps(scales)": "the sizes of the call are those that the model gets",
    "make_creatures(train)": "a number of images",
    "make_creatures(val)": "a number of images",
    "create_segmenter(encoder)": "in a recipe, null is the backbone of the classifier",
    "predict(batch_size)": "images of one pass, not of a training step",
    "iter_predict(batch_size)": "images of one pass, not of a training step",
    "cam_folder(labels)": "a file of tags",
    "resolve_recipe(preset)": "None: the preset that the recipe names",
    "predict_folder(scales)": "scales of a segmentation network, not of CAMs",
}
"""Parameters that share the name of a setting and have another meaning."""


def public_callables(package: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the functions, and the methods of the classes, that a package makes public."""
    module = importlib.import_module(package)
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) and not issubclass(thing, Config):
            for method, function in inspect.getmembers(thing, inspect.isfunction):
                if method == "__init__" or not method.startswith("_"):
                    yield f"{name}.{method}", function
        elif inspect.isfunction(thing):
            yield name, thing


def compared(package: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield function and parameter, the default of the parameter, and the default of the setting."""
    for name, function in public_callables(package):
        for parameter in inspect.signature(function).parameters.values():
            settings = (
                owner.model_fields[parameter.name].get_default(call_default_factory=True)
                for owner, fields in OWNERS[package]
                if parameter.name in (owner.model_fields if fields is None else fields)
            )
            if parameter.default is not inspect.Parameter.empty:
                for setting in itertools.islice(settings, 1):
                    yield f"{name}({parameter.name})", parameter.default, setting


@pytest.mark.parametrize("package", OWNERS)
def test_functions_have_the_defaults_of_the_settings(package: str) -> None:
    plain = lambda value: list(value) if isinstance(value, tuple) else value  # noqa: E731
    differing = [
        f"{name} is {default!r}, but the settings have {setting!r}"
        for name, default, setting in compared(package)
        if name not in UNLIKE and plain(default) != plain(setting)
    ]
    assert not differing


@pytest.mark.parametrize(("outer", "inner"), [(sam, sam_segments), (superpixels, superpixel_segments)])
def test_a_refiner_has_the_defaults_of_the_function_that_it_passes_options_to(
    outer: Callable[..., Any], inner: Callable[..., Any]
) -> None:
    of_outer, of_inner = (inspect.signature(function).parameters for function in (outer, inner))
    assert {name: of_outer[name].default for name in of_inner} == {name: of_inner[name].default for name in of_inner}


def test_exceptions_are_still_needed() -> None:
    known = {name for package in OWNERS for name, default, setting in compared(package) if default != setting}
    assert set(UNLIKE) <= known


def test_generate_takes_every_setting_of_a_cam() -> None:
    """The walk above compares something: these functions have the settings as parameters."""
    assert {f"generate({key})" for key in CamConfig().arguments()} <= {name for name, _, _ in compared("ppl.cam")}
    keys = ModelConfig.model_fields.keys() - {"timm"}
    assert {f"create_model({key})" for key in keys} <= {name for name, _, _ in compared("ppl.models")}


def test_sections_of_a_recipe_are_the_settings_classes() -> None:
    sections = {"data": DatasetConfig, "model": ModelConfig, "train": TrainConfig, "cam": CamConfig}
    for name, owner in sections.items():
        annotation = Recipe.model_fields[name].annotation
        assert isinstance(annotation, type) and issubclass(annotation, owner)
    assert issubclass(AffinityRecipe, ConfidentLabelConfig)
    assert AffinityRecipe.model_fields["train"].annotation is AffinityConfig


@pytest.mark.parametrize("section", [CamRecipe, AffinityRecipe])
def test_a_section_of_a_recipe_changes_no_default(section: type[Config]) -> None:
    base = section.__base__
    assert base is not None and issubclass(base, Config)
    for name, field in base.model_fields.items():
        assert section.model_fields[name].default == field.default, name


def test_options_of_commands_have_no_defaults_of_their_own() -> None:
    group = get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    for command in group.commands.values():
        for parameter in command.params:
            assert parameter.default is None or parameter.default is False or parameter.required, (
                f"ppl {command.name} {parameter.opts} has the default {parameter.default!r}"
            )
