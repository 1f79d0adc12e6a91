"""Bad data, metrics and functions for the table of `bad_inputs`: every case is a file that tfq-evaluate is given."""

from __future__ import annotations

import gzip
import io
import os
import pathlib
import struct
import zipfile
from collections.abc import Mapping

import numpy as np
from bad_inputs import Case, call
from PIL import Image

X = np.random.default_rng(0).uniform(0, 4, (20, 8, 8, 1)).astype(np.float32)
Y = np.arange(20) % 4
MAGIC = b"\x93NUMPY"


def npy(
    header: str | bytes, *, version: tuple[int, int] = (1, 0), length: int | None = None, data: bytes = b""
) -> bytes:
    """An .npy with any header."""
    text = header.encode() if isinstance(header, str) else header
    size = len(text) if length is None else length
    return MAGIC + bytes(version) + size.to_bytes(2 if version == (1, 0) else 4, "little") + text + data


def described(shape: str = "(20, 8, 8, 1)", dtype: str = "'<f4'", order: str = "False") -> str:
    return f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


HEADERS: Mapping[str, bytes] = {
    "empty": b"",
    "the magic alone": MAGIC,
    "no length": MAGIC + b"\1\0",
    "words": b"this is no array, but long enough",
    "another version": npy(described(), version=(9, 9)),
    "version 3": npy(described(), version=(3, 0)),
    "a length of 0": npy(""),
    "a header that ends early": npy(described(), length=5000),
    "a header of 4 GiB": npy(described(), version=(2, 0), length=2**32 - 1),
    "a header of 60 kB": npy(described() + " " * 60_000),
    "an open bracket": npy("{'descr': (((((("),
    "an open text": npy("{'descr': '''<f4"),
    "a bad indent": npy("  {\n 'descr'\n   : 1"),
    "brackets": npy("[" * 5000),
    "binary": npy(bytes(range(128, 256))),
    "null bytes": npy(b"\0" * 100),
    "a list": npy("[1, 2]"),
    "code": npy("__import__('os').system('true')"),
    "no shape": npy("{'descr': '<f4', 'fortran_order': False}"),
    "more keys": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (20,), 'x': 1}"),
    "an odd dtype": npy(described(dtype="'?!'")),
    "dtype 7": npy(described(dtype="7")),
    "dtype None": npy(described(dtype="None")),
    "a dtype of objects": npy(described(dtype="'|O'"), data=bytes(10000)),
    "a dtype of texts": npy(described(dtype="'<U3'"), data=bytes(30000)),
    "a dtype of nothing": npy(described(dtype="'|V0'")),
    "a dtype of dates": npy(described(dtype="'<M8[s]'"), data=bytes(30000)),
    "complex numbers": npy(described(dtype="'<c8'"), data=bytes(30000)),
    "a structure": npy(described(dtype="[('a', '<f4'), ('b', '<i4')]"), data=bytes(30000)),
    "a dtype with a shape": npy(described(dtype="('<f4', (1000000000,))")),
    "an order that is none": npy(described(order="'maybe'")),
    "a negative length": npy(described("(-20, 8, 8, 1)"), data=bytes(6000)),
    "two negative lengths": npy(described("(-20, -8, 8, 1)"), data=bytes(6000)),
    "a shape of texts": npy(described("('20', 8, 8, 1)")),
    "a shape of fractions": npy(described("(20.0, 8, 8, 1)")),
    "a shape that is no tuple": npy(described("20")),
    "no axes": npy(described("()"), data=bytes(4)),
    "a sample alone": saved(X[0]),
    "no samples": saved(X[:0]),
    "no pixels": npy(described("(20, 8, 0, 1)")),
    "a shape beyond 64 bits": npy(described("(4294967296, 4294967296, 4294967296, 1)")),
    "samples beyond all": npy(described("(1000000000000000, 8, 8, 1)"), data=bytes(6000)),
    "samples beyond the file": npy(described("(21, 8, 8, 1)"), data=X.tobytes()),
    "rows missing": saved(X)[:-100],
    "another shape": saved(X[:, :7]),
    "channels first": saved(np.moveaxis(X, -1, 1)),
    "NaN": saved(np.where(X > 3.9, np.nan, X)),
    "infinity": saved(np.where(X > 3.9, np.inf, X)),
    "1e38": saved(np.where(X > 3.9, np.float32(1e38), X)),
    "-3e38": saved(np.where(X > 3.9, np.float32(-3e38), X)),
    "1e300": saved(np.where(X > 3.9, 1e300, X.astype(np.float64))),
    "integers beyond float": saved(np.full(X.shape, 2**63 + 5, np.uint64)),
    "pickled": saved(np.array([{}], dtype=object)),
}


