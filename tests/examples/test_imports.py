import subprocess
import sys

import pytest

from fastcheck import bugs, examples
from tests import zoo


def test_examples_do_not_import_numba():
    code = "import sys, fastcheck.examples, fastcheck.bugs, tests.zoo; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("package", [examples, bugs, zoo], ids=lambda package: package.__name__)
def test_public_names_are_sorted_and_there(package):
    assert package.__all__ == sorted(package.__all__)
    for name in package.__all__:
        assert hasattr(package, name)
