"""What data may take: of files in columns, of sources that do not end, of images and records of absurd sizes."""

import itertools
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from tfq.data import functions as functions_module
from tfq.data.images import resize_bilinear
from tfq.data.loading import Selection, load_samples
from tfq.data.npy import read_header, rows
from tfq.data.samples import InputSignature, SampleWriter
from tfq.errors import UserError

SIGNATURE = [InputSignature("in", (4, 5), "float32")]
X = np.random.default_rng(0).standard_normal((150, 4, 5)).astype(np.float32)


@pytest.mark.parametrize("shape", [(150, 4, 5), (7, 3), (3_000_000, 2), (5, 1)])
@pytest.mark.parametrize("stop", [1, 4, 10**9])
def test_rows_of_columns_are_those_of_the_array(tmp_path, shape, stop):
    array = np.asfortranarray(np.arange(np.prod(shape), dtype=np.int32).reshape(shape))
    np.save(tmp_path / "a.npy", array)
    with (tmp_path / "a.npy").open("rb") as stream:
        header = read_header(stream, "a")
        assert header.fortran_order == (min(shape) > 1)
        found = list(itertools.islice(rows(stream, header, stop, "a"), 200))
    assert len(found) == min(stop, shape[0], 200)
    np.testing.assert_array_equal(found, array[: len(found)])


