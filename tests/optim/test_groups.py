"""Parameter groups: every parameter once, at the learning rate of its part."""

import pytest
import torch
from support import make_algorithm, make_minibatches

from dg_batchformer.errors import InputError
from dg_batchformer.optim.groups import describe_groups, group_lines


def _rates(optimizer):
    return [(group["lr"], sum(p.numel() for p in group["params"])) for group in optimizer.param_groups]


def test_by_default_there_is_one_group_and_one_of_batchformers():
    assert len(make_algorithm("ERM").optimizer.param_groups) == 1
    assert len(make_algorithm("ERM+BF").inner.optimizer.param_groups) == 2


def test_the_head_has_its_own_learning_rate_and_so_has_what_a_method_gives_one():
    algorithm = make_algorithm("DANN+BF", lr_g=1e-3, lr_d=1e-2, head_lr_scale=10.0, bf_lr_scale=0.1).inner

    featurizer, head, encoder = (rate for rate, _ in _rates(algorithm.gen_opt))

    assert (featurizer, head, encoder) == (1e-3, 1e-2, 1e-4)
    assert [rate for rate, _ in _rates(algorithm.disc_opt)] == [1e-2]


@pytest.mark.parametrize("name", ["DANN", "CDANN+BF", "ADRMX", "SWAD+ADRMX+BF"])
def test_discriminators_and_class_embeddings_train_while_featurizers_are_held(name):
    algorithm = make_algorithm(name, tune="head_then_all", head_steps=4, lr=1e-2)
    before = {name: p.detach().clone() for name, p in algorithm.named_parameters()}
    for step in range(4):
        algorithm.begin_update(step, 8)
        algorithm.update(make_minibatches(seed=step))

    moved = {name for name, p in algorithm.named_parameters() if not torch.equal(p, before[name])}
    adversaries = {name for name in before if "discriminator" in name or "class_embeddings" in name}
    assert adversaries
    assert adversaries <= moved
    assert not any("featurizer" in name and "batchformer" not in name for name in moved)


def test_a_discriminator_is_no_featurizer_and_keeps_the_learning_rate_that_its_method_gives_it():
    algorithm = make_algorithm("CDANN", lr_d=1e-3, head_lr_scale=10.0)

    assert [rate for rate, _ in _rates(algorithm.disc_opt)] == [1e-3]
    assert {row["part"] for row in describe_groups(algorithm) if row["optimizer"] == "disc_opt"} == {"head"}


@pytest.mark.parametrize("name", ["ERMPlusPlus", "CRT"])
def test_methods_that_train_the_classifier_separately_refuse_to_freeze_it(name):
    with pytest.raises(InputError, match=f"{name} trains the classifier separately, but head_lr_scale 0 freezes it"):
        make_algorithm(name, head_lr_scale=0.0)


def test_stages_learn_more_slowly_the_earlier_they_are():
    algorithm = make_algorithm("ERM", backbone="small_cnn", lr=1.0, layer_decay=0.5)
    named = dict(algorithm.named_parameters())
    rate = {id(p): group["lr"] for group in algorithm.optimizer.param_groups for p in group["params"]}

    found = {name: rate[id(p)] for name, p in named.items() if name.startswith("featurizer")}

    assert found["featurizer.blocks.0.0.weight"] == 0.125
    assert found["featurizer.blocks.1.1.bias"] == 0.25
    assert found["featurizer.blocks.2.0.weight"] == 0.5
    assert found["featurizer.output.weight"] == 1.0
    assert rate[id(algorithm.classifier.weight)] == 1.0


def test_groups_are_described_with_the_parameters_that_train():
    algorithm = make_algorithm("ERM", head_lr_scale=2.0, lr=1e-3)
    algorithm.featurizer.requires_grad_(False)

    featurizer, head = describe_groups(algorithm)

    assert (featurizer["part"], featurizer["trainable"], featurizer["lr"]) == ("featurizer", 0, 1e-3)
    assert (head["part"], head["trainable"], head["lr"]) == ("head", 16 * 7 + 7, 2e-3)
    assert group_lines([head]) == ["optimizer, head: 119 of 119 train, lr 0.002, weight decay 0"]
