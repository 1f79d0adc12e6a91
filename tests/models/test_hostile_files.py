"""Model files that reach outside themselves, promise more than they hold, or are no files at all."""

from __future__ import annotations

import json
import os
import pathlib
import resource
import socket
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from tfq.errors import UserError
from tfq.models import hdf5_files, model_files
from tfq.models.load import load_model
from tfq.models.model_files import check_model_file
from tfq.models.saved_metadata import model_metadata

LIBRARIES = {"keras": keras, "tf_keras": tf_keras}
both = pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
formats = pytest.mark.parametrize("suffix", [".keras", ".h5"])


def small(library):
    x = library.Input((8,), name="x")
    return library.Model(x, library.layers.Dense(4, name="dense")(x), name="small")


@pytest.fixture
def saved(tmp_path):
    """A function that saves the small model of a library with a suffix."""

    def save(library, suffix):
        path = tmp_path / f"model{suffix}"
        small(library).save(path)
        return path

    return save


def refused(path, pattern: str, **options) -> str:
    with pytest.raises(UserError, match=pattern) as caught:
        check_model_file(pathlib.Path(path), **options)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 500
    assert ";" in message, "no way out is named"
    return message


def rewritten(path: pathlib.Path, **contents: bytes) -> None:
    """The archive with other contents of config, metadata or weights, deflated; None leaves a member out."""
    names = {"config": "config.json", "metadata": "metadata.json", "weights": "model.weights.h5"}
    given = {names[key]: value for key, value in contents.items()}
    with zipfile.ZipFile(path) as archive:
        old = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in {**old, **given}.items():
            archive.writestr(name, content)


# What a file may not do before it is refused -------------------------------------------------------


def test_a_bad_file_is_refused_without_importing_tensorflow(saved):
    path = saved(keras, ".keras")
    rewritten(path, config=b'{"class_name": "Lambda", "config": {"name": "l"}}')
    program = (
        "import sys, pathlib; from tfq.models.model_files import check_model_file\n"
        "from tfq.errors import UserError\n"
        "try: check_model_file(pathlib.Path(sys.argv[1]))\n"
        "except UserError as error: print(error)\n"
        "print([m for m in ('tensorflow', 'keras', 'tf_keras') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    message, imported = done.stdout.splitlines()
    assert "it is a Lambda" in message
    assert imported == "[]"


def test_the_command_refuses_before_it_imports_tensorflow(saved, tmp_path):
    path = saved(tf_keras, ".h5")
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = file.attrs["model_config"].replace('"Dense"', '"Da\\u001b[2J\\nnce"')
    command = [sys.executable, "-X", "importtime", "-m", "tfq_tools.quantize", f"--model={path}"]
    command += [f"--calibration_data={tmp_path}/none.npz", f"--output_dir={tmp_path}/out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2
    assert len(told) == 1
    assert "custom class" in told[0]
    assert told[0].isprintable()
    assert " tensorflow\n" not in done.stderr
    assert not (tmp_path / "out").exists()


# HDF5 ----------------------------------------------------------------------------------------------


def kernel_of(file: h5py.File) -> str:
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if getattr(item, "shape", None) == (8, 4) else None)
    return found[0]


def external(file, name, folder):
    del file[name]
    file.create_dataset(name, shape=(8, 4), dtype="<f4", external=[(str(folder / "secret"), 0, 128)])


def virtual(file, name, folder):
    del file[name]
    layout = h5py.VirtualLayout(shape=(8, 4), dtype="<f4")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "secret", shape=(8, 4))
    file.create_virtual_dataset(name, layout)


def external_link(file, name, folder):
    del file[name]
    file[name] = h5py.ExternalLink(str(folder / "other.h5"), "/secret")


def soft_link(file, name, folder):  # noqa: ARG001
    del file[name]
    file[name] = h5py.SoftLink("/elsewhere")


def linked_group(file, name, folder):  # noqa: ARG001
    file["more"] = h5py.ExternalLink(str(folder / "other.h5"), "/")


def unwritten(file, name, folder):  # noqa: ARG001
    del file[name]
    file.create_dataset(name, shape=(2**20, 2**20), dtype="<f4")


