"""Pictures in one folder for each class: a user's own, or ImageNet.

Random resized crops: Szegedy et al., Going Deeper with Convolutions, arXiv:1409.4842, section 6.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor
from torchvision import datasets
from torchvision.transforms import v2

from distill.batch import Batch
from distill.data import data
from distill.data._augment import normalised
from distill.data._images import ImageData
from distill.data._loading import BatchIndices, mix
from distill.data._split import split
from distill.errors import DataError, RecipeError


@dataclass(frozen=True)
class Pictures:
    """Files and their labels; a batch is read, transformed and normalised."""

    root: Path
    files: tuple[str, ...]
    labels: Int64[Tensor, " samples"]
    transform: Callable[..., Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seed: int

    def __getitem__(self, picks: BatchIndices) -> Batch:
        images = torch.stack([self._picture(picks.epoch, sample) for sample in picks.samples.tolist()])
        return Batch(normalised(images.numpy(), self.mean, self.std), self.labels[picks.samples], picks.samples)

    def fingerprint(self) -> bytes:
        listing = blake2b()
        for name, label in zip(self.files, self.labels.tolist(), strict=True):
            path = Path(name)
            listing.update(f"{path.relative_to(self.root)}\t{path.stat().st_size}\t{label}\n".encode())
        return listing.digest()

    def chosen(self, which: Int64[Tensor, " chosen"]) -> "Pictures":
        return replace(self, files=tuple(self.files[i] for i in which.tolist()), labels=self.labels[which])

    def _picture(self, epoch: int, sample: int) -> UInt8[Tensor, "3 height width"]:
        path = self.files[sample]
        try:
            with Image.open(path) as file:
                picture = file.convert("RGB")
        except Exception as error:  # Pillow's readers of damaged files fail in many ways
            raise DataError(f"{path} is no readable picture ({error}); replace or remove it") from None
        # torchvision draws from the global generator alone: lend it one that knows only seed, epoch and sample, so that
        # neither the number of workers nor the order of reading matters. (torch.manual_seed would reseed GPUs as well.)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(mix(self.seed, epoch, sample))
            return self.transform(picture)


@data("image_folder")
class ImageFolder(ImageData):
    """``root/train/<class>/*.jpg`` and ``root/val/<class>/*.jpg``, as ImageNet comes.

    ``val`` is then the test set, and a fraction of ``train`` is held out for validation. With ``root/test`` beside
    them, ``val`` is the validation set and all of ``train`` is trained on.
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        seed: int,
        *,
        root: Path,
        batch_size: int = 128,
        val: float = 0.1,
        limit: int | None = None,
        image_size: int = 224,
        crop: bool = True,
        smallest_crop: float = 0.08,
        flip: bool = True,
        workers: int = 4,
    ) -> None:
        if image_size < 1 or workers < 0 or not 0 < smallest_crop <= 1:
            raise RecipeError(
                f"data.image_size={image_size} must be at least 1, data.workers={workers} at least 0, "
                f"data.smallest_crop={smallest_crop} a share of the picture: above 0, at most 1"
            )
        varied, exact = _transforms(image_size, crop=crop, smallest=smallest_crop, flip=flip)
        folders = _listed(root.expanduser())
        parts = {
            part: Pictures(
                root=root.expanduser(),
                files=tuple(path for path, _ in folder.samples),
                labels=torch.tensor(folder.targets),
                transform=exact,
                mean=self.mean,
                std=self.std,
                seed=seed,
            )
            for part, folder in folders.items()
        }
        val_is_given = {"val", "test"} <= parts.keys()
        for_training, for_validation = split(parts["train"].labels, limit, 0.0 if val_is_given else val)
        plain = parts["train"].chosen(for_training)
        super().__init__(
            seed,
            replace(plain, transform=varied),
            plain,
            parts["val"] if val_is_given else parts["train"].chosen(for_validation),
            parts["test"] if "test" in parts else parts["val"],
            class_names=tuple(folders["train"].classes),
            image_size=(image_size, image_size),
            batch_size=batch_size,
            workers=workers,
        )


def _transforms(size: int, *, crop: bool, smallest: float, flip: bool) -> tuple[v2.Transform, v2.Transform]:
    """Of training and of evaluation, from a picture to bytes; 224 pixels are the centre of 256."""
    centre = [v2.Resize(round(size / 0.875)), v2.CenterCrop(size)]
    anywhere = [v2.RandomResizedCrop(size, scale=(smallest, 1.0))] if crop else centre
    mirror = [v2.RandomHorizontalFlip()] if flip else []
    return v2.Compose([*anywhere, *mirror, v2.PILToTensor()]), v2.Compose([*centre, v2.PILToTensor()])


def _listed(root: Path) -> dict[str, datasets.ImageFolder]:
    """Every picture of 'train' and of 'val', 'test' or both."""
    there = [part for part in ("train", "val", "test") if (root / part).is_dir()]
    if "train" not in there or len(there) == 1:
        raise DataError(f"{root} (data.root) should hold 'train' and 'val', each with a folder of pictures per class")
    folders = {part: _scanned(root / part) for part in there}
    for part, folder in folders.items():
        if differing := sorted(set(folder.classes) ^ set(folders["train"].classes)):
            absent = root / ("train" if differing[0] in folder.classes else part) / differing[0]
            raise DataError(f"{absent} is missing: 'train' and '{part}' must have the same class folders")
    return folders


def _scanned(folder: Path) -> datasets.ImageFolder:
    try:
        return datasets.ImageFolder(folder)
    except OSError as error:
        raise DataError(f"{folder}: {error}") from None
