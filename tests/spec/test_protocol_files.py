"""Protocols of other people, as YAML files."""

import numpy as np
import pytest

from dg_batchformer.catalog.datasets import dataset_facts
from dg_batchformer.errors import InputError
from dg_batchformer.spec.protocol_files import read_protocol
from dg_batchformer.spec.protocols import add_protocol, get_protocol

TEXT = """\
about: half as many steps
source: Author et al., 2030
steps: 2501
steps_for: {DomainNet: 7501}
defaults: {weight_decay: 1e-4}
photographs: {backbone: resnet18}
draws:
  lr: {log_uniform: [1e-5, 1e-3]}
  batch_size: {choice: [16, 32]}
  resnet_dropout: {uniform: [0, 0.5]}
"""


@pytest.fixture
def write(tmp_path):
    def write_file(text=TEXT):
        file = tmp_path / "mine.yaml"
        file.write_text(text)
        return file

    return write_file


def test_a_file_fixes_steps_hparams_and_draws(write):
    protocol = read_protocol("mine", write())
    pacs, domainnet = dataset_facts("PACS"), dataset_facts("DomainNet")

    assert (protocol.num_steps(pacs), protocol.num_steps(domainnet)) == (2501, 7501)
    assert protocol.hparam_defaults(pacs) == {"weight_decay": 1e-4, "backbone": "resnet18"}
    assert protocol.hparam_draws(dataset_facts("Shapes")) == {}
    rng = np.random.RandomState(0)
    for name, low, high in (("lr", 1e-5, 1e-3), ("batch_size", 16, 32), ("resnet_dropout", 0, 0.5)):
        assert low <= protocol.draws[name](rng) <= high


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps: 2501", "steps: 0", "mine.yaml:3: steps must be a whole number, at least 1, got 0"),
        ("steps: 2501", "stepps: 9", "mine.yaml:3: unknown key of a protocol 'stepps'; did you mean 'steps'"),
        ("source: Author et al., 2030\n", "", "is a mapping with the keys about and source"),
        ("DomainNet", "DomainNett", "steps_for: unknown dataset 'DomainNett'; did you mean 'DomainNet'"),
        ("weight_decay: 1e-4", "weight_decay: [1]", "defaults: weight_decay must be a single value"),
        ("log_uniform: [1e-5", "lognormal: [1e-5", "draws: lr must be one of {choice, uniform, log_uniform: "),
        ("[1e-5, 1e-3]", "[0, 1]", "draws: log_uniform of lr takes two increasing numbers"),
        ("[16, 32]", "[]", "draws: choice of batch_size takes at least one value"),
        ("defaults: {weight_decay: 1e-4}", "defaults: [", "not valid YAML"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_with_the_line(write, old, new, message):
    with pytest.raises(InputError) as error:
        read_protocol("mine", write(TEXT.replace(old, new)))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_name_is_taken_once(write, plugin_folder):
    add_protocol("mine", write(), "plug-in lab")
    add_protocol("mine", write(), "plug-in lab.methods")

    assert get_protocol("mine").steps == 2501
    with pytest.raises(InputError, match="plug-in other has the protocol 'quick', but that name is taken"):
        add_protocol("quick", write(), "plug-in other")
    with pytest.raises(InputError, match="unknown protocol 'min'; did you mean 'mine'"):
        get_protocol("min")
