import json
from math import isnan

import pytest

from dg_batchformer.storage.records import read_line, read_lines, to_line


def test_a_record_is_read_back_as_written():
    values = {"step": 3, "env0_in_acc": 0.5, "env10_out_acc": 1e-9, "args": {"dataset": "PACS"}, "final": True}

    assert read_line(to_line(values).encode()) == values


def test_a_line_is_written_as_domainbed_writes_it_and_its_nan_is_read():
    line = to_line({"step": 1, "args": {}, "a": float("nan")})

    assert line == '{"a": NaN, "args": {}, "step": 1}\n'
    assert isnan(read_line(line.encode())["a"])


@pytest.mark.parametrize(
    "line",
    ['{"step": 1, "env0_in', "[]", '{"step": 1}', "null", "", '{"step": "1", "args": {}}', '{"step": 1, "args": 2}'],
)
def test_a_truncated_or_foreign_line_is_a_value_error(line):
    with pytest.raises(ValueError, match=r".*"):
        read_line(line.encode())


def test_blank_lines_count_for_nothing_and_torn_lines_are_counted():
    record = b'{"args": {}, "step": 1}'

    assert read_lines(b"\n \n" * 2000 + record) == ([{"args": {}, "step": 1}], 0, True)
    assert read_lines(b"\n".join([record, b"{", b"7", record, b""])) == ([{"args": {}, "step": 1}] * 2, 2, False)


def test_a_file_with_too_many_torn_lines_is_not_read_on():
    records, unreadable, _ = read_lines(b"{\n" * 5000 + b'{"args": {}, "step": 1}')

    assert (records, unreadable) == ([], 5001)


def test_records_of_domainbed_are_records():
    line = json.dumps({"step": 300, "env0_in_acc": 0.9, "mem_gb": 1.0, "args": {"test_envs": [0]}, "hparams": {}})

    assert read_line(line.encode())["env0_in_acc"] == 0.9
