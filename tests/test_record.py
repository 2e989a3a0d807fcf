import json
from math import isnan

import pytest

from dg_batchformer.record import Record, to_line


def test_a_record_reads_back_what_was_computed_and_nothing_else():
    line = to_line(
        {"step": 3, "env0_in_acc": 0.5, "env10_out_acc": float("nan"), "env0_uda_acc": 1, "args": {"dataset": "PACS"}}
    )

    record = Record.from_line(line)

    assert record.step == 3
    assert record.accuracy[0, "in"] == 0.5
    assert isnan(record.accuracy[10, "out"])
    assert len(record.accuracy) == 2
    assert not record.final


def test_a_line_is_written_as_domainbed_writes_it():
    assert to_line({"b": 1, "a": float("nan")}) == '{"a": NaN, "b": 1}\n'


@pytest.mark.parametrize("line", ['{"step": 1, "env0_in', "[]", '{"step": 1}', "", "null"])
def test_a_torn_or_foreign_line_is_a_value_error(line):
    with pytest.raises(ValueError, match=r".*"):
        Record.from_line(line)


def test_records_of_domainbed_are_records():
    line = json.dumps({"step": 300, "env0_in_acc": 0.9, "mem_gb": 1.0, "args": {"test_envs": [0]}, "hparams": {}})

    assert Record.from_line(line).accuracy == {(0, "in"): 0.9}
