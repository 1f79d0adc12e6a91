"""Model files, read as what they are: data of somebody else.

`open_model_file` finds out what a path is, checks the sizes it declares, reads the stored configuration and
rebuilds it by the allow-list of `tfq.models.rebuild`. Neither Keras nor TensorFlow is imported or asked: a
bad file is refused before they are, in well under a second. docs/security.md says what a file may do.

Limits:
  a path       a regular file or a directory; no device, pipe or socket
  .keras       at most 10,000 members; configuration at most 64 MiB, metadata 1 MiB, weights 8 GiB, and
               unpacked at most 100 times the file's size and 64 MiB more; sizes are held while unpacking
  .h5          see `tfq.models.hdf5_files`
  SavedModel   keras_metadata.pb at most 64 MiB; its graph, saved_model.pb, is not read at all
  .tflite      see `tfq.execution.tflite`
Of a .keras archive only config.json, metadata.json and model.weights.h5 are read: no asset, no other name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import pathlib
import re
import stat
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import h5py

from tfq.errors import UserError
from tfq.models.foreign import foreign
from tfq.models.hdf5_files import LARGEST_TEXT, MOST_BYTES, MOST_RATIO, SLACK, check_hdf5, text_attribute
from tfq.models.rebuild import rebuild
from tfq.models.refusals import no_import, short_cause, shortened
from tfq.models.saved_metadata import model_metadata
from tfq.models.tflite_files import read_float_tflite

FORMATS = "give a .keras or .h5 file that Keras saved, a SavedModel directory of tf_keras, or a float .tflite"
TFLITE, GRAPH = "tflite", "graph"
_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_MOST_MEMBERS, _LARGEST_METADATA = 10_000, 2**20
_VERSION = re.compile(r"[0-9]{1,4}(\.[0-9A-Za-z+_-]{1,30}){0,5}")


@dataclasses.dataclass(frozen=True)
class StoredModel:
    """A model as its file describes it.

    Attributes:
      format: "keras", "h5", "saved_model", "tflite", or "graph" for a SavedModel without layers.
      library: "keras" or "tf_keras", which wrote the file and which is to read it; "tflite".
      version: of that library; "" where the file does not say.
      config: the rebuilt configuration; empty where the file's author is trusted.
      path: the file or directory itself.
      weights: the file with the weights: an HDF5 file, or the prefix of a checkpoint.
      numbers: how many numbers the weights hold at most; 0 of a .tflite, which is read elsewhere.
    """

    format: str
    library: str
    version: str
    config: dict[str, Any]
    path: pathlib.Path
    weights: pathlib.Path
    numbers: int


def check_model_file(path: pathlib.Path, *, trusted: bool = False, imports: Sequence[str] = ()) -> None:
    """Raise UserError for a path that is no model file or holds what has no place in one, or for an absent module."""
    for name in imports:
        package = name.partition(".")[0]
        if package not in sys.modules and (not package or importlib.util.find_spec(package) is None):
            raise no_import(name, f"No module named {package!r}")
    with open_model_file(path, trusted=trusted, imports=imports):
        pass


@contextlib.contextmanager
def open_model_file(path: pathlib.Path, *, trusted: bool = False, imports: Sequence[str] = ()) -> Iterator[StoredModel]:
    """What a path holds; its weights can be read as long as the context is open.

    Args:
      trusted: the file's author is trusted: the configuration is not rebuilt, and nothing but sizes is checked.
      imports: modules whose classes the configuration may name.

    Raises:
      UserError: it cannot be read, is no Keras model, or holds something that is not on the allow-list.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {FORMATS}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({short_cause(error)}); {FORMATS}") from None
    if stat.S_ISDIR(mode):
        yield _saved_model(path, trusted, imports)
        return
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: neither a file nor a directory, but a device, pipe or socket; {FORMATS}")
    kind = _kind(path)
    if kind == "h5":
        yield _h5(path, trusted, imports)
        return
    if kind == TFLITE:
        read_float_tflite(path)
        yield StoredModel(TFLITE, TFLITE, "", {}, path, path, 0)
        return
    try:
        folder = tempfile.TemporaryDirectory(prefix="tfq-model-")
    except OSError as error:
        raise _no_room(path, tempfile.gettempdir(), error) from None
    with folder:
        yield _keras(path, pathlib.Path(folder.name), trusted, imports)


