"""Folders of images, decoded one by one when they are needed; the only place that uses Pillow."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from accelsim.capture.arrays import Source
from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")


class Unreadable(Exception):
    """One image that does not open."""


def from_folder(path: Path, split: str, shape: tuple[int, int, int]) -> Source:
    """Images by class, or beside a labels.csv: name, number of classes, labels, how to read one, and its shape."""
    if shape[0] != 3:
        raise AccelsimError(f"{path}: images have 3 channels, must not be asked for {shape[0]}")
    if (path / "labels.csv").is_file():
        if split != "train":
            raise AccelsimError(f"{path}: labels.csv has one part; give the folder of the {split} images, as train")
        files, labels, classes = _listed(path)
    else:
        files, labels, classes = _by_class(_part(path, split))
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise AccelsimError(f"{path}: images need Pillow: pip install pillow") from error

    def read(index: int, rng: np.random.Generator | None) -> np.ndarray:
        return _decode(files[index], shape[1:], rng)

    return str(path), classes, labels, read, shape


def _part(path: Path, split: str) -> Path:
    """The folder of a split, where there are such folders."""
    names = {"train": ("train",), "test": ("val", "validation", "test")}
    if not any((path / name).is_dir() for name in names["test"]) or not (path / "train").is_dir():
        if split == "train":
            return path
        raise AccelsimError(f"{path}: must hold folders train and val for a {split} split")
    return next(path / name for name in names[split] if (path / name).is_dir())


def _by_class(path: Path) -> tuple[list[str], list[int], int]:
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and folder.name[0] not in "._")
    files: list[str] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        for parent, inner, names in os.walk(folder):
            inner.sort()
            found = [os.path.join(parent, name) for name in sorted(names) if name.lower().endswith(IMAGE_SUFFIXES)]
            files += found
            labels += [label] * len(found)
    if not files:
        raise AccelsimError(
            f"{path}: must hold a folder of images for each class, images with a labels.csv, CIFAR as published or "
            f"an .npz; found {len(folders)} folders without images"
        )
    return files, labels, len(folders)


def _listed(path: Path) -> tuple[list[str], list[int], int]:
    """The images that labels.csv names; labels are numbers, or else names, numbered in alphabetical order."""
    table = path / "labels.csv"
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            columns = rows.fieldnames or ()
            if not {"file", "label"} <= set(columns):
                raise AccelsimError(f"{table}: must have columns file and label, has {', '.join(columns) or 'none'}")
            pairs = [(row["file"] or "", (row["label"] or "").strip()) for row in rows]
    except (ValueError, csv.Error) as error:
        raise AccelsimError(f"{table}: must be CSV in UTF-8: {error}") from error
    for number, (file, label) in enumerate(pairs, 1):
        if not file or not label or Path(file).is_absolute() or ".." in Path(file).parts:
            raise AccelsimError(f"{table}: row {number}: must be a file in this folder and a label, got {file!r}")
    names = [label for _, label in pairs]
    if all(name.isdecimal() and len(name) < 10 for name in names):
        labels = [int(name) for name in names]
    else:
        numbers = {name: number for number, name in enumerate(sorted(set(names)))}
        labels = [numbers[name] for name in names]
    return [str(path / file) for file, _ in pairs], labels, max(labels, default=-1) + 1


def _decode(file: str, size: tuple[int, int], rng: np.random.Generator | None) -> np.ndarray:
    """An image, upright, in RGB and of the size asked for: bytes (H, W, 3)."""
    from PIL import ImageOps
    from PIL.Image import open as open_image

    try:
        with open_image(file) as opened:
            image = _rgb(ImageOps.exif_transpose(opened))
        return np.asarray(_centre(image, size) if rng is None else _random_crop(image, size, rng))
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them
        text = " ".join(str(error).split())[:200]
        raise Unreadable(f"{file}: {text or type(error).__name__}") from error


def _rgb(image: Image) -> Image:
    """Any of Pillow's modes as RGB; it would clip 16-bit grey, and warns about palettes with transparency."""
    from PIL.Image import fromarray

    if image.mode.startswith("I"):
        image = fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode == "P":
        image = image.convert("RGBA")
    return image.convert("RGB")


def _centre(image: Image, size: tuple[int, int]) -> Image:
    """Resize to cover 8/7 of the size, cut the middle out: ImageNet's usual 256 and 224."""
    from PIL.Image import Resampling

    height, width = size
    scale = max(round(height * 8 / 7) / image.height, round(width * 8 / 7) / image.width)
    big = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    image = image.resize(big, Resampling.BILINEAR)
    left, top = round((big[0] - width) / 2), round((big[1] - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _random_crop(image: Image, size: tuple[int, int], rng: np.random.Generator) -> Image:
    """8–100 % of the area, sides 3:4 to 4:3, resized, mirrored half of the time; the whole image after ten misses."""
    from PIL import ImageOps
    from PIL.Image import Resampling

    box = (0, 0, image.width, image.height)
    for _ in range(10):
        area = image.width * image.height * rng.uniform(0.08, 1)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= image.width and 0 < height <= image.height:
            left, top = (int(rng.integers(0, room + 1)) for room in (image.width - width, image.height - height))
            box = (left, top, left + width, top + height)
            break
    image = image.crop(box).resize((size[1], size[0]), Resampling.BILINEAR)
    return ImageOps.mirror(image) if rng.random() < 0.5 else image
