"""The command line keeps freed memory in the process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ppl.cli

MEMORY = Path(ppl.cli.__file__).with_name("memory.py")
SCRIPT = """
import resource, runpy
made = runpy.run_path({path!r})["keep_freed_memory"]()
for _ in range(2):
    bytearray(64 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    bytearray(64 << 20)
print(made, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _run(**variables: str) -> tuple[bool, int]:
    """Return whether the setting was made, and the page faults of ten allocations of 64 MB."""
    names = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")
    environment = {name: value for name, value in os.environ.items() if name not in names} | variables
    words = [sys.executable, "-S", "-c", SCRIPT.format(path=str(MEMORY))]
    made, faults = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout.split()
    return made == "True", int(faults)


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of glibc")
def test_blocks_that_are_freed_and_allocated_again_take_no_new_pages() -> None:
    made, faults = _run()
    if not made:
        pytest.skip("this C library has no mallopt")
    assert faults < 1000  # 64 MB have 16384 pages


@pytest.mark.skipif(sys.platform == "win32", reason="the module `resource` is of POSIX")
def test_a_setting_of_the_user_is_left_alone() -> None:
    made, _ = _run(MALLOC_TRIM_THRESHOLD_="131072")
    assert not made