def archive(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return file.getvalue()


GOOD_X, GOOD_Y = saved(X), saved(Y)


def _lying(**fields: tuple[int, int, int]) -> bytes:
    """The good archive with values changed in its directory: name -> (place in an entry, bytes, value)."""
    content = bytearray(archive({"x.npy": GOOD_X, "y.npy": GOOD_Y}))
    entry = content.index(b"PK\1\2")
    for place, size, value in fields.values():
        content[entry + place : entry + place + size] = value.to_bytes(size, "little")
    return bytes(content)


def _bomb(shape: str, zeros: int, order: str = "False") -> bytes:
    """A member that inflates to `zeros` bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made, made.open("x.npy", "w", force_zip64=True) as member:
        member.write(npy(described(shape, order=order)))
        for _ in range(zeros >> 20):
            member.write(bytes(1 << 20))
    return file.getvalue()


ARCHIVES: Mapping[str, bytes] = {
    **{f"x with a header of {name}": archive({"x.npy": content, "y.npy": GOOD_Y}) for name, content in HEADERS.items()},
    "empty": b"",
    "words": b"this is no archive",
    "half an archive": archive({"x.npy": GOOD_X})[:500],
    "the end missing": archive({"x.npy": GOOD_X})[:-10],
    "no members": archive({}),
    "another name": archive({"images.npy": GOOD_X}),
    "a member that is no array": archive({"x": GOOD_X}),
    "bzip2": archive({"x.npy": GOOD_X, "y.npy": GOOD_Y}, zipfile.ZIP_BZIP2),
    "lzma": archive({"x.npy": GOOD_X, "y.npy": GOOD_Y}, zipfile.ZIP_LZMA),
    "fewer labels": archive({"x.npy": GOOD_X, "y.npy": saved(Y[:10])}),
    "labels without an axis": archive({"x.npy": GOOD_X, "y.npy": saved(np.array(3))}),
    "labels of texts": archive({"x.npy": GOOD_X, "y.npy": saved(np.array(["a"] * 20))}),
    "labels of objects": archive({"x.npy": GOOD_X, "y.npy": saved(np.array([None] * 20))}),
    "labels of NaN": archive({"x.npy": GOOD_X, "y.npy": saved(np.full(20, np.nan))}),
    "labels of fractions": archive({"x.npy": GOOD_X, "y.npy": saved(np.full(20, 0.5))}),
    "labels beyond the classes": archive({"x.npy": GOOD_X, "y.npy": saved(np.full(20, 4))}),
    "labels below 0": archive({"x.npy": GOOD_X, "y.npy": saved(np.full(20, -1))}),
    "one label beyond the classes": archive({"x.npy": GOOD_X, "y.npy": saved(np.where(np.arange(20) == 19, 9, Y))}),
    "labels of 2 axes": archive({"x.npy": GOOD_X, "y.npy": saved(np.zeros((20, 3), np.int64))}),
    "labels of 4 GiB": archive(
        {"x.npy": GOOD_X, "y.npy": npy(described("(20, 100000000)", "'|i1'"), data=bytes(1 << 20))}
    ),
    "labels with a damaged header": archive({"x.npy": GOOD_X, "y.npy": npy("{'descr': ((((")}),
    "encrypted": _lying(flag=(8, 2, 1)),
    "a size of 4 GiB": _lying(size=(24, 4, 2**32 - 2)),
    "another place": _lying(place=(42, 4, 2**31)),
    "another method": _lying(method=(10, 2, 77)),
    "another checksum": _lying(checksum=(16, 4, 12345)),
    "a flipped byte": archive({"x.npy": GOOD_X}, zipfile.ZIP_STORED).replace(GOOD_X[200:210], bytes(10)),
    "a bomb": _bomb("(1000000000000, 8, 8, 1)", 64 << 20),
    "a bomb in columns": _bomb("(1000000000000, 8, 8, 1)", 64 << 20, order="True"),
}


def _images() -> dict[str, bytes]:
    """One bad image each."""

    def encoded(form: str, image: Image.Image, **options: object) -> bytes:
        file = io.BytesIO()
        image.save(file, form, **options)
        return file.getvalue()

    plain = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    png, jpeg = encoded("PNG", plain), encoded("JPEG", plain)
    large = bytearray(png)
    large[16:24] = (60_000).to_bytes(4, "big") * 2
    wide = bytearray(png)
    wide[16:24] = (11_000).to_bytes(4, "big") * 2
    return {
        "empty.png": b"",
        "words.png": b"this is no image",
        "half.png": png[: len(png) // 2],
        "half.jpg": jpeg[: len(jpeg) // 2],
        "head.jpg": jpeg[:20],
        "bomb.png": bytes(large),
        "wide.png": bytes(wide),
        "deep.png": encoded("PNG", Image.fromarray(np.full((8, 8), 40_000, np.uint16))),
        "float.tif": encoded("TIFF", Image.fromarray(np.zeros((8, 8), np.float32))),
        "zip.jpg": archive({"a": b"b"}),
        "tiff.tif": b"II*\0" + bytes(40),
        "gif.gif": b"GIF89a" + bytes(20),
        "webp.webp": b"RIFF\x20\0\0\0WEBPVP8 " + bytes(30),
        "bmp.bmp": b"BM" + bytes(60),
    }


def _record(data: bytes) -> bytes:
    import tensorflow as tf

    file = f"/tmp/tfq-record-{os.getpid()}"
    with tf.io.TFRecordWriter(file) as writer:
        writer.write(data)
    content = pathlib.Path(file).read_bytes()
    os.unlink(file)
    return content


def _records() -> dict[str, bytes]:
    import tensorflow as tf

    train = tf.train

    def example(**features: object) -> bytes:
        return _record(train.Example(features=train.Features(feature=features)).SerializeToString())

    def floats(values: object) -> object:
        return train.Feature(float_list=train.FloatList(value=np.ravel(values)))

    def texts(*values: bytes) -> object:
        return train.Feature(bytes_list=train.BytesList(value=values))

    good, label = example(x=floats(X[0])), train.Feature(int64_list=train.Int64List(value=[1]))
    flipped = bytearray(good)
    flipped[40] ^= 255
    return {
        "empty": b"",
        "words": b"this is no record, but long enough",
        "half a record": good[:50],
        "a flipped byte": bytes(flipped),
        "a length of 2^62": struct.pack("<Q", 1 << 62) + good[8:],
        "a length of 1 GiB": struct.pack("<Q", 1 << 30) + good[8:],
        "no example": _record(b"\xff\xff\xff"),
        "no features": _record(b""),
        "another name": example(images=floats(X[0])),
        "too few numbers": example(x=floats(X[0, :4])),
        "NaN": example(x=floats(np.full_like(X[0], np.nan))),
        "1e38": example(x=floats(np.full_like(X[0], 1e38))),
        "words in it": example(x=texts(b"words")),
        "two byte strings": example(x=texts(b"a", b"b")),
        "no byte strings": example(x=texts()),
        "a damaged image": example(x=texts(b"\x89PNG" + bytes(40))),
        "an image without preprocessing": example(x=texts(b"\xff\xd8\xff" + bytes(40))),
        "a label of text": example(x=floats(X[0]), y=texts(b"cat")),
        "labels of two shapes": good + example(x=floats(X[0]), y=label),
        "a damaged gzip": gzip.compress(good)[:40],
        "words in gzip": gzip.compress(b"this is no record, but long enough"),
    }


FUNCTIONS = """
import os, sys, numpy as np
X = np.ones((8, 8, 1), np.float32)
def needs_one(path): yield X
def raises(): raise ValueError("two\\nlines")
def returns_none(): return None
def returns_number(): return 5
def returns_function(): return raises
def exits(): sys.exit(0)
def exits_with_text(): sys.exit("bye")
def exits_later():
    yield X
    sys.exit(0)
def raises_later():
    yield X
    raise KeyError("x")
def quits_generator():
    yield X
    raise GeneratorExit
def stops(): raise StopIteration
def yields_none(): yield None
def yields_text(): yield "x"
def yields_dict(): yield {"images": X}
def yields_three(): yield X, X, X
def yields_shape(): yield X[:4]
def yields_batches(): yield np.stack([[X] * 4] * 2)
def yields_ragged(): yield [[1, 2], [3]]
def yields_nan(): yield X * np.nan
def yields_large(): yield X * 1e38
def yields_complex(): yield X * 1j
def yields_objects(): yield np.array([object()])
def yields_nothing(): yield from ()
def yields_texts_as_labels(): yield X, "cat"
def yields_labels_beyond(): yield X, 99
def yields_other_labels():
    yield X, 1
    yield X, [1, 2]
def yields_some_labels():
    yield X, 1
    yield X
class Array:
    def __array__(self, *a, **k): raise RuntimeError("no array")
class Exits:
    def __array__(self, *a, **k): raise OSError(5, "io")
def yields_broken(): yield Array()
def yields_failing(): yield Exits()
async def is_async(): return [X]
async def is_async_generator(): yield X
class Class:
    def __init__(self): raise TypeError("no")
number = 5
text = "x"
"""
METRICS = """
import sys, numpy as np
def none(outputs, labels): pass
def nan(outputs, labels): return float("nan")
def nans(outputs, labels): return np.full(len(outputs), np.nan)
def text(outputs, labels): return "good"
def words(outputs, labels): return ["good"] * len(outputs)
def complex_(outputs, labels): return 1j
def mapping(outputs, labels): return {"score": 1.0}
def ragged(outputs, labels): return [[1], [1, 2]]
def too_few(outputs, labels): return np.ones(2)
def matrix(outputs, labels): return np.ones((len(outputs), 2))
def empty(outputs, labels): return []
def objects(outputs, labels): return np.array([None] * len(outputs))
def raises(outputs, labels): raise ValueError("two\\nlines")
def asserts(outputs, labels): assert False
def exits(outputs, labels): sys.exit(0)
def exits_with_text(outputs, labels): sys.exit("bye")
def divides(outputs, labels): return 1 / 0
def recurses(outputs, labels): return recurses(outputs, labels)
def no_parameters(): return 1
def one(outputs): return 1
def four(a, b, c, d): return 1
def named(outputs, labels, *, needed): return 1
def generator(outputs, labels): yield 1
async def is_async(outputs, labels): return 1
class Broken:
    def __array__(self, *a, **k): raise RuntimeError("no array")
def broken(outputs, labels): return Broken()
number = 5
text_value = "x"
"""
MODULES = {
    "bad_syntax": "def f(:\n",
    "bad_indent": "def f():\nreturn 1\n",
    "bad_raises": "raise ValueError('two\\nlines')\n",
    "bad_exits": "import sys; sys.exit(0)\n",
    "bad_exits_text": "import sys; sys.exit('bye')\n",
    "bad_imports": "import no_such_module_anywhere\n",
    "bad_name": "undefined_name\n",
    "bad_getattr": "def __getattr__(name): raise RuntimeError(name)\n",
    "bad_nothing": "",
}


def make_data(place: pathlib.Path) -> None:
    for number, content in enumerate(HEADERS.values()):
        (place / f"header{number}.npy").write_bytes(content)
    for number, content in enumerate(ARCHIVES.values()):
        (place / f"archive{number}.npz").write_bytes(content)
    for number, content in enumerate(_records().values()):
        (place / f"records{number}.tfrecord").write_bytes(content)
    for name, content in _images().items():
        folder = place / f"images_{name.replace('.', '_')}"
        folder.mkdir()
        (folder / name).write_bytes(content)
    good = place / "images_good/cat"
    good.mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(good / "a.png")
    for name in ("empty", "hidden", "words", "mixed", "pipe", "gone"):
        (place / f"images_{name}").mkdir()
    (place / "images_hidden/.a.png").write_bytes(b"")
    (place / "images_words/a.txt").write_text("x")
    for path in ("a.png", "cat/a.png"):
        (place / "images_mixed" / path).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(place / "images_mixed" / path)
    os.mkfifo(place / "images_pipe/a.png")
    (place / "images_gone/a.png").symlink_to("nowhere.png")
    (place / "bad_functions.py").write_text(FUNCTIONS)
    (place / "bad_metrics.py").write_text(METRICS)
    for name, text in MODULES.items():
        (place / f"{name}.py").write_text(text)
    (place / "bad_latin.py").write_bytes("x = 'caf\u00e9'".encode("latin-1"))
    (place / "bad_null.py").write_bytes(b"x = 1\0")


def data_cases() -> dict[str, Case]:
    found = {}
    for number, name in enumerate(HEADERS):
        found[f"evaluate, npy: {name}"] = call("evaluate", evaluation_data=f"header{number}.npy")
    for number, name in enumerate(ARCHIVES):
        found[f"evaluate, npz: {name}"] = call("evaluate", evaluation_data=f"archive{number}.npz")
    for number in range(21):
        found[f"evaluate, records {number}"] = call("evaluate", evaluation_data=f"records{number}.tfrecord")
    images = [f"{n}_{e}" for n, e in (x.split(".") for x in IMAGE_NAMES)]
    for name in (*images, "empty", "hidden", "words", "mixed", "pipe", "gone"):
        found[f"evaluate, images: {name}"] = call("evaluate", evaluation_data=f"images_{name}", preprocess="raw")
    found["evaluate, images without preprocessing"] = call("evaluate", evaluation_data="images_good")
    found["evaluate, images of a scaling that needs colours"] = call(
        "evaluate", evaluation_data="images_good", preprocess="imagenet"
    )
    modules = [*(f"{name}:f" for name in MODULES), "bad_latin:f", "bad_null:f", "no_such_module:f", "no.such:f"]
    for name in [*_names(FUNCTIONS, "bad_functions"), *modules, "bad_functions:f", "bad_functions.py:f"]:
        found[f"evaluate, data by {name}"] = call("evaluate", evaluation_data=name)
    for name in [*_names(METRICS, "bad_metrics"), *modules, "bad_metrics:f", "bad_metrics.py:f"]:
        found[f"evaluate, metric {name}"] = call("evaluate", metric=name)
        if name in modules:
            found[f"quantize, metric {name}"] = call("quantize", metric=name)
            found[f"bench, metric {name}"] = call("bench", metric=name)
    return found


IMAGE_NAMES = (
    *("empty.png", "words.png", "half.png", "half.jpg", "head.jpg", "bomb.png", "wide.png", "deep.png", "float.tif"),
    *("zip.jpg", "tiff.tif", "gif.gif", "webp.webp", "bmp.bmp"),
)


def _names(text: str, module: str) -> list[str]:
    """The functions and values of a module's text that are meant to be called."""
    lines = [line.removeprefix("async ") for line in text.splitlines()]
    functions = [line[4:].split("(")[0] for line in lines if line.startswith("def ")]
    values = [line.split(" = ")[0] for line in lines if line.startswith(("number = ", "text = ", "text_value = "))]
    return [f"{module}:{name}" for name in (*functions, *values)]
