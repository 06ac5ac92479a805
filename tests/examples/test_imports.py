import subprocess
import sys

from fastcheck import examples


def test_examples_do_not_import_numba():
    code = "import sys, fastcheck.examples, fastcheck.examples.mutations; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_public_names_are_sorted_and_there():
    assert examples.__all__ == sorted(examples.__all__)
    for name in examples.__all__:
        assert callable(getattr(examples, name))
