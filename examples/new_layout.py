"""Add a layout whose file names hold the classes, as `cat+dog_001.jpg`; in recipes: `data: {layout: named_files}`."""

from PIL import Image

from ppl.data import Sample, TaggedImages, open_dataset, register_layout


def read_named_files(root, split=None, *, missing="error"):
    tags = {path: path.name.split("_")[0].split("+") for path in sorted((root / (split or ".")).glob("*.jpg"))}
    classes = tuple(sorted({name for names in tags.values() for name in names}))
    samples = tuple(Sample(path.stem, path, tuple(sorted(map(classes.index, tags[path])))) for path in tags)
    return TaggedImages(classes, samples, root.name)


register_layout("named_files", read_named_files)


def main() -> None:
    [Image.new("RGB", (64, 48)).save(name) for name in ("cat+dog_001.jpg", "dog_002.jpg")]
    print(open_dataset(".", layout="named_files").targets().tolist())  # [[1.0, 1.0], [0.0, 1.0]]


if __name__ == "__main__":
    main()
