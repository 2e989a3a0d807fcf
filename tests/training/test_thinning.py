"""Which images are left to train on, on labels alone: no image is read."""

from collections import Counter

import pytest

from dg_batchformer.catalog.datasets import dataset_facts
from dg_batchformer.datasets.base import Dataset, Environment
from dg_batchformer.datasets.counts import known_versions
from dg_batchformer.errors import InputError
from dg_batchformer.spec.run import RunRequest
from dg_batchformer.training.sampling import split_environments
from dg_batchformer.training.thinning import count_classes


class _Labels(Environment):
    def load(self, indices):
        raise NotImplementedError

    def contents(self):
        raise NotImplementedError


class Labelled(Dataset):
    """The labels of a dataset as it was published."""

    registered = False

    def __init__(self, name, counts):
        self.facts = dataset_facts(name)
        self.classes = sorted(next(iter(counts.values())))
        labels = {env: [self.classes.index(kind) for kind in images for _ in range(images[kind])]
                  for env, images in counts.items()}  # fmt: skip
        self.environments = [_Labels(name, labels[name]) for name in self.facts.names]


@pytest.fixture(scope="module")
def pacs():
    return Labelled("PACS", known_versions("PACS")[0].counts)


def _splits(dataset, **asked):
    spec = RunRequest(dataset=dataset.facts.name, **asked).resolve()
    return spec, split_environments(spec, dataset)


def test_only_the_training_part_of_training_environments_is_thinned(pacs):
    _, whole = _splits(pacs, trial_seed=1)
    spec, thinned = _splits(pacs, trial_seed=1, imbalance="long_tail:50")

    for (env, part), indices in whole.items():
        if env in spec.train_envs and part == "in":
            left = set(thinned[env, part])
            assert left < set(indices)
            assert thinned[env, part] == [index for index in indices if index in left]
        else:
            assert thinned[env, part] == indices


def test_the_images_kept_follow_from_the_trial_and_fewer_of_a_class_are_some_of_more(pacs):
    _, first = _splits(pacs, imbalance="long_tail:10")
    _, again = _splits(pacs, imbalance="long_tail:10")
    _, other = _splits(pacs, imbalance="long_tail:10", trial_seed=1)
    _, fewer = _splits(pacs, imbalance="long_tail:100")

    assert first == again != other
    for label in range(7):
        more, less = ({i for i in splits[3, "in"] if pacs[3].labels[i] == label} for splits in (first, fewer))
        assert more <= less or less <= more


def test_the_ratio_is_that_of_the_most_to_the_least_frequent_class(pacs):
    spec, splits = _splits(pacs, imbalance="long_tail:25")

    for images in count_classes(pacs, splits, spec.train_envs).values():
        assert max(images) // 25 in (min(images), min(images) + 1, min(images) - 1)


def test_a_balanced_validation_split_has_as_many_of_every_class(pacs):
    _, whole = _splits(pacs, imbalance="step:10")
    spec, splits = _splits(pacs, imbalance="step:10:balanced")

    for env in spec.train_envs:
        rarest = min(Counter(pacs[env].labels[index] for index in whole[env, "out"]).values())
        assert set(Counter(pacs[env].labels[index] for index in splits[env, "out"]).values()) == {rarest}
        assert splits[env, "in"] == whole[env, "in"]


@pytest.mark.parametrize(
    ("setting", "test_env", "train_env", "published"),  # dog to person, as in NDCL's release
    [
        ("TotalHeavyTail", 0, 3, [283, 580, 38, 9, 101, 1, 4]),
        ("TotalHeavyTail", 3, 2, [85, 32, 5, 2, 3, 18, 333]),
        ("Duality", 1, 0, [33, 5, 216, 101, 13, 3, 1]),
        ("Cross", 2, 3, [12, 3, 27, 474, 71, 52, 6]),
        ("idg", 3, 1, [341, 400, 255, 107, 90, 33, 16]),
    ],
)
def test_counts_are_those_that_ndcl_publishes(pacs, setting, test_env, train_env, published):
    spec, splits = _splits(pacs, test_envs=[test_env], imbalance=setting)

    assert count_classes(pacs, splits, spec.train_envs)[train_env] == published
    validating = Counter(pacs[train_env].labels[index] for index in splits[train_env, "out"])
    assert validating == dict.fromkeys(range(7), 25 if setting == "idg" else 15)
    assert not set(splits[train_env, "in"]) & set(splits[train_env, "out"])
    assert len(splits[test_env, "in"]) > 1000


PUBLISHED = {  # training images by test environment, summed over NDCL's release
    ("PACS", "TotalHeavyTail"): (1843, 1761, 2037, 1686),
    ("PACS", "Duality"): (942, 987, 707, 732),
    ("PACS", "Cross"): (1427, 1600, 1427, 863),
    ("PACS", "idg"): (4350, 4321, 4401, 2949),
    ("VLCS", "TotalHeavyTail"): (2991, 2714, 2689, 2517),
    ("VLCS", "Duality"): (1020, 816, 741, 737),
    ("VLCS", "Cross"): (1279, 1349, 1396, 1103),
    ("VLCS", "idg"): (4086, 4090, 3895, 3865),
    ("OfficeHome", "TotalHeavyTail"): (2869, 2564, 2688, 2730),
    ("OfficeHome", "Duality"): (1636, 1596, 1627, 1714),
    ("OfficeHome", "Cross"): (1542, 1670, 1782, 1542),
}


@pytest.mark.parametrize(("dataset", "setting"), PUBLISHED)
def test_every_setting_of_ndcl_fits_its_dataset_and_has_the_published_size(dataset, setting):
    data = Labelled(dataset, known_versions(dataset)[0].counts)

    for test_env, total in enumerate(PUBLISHED[dataset, setting]):
        spec, splits = _splits(data, test_envs=[test_env], imbalance=setting)
        assert sum(map(sum, count_classes(data, splits, spec.train_envs).values())) == total


def test_a_copy_with_too_few_images_is_refused():
    few = Labelled("PACS", {name: dict.fromkeys("abcdefg", 20) for name in dataset_facts("PACS").names})

    with pytest.raises(InputError, match=r"PACS/cartoon has 0 images of dog, and imbalance Duality trains on 29"):
        _splits(few, imbalance="Duality")
