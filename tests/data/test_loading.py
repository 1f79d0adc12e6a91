"""Every source, every selection, every error at the edge."""

import gzip
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfq.data.checks import compare_ranges, compare_samples
from tfq.data.loading import Selection, load_samples
from tfq.data.samples import InputSignature
from tfq.errors import UserError
from tfq.execution.resources import Resources

RNG = np.random.default_rng(0)
X = RNG.standard_normal((150, 4, 5)).astype(np.float32)
Y = RNG.integers(0, 3, 150)
SIGNATURE = [InputSignature("in", (4, 5), "float32")]
TWO = [InputSignature("left", (3,), "float32"), InputSignature("right", (2, 2), "int32")]


def write_npz(path, **arrays):
    np.savez_compressed(path, **arrays)
    return str(path)


@pytest.fixture
def npz(tmp_path):
    return write_npz(tmp_path / "data.npz", x=X, y=Y, extra=np.zeros(3))


def features(**values):
    made = {}
    for name, value in values.items():
        if isinstance(value, bytes):
            made[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        elif np.asarray(value).dtype.kind == "f":
            made[name] = tf.train.Feature(float_list=tf.train.FloatList(value=np.ravel(value)))
        else:
            made[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=np.ravel(value)))
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


def write_tfrecord(path, records, **options):
    with tf.io.TFRecordWriter(str(path), **options) as writer:
        for record in records:
            writer.write(record)
    return str(path)


def make_sources(tmp_path, x, y):
    """The same samples in every kind of source that can hold float arrays."""
    np.save(tmp_path / "s.npy", x)
    np.savez(tmp_path / "stored.npz", x=x, y=y)
    np.savez_compressed(tmp_path / "fortran.npz", x=np.asfortranarray(x), y=y[:, None])
    half = len(x) // 2
    records = [features(x=a, label=b) for a, b in zip(x, y, strict=True)]
    write_tfrecord(tmp_path / "a-0.tfrecord", records[:half])
    write_tfrecord(tmp_path / "a-1.tfrecord", records[half:], options="GZIP")
    np.save(tmp_path / "y.npy", y)
    (tmp_path / "mine.py").write_text(
        f"import numpy as np\nx, y = np.load({str(tmp_path / 's.npy')!r}), np.load({str(tmp_path / 'y.npy')!r})\n"
        "def pairs():\n    yield from zip(x, y)\n"
    )
    return {
        "npz": write_npz(tmp_path / "data.npz", x=x, y=y),
        "npz by input name": write_npz(tmp_path / "named.npz", **{"in": x, "y": y}),
        "stored npz": str(tmp_path / "stored.npz"),
        "fortran npz": str(tmp_path / "fortran.npz"),
        "npy": str(tmp_path / "s.npy"),
        "tfrecord": str(tmp_path / "a-*.tfrecord"),
        "function": f"{tmp_path / 'mine.py'}:pairs",
    }


@pytest.mark.parametrize("selection", ["first", "random", "balanced", "coverage"])
def test_all_sources_give_the_same_samples(tmp_path, selection):
    found = {}
    for kind, source in make_sources(tmp_path, X, Y).items():
        if kind == "npy" and selection == "balanced":
            continue
        samples = load_samples(source, SIGNATURE, Selection(20, selection, 5))
        np.testing.assert_array_equal(samples.arrays["in"], X[samples.indices], err_msg=kind)
        if kind != "npy":
            np.testing.assert_array_equal(samples.labels, Y[samples.indices], err_msg=kind)
            assert samples.labels.dtype == np.int64
        found[kind] = tuple(samples.indices.tolist())
    assert len(set(found.values())) == 1
    chosen = np.array(next(iter(found.values())))
    assert len(chosen) == 20
    assert (np.diff(chosen) > 0).all()
    if selection == "first":
        np.testing.assert_array_equal(chosen, np.arange(20))
    if selection == "balanced":
        assert sorted(np.bincount(Y[chosen])) == [6, 7, 7]


def test_without_a_limit_everything_comes_in_order(tmp_path):
    for kind, source in make_sources(tmp_path, X, Y).items():
        samples = load_samples(source, SIGNATURE, Selection(None, "random"), require_labels=kind != "npy")
        np.testing.assert_array_equal(samples.arrays["in"], X, err_msg=kind)
        assert samples.warnings == ()


