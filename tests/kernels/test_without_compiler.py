"""The kernels are Python first: their tests pass where Numba compiles nothing, where a debugger can look into them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba import config

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="is what is run")
def test_the_tests_of_the_kernels_pass_without_the_compiler():
    root = HERE.parents[1]
    env = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE), "tests/networks/test_maps.py"]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
