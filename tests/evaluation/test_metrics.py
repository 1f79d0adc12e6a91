import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfq.errors import UserError
from tfq.evaluation.bootstrap import point
from tfq.evaluation.metric import Predictions
from tfq.evaluation.metrics import METRICS, find_metric


def predictions(outputs, labels=None, inputs=None, baseline=None):
    outputs = np.asarray(outputs, np.float32)
    return Predictions(
        (outputs,),
        None if labels is None else np.asarray(labels),
        {"x": np.zeros((len(outputs), 2)) if inputs is None else np.asarray(inputs)},
        (outputs if baseline is None else np.asarray(baseline, np.float32),),
    )


def score(metric, *args, **kwargs):
    found = predictions(*args, **kwargs)
    return point(find_metric(metric).statistic(found), len(found.outputs[0]))


def on_repeated_samples(metric, found, weights):
    """(statistic of weights, statistic of the samples themselves repeated so often)."""
    again = Predictions(
        tuple(np.repeat(v, weights, axis=0) for v in found.outputs),
        np.repeat(found.labels, weights, axis=0),
        {n: np.repeat(v, weights, axis=0) for n, v in found.inputs.items()},
        tuple(np.repeat(v, weights, axis=0) for v in found.baseline),
    )
    weighted = METRICS[metric].statistic(found).of_weights(np.asarray([weights], np.float64))[0]
    return weighted, point(METRICS[metric].statistic(again), int(np.sum(weights)))


# int8 outputs tie often, so values are drawn from few levels
classified = st.integers(6, 8).flatmap(
    lambda classes: st.lists(
        st.tuples(st.lists(st.integers(0, 3), min_size=classes, max_size=classes), st.integers(0, classes - 1)),
        min_size=2,
        max_size=12,
    )
)


@given(classified)
def test_top1_is_argmax_and_top5_a_stable_sort(data):
    outputs, labels = np.float32([row for row, _ in data]), np.array([label for _, label in data])
    ranked = [sorted(range(len(row)), key=lambda c, row=row: -row[c]) for row in outputs]
    for k in (1, 5):
        expected = 100 * np.mean([label in order[:k] for order, label in zip(ranked, labels, strict=True)])
        assert score(f"top{k}", outputs, labels) == pytest.approx(expected)
    assert score("top1", outputs, labels) == pytest.approx(100 * np.mean(outputs.argmax(1) == labels))


@given(classified)
def test_macro_f1_by_counting(data):
    outputs, labels = np.float32([row for row, _ in data]), np.array([label for _, label in data])
    predicted = outputs.argmax(1)
    each = []
    for c in range(outputs.shape[1]):
        true_positive = sum(1 for p, y in zip(predicted, labels, strict=True) if p == c and y == c)
        wrong = sum(1 for p, y in zip(predicted, labels, strict=True) if (p == c) != (y == c))
        if true_positive or wrong:
            each.append(2 * true_positive / (2 * true_positive + wrong))
    assert score("f1", outputs, labels) == pytest.approx(100 * sum(each) / len(each))


def test_binary_f1_is_that_of_class_one():
    labels, predicted = np.array([1, 1, 1, 0, 0, 0]), np.array([1, 0, 0, 1, 0, 0])  # TP 1, FP 1, FN 2
    for outputs in (np.eye(2)[predicted], 0.2 + 0.6 * predicted[:, None]):
        assert score("f1", outputs, labels) == pytest.approx(100 * 2 / 5)
        assert score("top1", outputs, labels) == pytest.approx(50.0)


reconstructed = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=20).filter(
    lambda data: len({anomaly for _, anomaly in data}) == 2
)


@given(reconstructed)
def test_auc_of_reconstruction_error_by_comparing_all_pairs(data):
    errors, labels = np.array([e for e, _ in data], np.float32), np.array([a for _, a in data])
    inputs = np.random.default_rng(0).normal(size=(len(data), 3)).astype(np.float32)
    outputs = inputs + np.sqrt(errors)[:, None]
    # the rounding of inputs + error - inputs must not break ties, so the oracle ranks what comes out
    errors = np.mean((outputs.astype(np.float64) - inputs) ** 2, axis=1)
    pairs = [(a > b) + (a == b) / 2 for a in errors[labels] for b in errors[~labels]]
    assert score("auc", outputs, labels.astype(int), inputs=inputs) == pytest.approx(np.mean(pairs))
    assert score("auc", errors[:, None], labels, inputs=np.zeros((len(data), 3))) == pytest.approx(
        np.mean(
            [
                (np.float32(a) > np.float32(b)) + (np.float32(a) == np.float32(b)) / 2
                for a in errors[labels]
                for b in errors[~labels]
            ]
        )
    )


