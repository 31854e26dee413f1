"""What a run will cost: the steps of a recipe measured on a few images, and multiplied by their number."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ppl.data import TaggedImages, check_images
from ppl.engine import EngineConfig, Trainer, open_accelerator
from ppl.engine.batches import loader_workers
from ppl.engine.state_file import save_state
from ppl.errors import PPLValueError
from ppl.models import save_model
from ppl.parallel import spread
from ppl.pipeline.affinity import learn_affinities
from ppl.pipeline.cams import make_cams, training_split
from ppl.pipeline.device import torch_device
from ppl.pipeline.faithfulness import measure_faithfulness
from ppl.pipeline.masks import make_masks
from ppl.pipeline.pixels import fit_pixels
from ppl.pipeline.recipe import AffinityRecipe, Recipe
from ppl.pipeline.refinement import refine_masks
from ppl.pipeline.run_folder import RunFolder
from ppl.pipeline.segmentation import build_segmenter, predict_masks
from ppl.pipeline.splits import open_splits
from ppl.pipeline.training import build_model, with_mode
from ppl.segment import SegmentConfig, save_segmenter, with_masks
from ppl.segment.task import SegmenterTask
from ppl.train.task import ClassifierTask

__all__ = ["PlanStep", "plan_run"]

_WARM, _ONE, _AGAIN, _ALL = "warm", "one", "again", "all"


@dataclass(frozen=True)
class PlanStep:
    """One step of a run.

    Attributes:
        name: what the step does.
        passes: images that the step handles, each as often as it is handled.
        seconds: measured seconds per image on one device.
        disk: bytes on the disk that the whole step leaves.
    """

    name: str
    passes: int
    seconds: float
    disk: float = 0.0

    @property
    def hours(self) -> float:
        """Hours of the whole step on one device.

        Example:
            >>> PlanStep("train", 7200, 0.5).hours
            1.0
        """
        return self.passes * self.seconds / 3600


def plan_run(
    recipe: Recipe, *, images: int | None = None, sample: int = 8, log: Callable[[str], None] = lambda line: None
) -> list[PlanStep]:
    """Measure the steps of a recipe on a few of its images, in a temporary folder, and return what a run takes.

    Every step is done by the run's own functions on this machine, warm, with images at equal distances over the data
    set. Networks start from random weights, which cost as much as trained ones. The constant cost of a step (loading a
    model) is measured and left out. On the CPU, training is measured with batches of `sample` images at most.

    Args:
        recipe: the recipe of the run.
        images: number of training images to plan for; None for those of the data set. The other splits keep their size.
        sample: number of images to measure, 2 or more.
        log: gets one line per measured step.

    Returns:
        The steps in their order.

    Raises:
        PPLValueError: if `sample` is below 2, or the data set holds fewer images.
        PPLFileNotFoundError: if the data set lacks files.
    """
    if sample < 2 or (images is not None and images < 1):
        raise PPLValueError(f"a plan needs sample of 2 or more and images of 1 or more, got {sample} and {images}")
    splits = open_splits(recipe.data, check=False)
    device = torch_device(recipe.device)
    if device.type != "cpu":
        sample = max(sample, recipe.train.batch_size, recipe.segment.batch_size if recipe.segment else 0)
    some, _ = check_images(_sample_of(splits.train, sample), progress=False)
    if len(some) < 2:
        raise PPLValueError(f"{splits.train.name} holds {len(some)} images that can be used; a plan needs 2 or more")
    train = images or len(splits.train)
    masked = {name: len(found) for name, found in splits.masked.items()}
    own = training_split(recipe)
    if own in masked:
        masked[own] = train
    tagged = {name: _tagged_share(found) for name, found in {own: splits.train, **splits.masked}.items()}
    if recipe.cam.labels != "tags":  # every image has the classes that the classifier finds
        tagged = dict.fromkeys(tagged, 1.0)
    sizes = _Sizes(train, 0 if splits.val is None else len(splits.val), masked, tagged)
    with tempfile.TemporaryDirectory() as folder:
        measured = _Measurement(Path(folder), some, sizes, device, log)
        measured.checking(recipe)
        modes = dict.fromkeys([*recipe.compare, recipe.model.mode])
        for mode in modes:
            measured.model(with_mode(recipe, mode), named=len(modes) > 1)
    return measured.steps


@dataclass(frozen=True)
class _Sizes:
    """Numbers of images: of training, of validation, and by split of the images that get masks; shares with a tag."""

    train: int
    val: int
    masked: dict[str, int]
    tagged: dict[str, float]

    def with_tags(self, counts: dict[str, int]) -> int:
        """Return how many of the images of splits have a tag; images without a tag have no maps."""
        return round(sum(count * self.tagged[name] for name, count in counts.items()))


class _Measurement:
    """The steps that are measured so far."""

    def __init__(
        self,
        folder: Path,
        some: TaggedImages,
        sizes: _Sizes,
        device: torch.device,
        log: Callable[[str], None],
    ) -> None:
        self.folder, self.some, self.sizes, self.device, self.log = folder, some, sizes, device, log
        self.steps: list[PlanStep] = []
        self.prefix = ""

    def add(self, name: str, passes: int, seconds: float, size: float = 0.0) -> None:
        """Add a step."""
        self.steps.append(PlanStep(self.prefix + name, passes, seconds, size))
        self.log(f"{self.prefix}{name}: {seconds:.4f} s per image")

    def checking(self, recipe: Recipe) -> None:
        """Measure the check of every file before the run."""

        def check(_: str, images: TaggedImages) -> None:
            check_images(images, num_workers=recipe.num_workers, progress=False)

        own = {training_split(recipe): self.sizes.train, recipe.data.val or "": self.sizes.val}
        self.add("check the files", sum((own | self.sizes.masked).values()), self._per_image(check))

    def model(self, recipe: Recipe, *, named: bool) -> None:
        """Measure all steps of one mode."""
        self.prefix = f"{recipe.model.mode}: " if named else ""
        folder = RunFolder(self.folder / recipe.model.mode)
        folder.make()
        train = self.sizes.train
        model = build_model(recipe, self.some.classes, pretrained=False)
        config = self._short(recipe.train)
        with open_accelerator(config.precision, recipe.device, seed=config.seed) as accelerator:
            task = ClassifierTask(model, self.some, self.some, config, accelerator)
            self._training("train", task, accelerator, recipe.train, train * recipe.train.epochs)
        model.set_phase(model.num_phases - 1)
        save_model(model.cpu(), folder.weights(recipe.cam.checkpoint))
        mapped, masked, tagged = self._mapped(recipe), self._masked(recipe), self.sizes.with_tags
        make = partial(make_cams, recipe, folder, progress=False)
        self._folder_step("CAMs", sum(mapped.values()), make, folder.cams, stored=tagged(mapped))
        self._folder_step(
            "masks", sum(masked.values()), partial(make_masks, recipe, folder, progress=False), folder.masks
        )
        if recipe.affinity is not None:
            self._affinity(recipe, recipe.affinity, folder, train)
        if recipe.fits_pixels:
            self._pixels(recipe, folder)
        if recipe.refine:
            refine = partial(refine_masks, recipe, folder, progress=False)
            self._folder_step("refinement", tagged(masked), refine, folder.refined)
        if recipe.segment is not None:
            self._segment(recipe, recipe.segment, folder)
        if recipe.faithfulness:
            every = recipe.model_copy(update={"faithfulness": len(self.some)})
            tested = sum(min(recipe.faithfulness, tagged({name: n})) for name, n in self.sizes.masked.items())
            self.add("tests of CAMs", tested, self._per_image(partial(measure_faithfulness, every, folder)))

    def _masked(self, recipe: Recipe) -> dict[str, int]:
        """Return by split how many images get refined masks: a segmentation network learns from those of training."""
        own = {} if recipe.segment is None else {training_split(recipe): self.sizes.train}
        return self.sizes.masked | own

    def _mapped(self, recipe: Recipe) -> dict[str, int]:
        """Return by split how many images get CAMs: refiners that are learned need some more, or all of training."""
        masked, own = self._masked(recipe), training_split(recipe)
        if own in masked or not recipe.learns_from_cams:
            return masked
        train = self.sizes.train
        return masked | {own: train if recipe.affinity is not None else min(train, recipe.pixels.images)}

    def _pixels(self, recipe: Recipe, folder: RunFolder) -> None:
        """Measure fits to half of the images and to all of them: the difference is the cost of the other half."""
        count, seconds = len(self.some), []
        for images in (self.some[-1:], self.some[: count // 2], self.some):  # the first fit warms up
            make_cams(recipe, folder, training_split(recipe), images, progress=False)
            seconds.append(self._time(partial(fit_pixels, recipe, folder, images, progress=False)))
        each = max(0.0, seconds[2] - seconds[1]) / (count - count // 2)
        fitted = self.sizes.with_tags({training_split(recipe): min(self.sizes.train, recipe.pixels.images)})
        self.add("fit pixels", fitted, each, _size(folder.pixels.parent))

    def _segment(self, recipe: Recipe, settings: SegmentConfig, folder: RunFolder) -> None:
        train = self.sizes.train
        masks = folder.refined(_ALL) if recipe.refine else folder.masks(_ALL)
        images = with_masks(self.some, masks)
        model = build_segmenter(recipe, settings, len(self.some.classes))
        config = self._short(settings)
        group = settings.batch_size * settings.accumulate
        passes = settings.epochs * train if settings.iterations is None else settings.iterations * group
        with open_accelerator(config.precision, recipe.device, seed=config.seed) as accelerator:
            task = SegmenterTask(model, images, images, config, accelerator)
            self._training("train segmenter", task, accelerator, settings, passes * settings.rounds)
        save_segmenter(model.cpu(), folder.segmenter)
        self._folder_step(
            "predictions",
            sum(self.sizes.masked.values()) + (settings.rounds - 1) * train,
            partial(predict_masks, recipe, settings, folder, progress=False),
            folder.segmented,
        )

    def _affinity(self, recipe: Recipe, settings: AffinityRecipe, folder: RunFolder, train: int) -> None:
        """Measure runs of two and of four epochs: the difference is the training, the rest the labels."""
        seconds = []
        for epochs in (1, 2, 4):
            changed = settings.train.model_copy(update={"epochs": epochs})
            short = settings.model_copy(update={"train": changed})
            start = time.perf_counter()
            learn_affinities(recipe, short, folder, self.some, progress=False)
            seconds.append((time.perf_counter() - start) / len(self.some))
        epoch = max(0.0, (seconds[2] - seconds[1]) / 2)
        labels = max(0.0, seconds[1] - 2 * epoch)
        self.add("affinity labels", train, labels)
        self.add("train affinities", train * settings.train.epochs, epoch, _size(folder.affinity.parent))

    def _training(self, name: str, task: Any, accelerator: Any, config: EngineConfig, passes: int) -> None:
        """Measure reading, optimizer steps of every phase, validation, and the files of a training."""
        trainer = Trainer(task, accelerator)
        task.set_train_mode()
        start = time.perf_counter()
        group = [trainer.to_device(batch) for batch in islice(task.batches.epoch(0), 1)]
        images = len(group[0][0])
        reading = (time.perf_counter() - start) / images
        updates = [(epoch, update) for epoch in range(task.epochs) for update in range(task.updates)]
        counts = Counter(phase for at in updates for phase in task.phases(*at))
        times = {phase: self._time(partial(trainer.step, group, phase, 0), twice=True) for phase in counts}
        seconds = sum(count * times[phase] for phase, count in counts.items()) / len(updates) / images
        if self.device.type == "cpu":  # training and reading share the cores
            seconds += reading
        else:
            seconds = max(seconds, reading / max(1, loader_workers(config.num_workers)))
        out = self.folder / "state"
        task.save(trainer.model_to_save, out / "last.safetensors")
        save_state(out / "state.pt", {"model": task.model.state_dict(), "optimizer": trainer.optimizer.state_dict()})
        size = _size(out) + (out / "last.safetensors").stat().st_size  # also best.safetensors
        self.add(name, passes, seconds, size)
        if self.sizes.val:
            score = self._time(partial(task.validate, trainer.model_to_save, accelerator), twice=True) / len(self.some)
            self.add(f"{name}: validation", self.sizes.val * -(-passes // self.sizes.train), score)

    def _folder_step(
        self,
        name: str,
        passes: int,
        work: Callable[[str, TaggedImages], Any],
        place: Callable[[str], Path],
        *,
        stored: int | None = None,
    ) -> None:
        """Measure a step that writes a file per image; `stored` of the files are as large as those of the sample."""
        seconds = self._per_image(work)
        self.add(name, passes, seconds, (passes if stored is None else stored) * _size(place(_ALL)) / len(self.some))

    def _per_image(self, work: Callable[[str, TaggedImages], Any]) -> float:
        """Return the seconds that each image after the first adds, once everything is warm."""
        one = self.some[:1]
        named = ((_WARM, one), (_ONE, one), (_AGAIN, one), (_ALL, self.some))
        _, first, second, every = (self._time(partial(work, name, images)) for name, images in named)
        return max(0.0, every - min(first, second)) / (len(self.some) - 1)

    def _time(self, work: Callable[[], Any], *, twice: bool = False) -> float:
        """Return the seconds of a call; of the second one if `twice`."""
        if twice:
            work()
        self._wait()
        start = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize()

    def _short(self, config: Any) -> Any:
        """Return the settings of a training whose batches the measured images can fill, read in this process."""
        changes = {"num_workers": 0, "accumulate": 1, "patience": None, "tensorboard": False, "compile": False}
        return config.model_copy(update={**changes, "batch_size": min(config.batch_size, len(self.some))})


def _sample_of(images: TaggedImages, count: int) -> TaggedImages:
    """Return images at equal distances over the data set, with a tag where there are enough of them."""
    tagged = [sample for sample in images if sample.labels]
    return replace(images, samples=tuple(spread(tagged if len(tagged) > 1 else list(images), count)))


def _tagged_share(images: TaggedImages) -> float:
    return sum(bool(sample.labels) for sample in images) / max(1, len(images))


def _size(folder: Path) -> int:
    """Return the bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
