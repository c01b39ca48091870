"""How a command ends: an error that a user can meet is one line, whatever library raised it."""

from __future__ import annotations

import click
import numpy as np
import pyarrow as pa
import pytest

from wsolpipe.keys.console import call


def raises(error):
    def act():
        if isinstance(error, BaseException):
            raise error
        error()

    return act


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        lambda: np.empty(2**60, np.uint8),
        lambda: pa.allocate_buffer(2**62),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        OSError(12, "Cannot allocate memory"),
        ImportError("libx.so: failed to map segment: cannot allocate memory"),
        SystemError("error return without exception set"),
        RuntimeError("can't start new thread"),
    ],
    ids=["python", "numpy", "arrow", "torch", "cuda", "fork", "import", "extension", "thread"],
)
def test_too_little_memory_ends_every_command_with_one_line(error, capsys):
    assert call(click.command()(raises(error)), "wsolpipe", []) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("wsolpipe: not enough memory: ")
    assert "Traceback" not in err
    assert err.count("\n") == 2  # the line and what to do


def test_a_fault_of_the_program_is_not_called_a_lack_of_memory():
    with pytest.raises(KeyError):
        call(click.command()(raises(KeyError("x"))), "wsolpipe", [])