def packed(file, name, folder):  # noqa: ARG001
    del file[name]
    file.create_dataset(name, shape=(2**20, 2**20), dtype="<f4", chunks=(1024, 1024), compression="gzip")


def large_pieces(file, name, folder):  # noqa: ARG001
    del file[name]
    file.create_dataset(name, shape=(8, 4), maxshape=(None, None), dtype="<f4", chunks=(2**14, 2**14))


def texts(file, name, folder):  # noqa: ARG001
    del file[name]
    file.create_dataset(name, data=np.array(["a", "b"], dtype=h5py.string_dtype()))


INSIDE = {
    external: "its data lies in another file", virtual: "virtual dataset", external_link: "it is a link to",
    soft_link: "it is a link to '/elsewhere'", linked_group: "it is a link to", unwritten: "declares 4398046511104",
    packed: "declares 4398046511", large_pieces: "pieces of 1073741824 bytes",
    texts: "not numbers",
}  # fmt: skip


@both
@formats
@pytest.mark.parametrize("harm", INSIDE, ids=lambda f: f.__name__)
def test_weights_that_lie_elsewhere_or_nowhere(library, suffix, harm, saved, tmp_path):
    np.full(32, 1.25, "<f4").tofile(tmp_path / "secret")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.full((8, 4), 1.25, "<f4")
    path = saved(library, suffix)
    weights = path
    if suffix == ".keras":
        weights = tmp_path / "weights.h5"
        with zipfile.ZipFile(path) as archive:
            weights.write_bytes(archive.read("model.weights.h5"))
    with h5py.File(weights, "a") as file:
        name = kernel_of(file)
        harm(file, name, tmp_path)
    if suffix == ".keras":
        rewritten(path, weights=weights.read_bytes())
    assert INSIDE[harm] in refused(path, "HDF5 object")
    with pytest.raises(UserError, match=r"model\.(keras|h5): HDF5 object"):
        load_model(path)


def test_a_group_that_holds_itself(saved):
    path = saved(keras, ".h5")
    with h5py.File(path, "a") as file:
        file["model_weights/again"] = file["model_weights"]
    check_model_file(path)


def test_long_texts_that_are_many(saved, monkeypatch):
    """HDF5 lets many texts be one and the same, so each counts as the longest there is."""
    path = saved(keras, ".h5")
    with h5py.File(path, "a") as file:
        file.attrs.create("names", ["y" * 100_000, *["x"] * 50], dtype=h5py.string_dtype())
    check_model_file(path)
    monkeypatch.setattr(hdf5_files, "LARGEST_ATTRIBUTE", 5_000_000)
    refused(path, "attribute 'names' may take 5[0-9]{6} bytes")


def heap_of(content: bytes) -> int:
    return content.index(b"GCOL\x01\0\0\0")


def test_a_heap_that_hdf5_would_read_for_ever(saved):
    path = saved(keras, ".h5")
    content = bytearray(path.read_bytes())
    at = heap_of(content) + 16 + 8  # the size of its first object, which counts its own head
    content[at - 8 : at + 8] = bytes(16)
    path.write_bytes(content)
    refused(path, "a heap of texts is damaged")