def _kind(path: pathlib.Path) -> str:
    """ "keras", "h5" or "tflite", by the content."""
    try:
        with open(path, "rb") as file:
            start = file.read(8)
        if start[4:] == b"TFL3":  # before the next one: files packed behind it make it a zip file, too
            return TFLITE
        if zipfile.is_zipfile(path):
            return "keras"
        if h5py.is_hdf5(path):
            return "h5"
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {FORMATS}") from None
    if start[:2] == b"PK":
        raise UserError(f"{path}: the file is truncated or damaged (a .keras file without its end); copy it again")
    if not start:
        raise UserError(f"{path}: the file is empty; {FORMATS}")
    raise foreign(path) or UserError(
        f"{path}: neither HDF5 nor a .keras file nor a .tflite, whatever its name says; {FORMATS}"
    )


@contextlib.contextmanager
def _told(path: pathlib.Path, what: str, way_out: str) -> Iterator[None]:
    """Turn whatever a reader raises into one line about the file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path}: {what} ({short_cause(error)}); {way_out}") from None


def _rebuilt(config: Any, library: str, path: pathlib.Path, imports: Sequence[str]) -> dict[str, Any]:
    with _told(path, "the stored configuration is not that of a model", "save the model again"):
        return rebuild(config, library, imports)


def _library(version: str) -> str:
    """Which library wrote a file; Keras 2 became tf_keras.

    Raises:
      ValueError: it is no version.
    """
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise ValueError(f"{shortened(repr(version), 60)} is no version of Keras")
    return "keras" if int(version.split(".")[0]) >= 3 else "tf_keras"


def _keras(path: pathlib.Path, folder: pathlib.Path, trusted: bool, imports: Sequence[str]) -> StoredModel:
    damaged = "the .keras file is damaged"
    with _told(path, damaged, "copy or save it again"), zipfile.ZipFile(path) as archive:
        members = _members(archive, path)
        config = json.loads(_unpacked(archive, members[_CONFIG], LARGEST_TEXT))
        metadata = json.loads(_unpacked(archive, members[_METADATA], _LARGEST_METADATA))
        version = metadata["keras_version"]
        library = _library(version)
        stored = StoredModel("keras", library, version, {}, path, folder / _WEIGHTS, 0)
        if trusted:
            return stored
        config = _rebuilt(config, library, path, imports)
        _unpack(archive, members[_WEIGHTS], stored.weights, path)
    with _told(path, damaged, "copy or save it again"), h5py.File(stored.weights, "r") as file:
        numbers = _numbers(file, stored.weights, path)
    return dataclasses.replace(stored, config=config, numbers=numbers)


def _numbers(file: h5py.File, weights: pathlib.Path, path: pathlib.Path) -> int:
    try:
        return check_hdf5(file, weights)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _members(archive: zipfile.ZipFile, path: pathlib.Path) -> dict[str, zipfile.ZipInfo]:
    """The three members that are read, their declared sizes checked."""
    infos = archive.infolist()
    if len(infos) > _MOST_MEMBERS:
        raise UserError(f"{path}: the archive has {len(infos)} members, a .keras model has few; {FORMATS}")
    size = path.stat().st_size
    limits = {_CONFIG: LARGEST_TEXT, _METADATA: _LARGEST_METADATA, _WEIGHTS: MOST_BYTES}
    found: dict[str, zipfile.ZipInfo] = {}
    for name, limit in limits.items():
        same = [info for info in infos if info.filename == name]
        if not same:
            raise foreign(path) or UserError(f"{path}: a zip file, but no .keras model: it holds no {name}; {FORMATS}")
        if len(same) > 1:
            raise UserError(f"{path}: the .keras file is damaged (it holds two {name}); save it again")
        limit = min(limit, MOST_RATIO * size + SLACK)
        if same[0].file_size > limit:
            raise UserError(
                f"{path}: its {name} would unpack to {same[0].file_size} bytes, more than the {limit} that a file of"
                f" {size} bytes may hold; save the model again"
            )
        if same[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(f"{path}: its {name} is packed by a method that Keras does not use; save the model again")
        found[name] = same[0]
    return found


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes:
    with archive.open(member) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{member.filename} unpacks to more than {limit} bytes")
    return content


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: pathlib.Path, path: pathlib.Path) -> None:
    """Write a member to `target`; its checksum is checked, and its size held."""
    left = member.file_size
    with archive.open(member) as source, open(target, "wb") as file:
        while part := source.read(2**20):
            left -= len(part)
            if left < 0:
                raise ValueError(f"{member.filename} is larger than it says")
            try:
                file.write(part)
            except OSError as error:
                raise _no_room(path, str(target.parent), error) from None


def _no_room(path: pathlib.Path, folder: str, error: OSError) -> UserError:
    return UserError(
        f"{path}: its weights cannot be unpacked into {folder} ({error.strerror}); set TMPDIR to a folder with room"
    )


def _h5(path: pathlib.Path, trusted: bool, imports: Sequence[str]) -> StoredModel:
    damaged = "the .h5 file is truncated or damaged"
    with _told(path, damaged, "copy it again"), h5py.File(path, "r") as file:
        numbers = 0 if trusted else _numbers(file, path, path)
        with _told(path, "the .h5 file holds no readable configuration", "save the model again"):
            text, version = text_attribute(file, "model_config"), text_attribute(file, "keras_version") or "2"
            library = _library(version)
            config = None if text is None else json.loads(text)
    if config is None:
        raise UserError(
            f"{path}: an HDF5 file without a model configuration (weights only, or no Keras file);"
            " save the whole model with model.save()"
        )
    rebuilt = {} if trusted else _rebuilt(config, library, path, imports)
    return StoredModel("h5", library, version, rebuilt, path, path, numbers)


def _saved_model(path: pathlib.Path, trusted: bool, imports: Sequence[str]) -> StoredModel:
    graph, metadata = path / "saved_model.pb", path / "keras_metadata.pb"
    if not graph.is_file():
        raise foreign(path) or UserError(f"{path}: a directory without saved_model.pb; {FORMATS}")
    if not metadata.is_file() and trusted:
        return StoredModel(GRAPH, "", "", {}, path, path, 0)
    if not metadata.is_file():
        raise UserError(
            f"{path}: a SavedModel without Keras layers (Keras 3's export() and tf.saved_model.save() write such);"
            " give the .keras or .h5 file of the model, or, if you trust its author,"
            " `allow_unsafe_deserialization=True`: it is then converted to a float .tflite"
        )
    weights = path / "variables" / "variables"
    stored = StoredModel("saved_model", "tf_keras", "", {}, path, weights, 0)
    if trusted:
        return stored
    files = [metadata, *sorted(weights.parent.glob("variables.*"))]
    for file in files:
        if not file.resolve().is_relative_to(path.resolve()) or not file.is_file():
            raise UserError(f"{path}: its {file.name} is a link that leads out of the directory; copy it with cp -rL")
    size = metadata.stat().st_size
    if size > LARGEST_TEXT:
        raise UserError(f"{path}: its keras_metadata.pb has {size} bytes, at most {LARGEST_TEXT} are read; {FORMATS}")
    with _told(path, "its keras_metadata.pb does not parse", "give the .keras or .h5 file of the model"):
        config = json.loads(model_metadata(metadata.read_bytes()))
    if not (weights.parent / "variables.index").is_file():
        raise UserError(f"{path}: it holds no variables/variables.index, which lists the weights; copy it again")
    numbers = sum(file.stat().st_size for file in files[1:]) // 2  # of two bytes at least, see `tfq.models.revive`
    return dataclasses.replace(stored, config=_rebuilt(config, "tf_keras", path, imports), numbers=numbers)
