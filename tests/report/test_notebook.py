"""A real notebook: what is printed, what a traceback says, and what a cell shows."""

import base64
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parents[2]

CELLS = {
    "check": """
import numpy as np
import fastcheck
from fastcheck import examples

net = examples.course_net(bugs=True)
report = fastcheck.check(net.loss, net.gradient, net.params, args=net.args)
print(report)""",
    "text": "assert str(report).startswith('WRONG: W2') and chr(27) not in str(report); len(str(report).splitlines())",
    "error": """
try:
    report.raise_if_wrong()
except fastcheck.GradientError as error:
    print('told:', error)""",
    "shown": "report",
    "terms": """
theta = np.array([0.5, -1.5])
data, penalty = (lambda t: float(np.sin(t).sum()), np.cos), (lambda t: float(t @ t), lambda t: t)
fastcheck.check_terms({"data": data, "l2": penalty}, theta)""",
    "self_test": "fastcheck.self_test(lambda t: float(np.sin(t).sum()), np.cos, theta, kinds=['sign'], smallest=False)",
    "plot": """
from matplotlib.figure import Figure
assert isinstance(report.plot(), Figure)
report.plot()""",
    "raises": "fastcheck.assert_gradient(net.loss, net.gradient, net.params, args=net.args)",
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Run the cells in a kernel, with a variable set that makes rich colour everything."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code.strip()) for code in CELLS.values()])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("FORCE_COLOR", "1")
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        client = nbclient.NotebookClient(book, timeout=120, kernel_name="python3", allow_errors=True)
        client.execute()
    return {name: cell.outputs for name, cell in zip(CELLS, book.cells, strict=True)}


def printed(outputs):
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")


def shown(outputs):
    (output,) = [output for output in outputs if output.output_type == "execute_result"]
    return output.data


def without_tags(page):
    return re.sub("<[^>]*>", "", page)


pytestmark = pytest.mark.filterwarnings("default")  # the warnings are the kernel's own


def test_print_prints_the_report(outputs):
    text = printed(outputs["check"])
    assert text.startswith("WRONG: W2 ×3.000")
    assert "to repeat: fastcheck.check(loss, gradient, params, args=args, mode='full', seed=0)" in text
    assert "\x1b" not in text


def test_a_string_and_a_message_are_not_empty(outputs):
    assert int(shown(outputs["text"])["text/plain"]) > 10
    assert printed(outputs["error"]).startswith("told: WRONG: W2 ×3.000")
    (error,) = [output for output in outputs["raises"] if output.output_type == "error"]
    assert error.ename == "GradientError"
    assert error.evalue.startswith("WRONG: W2 ×3.000")


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("shown", "WRONG: W2 ×3.000"),
        ("terms", "WRONG: 2 terms and their sum"),
        ("self_test", "PASSED: 1 of 1 planted bug found"),
    ],
)
def test_a_cell_shows_what_was_found_and_no_dump(outputs, cell, says):
    data = shown(outputs[cell])
    assert without_tags(data["text/html"]).startswith(says)
    assert says in data["text/plain"]
    assert "BlockReport(" not in data["text/plain"]


def test_a_plot_is_a_picture(outputs):
    picture = base64.b64decode(shown(outputs["plot"])["image/png"])
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000


def test_nothing_else_is_shown(outputs):
    for name in ("check", "error"):
        assert [output.output_type for output in outputs[name]] == ["stream"]