def test_a_text_that_says_it_has_three_gigabytes(saved):
    path = saved(tf_keras, ".h5")
    with h5py.File(path, "r") as file:
        size = len(file.attrs["model_config"].encode())
    content = path.read_bytes()
    reference = size.to_bytes(4, "little") + heap_of(content).to_bytes(8, "little")
    assert content.count(reference) == 1
    path.write_bytes(content.replace(reference, (3 * 2**30).to_bytes(4, "little") + reference[4:]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path, "damaged")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # in KiB


def test_compressed_weights_are_read(saved, tmp_path):
    path = saved(tf_keras, ".h5")
    kernel = load_model(path).graph["dense"].weights["kernel"]
    with h5py.File(path, "a") as file:
        name = kernel_of(file)
        value = file[name][()]
        del file[name]
        file.create_dataset(name, data=value, chunks=(4, 4), compression="gzip", shuffle=True, fletcher32=True)
    np.testing.assert_array_equal(load_model(path).graph["dense"].weights["kernel"], kernel)
    assert os.listdir(tmp_path) == ["model.h5"]


@both
@formats
def test_a_layer_that_asks_for_a_huge_memory(library, suffix, saved):
    """The weights of the file are 36 numbers; the configuration wants 8 million million."""
    path = saved(library, suffix)
    if suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            config = archive.read("config.json").decode()
        rewritten(path, config=config.replace('"units": 4', f'"units": {10**12}').encode())
    else:
        with h5py.File(path, "a") as file:
            file.attrs["model_config"] = file.attrs["model_config"].replace('"units": 4', f'"units": {10**12}')
    with pytest.raises(UserError, match=r"'dense'.*more weights than the file stores"):
        load_model(path)


@both
def test_a_tensor_that_no_memory_holds(library):
    x = library.Input((8,))
    model = library.Model(x, library.layers.RepeatVector(10**9, name="many")(x))
    with pytest.raises(UserError, match=r"Layer 'many' .*8000000000 numbers"):
        load_model(model)


# Archives ------------------------------------------------------------------------------------------


def test_a_bomb(saved):
    path = saved(keras, ".keras")
    rewritten(path, config=b" " * 2**27 + b"{}")
    refused(path, r"config\.json would unpack to 134217730 bytes")
    rewritten(path, config=b"{}", metadata=b" " * 2**21)
    refused(path, r"metadata\.json would unpack to 2097152 bytes")


def test_a_member_that_is_larger_than_it_says(saved):
    path = saved(keras, ".keras")
    rewritten(path, config=b" " * 2**20)
    content = path.read_bytes().replace((2**20).to_bytes(4, "little"), (2**10).to_bytes(4, "little"))
    path.write_bytes(content)
    refused(path, "damaged")


def test_brackets(saved):
    path = saved(keras, ".keras")
    rewritten(path, config=b"[" * 200_000 + b"]" * 200_000)
    refused(path, "damaged.*recursion")
    rewritten(path, config=b"[" * 500 + b"]" * 500)
    refused(path, "nested more than 150 levels deep")


@pytest.mark.parametrize("version", ["", "x", "3\n", "\x1b[31m3.1", 3, None, [], "9" * 5000, "3.0;rm"])
def test_a_version_that_is_none(version, saved):
    path = saved(keras, ".keras")
    rewritten(path, metadata=json.dumps({"keras_version": version}).encode())
    refused(path, "damaged")


def test_names_that_lead_out_of_the_archive_are_not_touched(saved, tmp_path):
    path = saved(keras, ".keras")
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../outside", "/tmp/tfq_outside", "assets/../../outside", "assets/_layer/vocabulary.txt"):
            archive.writestr(name, "x")
    load_model(path)
    assert os.listdir(tmp_path) == ["model.keras"]
    assert not (tmp_path.parent / "outside").exists()
    assert not os.path.exists("/tmp/tfq_outside")


def test_a_member_that_is_missing_or_there_twice(saved):
    path = saved(keras, ".keras")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("config.json", "{}")
    refused(path, r"holds two config\.json")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("metadata.json", '{"keras_version": "3.1"}')
    refused(path, r"holds no model\.weights\.h5")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        for name in ("config.json", "metadata.json", "model.weights.h5"):
            archive.writestr(name, "{}")
    refused(path, "packed by a method")
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(model_files._MOST_MEMBERS + 1):
            archive.writestr(f"m{number}", "")
    refused(path, "10001 members")


def test_a_full_temporary_folder_is_said(saved, monkeypatch):
    path = saved(keras, ".keras")
    monkeypatch.setattr("tempfile.tempdir", "/dev/full/none")
    with pytest.raises(UserError, match="TMPDIR"):
        load_model(path)


# What is no file -----------------------------------------------------------------------------------


def test_devices_pipes_and_sockets(tmp_path):
    os.mkfifo(tmp_path / "pipe.keras")
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(tmp_path)
        server.bind("socket.h5")
    for path in ("/dev/zero", "/dev/null", tmp_path / "pipe.keras", tmp_path / "socket.h5"):
        refused(path, "neither a file nor a directory")
        with pytest.raises(UserError, match="neither a file nor a directory"):
            load_model(path, allow_unsafe_deserialization=True)


def test_links_that_go_round(tmp_path):
    (tmp_path / "a.h5").symlink_to(tmp_path / "b.h5")
    (tmp_path / "b.h5").symlink_to(tmp_path / "a.h5")
    refused(tmp_path / "a.h5", "no such file|cannot be read")
    refused("nul\0byte", "cannot be read")


# SavedModel ----------------------------------------------------------------------------------------


def test_a_saved_model_whose_graph_reads_and_writes_files_is_loaded_without_it(tmp_path):
    class Resource(tf.saved_model.experimental.TrackableResource):
        def _create_resource(self):
            return tf.raw_ops.MutableHashTableV2(key_dtype=tf.string, value_dtype=tf.int64)

        def _initialize(self):
            tf.io.write_file(str(tmp_path / "written"), "x")

    model = small(tf_keras)
    model.evil = Resource()
    model.evil_handle = model.evil.resource_handle
    model.save(tmp_path / "saved")
    (tmp_path / "written").unlink(missing_ok=True)
    x = np.random.default_rng(0).normal(size=(5, 8)).astype("float32")
    loaded = load_model(tmp_path / "saved")
    assert not (tmp_path / "written").exists()
    np.testing.assert_array_equal(loaded.predict({"x": x})[0], load_model(model).predict({"x": x})[0])
    load_model(tmp_path / "saved", allow_unsafe_deserialization=True)
    assert (tmp_path / "written").exists(), "the model would have done it"


def test_a_saved_model_gives_what_the_live_model_gives(tmp_path, randomise, check_equal):
    layers = tf_keras.layers
    x = tf_keras.Input((6, 3), name="x")
    i = tf_keras.Input((6, 4))
    inner = tf_keras.Model(i, layers.BatchNormalization()(layers.Dense(5)(i)), name="inner")
    shared = layers.Dense(5)
    norm = layers.Normalization()
    norm.adapt(np.random.default_rng(0).normal(3, 2, (20, 6, 3)))
    y = inner(layers.Conv1D(4, 1)(norm(x)))
    model = tf_keras.Model(x, [shared(y), shared(y * 2)])
    randomise(model)
    model.save(tmp_path / "saved", save_format="tf")
    model.save(tmp_path / "model.h5")
    loaded, other = check_equal(tmp_path / "saved", built=False), load_model(tmp_path / "model.h5")
    for node, same in zip(loaded.graph.nodes, other.graph.nodes, strict=True):
        assert (node.name, node.kind, node.inputs, node.group) == (same.name, same.kind, same.inputs, same.group)
        for key, value in node.weights.items():
            np.testing.assert_array_equal(value, same.weights[key])


@pytest.mark.parametrize("name", ["variables/variables.index", "keras_metadata.pb"])
def test_a_saved_model_with_links_that_lead_out(name, tmp_path):
    small(tf_keras).save(tmp_path / "saved", save_format="tf")
    os.rename(tmp_path / "saved" / name, tmp_path / "elsewhere")
    refused(tmp_path / "saved", "variables.index|without Keras layers")
    (tmp_path / "saved" / name).symlink_to(tmp_path / "elsewhere")
    refused(tmp_path / "saved", "leads out of the directory")


def test_a_saved_model_with_the_weights_of_another(tmp_path):
    small(tf_keras).save(tmp_path / "saved", save_format="tf")
    x = tf_keras.Input((8,), name="x")
    tf_keras.Model(x, tf_keras.layers.Dense(5, name="dense")(x)).save(tmp_path / "other", save_format="tf")
    for file in (tmp_path / "other" / "variables").iterdir():
        file.replace(tmp_path / "saved" / "variables" / file.name)
    with pytest.raises(UserError, match="does not load"):
        load_model(tmp_path / "saved")


def test_the_metadata_reader_agrees_with_the_protocol_buffer(tmp_path):
    from tf_keras.protobuf import saved_metadata_pb2

    small(tf_keras).save(tmp_path / "saved", save_format="tf")
    content = (tmp_path / "saved" / "keras_metadata.pb").read_bytes()
    parsed = saved_metadata_pb2.SavedMetadata.FromString(content)
    assert model_metadata(content) == next(node.metadata for node in parsed.nodes if node.node_path == "root")
    for bad in (b"", content[:40], b"\xff" * 40, b"\x0b\x00", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"):
        with pytest.raises(ValueError, match=r"truncated|no Keras model|wire type"):
            model_metadata(bad)
