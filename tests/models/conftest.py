"""A kept run on images, trained once for all tests."""

import pytest

from dg_batchformer.cli.main import main


@pytest.fixture(scope="session")
def kept_run(tmp_path_factory):
    """Return the folder of a composed run on Shapes with kept model and predictions."""
    path = tmp_path_factory.mktemp("kept") / "run"
    small = ["--hparams", '{"backbone": "tiny", "batch_size": 8}', "--steps", "4", "--device", "cpu"]
    command = ["train", "--algorithm", "SWAD+CORAL+BF", "--protocol", "quick", "--test_envs", "sketch", *small]
    assert main([*command, "--predictions", "--output_dir", str(path)]) == 0
    return path
