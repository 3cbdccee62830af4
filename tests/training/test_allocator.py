import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import numpy as np
from trunkline.training.loop import keep_freed_memory

if {keep}:
    assert keep_freed_memory()
np.ones(2**24, np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(2**24, np.float32)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(keep: bool) -> int:
    command = [sys.executable, "-c", FAULTS.format(keep=keep)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_large_blocks_are_used_again_instead_of_mapped_afresh():
    assert page_faults(keep=True) < page_faults(keep=False) / 10


def test_another_c_library_is_left_alone(monkeypatch):
    from trunkline.training import loop as allocator

    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", ""))
    assert allocator.keep_freed_memory.__wrapped__() is False
