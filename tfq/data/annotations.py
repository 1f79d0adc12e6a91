"""Boxes and masks of the images of a folder, from the files that annotators write.

    COCO   one .json: `images` (file_name, width, height), `annotations` (bbox in pixels: left, top, width, height;
           iscrowd) and `categories`; classes are numbered by rising category id
    YOLO   a folder with a .txt for each image: lines of class, centre x, centre y, width, height in 0..1; an image
           without one shows nothing
    VOC    a folder with an .xml for each image: size, and objects with name and bndbox in pixels, of which the first is
           1; `difficult` ones count neither for nor against
    masks  a folder with a .png for each image, of its size: a pixel's value is its class, 255 for none

Where the names of the classes are given (`labels`), the categories of COCO and VOC are numbered by them. Files belong
to the images of their name, below the folder where the image is, or right in it. Boxes become arrays [most, 6] as
`tfq.data.boxes` has them, masks class numbers of the height and width of the model's input, each pixel that of
the nearest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from tfq.data.boxes import WIDTH, padded
from tfq.data.images import MOST_PIXELS
from tfq.data.location import check_sources
from tfq.errors import UserError, described
from tfq.execution.inputs import check_regular, kind_of, read_text
from tfq.execution.json_files import read_json

_MOST_BYTES = 16 << 20  # of a text
_SLACK = 0.01  # by which a rounded box may leave its image
_ROLES = {".txt": "YOLO", ".xml": "VOC", ".png": "masks"}

Read = tuple[list[np.ndarray], tuple[str, ...]]
"""(label of each image, warnings)."""


def read_annotations(
    path: Path, images: Mapping[str, Path], size: tuple[int, int], class_names: Sequence[str] = ()
) -> Read:
    """The labels of images, all of one shape, and what a person should know of them.

    Args:
      path: a COCO file, or a folder of the others.
      images: path below their folder -> where they are.
      size: (height, width) that masks get.
      class_names: of the model's classes; may be empty.

    Raises UserError for what cannot be read, is no annotation, or fits none of the images.
    """
    check_sources(annotations=path)
    if kind_of(path) != "a directory":
        return _as_boxes(_coco(path, images, class_names))
    found = {suffix: _beside(path, images, suffix) for suffix in _ROLES}
    kinds = [suffix for suffix, files in found.items() if files]
    if len(kinds) != 1:
        held = " and ".join(_ROLES[suffix] for suffix in kinds) or "no .txt, .xml or .png with the name of an image"
        raise UserError(
            f"`annotations` is {path}, which holds {held}; expected files of one kind, named like the images"
        )
    (suffix,) = kinds
    if suffix == ".txt":
        return _as_boxes(_yolo(images, found[suffix]), _missing(images, found[suffix], path))
    lacking = [name for name in images if name not in found[suffix]]
    if lacking:
        raise UserError(f"{lacking[0]} has no {suffix} in {path}; {len(lacking)} of the {len(images)} images have none")
    if suffix == ".xml":
        return _as_boxes(_voc(images, found[suffix], class_names))
    return [_mask(found[suffix][name], image, size) for name, image in images.items()], ()


def _beside(folder: Path, images: Mapping[str, Path], suffix: str) -> dict[str, Path]:
    """The file of each image that has one."""
    found = {}
    for name, image in images.items():
        below = PurePosixPath(name)
        for place in (folder / below.with_suffix(suffix), folder / below.with_suffix(suffix).name):
            if place != image and kind_of(place):
                check_regular(place, str(place))
                found[name] = place
                break
    return found


def _missing(images: Mapping[str, Path], files: Mapping[str, Path], path: Path) -> tuple[str, ...]:
    count = len(images) - len(files)
    return (
        (f"{count} of the {len(images)} images have no .txt in {path} and count as showing nothing",) if count else ()
    )


def _as_boxes(images: list[list[list[float]]], warnings: tuple[str, ...] = ()) -> Read:
    if not any(images):
        raise UserError("the annotations hold no box of any of the images; do they belong to them?")
    return list(padded([np.array(boxes).reshape(-1, WIDTH) for boxes in images])), warnings


def _size(image: Path) -> tuple[int, int]:
    """(width, height) as stored."""
    try:
        with Image.open(image) as opened:
            return opened.size
    except Exception as error:  # the decoders raise anything on damaged files
        raise UserError(f"{image} is not a readable image ({described(error)}); repair or remove it") from error


def _check_size(told: tuple[float, float], image: Path, where: str) -> None:
    real = _size(image)
    if told not in (real, real[::-1]):  # a camera's picture may be turned
        raise UserError(
            f"{where} says that {image.name} has {told[0]:g} x {told[1]:g} pixels; it has {real[0]} x {real[1]}"
        )


def _box(number: int, sides: Sequence[float], weight: float, where: str) -> list[float]:
    """A row of a label. Raises UserError for a box that is none, or leaves the image."""
    left, top, right, bottom = sides
    if not all(map(math.isfinite, sides)) or right < left or bottom < top:
        raise UserError(
            f"{where} has a box from {left:g}, {top:g} to {right:g}, {bottom:g} in shares of the image; repair it"
        )
    if min(left, top) < -_SLACK or max(right, bottom) > 1 + _SLACK:
        raise UserError(
            f"{where} has a box outside its image: from {left:g}, {top:g} to {right:g}, {bottom:g} in shares of it"
        )
    return [float(number), *(min(max(side, 0.0), 1.0) for side in sides), weight]


def _numbered(names: Mapping[Any, str], class_names: Sequence[str], where: str) -> dict[Any, int]:
    """Category -> class: the place of its name among the classes', or its own among all."""
    if not class_names:
        return {category: place for place, category in enumerate(sorted(names))}
    places = {name.strip().casefold(): place for place, name in enumerate(class_names)}
    strange = [name for name in names.values() if name.strip().casefold() not in places]
    if strange:
        raise UserError(f"the category {strange[0]!r} of {where} is none of the {len(class_names)} `labels`")
    return {category: places[name.strip().casefold()] for category, name in names.items()}