def test_a_few_rows_of_columns_take_little_memory_and_no_disk(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", x=np.asfortranarray(np.zeros((400_000, 4, 5), np.float32)))  # 32 MB
    monkeypatch.setattr("tempfile.TemporaryFile", None)
    tracemalloc.start()
    samples = load_samples(str(tmp_path / "a.npz"), SIGNATURE, Selection(32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(samples) == 32
    assert peak < 16e6


def test_many_rows_of_columns_go_through_a_file_for_which_there_is_room(tmp_path, monkeypatch):
    monkeypatch.setattr("tfq.data.npy._IN_MEMORY", 1000)
    np.savez_compressed(tmp_path / "a.npz", x=np.asfortranarray(X))
    np.testing.assert_array_equal(load_samples(str(tmp_path / "a.npz"), SIGNATURE).arrays["in"], X)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((0,) * 10))
    with pytest.raises(UserError, match=r"needs .* GiB of temporary files, and .* has 0.0 GiB free"):
        load_samples(str(tmp_path / "a.npz"), SIGNATURE)


@pytest.fixture
def endless(tmp_path, monkeypatch):
    (tmp_path / "endless.py").write_text(
        "import numpy as np\ndef samples():\n    while True:\n        yield np.ones((4, 5), np.float32), 1\n"
    )
    monkeypatch.setattr(functions_module, "MOST_SAMPLES", 2000)
    return f"{tmp_path / 'endless.py'}:samples"


@pytest.mark.parametrize("selection", ["random", "balanced", "coverage"])
def test_a_source_that_never_ends(endless, selection):
    with pytest.raises(UserError, match="does not end: it has given 2,000 samples"):
        load_samples(endless, SIGNATURE, Selection(32, selection))
    with pytest.raises(UserError, match="does not end"):
        load_samples(endless, SIGNATURE)
    assert len(load_samples(endless, SIGNATURE, Selection(32))) == 32


def test_a_source_of_too_many_bytes(endless, monkeypatch):
    monkeypatch.setattr(functions_module, "MOST_BYTES", 80 * 100)
    with pytest.raises(UserError, match="does not end: it has given 100 samples"):
        load_samples(endless, SIGNATURE, Selection(32, "random"))


def test_a_full_disk_is_told(monkeypatch):
    class Full:
        def seek(self, _):
            raise OSError(28, "No space left on device")

    writer = SampleWriter(2**30)
    writer.write(0, {"in": X[0]}, None)
    monkeypatch.setattr(writer, "_files", {"in": Full()})
    with pytest.raises(UserError, match=r"do not fit into .*: No space left on device; make room, set TMPDIR"):
        writer.write(1, {"in": X[1]}, None)


def test_what_a_member_claims_is_compared_with_the_file(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=X)
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\1\2") + 24
    content[place : place + 4] = struct.pack("<I", 2**31)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"array 'x' of .* claims 2,147,483,648 bytes in"):
        load_samples(str(path), SIGNATURE, Selection(3))


def test_zeros_are_no_bomb(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((10_000, 4, 5), np.float32))
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert archive.infolist()[0].file_size > 200 * archive.infolist()[0].compress_size
    assert len(load_samples(str(tmp_path / "a.npz"), SIGNATURE)) == 10_000


def test_large_images_take_little_more_than_they_are():
    pixels = np.random.default_rng(0).integers(0, 256, (3000, 3000, 3), np.uint8)
    tracemalloc.start()
    resize_bilinear(pixels, 32, 32)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6


# ---- class folders --------------------------------------------------------------------------------------------------

IMAGE = [InputSignature("in", (4, 4, 1), "float32")]


@pytest.fixture
def folders(tmp_path):
    for name, value in (("Zebra", 1), ("polar_bear", 2), ("cat", 3)):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.fromarray(value + np.eye(4, dtype=np.uint8)).save(tmp_path / "data" / name / "a.png")
    return tmp_path / "data"


def load(folder, **options):
    return load_samples(str(folder), IMAGE, preprocess="raw", **options)


def test_class_folders_are_matched_by_name(folders):
    labels = ("zebra", "dog", "cat", "Polar Bear")
    samples = load(folders, class_names=labels)
    by_value = dict(zip(samples.arrays["in"][:, 0, 1, 0].tolist(), samples.labels.tolist(), strict=True))
    assert by_value == {1.0: 0, 2.0: 3, 3.0: 2}
    assert samples.class_names == labels
    assert "Zebra = 0, cat = 2, polar_bear = 3" in samples.warnings[0]


def test_without_names_class_folders_are_numbered_in_order(folders):
    samples = load(folders)
    assert samples.class_names == ("Zebra", "cat", "polar_bear")
    assert samples.labels.tolist() == [0, 1, 2]
    assert samples.warnings == ()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("zebra", "polar bear"), "the sub-folders cat of .* are none of the 2 `labels`"),
        (("a", "b", "c"), "the sub-folders Zebra, cat, polar_bear of .* are none of the 3 `labels` .a, b, c.; call"),
        (("zebra", "cat", "CAT", "polar bear"), "the sub-folders cat of .* fit several `labels` each"),
    ],
)
def test_class_folders_that_no_name_fits(folders, labels, message):
    with pytest.raises(UserError, match=message):
        load(folders, class_names=labels)


def test_two_class_folders_of_one_name(folders):
    (folders / "CAT").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folders / "CAT/a.png")
    with pytest.raises(UserError, match=r"two sub-folders of .* fit the same label"):
        load(folders, class_names=("zebra", "cat", "polar bear"))


def test_links_to_folders_are_followed_once(folders, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/cat").symlink_to(folders / "cat")
    (tmp_path / "linked/cat/again").symlink_to(tmp_path / "linked")
    (tmp_path / "linked/zebra").symlink_to(folders / "Zebra")
    assert load(tmp_path / "linked").class_names == ("cat", "zebra")


def test_a_folder_that_may_not_be_read_is_told(folders, monkeypatch):
    scan = os.scandir

    def scandir(path):
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match="cat cannot be read: Permission denied; make it readable"):
        load(folders)


def test_a_name_that_is_no_utf_8(folders):
    (folders / os.fsdecode(b"caf\xe9")).mkdir()
    (folders / os.fsdecode(b"caf\xe9/a.png")).write_bytes((folders / "cat/a.png").read_bytes())
    with pytest.raises(UserError, match="whose bytes are no UTF-8; rename it"):
        load(folders)
