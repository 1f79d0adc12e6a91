import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfq.errors import UserError
from tfq.evaluation.names import name_models


@pytest.fixture
def files(classifier, tmp_path):
    _, images, first, second = classifier
    (tmp_path / "float.tflite").write_bytes(first)
    (tmp_path / "int8.tflite").write_bytes(second)
    np.savez(tmp_path / "test.npz", x=images, y=np.arange(120) % 4)
    np.savez(tmp_path / "unlabelled.npz", x=images)
    np.savez(tmp_path / "shape.npz", x=images[:, :4], y=np.arange(120) % 4)
    nan = images.copy()
    nan[5] = np.nan
    np.savez(tmp_path / "nan.npz", x=nan, y=np.arange(120) % 4)
    (tmp_path / "cut.tflite").write_bytes(second[: len(second) // 2])
    return tmp_path


def evaluate(files, *arguments):
    command = [sys.executable, "-m", "tfq_tools.evaluate", *arguments]
    return subprocess.run(command, cwd=files, capture_output=True, text=True)


def test_table_and_json(files):
    models = "--models=float.tflite,int8.tflite"
    done = evaluate(files, models, "--evaluation_data=test.npz", "--latency_runs=4", "--json=out/result.json")
    assert done.returncode == 0, done.stderr
    data = json.loads((files / "out/result.json").read_text())
    header, rule, first, second, *_ = done.stdout.splitlines()
    assert header.split()[:2] == ["model", "top1"]
    assert set(rule) == {"-", " "}
    for line, model in zip((first, second), data["models"], strict=True):
        assert line.startswith(model["name"])
        assert f"{model['score']['value']:.2f} %" in line
        assert f"{model['size']['file_bytes']:,}" in line
        assert f"{model['latency']['p50_ms']:.3f}" in line
    assert f"{data['models'][1]['difference']['value']:+.2f} [" in second
    assert "INFO" not in done.stderr


def test_one_model_without_labels_or_latency(files):
    done = evaluate(files, "--models=int8.tflite", "--evaluation_data=unlabelled.npz", "--latency_runs=0")
    assert done.returncode == 0, done.stderr
    assert "No score: metric top1 needs labels, and the data has none." in done.stdout
    assert "p50" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models=none.tflite", "--evaluation_data=test.npz"], "the model none.tflite cannot be read: no such file"),
        (["--models=cut.tflite", "--evaluation_data=test.npz"], "cut.tflite is truncated or corrupt"),
        (["--models=float.tflite,test.npz", "--evaluation_data=test.npz"], "test.npz is not a .tflite file"),
        (["--models=float.tflite", "--evaluation_data=none.npz"], "none.npz"),
        (["--models=float.tflite", "--evaluation_data=shape.npz"], "(4, 8, 1)"),
        (["--models=float.tflite", "--evaluation_data=nan.npz"], "NaN"),
        (["--models=float.tflite", "--evaluation_data=test.npz", "--metric=top2"], "one of top1, top5, auc"),
        (["--models=float.tflite", "--evaluation_data=test.npz", "--metric=top5"], "more than 5 classes"),
        (["--models=float.tflite", "--evaluation_data=test.npz", "--metric=auc"], "0 (normal) or 1 (anomaly)"),
        (["--models=float.tflite"], "missing --evaluation_data"),
    ],
)
def test_errors_are_one_line_with_exit_code_2(files, arguments, message):
    done = evaluate(files, *arguments)
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("tfq-evaluate: error: ")
    assert message in line
    assert "Traceback" not in done.stderr


def test_help_is_there_without_tensorflow():
    script = (
        "import sys; sys.modules['tensorflow'] = None; sys.argv[1:] = ['--help'];"
        " import tfq_tools.evaluate as command; command.run()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--evaluation_data" in done.stdout


def test_names_tell_files_apart():
    paths = [Path("a/x/model.tflite"), Path("b/x/model.tflite")]
    assert list(name_models(paths)) == ["a/x/model.tflite", "b/x/model.tflite"]
    assert list(name_models([Path("out/a.tflite"), Path("out/b.tflite")])) == ["a.tflite", "b.tflite"]


def test_the_same_file_twice():
    with pytest.raises(UserError, match=r"names a\.tflite twice"):
        name_models([Path("a.tflite"), Path("b.tflite"), Path("a.tflite")])


CASES = Path(__file__).parents[2].parent / "shared"


@pytest.mark.skipif(not (CASES / "data").is_dir(), reason="the real models and data (../shared/data) are not here")
def test_resnet8_scores_what_its_authors_say(tmp_path):
    import tensorflow as tf
    import tf_keras

    keras_model = tf_keras.models.load_model(CASES / "data/models/resnet8_cifar10.h5", compile=False)
    (tmp_path / "resnet8.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(keras_model).convert())
    data = f"--evaluation_data={CASES / 'data/cifar10_test.npz'}"
    done = evaluate(tmp_path, "--models=resnet8.tflite", data, "--latency_runs=0")
    assert done.returncode == 0, done.stderr
    assert "87.69 %" in done.stdout