def _coco(path: Path, images: Mapping[str, Path], class_names: Sequence[str]) -> list[list[list[float]]]:
    content = read_json(path, what=f"the annotations {path}")
    listed, annotations, categories = (_items(content, key, path) for key in ("images", "annotations", "categories"))
    get = _getter(str(path))
    numbers = _numbered({get(c, "id"): str(c.get("name", "")) for c in categories}, class_names, str(path))
    by_name = {str(get(image, "file_name")): image for image in listed}
    found: dict[Any, list[list[float]]] = {}
    sizes: dict[Any, tuple[float, float]] = {}
    order = []
    for name, file in images.items():
        image = by_name.get(name) or by_name.get(PurePosixPath(name).name)
        if image is None:
            raise UserError(f"{name} is not among the {len(listed)} images of {path}")
        key = get(image, "id")
        sizes[key] = float(get(image, "width")), float(get(image, "height"))
        _check_size(sizes[key], file, str(path))
        found[key] = []
        order.append(key)
    known = {get(image, "id") for image in listed}
    for annotation in annotations:
        key, category, where = get(annotation, "image_id"), get(annotation, "category_id"), f"an annotation of {path}"
        if key not in known:
            raise UserError(f"{where} is of the image {key!r}, which its images do not hold")
        if category not in numbers:
            raise UserError(f"{where} has the category {category!r}, which its categories do not hold")
        if key not in found:
            continue
        sides = annotation.get("bbox")
        if not isinstance(sides, list) or len(sides) != 4 or not all(isinstance(side, (int, float)) for side in sides):
            raise UserError(f"{where} of the image {key!r} has the bbox {sides!r}; expected left, top, width, height")
        (left, top, wide, high), (width, height) = sides, sizes[key]
        shares = (left / width, top / height, (left + wide) / width, (top + high) / height)
        weight = 0.0 if annotation.get("iscrowd") else 1.0
        found[key].append(_box(numbers[category], shares, weight, f"{where} of the image {key!r}"))
    return [found[key] for key in order]


