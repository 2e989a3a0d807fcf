"""The choice of the allocator, from the environment of a process."""

import os
import sys

import pytest

from dg_batchformer.runtime import allocator


@pytest.fixture(autouse=True)
def _tcmalloc_is_there(monkeypatch):
    monkeypatch.setattr(allocator, "tcmalloc", lambda: "libtcmalloc_minimal.so.4")
    monkeypatch.delenv("LD_PRELOAD", raising=False)


def _replaced_by(monkeypatch):
    calls = []
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    allocator.start_over()
    return calls


def test_a_command_restarts_itself_with_tcmalloc_preloaded(monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "dev", "-m", "dg_batchformer", "train"])

    [(program, command, environment)] = _replaced_by(monkeypatch)

    assert program == sys.executable
    assert command == [sys.executable, "-X", "dev", "-m", "dg_batchformer", "train"]
    assert environment == {**os.environ, "LD_PRELOAD": "libtcmalloc_minimal.so.4"}


def test_it_restarts_once_and_child_programs_keep_their_allocator(monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "libtcmalloc_minimal.so.4")

    assert _replaced_by(monkeypatch) == []
    assert "LD_PRELOAD" not in os.environ


@pytest.mark.parametrize("theirs", ["libjemalloc.so.2", ""])
def test_a_users_choice_of_preloaded_libraries_is_kept(monkeypatch, theirs):
    monkeypatch.setenv("LD_PRELOAD", theirs)

    assert _replaced_by(monkeypatch) == []
    with allocator.preloaded():
        assert os.environ["LD_PRELOAD"] == theirs
    assert os.environ["LD_PRELOAD"] == theirs


def test_without_tcmalloc_nothing_changes(monkeypatch):
    monkeypatch.setattr(allocator, "tcmalloc", lambda: None)

    assert _replaced_by(monkeypatch) == []
    with allocator.preloaded():
        assert "LD_PRELOAD" not in os.environ


def test_only_processes_started_inside_the_context_load_it():
    with allocator.preloaded():
        assert os.environ["LD_PRELOAD"] == "libtcmalloc_minimal.so.4"

    assert "LD_PRELOAD" not in os.environ


def test_the_allocator_is_not_changed_on_gpus(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr(allocator, "_GPUS", (tmp_path,))

    assert allocator.tcmalloc() is None
