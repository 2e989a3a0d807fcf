"""my-protocol: what it fixes, and the contracts of every protocol."""

from dg_batchformer.hparams_registry import default_hparams, random_hparams
from dg_batchformer.testing import assert_contracts


def test_it_sets_and_draws_the_hparams_of_the_paper():
    assert_contracts("my_protocol")

    assert default_hparams("ERM", "PACS", protocol="my-protocol")["backbone"] == "resnet18"
    assert random_hparams("ERM", "PACS", 1, protocol="my-protocol")["batch_size"] in (16, 32)
