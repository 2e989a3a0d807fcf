import pytest
import torch
from support import make_algorithm, quick_spec, run_quickly
from torch.nn import functional as F

from dg_batchformer.datasets import get_dataset_class
from dg_batchformer.results.class_accuracy import recorded
from dg_batchformer.spec.imbalance import Thresholds
from dg_batchformer.storage.folders import RunFolder
from dg_batchformer.training.evaluate import Evaluator
from dg_batchformer.training.loaders import Batch, ExactLoader


def test_accuracy_and_loss_are_means_over_a_split():
    dataset = get_dataset_class("Toy")(None, [3], {})
    algorithm, spec = make_algorithm("ERM", dataset="Toy"), quick_spec()
    splits = {(0, "out"): list(range(100)), (1, "out"): [3, 4], (2, "out"): [0], (3, "in"): list(range(70))}
    with ExactLoader(dataset.environments, 8, 0, print) as loader:
        evaluate = Evaluator(spec, loader, splits, torch.device("cpu"))

        evaluation = evaluate(algorithm, 0)

    algorithm.eval()
    for (env, split), indices in splits.items():
        logits, y = algorithm.predict(dataset[env].images[indices]), torch.tensor(dataset[env].labels)[indices]
        assert evaluation.accuracy[env, split] == pytest.approx((logits.argmax(dim=1) == y).double().mean().item())
        assert abs(evaluation.loss[env, split] - F.cross_entropy(logits, y).item()) < 1e-6
    validation = evaluation.validation(spec.train_envs)
    assert validation.accuracy == sum(evaluation.accuracy[env, "out"] for env in range(3)) / 3


class _Confused(type(make_algorithm("ERM", dataset="Toy"))):
    """An algorithm that predicts the class that an image names."""

    def predict(self, x):
        return F.one_hot(x.flatten().long(), 3).float()


class _Pairs:
    """A loader of the pairs of true and predicted class in a confusion matrix; the image is the predicted class."""

    def __init__(self, confusion):
        self.pairs = confusion.nonzero().repeat_interleave(confusion[confusion > 0], dim=0)

    def stream(self, tasks):
        for [request] in tasks:
            true, predicted = self.pairs[request.indices].T
            yield [Batch(predicted[:, None].float(), true)]


def test_accuracies_by_class_and_by_frequency_are_those_of_a_confusion_matrix():
    confusion = torch.tensor([[70, 5, 5], [6, 12, 2], [0, 3, 1]])  # true by predicted class: 80, 20 and 4 images
    algorithm = make_algorithm("ERM", dataset="Toy")
    algorithm.__class__ = _Confused
    splits = {(3, "in"): list(range(104))}
    evaluate = Evaluator(quick_spec(imbalance="natural"), _Pairs(confusion), splits, torch.device("cpu"))

    evaluation = evaluate(algorithm, 0)

    assert evaluation.accuracy[3, "in"] == pytest.approx(83 / 104)
    assert evaluation.by_class[3, "in"] == pytest.approx([70 / 80, 12 / 20, 1 / 4])
    shots = Thresholds(many=100, few=20).shots({0: [150, 30, 9], 1: [90, 40, 2]})
    pooled = recorded(3, "in", evaluation.by_class[3, "in"], shots)
    assert [pooled[f"env3_in_{group}_acc"] for group in ("many", "medium", "few")] == [0.875, 0.6, 0.25]
    assert pooled["env3_in_balanced_acc"] == pytest.approx((0.875 + 0.6 + 0.25) / 3)
    assert pooled["env3_in_worst_class_acc"] == 0.25


def test_evaluation_does_not_change_training(tmp_path):
    models = []
    for freq in (1, 6, 13):
        run_quickly(quick_spec(algorithm="MLDG+BF", checkpoint_freq=freq), tmp_path / str(freq))
        models.append(torch.load(RunFolder(tmp_path / str(freq)).model_file, weights_only=True)["predictor"])

    for model in models[1:]:
        assert all(torch.equal(model[name], models[0][name]) for name in model)


class _Cramped(type(make_algorithm("ERM", dataset="Toy"))):
    """An algorithm that only has memory for a few rows."""

    room = 10

    def predict(self, x):
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().predict(x)


def test_out_of_memory_evaluation_halves_its_batches_and_evaluates_every_image_once():
    dataset = get_dataset_class("Toy")(None, [3], {})
    algorithm, spec = make_algorithm("ERM", dataset="Toy"), quick_spec()
    splits = {(env, "out"): list(range(90)) for env in range(3)}
    with ExactLoader(dataset.environments, 8, 0, print) as loader:
        evaluate = Evaluator(spec, loader, splits, torch.device("cpu"))
        expected = evaluate(algorithm, 0)
        algorithm.__class__ = _Cramped

        cramped = evaluate(algorithm, 0)

        assert evaluate.batch_size == 8, "the smaller batch is kept"
        assert cramped.accuracy == expected.accuracy
        assert cramped.loss == pytest.approx(expected.loss)
        algorithm.room = 0
        with pytest.raises(torch.OutOfMemoryError):
            evaluate(algorithm, 0)


def test_batches_that_predictions_depend_on_are_never_halved(monkeypatch):
    dataset = get_dataset_class("Toy")(None, [3], {})
    algorithm = make_algorithm("ERM", dataset="Toy")
    algorithm.__class__ = _Cramped
    monkeypatch.setattr(_Cramped, "batch_dependent", True)
    with ExactLoader(dataset.environments, 8, 0, print) as loader:
        evaluate = Evaluator(quick_spec(), loader, {(0, "out"): list(range(90))}, torch.device("cpu"))

        with pytest.raises(torch.OutOfMemoryError):
            evaluate(algorithm, 0)


@pytest.mark.parametrize(("dependent", "sizes"), [(False, {64}), (True, {64, 26, 3})])
def test_compiled_networks_see_one_batch_size_unless_predictions_depend_on_it(dependent, sizes, monkeypatch):
    dataset = get_dataset_class("Shapes")(None, [3], {})
    algorithm, spec = make_algorithm("ERM"), quick_spec(dataset="Shapes", hparams={"backbone": "tiny"})
    splits = {(env, "out"): list(range(90 if env else 3)) for env in range(3)}
    with ExactLoader(dataset.environments, 16, 0, print) as loader:
        evaluate = Evaluator(spec, loader, splits, torch.device("cpu"))
        expected, seen = evaluate(algorithm, 0), []
        monkeypatch.setattr(type(algorithm), "batch_dependent", dependent)
        algorithm.featurizer.compiles_evaluation = True
        monkeypatch.setattr(
            algorithm.featurizer, "forward", lambda x: seen.append(len(x)) or algorithm.featurizer.features(x)
        )

        compiled = evaluate(algorithm, 0)

    assert set(seen) == sizes
    assert compiled.accuracy == expected.accuracy
    assert compiled.loss == pytest.approx(expected.loss)