def test_a_source_with_fewer_samples_than_wanted_gives_all(tmp_path):
    for selection in ("first", "random", "coverage"):
        for kind, source in make_sources(tmp_path, X, Y).items():
            samples = load_samples(source, SIGNATURE, Selection(1000, selection))
            np.testing.assert_array_equal(samples.indices, np.arange(150), err_msg=kind)


def test_the_same_seed_draws_the_same_samples_and_another_seed_others(npz):
    def draw(seed, selection="random"):
        return load_samples(npz, SIGNATURE, Selection(30, selection, seed)).indices.tolist()

    assert draw(1) == draw(1) != draw(2)
    assert draw(1, "balanced") == draw(1, "balanced") != draw(2, "balanced")


def test_coverage_weighs_all_inputs_alike(tmp_path):
    left, right = np.zeros((60, 3), np.float32), np.zeros((60, 2, 2), np.int32)
    left[7] = 1e-3
    right[9] = 10**6
    path = write_npz(tmp_path / "two.npz", left=left, right=right)
    assert set(load_samples(path, TWO, Selection(3, "coverage")).indices) >= {7, 9}


def test_several_inputs_come_by_name_from_every_source(tmp_path):
    left, right = X[:9, 0, :3], np.arange(36).reshape(9, 2, 2)
    np.savez(tmp_path / "plain.npz", left=left, right=right)
    (tmp_path / "mine.py").write_text(
        f"import numpy as np\nd = np.load({str(tmp_path / 'plain.npz')!r})\n"
        "rows = list(zip(d['left'], d['right']))\n"
        "def tuples():\n    return rows\n"
        "def dicts():\n    return [{'right': r, 'left': l, 'other': 0} for l, r in rows]\n"
        "def labelled():\n    return [((l, r), 3) for l, r in rows]\n"
        "def labelled_dicts():\n    return [({'left': l, 'right': r}, 3) for l, r in rows]\n"
    )
    sources = [str(tmp_path / "plain.npz"), write_npz(tmp_path / "y.npz", left=left, right=right, y=np.full(9, 3))]
    sources += [f"{tmp_path / 'mine.py'}:{f}" for f in ("tuples", "dicts", "labelled", "labelled_dicts")]
    sources.append(
        write_tfrecord(
            tmp_path / "r.tfrecord", [features(left=a, right=b, y=3) for a, b in zip(left, right, strict=True)]
        )
    )
    for source in sources:
        samples = load_samples(source, TWO)
        np.testing.assert_array_equal(samples.arrays["left"], left)
        np.testing.assert_array_equal(samples.arrays["right"], right)
        assert samples.arrays["right"].dtype == np.int32
        assert samples.labels is None or samples.labels.tolist() == [3] * 9


def test_a_module_is_found_where_python_looks_and_in_the_working_directory(tmp_path, monkeypatch):
    functions = (
        "def f():\n    return [np.zeros((4, 5))] * 2\ndef batches():\n    yield np.zeros((3, 4, 5)), [0, 1, 2]\n"
    )
    (tmp_path / "data_of_mine.py").write_text(f"import numpy as np\n{functions}")
    monkeypatch.chdir(tmp_path)
    assert len(load_samples("data_of_mine:f", SIGNATURE)) == 2
    assert load_samples("data_of_mine:batches", SIGNATURE).labels.tolist() == [0, 1, 2]
    monkeypatch.chdir("/")
    monkeypatch.syspath_prepend(tmp_path)
    assert len(load_samples("data_of_mine:f", SIGNATURE)) == 2


def image_folder(path, count=6, classes=("cat", "dog"), size=(8, 10)):
    for k in range(count):
        folder = path / classes[k % len(classes)] if classes else path
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{k}.png")
    return path


IMAGES = [InputSignature("image", (8, 10, 3), "float32")]


