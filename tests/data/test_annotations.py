"""Boxes and masks of a folder of images, as the usual tools write them; and what is wrong with them, in one line."""

import json

import numpy as np
import pytest
from PIL import Image

from tfq.data.annotations import read_annotations
from tfq.data.loading import load_samples
from tfq.data.samples import InputSignature
from tfq.errors import UserError

SIZE = (20, 40)  # height and width of every image
# file -> class, left, top, right, bottom in shares
BOXES = {"a.png": [[0, 0.25, 0.1, 0.75, 0.5], [1, 0.5, 0.5, 1, 1]], "sub/b.png": [[1, 0, 0, 0.5, 0.5]]}
NAMES = ("cat", "dog")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    for name in BOXES:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(folder / name)
    return {name: folder / name for name in BOXES}


def coco(tmp_path, images, change=dict.copy):
    height, width = SIZE
    content = {
        "images": [{"id": 7 + i, "file_name": name, "width": width, "height": height} for i, name in enumerate(images)],
        "annotations": [
            {
                "id": 1,
                "image_id": 7 + i,
                "category_id": 3 + 5 * number,
                "bbox": [left * width, top * height, (right - left) * width, (bottom - top) * height],
                "iscrowd": 0,
            }
            for i, name in enumerate(images)
            for number, left, top, right, bottom in BOXES[name]
        ],
        "categories": [{"id": 8, "name": "Dog"}, {"id": 3, "name": "cat"}],
    }
    change(content)
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path / "instances.json"


def yolo(tmp_path, images):
    for name in images:
        file = (tmp_path / "labels" / name).with_suffix(".txt")
        file.parent.mkdir(exist_ok=True, parents=True)
        rows = [f"{c} {(x + r) / 2} {(y + b) / 2} {r - x} {b - y}" for c, x, y, r, b in BOXES[name]]
        file.write_text("\n".join(rows) + "\n")
    return tmp_path / "labels"


