"""What describes a model elsewhere: the Hub's card, and figures of the layers for Model Explorer."""

import dataclasses
import json
import pathlib
import re

import numpy as np
import pytest
import tf_keras
import yaml

import tfq
from tfq.errors import UserError
from tfq.execution.files import EXPLORER_NAMES, OUTPUT_NAMES
from tfq.execution.machine import this_machine
from tfq.export import flatbuffer
from tfq.pipeline import plan_of
from tfq.recipe import Recipe
from tfq.report.model_card import model_card
from tfq.report.page import page
from tfq.report.summary import summary


@pytest.fixture(scope="module")
def result():
    tf_keras.utils.set_random_seed(0)
    image = tf_keras.Input((16, 16, 3), name="image")
    features = tf_keras.layers.Conv2D(6, 3, 2, activation="relu", name="features")(image)
    scores = tf_keras.layers.Dense(4, "softmax", name="scores")(tf_keras.layers.Flatten()(features))
    images = np.random.default_rng(0).integers(0, 256, (120, 16, 16, 3), np.uint8)
    options = {"preprocess": "zero_one", "model_card": True, "model_explorer": True}
    return tfq.quantize(tf_keras.Model(image, scores), images, evaluation=(images, np.arange(120) % 4), **options)


def test_the_card_holds_what_was_measured(result):
    card = result.files["MODEL_CARD.md"].decode()
    front, text = re.fullmatch(r"---\n(.*?)\n---\n\n(.*)", card, re.DOTALL).groups()
    told = yaml.safe_load(front)
    assert told["library_name"] == "tflite"
    assert told["pipeline_tag"] == "image-classification"
    evaluation = result.report.evaluation
    score, difference = evaluation.models[-1].score, evaluation.models[-1].difference
    assert f"{difference.value:+.2f} points [{difference.low:+.2f}, {difference.high:+.2f}] (95 % interval" in text
    assert f"{score.value:.2f} %" in text
    assert this_machine().cpu in text
    assert f"{len(result.tflite) / 1e3:.3g} kB" in text
    assert "licence" in text
    (info,) = (line for line in text.splitlines() if "`image`" in line)
    assert "| int8 |" in info
    assert text.startswith("# ")
    assert {len(level) for level in re.findall(r"^(#+) [A-Z]", text, re.MULTILINE)} == {2, 3}


def test_a_named_data_set_gets_an_entry_in_the_index(result):
    report = json.loads(result.files["report.json"])
    report["recipe"]["evaluation_data"] = "/home/me/flowers: test.npz"
    told = yaml.safe_load(model_card(report, result.files["HOWTO.md"].decode()).split("---")[1])
    (entry,) = told["model-index"]
    (row,) = entry["results"]
    assert row["task"] == {"type": "image-classification"}
    assert row["dataset"] == {"name": "flowers: test.npz", "type": "flowers: test.npz"}
    assert row["metrics"] == [
        {"type": "accuracy", "value": round(report["evaluation"]["models"][-1]["score"]["value"], 4)}
    ]


def test_node_data_is_of_operations_of_the_file(result):
    file = flatbuffer.parse(result.tflite)
    graph = file.subgraphs[0]
    written = {flatbuffer.text(graph.tensors[i].name) for operator in graph.operators for i in operator.outputs}
    layers = {layer.name: layer for layer in result.report.layers}
    for figure, field in {"error": "own_sqnr_db", "bits": "weight_bits", "time": "time_ms"}.items():
        ((subgraph, data),) = json.loads(result.files[EXPLORER_NAMES[figure]]).items()
        assert subgraph == flatbuffer.text(graph.name)
        assert data["results"].keys() <= written
        assert {key: value["value"] for key, value in data["results"].items()} == {
            key: getattr(layer, field) for key, layer in layers.items() if getattr(layer, field) is not None
        }
        assert [stop["stop"] for stop in data["gradient"]] == [0, 1]
    assert {"features", "scores"} <= json.loads(result.files[EXPLORER_NAMES["bits"]])["main"]["results"].keys()


def test_the_files_may_be_replaced_and_need_a_model(result):
    assert {stage.name for stage in result.report.stages} <= set(plan_of(result.report.recipe))
    assert set(result.files) <= set(OUTPUT_NAMES)
    with pytest.raises(UserError, match="`model_card` is true and the model is simulated only"):
        Recipe("m", "d", activation_bits=4, model_card=True)


def test_all_say_how_many_samples_there_were_to_learn_from(result):
    for further, said in ((0, "ted to 120 calibration samples[.,]"), (900, "and 900 distillation samples[.,]")):
        report = dataclasses.replace(result.report, distillation_samples=further)
        parsed = json.loads(report.to_json())
        for text in (summary(report), page(parsed), model_card(parsed, result.files["HOWTO.md"].decode())):
            assert re.search(said.replace("ted to ", "") if "<html" in text else said, text)


def test_the_command_ends_with_every_file_that_was_asked_for(result):
    lines = summary(result.report, pathlib.Path("out"), result.files).splitlines()
    named = {line.split()[1] for line in lines[-6:]}
    assert named == {
        f"out/{name}" for name in ("report.html", "model.tflite", "MODEL_CARD.md", *EXPLORER_NAMES.values())
    }
    boxes = summary(result.report, pathlib.Path("out"), ["model_nms.tflite"])
    assert boxes.endswith("\nnms:    out/model_nms.tflite (gives boxes)")