def test_image_folder_with_and_without_classes(tmp_path):
    labelled = load_samples(str(image_folder(tmp_path / "a")), IMAGES, preprocess="zero_one")
    assert labelled.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert labelled.names[0] == "cat/0.png"
    pixels = np.asarray(Image.open(tmp_path / "a/cat/0.png"))
    np.testing.assert_array_equal(labelled.arrays["image"][0], pixels / np.float32(255))
    flat = load_samples(str(image_folder(tmp_path / "b", classes=())), IMAGES, Selection(4), preprocess="raw")
    assert flat.labels is None
    assert flat.names == ("0.png", "1.png", "2.png", "3.png")


def test_image_folder_decodes_only_the_selected_images(tmp_path):
    folder = image_folder(tmp_path / "a", count=8)
    chosen = load_samples(str(folder), IMAGES, Selection(3, "random", 2), preprocess="raw").names
    for file in folder.rglob("*.png"):
        if file.relative_to(folder).as_posix() not in chosen:
            file.write_bytes(b"broken")
    again = load_samples(str(folder), IMAGES, Selection(3, "random", 2), preprocess="raw")
    assert again.names == chosen


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_images_are_brought_to_the_channels_of_the_input(tmp_path, channels, mode):
    source = Image.fromarray(RNG.integers(0, 256, (8, 10, 3), np.uint8)).quantize()
    source.save(tmp_path / "a.png")
    signature = [InputSignature("i", (8, 10, channels), "uint8")]
    found = load_samples(str(tmp_path), signature).arrays["i"][0]
    np.testing.assert_array_equal(found, np.asarray(source.convert(mode)).reshape(8, 10, channels))