def _items(content: Any, key: str, path: Path) -> list[dict[str, Any]]:
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise UserError(f"{path} is no COCO file: it needs the lists images, annotations and categories")
    return found


def _getter(where: str) -> Callable[[Mapping[str, Any], str], Any]:
    def get(item: Mapping[str, Any], key: str) -> Any:
        value = item.get(key)
        fits = {
            "file_name": isinstance(value, str),
            "width": isinstance(value, (int, float)) and value > 0,
            "height": isinstance(value, (int, float)) and value > 0,
        }.get(key, isinstance(value, (int, str)))
        if not fits or isinstance(value, bool):
            raise UserError(
                f"an entry of {where} has {key} {value!r}; expected a {'name' if key == 'file_name' else 'number'}"
            )
        return value

    return get


def _yolo(images: Mapping[str, Path], files: Mapping[str, Path]) -> list[list[list[float]]]:
    return [list(_yolo_boxes(files[name])) if name in files else [] for name in images]


def _yolo_boxes(file: Path) -> Iterator[list[float]]:
    text = read_text(file, what=f"the labels {file}", most=_MOST_BYTES)
    for line, row in enumerate(text.splitlines(), 1):
        if not row.strip():
            continue
        try:
            number, x, y, width, height = map(float, row.split())
        except ValueError as error:
            raise UserError(f"line {line} of {file} is {row[:60]!r}; expected class, x, y, width, height") from error
        if number < 0 or number != int(number):
            raise UserError(f"line {line} of {file} has the class {number:g}; expected 0, 1, ...")
        sides = x - width / 2, y - height / 2, x + width / 2, y + height / 2
        yield _box(int(number), sides, 1.0, f"line {line} of {file}")


def _voc(images: Mapping[str, Path], files: Mapping[str, Path], class_names: Sequence[str]) -> list[list[list[float]]]:
    read = [list(_voc_objects(files[name], image)) for name, image in images.items()]
    names = {name: name for objects in read for name, *_ in objects}
    numbers = _numbered(names, class_names, "the annotations")
    return [[_box(numbers[name], sides, weight, where) for name, sides, weight, where in objects] for objects in read]


def _voc_objects(file: Path, image: Path) -> Iterator[tuple[str, tuple[float, ...], float, str]]:
    text = read_text(file, what=f"the labels {file}", most=_MOST_BYTES)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # entities may unfold to more than memory holds
        raise UserError(f"{file} declares a document type or entities; VOC's files have none, remove them")
    try:
        root = ElementTree.fromstring(text)
        width, height = (float(root.findtext(f"size/{side}", "")) for side in ("width", "height"))
        _check_size((width, height), image, str(file))
        for found in root.iter("object"):
            left, top, right, bottom = (
                float(found.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            sides = (left - 1) / width, (top - 1) / height, right / width, bottom / height
            weight = 0.0 if found.findtext("difficult", "0").strip() == "1" else 1.0
            yield found.findtext("name", "").strip(), sides, weight, str(file)
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(
            f"{file} is no VOC annotation ({described(error)}); it needs size, and name and bndbox of each object"
        ) from error


def _mask(file: Path, image: Path, size: tuple[int, int]) -> np.ndarray:
    """Class numbers [height, width] int64."""
    try:
        with Image.open(file) as opened:
            if opened.width * opened.height > MOST_PIXELS or opened.mode not in ("L", "P", "1"):
                raise UserError(
                    f"the mask {file} has {opened.width} x {opened.height} pixels of mode {opened.mode}; expected one"
                    " byte a pixel, its class"
                )
            pixels = np.asarray(opened, np.uint8)
    except UserError:
        raise
    except Exception as error:  # the decoders raise anything on damaged files
        raise UserError(f"{file} is not a readable mask ({described(error)}); repair or remove it") from error
    _check_size((pixels.shape[1], pixels.shape[0]), image, str(file))
    rows, columns = (
        ((np.arange(wanted) + 0.5) * real / wanted).astype(np.int64)
        for wanted, real in zip(size, pixels.shape, strict=True)
    )
    return pixels[rows][:, columns].astype(np.int64)
