"""Every protocol trains on every kind of data: vectors, images in memory, image folders."""

import json

import pytest
from support import resolved, run_quickly

from dg_batchformer.hparams_registry import resolve_hparams
from dg_batchformer.spec.protocols import PROTOCOLS
from dg_batchformer.storage.folders import RunFolder, State
from dg_batchformer.training.preflight import check_runs

SMALL = {
    "Toy": {"mlp_width": 16},
    "Shapes": {"backbone": "tiny"},
    "PACS": {"backbone": "tiny", "weights": "none", "freeze": "none", "image_size": 16, "init": "none"},
}


@pytest.mark.parametrize(("protocol", "upto"), [("laptop", "featurizer"), ("laptop-finetune", "blocks.4")])
def test_laptop_protocols_train_on_cached_features_of_a_frozen_pretrained_network(protocol, upto):
    spec = resolved(dataset="PACS", protocol=protocol)
    hparams = resolve_hparams(spec)

    assert PROTOCOLS[protocol].default_data_path(spec.facts) == "features"
    assert (hparams["backbone"], hparams["weights"], hparams["freeze"], hparams["image_size"]) == (
        "efficientnet_lite0", "imagenet_v1", upto, 224
    )  # fmt: skip


@pytest.mark.parametrize("dataset", SMALL)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_trains_on_every_kind_of_data(protocol, dataset, image_folder, tmp_path):
    data_dir = image_folder() if dataset == "PACS" else None
    hparams = {**SMALL[dataset], "batch_size": 4}
    spec = resolved(dataset=dataset, protocol=protocol, steps=2, algorithm="SWAD+BF", hparams=hparams)

    check_runs([spec], data_dir)
    assert run_quickly(spec, tmp_path / "run", data_dir=data_dir) is State.DONE

    last = json.loads(RunFolder(tmp_path / "run").records_file.read_text().splitlines()[-1])
    assert last["protocol"] == protocol
    assert {name: last["hparams"][name] for name in hparams} == hparams