def test_cosine_of_embeddings_against_targets_and_against_the_baseline():
    baseline = np.float32([[1, 0], [3, 4], [0, 0], [0, 0], [2, 0]])
    outputs = np.float32([[2, 0], [4, 3], [0, 0], [1, 0], [-1, 0]])
    each = np.array([1, 24 / 25, 1, 0, -1])
    assert score("cosine", outputs, np.arange(5), baseline=baseline) == pytest.approx(each.mean())
    assert score("cosine", outputs, baseline, baseline=outputs) == pytest.approx(each.mean())
    assert score("cosine", outputs[:3, 0], None, baseline=-outputs[:3, 0]) == pytest.approx(-1 / 3)
    tokens = [np.stack([rows, outputs], axis=1) for rows in (outputs, baseline)]  # two vectors a sample
    assert score("cosine", tokens[0], None, baseline=tokens[1]) == pytest.approx((each.mean() + 1) / 2)


def test_mse_and_sqnr_against_targets_and_against_the_baseline():
    generator = np.random.default_rng(0)
    baseline = generator.normal(size=(9, 4)).astype(np.float32)
    outputs = baseline + generator.normal(size=(9, 4)).astype(np.float32) / 10
    targets = baseline + 1
    for labels, target in ((None, baseline), (targets, targets), (np.zeros(9, int), baseline)):
        difference = outputs.astype(np.float64) - target
        assert score("mse", outputs, labels, baseline=baseline) == pytest.approx(np.mean(difference**2))
        expected = 10 * np.log10(np.sum(np.float64(target) ** 2) / np.sum(difference**2))
        assert score("sqnr", outputs, labels, baseline=baseline) == pytest.approx(expected)
    assert score("sqnr", baseline, baseline=baseline) == np.inf


@given(st.sampled_from(["top1", "top5", "f1", "auc", "mse", "sqnr"]), st.data())
def test_weights_count_as_repetitions(metric, data):
    n = 10
    generator = np.random.default_rng(data.draw(st.integers(0, 1000)))
    weights = data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n).filter(lambda w: min(w[0], w[5]) > 0))
    outputs = generator.integers(0, 4, (n, 6)).astype(np.float32)
    inputs, baseline = generator.normal(size=(n, 6)), generator.normal(size=(n, 6))
    labels = np.arange(n) // 5 if metric == "auc" else generator.integers(0, 6, n)
    weighted, repeated = on_repeated_samples(metric, predictions(outputs, labels, inputs, baseline), weights)
    assert weighted == pytest.approx(repeated)


def test_auc_of_one_class_is_undefined():
    statistic = METRICS["auc"].statistic(predictions(np.ones((3, 1)), [0, 0, 1]))
    assert np.isnan(statistic.of_weights(np.array([[1.0, 2.0, 0.0]]))).all()


def test_positions_of_a_map_are_averaged():
    outputs = np.eye(3)[np.array([[[0, 1], [2, 2]], [[1, 1], [0, 0]]])]
    labels = np.array([[[0, 1], [2, 0]], [[1, 0], [1, 2]]])
    assert score("top1", outputs, labels) == pytest.approx(50.0)


def test_labels_may_be_one_hot_or_a_column():
    outputs = np.eye(4)[[0, 1, 2, 3]]
    for labels in (
        np.array([0, 1, 1, 3]),
        np.array([[0], [1], [1], [3]]),
        np.eye(4)[[0, 1, 1, 3]],
        [0.0, 1.0, 1.0, 3.0],
    ):
        assert score("top1", outputs, labels) == 75.0


BOXES = np.tile([1.0, 0.1, 0.2, 0.5, 0.6], (3, 2, 1))


