"""Samples from objects: every form gives the same samples, and what is none says so."""

from __future__ import annotations

import itertools
import tracemalloc

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfq.data.loading import Selection, load_samples
from tfq.data.objects import Given
from tfq.data.samples import InputSignature, Samples
from tfq.errors import UserError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((30, 4, 5)).astype(np.float32)
Y = RNG.integers(0, 3, 30)
ONE = [InputSignature("in", (4, 5), "float32")]
LEFT, RIGHT = RNG.standard_normal((30, 3)).astype(np.float32), RNG.integers(0, 9, (30, 2, 2)).astype(np.int32)
TWO = [InputSignature("left", (3,), "float32"), InputSignature("right", (2, 2), "int32")]


def load(data, signatures=ONE, *, limit=None, selection="first", **options) -> Samples:
    return load_samples(Given(data, "the data"), signatures, Selection(limit, selection), **options)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[10 * index : 10 * index + 10], Y[10 * index : 10 * index + 10]


def batched(size=7):
    return ((X[i : i + size], Y[i : i + size]) for i in range(0, 30, size))


UNLABELLED = {
    "array": lambda: X,
    "tensor": lambda: tf.constant(X),
    "dict by name": lambda: {"in": X},
    "dict of x": lambda: {"x": X},
    "list of samples": lambda: list(X),
    "generator of samples": lambda: (row for row in X),
    "function": lambda: lambda: iter(X),
    "generator of dicts": lambda: ({"in": row} for row in X),
    "generator of batches": lambda: (x for x, _ in batched()),
    "generator of batches as dicts": lambda: ({"in": x} for x, _ in batched()),
    "representative dataset of TFLite": lambda: lambda: ([row[None]] for row in X),
    "dataset of samples": lambda: tf.data.Dataset.from_tensor_slices(X),
    "dataset of batches": lambda: tf.data.Dataset.from_tensor_slices(X).batch(8),
    "dataset of dicts": lambda: tf.data.Dataset.from_tensor_slices({"in": X}).batch(8),
    "dataset of unknown shapes": lambda: tf.data.Dataset.from_generator(
        lambda: iter(X), output_signature=tf.TensorSpec(None, tf.float32)
    ),
}
LABELLED = {
    "pair": lambda: (X, Y),
    "pair of lists": lambda: (X.tolist(), Y.tolist()),
    "dict with y": lambda: {"x": X, "y": Y},
    "pair with dict": lambda: ({"in": X}, Y),
    "list of pairs": lambda: list(zip(X, Y, strict=True)),
    "generator of batches": batched,
    "dataset of pairs": lambda: tf.data.Dataset.from_tensor_slices((X, Y)),
    "dataset of batches of pairs": lambda: tf.data.Dataset.from_tensor_slices(({"in": X}, Y)).batch(7),
    "PyDataset of Keras": lambda: Batches(),
}
OF_TWO = {
    "dict": lambda: {"left": LEFT, "right": RIGHT},
    "pair with list": lambda: ([LEFT, RIGHT], None),
    "iterable of tuples": lambda: zip(LEFT, RIGHT, strict=True),
    "iterable of dicts": lambda: ({"right": r, "left": v} for v, r in zip(LEFT, RIGHT, strict=True)),
    "dataset": lambda: tf.data.Dataset.from_tensor_slices({"left": LEFT, "right": RIGHT}).batch(4),
}


@pytest.mark.parametrize("form", UNLABELLED)
def test_every_form_gives_the_same_samples(form):
    samples = load(UNLABELLED[form]())
    assert np.array_equal(samples.arrays["in"], X)
    assert samples.labels is None


@pytest.mark.parametrize("form", LABELLED)
def test_every_form_gives_the_same_labels(form):
    samples = load(LABELLED[form]())
    np.testing.assert_allclose(samples.arrays["in"], X, rtol=1e-6)
    assert np.array_equal(samples.labels, Y)
    first = load(LABELLED[form](), limit=9)
    assert np.array_equal(first.labels, Y[:9])


@pytest.mark.parametrize("form", OF_TWO)
def test_models_of_two_inputs(form):
    samples = load(OF_TWO[form](), TWO)
    assert np.array_equal(samples.arrays["left"], LEFT)
    assert np.array_equal(samples.arrays["right"], RIGHT)
    assert samples.labels is None


@pytest.mark.parametrize("size", [None, 4])
def test_no_more_is_taken_than_is_asked_for(size):
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield np.full((4, 5) if size is None else (size, 4, 5), number, np.float32)

    samples = load(endless(), limit=10)
    assert len(samples) == 10
    assert len(taken) == (10 if size is None else 3)


