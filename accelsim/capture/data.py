"""Images and labels to train on: a folder of images, CIFAR as published, an .npz, or synthetic ones that need nothing.

What lies at the path decides. Images of a folder are decoded one by one as batches are made, so a data set larger than
memory works; Pillow is imported for those only. Files are untrusted: no pickle is executed, sizes are checked before
anything is allocated.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from accelsim.capture.arrays import SPLITS, Read, Source, from_cifar, from_npz
from accelsim.capture.images import Unreadable, from_folder
from accelsim.errors import AccelsimError

Decoded = TypeVar("Decoded")
CIFAR_STATS = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))  # as in SWAT's code, for CIFAR-100 too
IMAGENET_STATS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
REASONS = 5  # kept of the images that do not open


@dataclass(eq=False)
class Dataset:
    """Images with labels, and the batches made of them.

    Attributes
    ----------
    name : str
        What it is and where from, for people.
    num_classes : int
    shape : (channels, height, width)
        Of every image that comes out.
    labels : ndarray of int64
    mean, std : tuple of float
        Per channel, of pixels from 0 to 1; subtracted, then divided by.
    reasons : list of str
        Why the first few of the skipped images do not open.
    """

    name: str
    num_classes: int
    shape: tuple[int, int, int]
    labels: np.ndarray = field(repr=False)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    read: Read = field(repr=False)
    reasons: list[str] = field(default_factory=list)
    _refused: set[int] = field(default_factory=set, repr=False)

    def __len__(self) -> int:
        """Images listed, those that turn out not to open included."""
        return len(self.labels)

    @property
    def skipped(self) -> int:
        """Images found so far that do not open."""
        return len(self._refused)

    def batches(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        epoch: int = 0,
        shuffle: bool = True,
        augment: bool = False,
        drop_last: bool = True,
        workers: int = 0,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over the data: images, float32 (N, C, H, W), normalised, and labels, int64 (N).

        The order follows from (seed, epoch), the augmentation of an image from (seed, epoch, index). An image that does
        not open is skipped, counted in ``skipped``, and the next one takes its place.

        Parameters
        ----------
        augment : bool
            As the paper's code trains: CIFAR and arrays, a random crop after padding by 4; folders of images, a random
            crop of 8–100 % of the area, resized; and half of all images mirrored. Otherwise folders of images are
            resized to 8/7 of the shape and cropped in the middle (256 to 224). Synthetic images stay as they are.
        workers : int
            Threads that decode; the batches are the same.

        Raises
        ------
        AccelsimError
            If a size or the seed makes no sense, or no image opens.
        """
        if batch_size < 1 or seed < 0 or epoch < 0:
            raise AccelsimError(
                f"batch size must be 1 or more, seed and epoch 0 or more, got {batch_size}, {seed}, {epoch}"
            )
        order = np.random.default_rng([seed, epoch]).permutation(len(self)) if shuffle else np.arange(len(self))
        images: list[np.ndarray] = []
        labels: list[int] = []
        for index, image in self._decoded(order, (seed, epoch) if augment else None, workers):
            images.append(image)
            labels.append(self.labels[index])
            if len(images) == batch_size:
                yield self._batch(images, labels)
                images, labels = [], []
        if images and not drop_last:
            yield self._batch(images, labels)

    def steps(
        self, batch_size: int, *, seed: int = 0, augment: bool = False, workers: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches without end: epoch after epoch, each in its own order; arguments and errors as in ``batches``.

        Raises
        ------
        AccelsimError
            Also if there are fewer images that open than one batch needs.
        """
        epoch = 0
        while True:
            empty = True
            for batch in self.batches(batch_size, seed=seed, epoch=epoch, augment=augment, workers=workers):
                empty = False
                yield batch
            if empty:
                usable = len(self) - self.skipped
                raise AccelsimError(f"{self.name}: must have a batch of {batch_size} images that open, has {usable}")
            epoch += 1

    def _decoded(
        self, order: np.ndarray, draw: tuple[int, int] | None, workers: int
    ) -> Iterator[tuple[int, np.ndarray]]:
        def attempt(index: int) -> np.ndarray | Unreadable:
            try:
                return self.read(index, None if draw is None else np.random.default_rng([*draw, index]))
            except Unreadable as error:
                return error

        usable = [int(index) for index in order if index not in self._refused]
        for index, image in zip(usable, _map(attempt, usable, workers), strict=True):
            if not isinstance(image, Unreadable):
                yield index, image
                continue
            self._refused.add(index)
            if len(self.reasons) < REASONS:
                self.reasons.append(str(image))
        if len(self._refused) == len(self):
            raise AccelsimError(f"{self.name}: none of the {len(self)} images opens; {self.reasons[0]}")

    def _batch(self, images: list[np.ndarray], labels: list[int]) -> tuple[Tensor, Tensor]:
        """Bytes (H, W, C) to numbers (N, C, H, W)."""
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous().float().div_(255)
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return pixels.sub_(mean).div_(std), torch.tensor(labels, dtype=torch.int64)


def _map(function: Callable[[int], Decoded], items: list[int], workers: int) -> Iterator[Decoded]:
    """In order; with threads, a few items ahead."""
    if not workers:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(items), 4 * workers):
            yield from pool.map(function, items[start : start + 4 * workers])


def open_dataset(
    path: str | os.PathLike[str] | None = None,
    *,
    split: str = "train",
    num_classes: int | None = None,
    shape: tuple[int, int, int] | None = None,
    length: int = 50_000,
    seed: int = 0,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Dataset:
    """What lies at a path, as images and labels.

    Parameters
    ----------
    path : path-like, optional
        A folder with a folder of images for each class, itself in ``train`` and ``val`` or not; a folder of images with
        a ``labels.csv`` (columns file and label: the class's number, or its name); CIFAR-10 or CIFAR-100 as published,
        binary or Python version; an .npz with ``x`` (uint8, N×H×W×C) and ``y``. Without it, synthetic images.
    split : "train" or "test"
        Which part, where the source has two; where it has one, that is "train".
    num_classes : int, optional
        Where it is not what the source says; 10 for synthetic images. With a ``labels.csv`` of numbers the source says
        the largest plus one, so give it for a part of a larger set, such as 1000 for some of ImageNet.
    shape : (channels, height, width), optional
        For folders of images, by default (3, 224, 224), and synthetic ones, (3, 32, 32); others have their own.
    length, seed : int
        Of the synthetic images: how many, and which. The same seed gives the same classes for both splits.
    mean, std : tuple of float, optional
        By default those usual for CIFAR (images up to 64 pixels wide) or for ImageNet.

    Raises
    ------
    AccelsimError
        One line that begins with the path, if there is nothing that fits, or it is malformed.
    """
    if split not in SPLITS:
        raise AccelsimError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if shape is not None and (len(shape) != 3 or min(shape) < 1):
        raise AccelsimError(f"shape must be (channels, height, width), each 1 or more, got {shape}")
    if num_classes is not None and num_classes < 1:
        raise AccelsimError(f"number of classes must be 1 or more, got {num_classes}")
    if path is None:
        source = _synthetic(split, num_classes or 10, shape, length, seed)
    else:
        source = _find(Path(path), split, shape)
    name, classes, found, read, own_shape = source
    if shape is not None and tuple(shape) != own_shape:
        raise AccelsimError(f"{name}: has images of shape {own_shape}, must not be asked for {tuple(shape)}")
    labels, classes = np.asarray(found), num_classes or classes
    if not len(labels):
        raise AccelsimError(f"{name}: must hold at least one image")
    if labels.min() < 0 or labels.max() >= classes:
        raise AccelsimError(f"{name}: labels must be 0…{classes - 1}, are {labels.min()}…{labels.max()}")
    usual: tuple[tuple[float, ...], tuple[float, ...]] = CIFAR_STATS if max(own_shape[1:]) <= 64 else IMAGENET_STATS
    if own_shape[0] != 3 or path is None:
        usual = ((0.5,) * own_shape[0], (0.25,) * own_shape[0])
    mean, std = tuple(mean or usual[0]), tuple(std or usual[1])
    if len(mean) != own_shape[0] or len(std) != own_shape[0] or min(std) <= 0:
        raise AccelsimError(f"{name}: mean and std must have {own_shape[0]} numbers, std above 0, got {mean}, {std}")
    return Dataset(name, classes, own_shape, labels.astype(np.int64), mean, std, read)


def _find(path: Path, split: str, shape: tuple[int, int, int] | None) -> Source:
    """What lies at the path."""
    if not path.exists():
        raise AccelsimError(f"{path}: no such file or folder")
    if path.is_file():
        if path.suffix != ".npz":
            raise AccelsimError(f"{path}: must be a folder or an .npz file; unpack an archive first")
        return from_npz(path, split)
    try:
        found = None if (path / "labels.csv").is_file() else from_cifar(path, split) or _inside(path, split)
        return found or from_folder(path, split, shape or (3, 224, 224))
    except OSError as error:
        raise AccelsimError(f"{error.filename or path}: cannot read: {error.strerror or error}") from error


def _inside(path: Path, split: str) -> Source | None:
    """The one .npz in a folder without folders."""
    if any(child.is_dir() and child.name[0] != "." for child in path.iterdir()):
        return None
    files = sorted(file for file in path.glob("*.npz") if file.is_file())
    if len(files) > 1:
        raise AccelsimError(f"{path}: must hold one .npz file, holds {len(files)}; name the file itself")
    return from_npz(files[0], split) if files else None


# ---- synthetic images


def _synthetic(split: str, classes: int, shape: tuple[int, int, int] | None, length: int, seed: int) -> Source:
    """A smooth random pattern for each class, shifted and under noise: a network learns it, but not at once."""
    channels, height, width = shape or (3, 32, 32)
    if length < 1 or seed < 0:
        raise AccelsimError(f"synthetic images: length must be 1 or more, seed 0 or more, got {length}, {seed}")
    coarse = torch.from_numpy(np.random.default_rng([seed, 0]).normal(0.5, 0.25, (classes, channels, 4, 4)))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    patterns = smooth.permute(0, 2, 3, 1).numpy().astype(np.float32)
    stream = 1 + SPLITS.index(split)
    labels = np.random.default_rng([seed, stream]).integers(0, classes, length)

    def read(index: int, rng: np.random.Generator | None) -> np.ndarray:
        own = np.random.default_rng([seed, stream, index])
        shift = own.integers(-(min(height, width) // 8), min(height, width) // 8 + 1, 2)
        image: np.ndarray = np.roll(patterns[labels[index]], shift, (0, 1))
        image = image + own.normal(0, 0.2, image.shape).astype(np.float32)
        return np.asarray(image.clip(0, 1) * 255).astype(np.uint8)

    return f"synthetic images (seed {seed}, {split})", classes, labels, read, (channels, height, width)