def voc(tmp_path, images):
    height, width = SIZE
    (tmp_path / "voc").mkdir()
    for name, image in images.items():
        objects = "".join(
            f"<object><name>{NAMES[c]}</name><difficult>0</difficult><bndbox><xmin>{x * width + 1}</xmin>"
            f"<ymin>{y * height + 1}</ymin><xmax>{r * width}</xmax><ymax>{b * height}</ymax></bndbox></object>"
            for c, x, y, r, b in BOXES[name]
        )
        size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        (tmp_path / "voc" / f"{image.stem}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    return tmp_path / "voc"


def masks(tmp_path, images):
    (tmp_path / "masks").mkdir()
    for i, image in enumerate(images.values()):
        pixels = np.zeros(SIZE, np.uint8)
        pixels[:, : SIZE[1] // 2] = i + 1
        pixels[:2] = 255
        Image.fromarray(pixels).save(tmp_path / "masks" / f"{image.stem}.png")
    return tmp_path / "masks"


@pytest.mark.parametrize("write", [coco, yolo, voc])
@pytest.mark.parametrize("names", [(), NAMES])
def test_the_same_boxes_in_every_format(tmp_path, images, write, names):
    labels, warnings = read_annotations(write(tmp_path, images), images, (8, 8), names)
    assert not warnings
    for label, wanted in zip(labels, BOXES.values(), strict=True):
        assert label.shape == (2, 6)
        np.testing.assert_allclose(label[: len(wanted)], np.column_stack([wanted, np.ones(len(wanted))]), atol=1e-6)
        assert (label[len(wanted) :, 0] == -1).all()


def test_categories_are_numbered_by_the_names_of_the_classes(tmp_path, images):
    labels, _ = read_annotations(coco(tmp_path, images), images, (8, 8), ("bird", "dog", "cat"))
    assert labels[0][:, 0].tolist() == [2, 1]
    with pytest.raises(UserError, match="category 'Dog'"):
        read_annotations(coco(tmp_path, images), images, (8, 8), ("cat", "bird"))


def test_crowds_and_difficult_objects_weigh_nothing(tmp_path, images):
    path = coco(tmp_path, images, lambda content: content["annotations"][0].update(iscrowd=1))
    assert read_annotations(path, images, (8, 8))[0][0][:, 5].tolist() == [0, 1]
    file = voc(tmp_path, images) / "a.xml"
    file.write_text(file.read_text().replace("<difficult>0", "<difficult>1", 1))
    assert read_annotations(file.parent, images, (8, 8))[0][0][:, 5].tolist() == [0, 1]


def test_an_image_without_a_yolo_file_shows_nothing(tmp_path, images):
    folder = yolo(tmp_path, images)
    (folder / "sub/b.txt").unlink()
    labels, warnings = read_annotations(folder, images, (8, 8))
    assert (labels[1][:, 0] == -1).all()
    assert "1 of the 2 images have no .txt" in warnings[0]


def test_samples_of_a_folder_have_the_boxes_and_masks_of_their_files(tmp_path, images):
    signatures = [InputSignature("x", (10, 10, 3), "float32")]
    found = load_samples(
        str(tmp_path / "images" / "sub"), signatures, preprocess="raw", annotations=yolo(tmp_path, images) / "sub"
    )
    np.testing.assert_allclose(found.labels, [[[1, 0, 0, 0.5, 0.5, 1]]])
    found = load_samples(
        str(tmp_path / "images" / "sub"), signatures, preprocess="raw", annotations=masks(tmp_path, images)
    )
    assert found.labels.shape == (1, 10, 10)
    assert set(found.labels[0, 2]) == {2, 0}
    assert (found.labels[0, 0] == 255).all()
    assert not found.class_names


def test_annotations_of_other_than_a_folder_of_images(tmp_path, images):
    np.savez(tmp_path / "data.npz", x=np.zeros((2, 10, 10, 3), np.float32))
    with pytest.raises(UserError, match="of a folder of images"):
        load_samples(
            str(tmp_path / "data.npz"),
            [InputSignature("x", (10, 10, 3), "float32")],
            annotations=coco(tmp_path, images),
        )


def spoil(key, place, **changes):
    return lambda content: content[key][place].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("images"), "no COCO file"),
        (lambda content: content["images"].pop(), "sub/b.png is not among the 1 images"),
        (spoil("images", 0, width=50), "a.png has 50 x 20 pixels; it has 40 x 20"),
        (spoil("images", 0, height=0), "height 0; expected a number"),
        (spoil("annotations", 0, image_id=99), "image 99"),
        (spoil("annotations", 0, category_id=99), "category 99"),
        (spoil("annotations", 0, bbox=[1, 2, 3]), "expected left, top, width, height"),
        (spoil("annotations", 0, bbox=[30, 2, 30, 3]), "a box outside its image"),
        (spoil("annotations", 0, bbox=[30, 2, -3, 3]), "repair it"),
        (lambda content: content["annotations"].clear(), "no box of any of the images"),
    ],
)
def test_what_is_wrong_with_a_coco_file(tmp_path, images, change, message):
    with pytest.raises(UserError, match=message) as told:
        read_annotations(coco(tmp_path, images, change), images, (8, 8))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0 0.5 0.5 0.2", "line 1 of .*expected class, x, y, width, height"),
        ("0.5 0.5 0.5 0.2 0.2", "class 0.5"),
        ("-1 0.5 0.5 0.2 0.2", "class -1"),
        ("0 0.9 0.5 0.4 0.2", "outside its image"),
        ("0 0.9 0.5 nan 0.2", "repair it"),
    ],
)
def test_what_is_wrong_with_a_yolo_file(tmp_path, images, row, message):
    folder = yolo(tmp_path, images)
    (folder / "a.txt").write_text(row + "\n")
    with pytest.raises(UserError, match=message):
        read_annotations(folder, images, (8, 8))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<annotation>", '<!DOCTYPE a [<!ENTITY b "c">]><annotation>', "entities"),
        ("</annotation>", "", "no VOC annotation"),
        ("<width>40", "<width>41", "41 x 20 pixels; it has 40 x 20"),
        ("<xmin>", "<left>", "no VOC annotation"),
    ],
)
def test_what_is_wrong_with_a_voc_file(tmp_path, images, old, new, message):
    file = voc(tmp_path, images) / "a.xml"
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        read_annotations(file.parent, images, (8, 8))


def test_what_is_wrong_with_masks(tmp_path, images):
    folder = masks(tmp_path, images)
    (folder / "b.png").unlink()
    with pytest.raises(UserError, match=r"sub/b.png has no .png"):
        read_annotations(folder, images, (8, 8))
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(folder / "b.png")
    with pytest.raises(UserError, match="5 x 5 pixels; it has 40 x 20"):
        read_annotations(folder, images, (8, 8))
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(folder / "b.png")
    with pytest.raises(UserError, match="mode RGB; expected one byte a pixel"):
        read_annotations(folder, images, (8, 8))
    (folder / "b.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="not a readable mask"):
        read_annotations(folder, images, (8, 8))


def test_what_is_no_annotation_at_all(tmp_path, images):
    with pytest.raises(UserError, match="does not exist"):
        read_annotations(tmp_path / "nowhere", images, (8, 8))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no .txt, .xml or .png with the name of an image"):
        read_annotations(tmp_path / "empty", images, (8, 8))
    folder = voc(tmp_path, images)
    (folder / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(UserError, match="YOLO and VOC"):
        read_annotations(folder, images, (8, 8))
