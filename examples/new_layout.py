"""Add a data layout from your own module: here file names hold the classes, as in `cat+dog_001.jpg`."""

from PIL import Image

from ppl.data import Sample, TaggedImages, open_dataset, register_layout


def read_named_files(root, split=None, *, missing="error"):
    tags = {path: path.name.split("_")[0].split("+") for path in sorted((root / (split or ".")).glob("*.jpg"))}
    classes = tuple(sorted({name for names in tags.values() for name in names}))
    samples = (Sample(path.stem, path, tuple(sorted(map(classes.index, tags[path])))) for path in tags)
    return TaggedImages(classes, tuple(samples), root.name)


def main() -> None:
    register_layout("named_files", read_named_files)  # or at import, with `plugins: [my_module]` in a recipe
    for name in ("cat+dog_001.jpg", "dog_002.jpg"):
        Image.new("RGB", (64, 48)).save(name)
    print(open_dataset(".", layout="named_files").targets().tolist())  # [[1.0, 1.0], [0.0, 1.0]]


if __name__ == "__main__":
    main()
