"""MyCallback: it follows a real run of a few updates."""

from pathlib import Path

import pytest

import dg_batchformer as dg


def test_it_says_how_a_run_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    dg.train("ERM", dataset="Toy", protocol="quick", steps=2, output_dir=tmp_path,
             plugins=["my_callback"], log=["MyCallback"])  # fmt: skip

    assert "ERM: done, validation accuracy" in capsys.readouterr().out