@pytest.mark.parametrize(
    ("metric", "outputs", "labels", "message"),
    [
        ("top1", np.eye(3), [1, 2, 3], "the labels reach 1 to 3, the model has 3 classes"),
        ("top1", np.eye(3), [-1, 0, 1], "reach -1 to 1"),
        ("top1", np.eye(3), [0.5, 1, 2], "fractions"),
        ("top1", np.eye(3), [[0, 1], [1, 2], [2, 0]], r"labels of shape \(3,\) for this output, got \(3, 2\)"),
        ("top1", np.eye(3), np.full((3, 3), 0.3), "one-hot"),
        ("top1", [[3.0], [-2.0]], [1, 0], "as a probability, but it reaches -2 to 3"),
        ("top1", np.eye(3), None, "needs labels"),
        ("f1", np.eye(3), None, "needs labels"),
        ("top5", np.eye(5), [0, 1, 2, 3, 4], "more than 5 classes"),
        ("auc", np.ones((3, 1)), [1, 1, 1], "both must occur"),
        ("auc", np.ones((3, 1)), [0, 1, 2], "0 .normal. or 1 .anomaly."),
        ("auc", np.ones((3, 5)), [0, 1, 1], "needs an autoencoder"),
        ("top1", np.eye(3), BOXES, "needs classes, and these labels are boxes; add `metric='map'` and the `decoder`"),
        ("miou", np.ones((3, 4, 4, 2)), BOXES, "needs masks, and these labels are boxes"),
        ("map", BOXES, np.ones((3, 8, 8), int), "needs boxes, and these labels are masks.*or use `metric='miou'`"),
        ("ap50", np.full((3, 9, 6), 0.4), BOXES, "metric ap50 judges hold a class of 0.4.*; add `decoder`"),
    ],
)
def test_what_a_metric_cannot_judge(metric, outputs, labels, message):
    with pytest.raises(UserError, match=message):
        score(metric, outputs, labels)


def test_an_output_is_judged_once():
    with pytest.raises(UserError, match="`outputs` names 's' twice"):
        find_metric("top1", outputs=("s", "t", "s"))


def test_unknown_metric_lists_the_choices():
    with pytest.raises(UserError, match=r"'top2'; it must be one of top1, .*, sqnr.*, or module:function"):
        find_metric("top2")


@pytest.fixture
def own_metrics(tmp_path, monkeypatch):
    (tmp_path / "my_metrics.py").write_text(
        "import numpy as np\n"
        "def hit(outputs, labels): return outputs.argmax(1) == labels\n"
        "def spread(outputs, labels): return outputs.std()\n"
        "def gain(outputs, labels, inputs): return outputs.sum(1) - inputs['x'].sum(1)\n"
        "def wrong(outputs, labels): return np.zeros(2)\n"
        "def broken(outputs, labels): return labels['none']\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("own_metrics")
def test_own_functions():
    outputs, labels = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32), np.array([0, 1, 2, 0, 1, 2])
    assert score("my_metrics:hit", outputs, labels) == pytest.approx(np.mean(outputs.argmax(1) == labels))
    assert score("my_metrics:spread", outputs, labels) == pytest.approx(outputs.std())
    inputs = np.ones((6, 2))
    assert score("my_metrics:gain", outputs, labels, inputs=inputs) == pytest.approx(
        np.mean(outputs.sum(1) - 2), abs=1e-6
    )
    statistic = find_metric("my_metrics:spread").statistic(predictions(outputs, labels))
    drawn = statistic.of_weights(np.array([[6.0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]]))
    np.testing.assert_allclose(drawn, [outputs[0].std(), outputs.std()], rtol=1e-5)


@pytest.mark.usefixtures("own_metrics")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_metrics:wrong", r"shape \(2,\); expected one number or \[3\] scores"),
        ("my_metrics:broken", "failed: IndexError"),
        ("my_metrics:none", "cannot be loaded"),
        ("my_metrics:number", "cannot be loaded"),
        ("no_such_module:f", "cannot be loaded: .*no such module and no file no_such_module.py"),
    ],
)
def test_own_functions_that_do_not_work(name, message):
    with pytest.raises(UserError, match=message):
        score(name, np.eye(3), [0, 1, 2])