def test_an_image_s_exif_orientation_is_applied(tmp_path):
    image = Image.fromarray(RNG.integers(0, 256, (10, 8, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    found = load_samples(str(tmp_path), IMAGES, preprocess="raw").arrays["image"][0]
    np.testing.assert_array_equal(found, np.rot90(np.asarray(image), -1))


def test_tfrecords_of_images_tensors_and_bytes(tmp_path):
    pixels = RNG.integers(0, 256, (8, 10, 3), np.uint8)
    encoded = tf.io.encode_png(pixels).numpy()
    tensor = tf.io.serialize_tensor(pixels.astype(np.float32)).numpy()
    for name, value in {"image/encoded": encoded, "x": tensor, "image_raw": pixels.tobytes()}.items():
        path = write_tfrecord(tmp_path / "a.tfrecord", [features(**{name: value, "image/class/label": 4})])
        samples = load_samples(path, IMAGES, preprocess="raw")
        np.testing.assert_array_equal(samples.arrays["image"][0], pixels, err_msg=name)
        assert samples.labels.tolist() == [4]


def test_samples_come_in_the_model_s_dtype(tmp_path):
    path = write_npz(tmp_path / "a.npz", x=np.arange(6, dtype=np.int64).reshape(3, 2))
    for dtype in ("float32", "float16", "int32", "int8", "uint8"):
        samples = load_samples(path, [InputSignature("i", (2,), dtype)])
        assert samples.arrays["i"].dtype == dtype
        np.testing.assert_array_equal(samples.arrays["i"], [[0, 1], [2, 3], [4, 5]])


def test_labels_of_any_numeric_shape_survive(tmp_path):
    y = RNG.random((150, 2, 2))
    samples = load_samples(write_npz(tmp_path / "a.npz", x=X, y=y), SIGNATURE, Selection(3, "random"))
    np.testing.assert_array_equal(samples.labels, y[samples.indices])


def test_reading_a_few_of_a_large_npz_is_bounded_too(tmp_path):
    path = write_npz(tmp_path / "a.npz", x=np.zeros((3000, 100, 100), np.float32))
    tracemalloc.start()
    try:
        load_samples(path, [InputSignature("i", (100, 100), "float32")], Selection(5, "random"))
        load_samples(path, [InputSignature("i", (100, 100), "float32")], Selection(5, "coverage"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 48 << 20  # the array has 120 MB


class Watched:
    def __init__(self):
        self.tasks = []

    def task(self, description, total):
        import contextlib

        record = [description, total, 0]
        self.tasks.append(record)

        @contextlib.contextmanager
        def run():
            yield lambda steps: record.__setitem__(2, record[2] + steps)

        return run()


def test_progress_counts_every_sample(npz):
    watched = Watched()
    load_samples(npz, SIGNATURE, resources=Resources(progress=watched))
    load_samples(npz, SIGNATURE, Selection(7, "random"), resources=Resources(progress=watched))
    assert [task[1:] for task in watched.tasks] == [[150, 150], [7, 7]]


# Warnings


def warnings_of(tmp_path, x, *, signature=None, limit=512, selection="first", arrays=None, **options):
    path = write_npz(tmp_path / "w.npz", x=x, **(arrays or {}))
    signature = signature or [InputSignature("in", x.shape[1:], "float32")]
    return load_samples(path, signature, Selection(limit, selection), **options).warnings


def test_good_data_gives_no_warning(tmp_path):
    assert warnings_of(tmp_path, X) == ()


def test_few_calibration_samples_are_warned_about_but_not_few_evaluation_samples(tmp_path):
    assert "only 99 calibration samples;" in warnings_of(tmp_path, X[:99])[0]
    assert "only 1 calibration sample;" in warnings_of(tmp_path, X[:1])[0]
    assert warnings_of(tmp_path, X[:100]) == ()
    assert warnings_of(tmp_path, X[:99], limit=None) == ()


def test_constant_and_identical_data_is_warned_about(tmp_path):
    assert "is 0 in every sample" in warnings_of(tmp_path, np.zeros((120, 3), np.float32))[0]
    assert "all 120 samples of input 'in' are identical" in warnings_of(tmp_path, np.tile(X[:1], (120, 1, 1)))[0]


def test_doubtful_pixel_ranges_are_warned_about(tmp_path):
    pixels = RNG.integers(0, 256, (120, 4, 4, 3), np.uint8)
    assert "uint8 (0..255) and given to the model unscaled" in warnings_of(tmp_path, pixels)[0]
    assert warnings_of(tmp_path, pixels, preprocess="raw") == ()
    unit = pixels / np.float32(255)
    assert "is it preprocessed already?" in warnings_of(tmp_path, unit, preprocess="zero_one")[0]
    assert "expects 0..255" in warnings_of(tmp_path, pixels * np.float32(2) - 9, preprocess="imagenet")[0]


def test_a_first_selection_of_one_class_is_warned_about(tmp_path):
    arrays = {"y": np.sort(Y)}
    assert "have the label 0" in warnings_of(tmp_path, X, limit=10, arrays=arrays)[-1]
    assert not any("label" in w for w in warnings_of(tmp_path, X, limit=10, arrays=arrays, selection="random"))
    assert warnings_of(tmp_path, X, arrays={"y": np.zeros(150, int)}) == ()


def test_calibration_classes_that_are_lopsided_are_warned_about(tmp_path):
    labels = np.r_[np.zeros(110, int), Y[110:]]
    assert "have the label 0" in warnings_of(tmp_path, X, arrays={"y": labels})[0]
    assert "give more of the others" in warnings_of(tmp_path, X, arrays={"y": labels})[0]
    assert "`selection='balanced'`" in warnings_of(tmp_path, X, arrays={"y": labels}, limit=140)[0]
    for even in (Y, np.arange(150) % 2, np.arange(150), np.linspace(0, 1, 150)):
        assert warnings_of(tmp_path, X, arrays={"y": even}) == ()


def test_evaluation_samples_that_are_calibration_samples_or_of_other_classes_are_noticed(tmp_path):
    def load(part):
        path = write_npz(tmp_path / "s.npz", x=X[part], y=np.arange(150)[part] // 15)
        return load_samples(path, [InputSignature("in", X.shape[1:], "float32")])

    some, others, first = load(slice(0, 150, 2)), load(slice(1, 150, 2)), load(slice(0, 40))
    assert compare_samples(some, others) == ()
    assert "75 of the 75 evaluation samples are calibration samples too" in compare_samples(some, some)[0]
    assert "20 of the 75 evaluation samples" in compare_samples(first, some)[0]
    assert compare_samples(first, others)[-1].startswith("the calibration samples have 3 of the 10 classes")


def test_other_files_among_the_images_are_mentioned(tmp_path):
    image_folder(tmp_path)
    (tmp_path / "cat" / "notes.txt").write_text("x")
    (tmp_path / ".DS_Store").write_text("x")
    samples = load_samples(str(tmp_path), IMAGES, preprocess="raw")
    assert samples.warnings == (f"1 files in {tmp_path} are no images and were ignored",)


def test_calibration_and_evaluation_data_scaled_differently_are_noticed(tmp_path):
    def load(x):
        signature = [InputSignature("in", x.shape[1:], "float32")]
        return load_samples(write_npz(tmp_path / "r.npz", x=x), signature)

    unit = RNG.random((100, 6, 6)).astype(np.float32)
    assert compare_ranges(load(unit), load(RNG.random((300, 6, 6)))) == ()
    outlier = unit.copy()
    outlier[0, 0, 0] = 4
    assert compare_ranges(load(unit), load(outlier)) == ()
    for other in (unit * 255, unit * 2 - 1, unit + 3, (unit - 0.45) / 0.225):
        (warning,) = compare_ranges(load(unit), load(other))
        assert "are both preprocessed alike?" in warning
    assert compare_ranges(load(np.ones((3, 2))), load(np.ones((3, 2)))) == ()


# Errors


def refuse(source, message, signatures=SIGNATURE, *, limit=10, selection="first", **options):
    with pytest.raises(UserError, match=message) as caught:
        load_samples(str(source), signatures, Selection(limit, selection), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["no.npz", "no.npy", "no.tfrecord", "no-*.tfrecord", "no", "no.csv"])
def test_missing_files(tmp_path, name):
    refuse(tmp_path / name, "does not exist")


def test_a_file_without_read_permission(npz, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, _: str(path) != npz)  # root may read everything
    refuse(npz, "may not be read by this user")


def test_files_of_another_kind(tmp_path):
    for name in ("text.npz", "text.npy", "text.tfrecord", "text.csv"):
        (tmp_path / name).write_text("this is only text, long enough to be mistaken for something else")
    refuse(tmp_path / "text.npz", "is not an .npz file")
    refuse(tmp_path / "text.npy", "text.npy is no NumPy array")
    refuse(tmp_path / "text.tfrecord", "not a TFRecord file")
    refuse(tmp_path / "text.csv", "no data that can be read")


def test_pickled_objects_are_refused_without_being_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    objects = np.array([Bomb()], dtype=object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=objects, allow_pickle=True)
    np.savez(tmp_path / "b.npz", x=X, y=np.array([Bomb()] * 150, dtype=object), allow_pickle=True)
    for name in ("a.npy", "a.npz", "b.npz"):
        refuse(tmp_path / name, "pickled Python objects")


def test_damaged_archives(tmp_path, npz):
    content = Path(npz).read_bytes()
    truncated = tmp_path / "truncated.npz"
    truncated.write_bytes(content[: len(content) // 2])
    refuse(truncated, "not an .npz file")
    flipped = bytearray(content)
    with zipfile.ZipFile(npz) as archive:
        start = archive.getinfo("x.npy").header_offset + 2000
    flipped[start : start + 50] = bytes(50)
    (tmp_path / "flipped.npz").write_bytes(flipped)
    refuse(tmp_path / "flipped.npz", "cannot read .*flipped.npz", limit=None)
    (tmp_path / "short.npy").write_bytes((np.save(tmp_path / "l.npy", X), (tmp_path / "l.npy").read_bytes())[1][:500])
    refuse(tmp_path / "short.npy", "short.npy ends early: its shape")


def test_missing_arrays(tmp_path):
    path = write_npz(tmp_path / "a.npz", images=X, y=Y)
    refuse(path, "no array 'x'; it has: 'images', 'y'; the model's input may be called 'x' or 'in'")
    refuse(path, "no array for the inputs 'left', 'right'; it has: 'images', 'y'", TWO)
    np.save(tmp_path / "a.npy", X)
    refuse(tmp_path / "a.npy", "the model has the inputs 'left', 'right'; give an .npz", TWO)


@pytest.mark.parametrize(
    ("stored", "expected", "hint"),
    [
        ((28, 28), (28, 28, 1), "add the channel axis"),
        ((28, 28, 1), (28, 28), "drop the last axis"),
        ((3, 32, 32), (32, 32, 3), "channels come last"),
        ((784,), (28, 28), "reshape"),
        ((1, 28, 28), (28, 28), "a batch of 1: give single samples"),
        ((32, 32, 3), (64, 64, 3), r"expects \(64, 64, 3\)$"),
    ],
)
def test_wrong_shapes(tmp_path, stored, expected, hint):
    path = write_npz(tmp_path / "a.npz", x=np.zeros((2, *stored), np.float32))
    refuse(path, f"array 'x' of .* the shape .*{hint}", [InputSignature("i", expected, "float32")])


def test_missing_sample_axis_and_empty_data(tmp_path):
    refuse(write_npz(tmp_path / "a.npz", x=X[0]), "the axis of samples is missing")
    refuse(write_npz(tmp_path / "b.npz", x=np.float32(3)), "a single number")
    refuse(write_npz(tmp_path / "c.npz", x=X[:0]), "is empty")
    (tmp_path / "mine.py").write_text("def f():\n    return []\n")
    for selection in ("first", "random", "coverage"):
        refuse(f"{tmp_path / 'mine.py'}:f", "holds no samples", selection=selection)
    refuse(write_tfrecord(tmp_path / "e.tfrecord", []), "holds no samples")
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", "holds no images", IMAGES, preprocess="raw")


@pytest.mark.parametrize(
    ("x", "dtype", "message"),
    [
        (np.array([["a", "b"]]), "float32", "dtype <U1"),
        (np.array([[1j, 2]]), "float32", "dtype complex128"),
        (np.array([[1.5, 2]]), "int32", "expects whole numbers"),
        (np.array([[1, 300]]), "uint8", r"values in 1\.\.300; uint8 cannot hold"),
        (np.array([[1, 1e39]]), "float32", r"1\.\.1e\+39 .*whose squares float32 cannot hold"),
        (np.array([[-1e38, 1]], np.float32), "float32", "whose squares float32 cannot hold"),
        (np.array([[1, 1e6]]), "float16", "infinite"),
    ],
)
def test_wrong_dtypes(tmp_path, x, dtype, message):
    refuse(write_npz(tmp_path / "a.npz", x=x), message, [InputSignature("i", (2,), dtype)])


def test_structured_arrays(tmp_path):
    refuse(write_npz(tmp_path / "a.npz", x=np.zeros(3, [("p", "f4"), ("q", "f4")])), "dtype")


@pytest.mark.parametrize(("value", "kind"), [(np.nan, "NaN"), (np.inf, "infinite values")])
def test_values_that_are_not_finite_are_named_with_their_sample(tmp_path, value, kind):
    x = X.copy()
    x[37, 1, 2] = value
    refuse(write_npz(tmp_path / "a.npz", x=x), f"sample 37 of array 'x' of .* has {kind}", limit=None)
    assert len(load_samples(str(tmp_path / "a.npz"), SIGNATURE, Selection(37))) == 37


def test_labels_that_are_missing_or_do_not_fit(tmp_path):
    refuse(write_npz(tmp_path / "a.npz", x=X, y=Y[:-1]), "differ in their number of samples: 'x' 150, 'y' 149")
    refuse(write_npz(tmp_path / "b.npz", x=X), "has no labels; labels belong in the array 'y'", require_labels=True)
    refuse(write_npz(tmp_path / "b.npz", x=X), "`selection='balanced'` needs one class label", selection="balanced")
    refuse(write_npz(tmp_path / "c.npz", x=X, y=np.array(["cat"] * 150)), "the label of array 'y' .* dtype <U3")
    refuse(write_npz(tmp_path / "d.npz", x=X, y=np.full(150, np.nan)), "not finite")
    folder = image_folder(tmp_path / "flat", classes=())
    refuse(folder, "one sub-folder per class", IMAGES, preprocess="raw", require_labels=True)
    (tmp_path / "mine.py").write_text(
        "import numpy as np\nx = np.zeros((4, 5))\n"
        "def half():\n    return [(x, 1), x]\n"
        "def other_half():\n    return [x, (x, 1)]\n"
        "def mixed():\n    return [(x, 1), (x, [1, 2])]\n"
    )
    refuse(f"{tmp_path / 'mine.py'}:half", "the label of sample 1 .* is missing")
    refuse(f"{tmp_path / 'mine.py'}:other_half", "the label of sample 1 .* those before are missing")
    refuse(f"{tmp_path / 'mine.py'}:mixed", r"int64 of shape \(2,\), those before are int64 of shape \(\)")


def test_one_corrupt_image_among_many_is_named(tmp_path):
    folder = image_folder(tmp_path / "a", count=12)
    target = folder / "dog" / "5.png"
    content = target.read_bytes()
    for damage in (content[: len(content) // 2], b"text", b""):
        target.write_bytes(damage)
        refuse(folder, "dog/5.png is not a readable image", IMAGES, limit=None, preprocess="raw")


def test_image_folders_that_cannot_serve(tmp_path):
    folder = image_folder(tmp_path / "a")
    refuse(folder, "choose `preprocess`", IMAGES)
    refuse(folder, "a model with one input", TWO, preprocess="raw")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "stray.png")
    refuse(folder, "both directly .stray.png. and in sub-folders", IMAGES, preprocess="raw")
    deep = tmp_path / "deep"
    deep.mkdir()
    Image.fromarray(np.zeros((8, 10), np.uint16)).save(deep / "a.png")
    refuse(deep, "more than 8 bits", IMAGES, preprocess="raw")


def test_functions_that_cannot_serve(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import numpy as np\nx = np.zeros((4, 5))\nrounds = []\n"
        "def raises():\n    yield x\n    raise KeyError('k\\nl')\n"
        "def number():\n    return 3\n"
        "def wrong_dict():\n    yield {'other': x}\n"
        "def three():\n    yield x, x, x\n"
        "def ragged():\n    yield [[1, 2], [3]]\n"
        "def shrinking():\n    rounds.append(1)\n    return [(x, 0)] * (10 - 6 * (len(rounds) > 1))\n"
    )
    refuse(f"{path}:missing", "has no function 'missing'")
    refuse(f"{path}:raises", "fails at sample 1: KeyError")
    refuse(f"{path}:number", "cannot be iterated")
    refuse(f"{path}:wrong_dict", "has no 'in'; it has: 'other'")
    refuse(f"{path}:three", "has 3 arrays; the model has the input 'in'")
    refuse(f"{path}:ragged", "sample 0 of .*ragged")
    refuse(f"{path}:shrinking", "fewer samples on its second pass", selection="balanced", limit=9)
    refuse("no_such_module_anywhere:f", "cannot import 'no_such_module_anywhere'")
    (tmp_path / "broken.py").write_text("1 / 0")
    refuse(f"{tmp_path / 'broken.py'}:f", "ZeroDivisionError")


def test_tfrecords_that_cannot_serve(tmp_path):
    path = tmp_path / "a.tfrecord"
    refuse(write_tfrecord(path, [features(z=1.0)]), "has no feature 'in' or 'x' or .* it has: 'z'")
    refuse(write_tfrecord(path, [features(x=np.zeros(19))]), "holds 19 numbers; input 'in' expects 20")
    refuse(write_tfrecord(path, [features(x=b"abc")]), "3 bytes that are no image")
    refuse(write_tfrecord(path, [b"not an example \xff\xff"]), "is not a tf.train.Example")
    encoded = tf.io.encode_png(np.zeros((8, 10, 3), np.uint8)).numpy()
    refuse(write_tfrecord(path, [features(x=encoded)]), "choose `preprocess`", IMAGES)
    refuse(write_tfrecord(path, [features(x=encoded[:40])]), "not a readable image", IMAGES, preprocess="raw")
    good = write_tfrecord(path, [features(x=X[0]), features(x=X[1])])
    path.write_bytes(path.read_bytes()[:-5])
    refuse(good, "record 1 of .* damaged")
    (tmp_path / "b.tfrecord").write_bytes(gzip.compress(b"text, not records, in a gzip file"))
    refuse(tmp_path / "b.tfrecord", "damaged or not a TFRecord file")


def test_unknown_options(npz):
    refuse(npz, "selection is 'best'; it must be one of first, random", selection="best")
    refuse(npz, "preprocess is 'caffe'", preprocess="caffe")
