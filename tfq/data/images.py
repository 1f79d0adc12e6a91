"""A folder of images: class sub-folders or images directly.

The classes of sub-folders are their places in the list of labels, where one is given: names are matched without regard
to case, blanks, "_" and "-". Without one the sorted folder names are classes 0, 1, ...

Each image is decoded when its turn comes, turned upright (EXIF), converted to the channels of the
model's input and resized to its height and width by bilinear interpolation at half-pixel centres,
without antialiasing and without keeping the aspect ratio. That is `tf.image.resize`, hence what
`keras.utils.image_dataset_from_directory` does by default, and close to what Android's
`Bitmap.createScaledBitmap` does on the phone.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from tfq.data.samples import InputSignature
from tfq.data.sources import RawSample, Source, selected, stacked
from tfq.errors import UserError, described
from tfq.execution.inputs import check_encodable, check_regular

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
MOST_PIXELS = 100_000_000
_SHOWN = 10
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class ImageFolder(Source):
    """Images below a folder, sorted by path; values 0..255."""

    label_hint = "put the images into one sub-folder per class"

    def __init__(self, path: Path, signatures: Sequence[InputSignature], preprocess: str, labels: Sequence[str] = ()):
        self._path = path
        self._signature = _image_input(path, signatures)
        require_preprocess(str(path), self._signature, preprocess)
        visible = sorted(_files_below(path))
        self._files = [p.relative_to(path) for p in visible if p.suffix.lower() in SUFFIXES]
        if not self._files:
            raise UserError(f"{path} holds no images ({', '.join(SUFFIXES)})")
        direct = [f for f in self._files if len(f.parts) == 1]
        if direct and len(direct) < len(self._files):
            raise UserError(f"{path} holds images both directly ({direct[0]}) and in sub-folders; use one or the other")
        folders = () if direct else tuple(sorted({f.parts[0] for f in self._files}))
        self._classes, mapping = _numbered(path, folders, labels)
        self.class_names = tuple(labels) if folders and labels else folders
        others = len(visible) - len(self._files)
        ignored = f"{others} files in {path} are no images and were ignored" if others else ""
        self.warnings = tuple(note for note in (ignored, mapping) if note)
        self.count: int = len(self._files)
        self._given: dict[Path, np.ndarray] = {}

    @property
    def files(self) -> dict[str, Path]:
        """The images, in their order: path below the folder -> where it is."""
        return {file.as_posix(): self._path / file for file in self._files}

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the model's input."""
        return self._signature.shape[0], self._signature.shape[1]

    def with_labels(self, labels: Sequence[np.ndarray], warnings: Sequence[str]) -> ImageFolder:
        """The same images with these labels, one each, in place of the classes of their folders."""
        found = copy.copy(self)
        found._given = dict(zip(self._files, labels, strict=True))
        found.class_names, found.warnings = (), (*self.warnings, *warnings)
        return found

    def labels(self) -> np.ndarray | None:
        return stacked((self._label(f) for f in self._files), str(self._path))

    def _label(self, file: Path) -> np.ndarray | None:
        if self._given:
            return self._given[file]
        return np.array(self._classes[file.parts[0]], np.int64) if self.class_names else None

    def read(self, wanted: Collection[int] | None) -> Iterator[RawSample]:
        name = self._signature.name
        for index, file in selected(self._files, wanted):
            path = str(self._path / file)
            pixels = decode_image(Path(path), path, self._signature)
            yield RawSample(index, {name: path}, {name: pixels}, self._label(file), file.as_posix())


def decode_image(file: Path | IO[bytes], where: str, signature: InputSignature) -> np.ndarray:
    """An encoded image as [height, width, channels] of the input's shape, 0..255.

    uint8 for an image that has the right size already and for an integer input, else float32, since
    resized values are not rounded.

    Raises:
      UserError: it cannot be decoded, or has more than 8 bits a channel.
    """
    height, width, channels = signature.shape
    try:
        with Image.open(file) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UserError(
                    f"{where} has {image.width} x {image.height} pixels; make it smaller, at most"
                    f" {MOST_PIXELS / 1e6:g} million are read"
                )
            if image.mode[:1] in ("I", "F"):
                raise UserError(f"{where} has more than 8 bits a channel; convert it to 8 bits or give an .npz")
            pixels = np.asarray(ImageOps.exif_transpose(image).convert(_MODES[channels]), np.uint8)
    except UserError:
        raise
    except Exception as error:  # the decoders raise anything on damaged files
        raise UserError(f"{where} is not a readable image ({described(error)}); repair or remove it") from error
    pixels = pixels.reshape((*pixels.shape[:2], channels))
    if pixels.shape == signature.shape:
        return pixels
    resized = resize_bilinear(pixels, height, width)
    return np.rint(resized).astype(np.uint8) if np.dtype(signature.dtype).kind in "iu" else resized