def test_a_dataset_that_repeats_serves_calibration_and_no_evaluation():
    dataset = tf.data.Dataset.from_tensor_slices(X).repeat()
    assert np.array_equal(load(dataset, limit=40).arrays["in"], np.concatenate([X, X[:10]]))
    with pytest.raises(UserError, match=r"the data repeats without end, and all of it is asked for; leave out .repeat"):
        load(dataset)


@pytest.mark.parametrize("selection", ["random", "balanced", "coverage"])
def test_selections_are_those_of_a_file(selection, tmp_path):
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    selected = Selection(8, selection, 3)
    stored = load_samples(str(tmp_path / "data.npz"), ONE, selected)
    for data in ((X, Y), tf.data.Dataset.from_tensor_slices((X, Y))):
        found = load_samples(Given(data, "the data"), ONE, selected)
        assert np.array_equal(found.indices, stored.indices)
        assert np.array_equal(found.arrays["in"], stored.arrays["in"])


@pytest.mark.parametrize("selection", ["balanced", "coverage"])
def test_an_iterator_has_no_second_pass(selection):
    with pytest.raises(
        UserError, match=r"the data is a generator, which gives its samples once; `selection` takes two"
    ):
        load(((x, y) for x, y in zip(X, Y, strict=True)), limit=8, selection=selection)


def test_arrays_that_the_model_takes_are_not_copied(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4000, 50, 50), np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    tracemalloc.start()
    samples = load(mapped, [InputSignature("in", (50, 50), "float32")])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.shares_memory(samples.arrays["in"], mapped)
    assert not samples.arrays["in"].flags.writeable
    assert peak < mapped.nbytes / 10
    assert np.shares_memory(load(X, limit=7).arrays["in"], X)
    assert X.flags.writeable


def test_a_private_map_keeps_what_the_caller_wrote_into_it(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="c")
    mapped[3] = 9.0
    for _ in load(mapped).batches(4):
        pass
    assert (mapped[3] == 9.0).all()


def test_other_types_are_converted_and_preprocessed():
    images = RNG.integers(0, 256, (6, 4, 4, 3)).astype(np.uint8)
    signature = [InputSignature("in", (4, 4, 3), "float32")]
    assert np.array_equal(load(images, signature).arrays["in"], images.astype(np.float32))
    scaled = load(images, signature, preprocess="zero_one").arrays["in"]
    np.testing.assert_allclose(scaled, images / np.float32(255), rtol=1e-6)


def fails():
    yield X[0]
    raise RuntimeError("the disk is gone")


WRONG = {
    "nothing of the kind": (object(), "the data is of type object; expected an array, a dict of arrays by input name"),
    "number": (3, "the data is of type int; expected an array"),
    "no samples": ([], "the data holds no samples"),
    "empty array": (X[:0], r"the data is empty \(shape \(0, 4, 5\)\)"),
    "one sample": (X[0], "the data has shape .* the axis of samples is missing"),
    "other shape": (X[:, :3], r"the data has the shape \(3, 5\) a sample; input 'in' expects \(4, 5\)"),
    "no number": (np.array(["a"] * 3), "the data has dtype <U1"),
    "ragged": (([[1], [1, 2]], Y), "'in' of the data is of type list, which is no array: ValueError"),
    "triple": ((X, Y, Y), r"the data is a tuple of 3; expected \(x, y\)"),
    "fewer labels": ((X, Y[:7]), "the arrays of the data differ in their number of samples: 'in' 30, labels 7"),
    "labels of text": ((X, ["cat"] * 30), "the label of the data has dtype <U3"),
    "other name": ({"image": X}, "the data has no array 'x'; it has: 'image'"),
    "NaN": (np.full((3, 4, 5), np.nan), r"sample 0 of the data has NaN"),
    "generator of other shapes": ([X[0], X[0, :3]], "sample 1 of the data has the shape"),
    "batch of fewer labels": ([(X[:4], Y[:3])], "the arrays of batch 0 of the data differ"),
    "generator that fails": (fails(), "the data fails at sample 1: RuntimeError: the disk is gone"),
    "function with an argument": (lambda number: X[number], "the data is called without arguments"),
    "path in a tuple": (("a.npz", Y), "'in' of the data has dtype|the data has dtype|the data is a single"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_line(case):
    data, message = WRONG[case]
    with pytest.raises(UserError, match=message):
        load(data)


def test_models_of_two_inputs_ask_for_names():
    with pytest.raises(
        UserError, match=r"the data is no dict, and the model has the inputs 'left', 'right'; give a dict"
    ):
        load(LEFT, TWO)
    with pytest.raises(UserError, match="the data has no array for the inputs 'right'; it has: 'left'"):
        load({"left": LEFT}, TWO)