def resize_bilinear(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """[h, w, c] -> [height, width, c] float32: between the two nearest source rows and columns.

    Output row i lies at source row (i + 1/2) h / height - 1/2, clamped to the image; columns alike.
    """
    return _blend(_blend(pixels, height, axis=0), width, axis=1)


def _blend(pixels: np.ndarray, length: int, axis: int) -> np.ndarray:
    size = pixels.shape[axis]
    position = np.clip((np.arange(length) + 0.5) * (size / length) - 0.5, 0, size - 1)
    below = np.floor(position).astype(np.int64)
    above = np.minimum(below + 1, size - 1)
    shape = [1] * pixels.ndim
    shape[axis] = length
    weight = (position - below).astype(np.float32).reshape(shape)
    low, high = (pixels.take(rows, axis).astype(np.float32) for rows in (below, above))
    return low + (high - low) * weight


def require_preprocess(where: str, signature: InputSignature, preprocess: str) -> None:
    """UserError where images would go unscaled into a float input without anybody having said so."""
    if np.dtype(signature.dtype).kind == "f" and preprocess == "none":
        raise UserError(
            f"{where} holds images (0..255) and input {signature.name!r} takes {signature.dtype}: choose"
            " `preprocess` (raw, zero_one, minus_one_one or imagenet), the one the model was trained with"
        )


def takes_images(signature: InputSignature) -> bool:
    """Whether an input has the shape [height, width, 1, 3 or 4 channels]."""
    return len(signature.shape) == 3 and signature.shape[-1] in _MODES


def _image_input(path: Path, signatures: Sequence[InputSignature]) -> InputSignature:
    if len(signatures) != 1 or not takes_images(signatures[0]):
        listed = ", ".join(f"{s.name!r} {s.shape}" for s in signatures)
        raise UserError(
            f"{path} is a folder of images, which serves a model with one input (height, width, 1, 3 or 4);"
            f" this model has {listed}; give an .npz"
        )
    return signatures[0]


def _files_below(folder: Path) -> Iterator[Path]:
    """Visible files in a folder and its sub-folders, links followed; what has no name in UTF-8 is an error."""
    seen: set[tuple[int, int]] = set()

    def fail(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}; make it readable, or remove it") from error

    for parent, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        found = os.stat(parent)
        if (found.st_dev, found.st_ino) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                path = Path(parent, name)
                check_encodable(str(path), "a file of the data")
                check_regular(path, str(path))
                yield path


def _numbered(path: Path, folders: Sequence[str], labels: Sequence[str]) -> tuple[dict[str, int], str]:
    """Sub-folder -> class, and a note on how they were matched. Raises UserError for one that is no label."""
    if not folders or not labels:
        return {name: number for number, name in enumerate(folders)}, ""
    places: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(_plain(label), []).append(place)
    found = {name: places.get(_plain(name), []) for name in folders}
    strange = [name for name, at in found.items() if not at]
    if strange:
        raise UserError(
            f"the sub-folders {_some(strange)} of {path} are none of the {len(labels)} `labels` ({_some(labels)}); call"
            " the folders like the labels"
        )
    several = [name for name, at in found.items() if len(at) > 1]
    if several:
        raise UserError(f"the sub-folders {_some(several)} of {path} fit several `labels` each; rename those apart")
    classes = {name: at[0] for name, at in found.items()}
    if len(set(classes.values())) < len(classes):
        raise UserError(f"two sub-folders of {path} fit the same label; rename one ({_some(folders)})")
    pairs = [f"{name} = {number}" for name, number in classes.items()]
    return classes, f"the sub-folders of {path} are the classes of `labels` of their names: {_some(pairs)}"


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
