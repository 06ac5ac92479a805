"""The forms of code that people bring: each one works, or gets the line that helps."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import numpy as np
import pytest

import fastcheck
from fastcheck import InputError, LossError, Verdict, attributes
from fastcheck.forms import Form
from fastcheck.gradients import match_gradient
from fastcheck.held import Called
from fastcheck.losses.evaluator import as_float
from fastcheck.parameters import Parameters
from fastcheck.plain import Both, plain, written

RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(20, 3)), RNG.normal(size=(20, 2))
PARAMS = {"W": RNG.normal(size=(3, 2)), "b": RNG.normal(size=2)}


def both(p, X, Y):
    """Return mean squared error and its gradient, as the course's functions do."""
    A = np.tanh(X @ p["W"] + p["b"])
    d = (A - Y) * (1 - A**2) / A.size
    return 0.5 * np.mean((A - Y) ** 2), {"dW": X.T @ d, "db": d.sum(axis=0)}


def both_wrong(p, X, Y):
    J, g = both(p, X, Y)
    return J, {"dW": g["dW"], "db": g["db"] * 1.5}


def kinds(report):
    return [finding.kind for finding in report.findings]


# (loss, gradient) in one function --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["full", "sample", "screen"])
def test_loss_and_gradient_in_one_function_cost_one_call_per_evaluation(mode):
    calls = 0

    def counted(p, X, Y):
        nonlocal calls
        calls += 1
        return both(p, X, Y)

    report = fastcheck.check(counted, True, PARAMS, args=(X, Y), mode=mode)
    assert report.verdict is Verdict.CORRECT
    assert calls == report.evaluations
    apart = fastcheck.check(lambda *a: both(*a)[0], lambda *a: both(*a)[1], PARAMS, args=(X, Y), mode=mode)
    assert apart.blocks == report.blocks  # the gradient is that at theta, to the last bit


@pytest.mark.parametrize("mode", ["full", "screen"])
def test_a_wrong_gradient_of_one_function_is_found(mode):
    report = fastcheck.check(both_wrong, True, PARAMS, args=(X, Y), mode=mode)
    assert report.blocks["W"].verdict is Verdict.CORRECT
    assert report.blocks["b"].verdict is Verdict.WRONG


def test_the_gradient_is_of_its_own_theta_also_where_the_function_reuses_its_buffer():
    buffer = np.empty(3)

    def fun(t):
        np.multiply(2, t, out=buffer)
        return t @ t, buffer

    assert fastcheck.check(fun, True, np.array([1.0, 2, 3])).verdict is Verdict.CORRECT
    pair = Both(fun)
    pair.value(np.ones(3))
    assert pair.gradient(np.full(3, 5.0)).tolist() == [10, 10, 10]  # not of the last call, which was elsewhere


@pytest.mark.parametrize("returned", [1.0, (1.0,), (1.0, 2.0, 3.0), None])
def test_a_function_that_returns_no_pair(returned):
    with pytest.raises(LossError, match=r"must return \(loss, gradient\)"):
        fastcheck.check(lambda t: returned, True, np.ones(2))


def test_true_everywhere():
    fastcheck.assert_gradient(both, True, PARAMS, args=(X, Y))
    with pytest.raises(fastcheck.GradientError):
        fastcheck.assert_gradient(both_wrong, True, PARAMS, args=(X, Y))
    l2 = lambda p, *_: (np.sum(p["W"] ** 2), {"dJdW": 2 * p["W"]})  # noqa: E731
    assert fastcheck.check_terms({"data": (both, True), "l2": (l2, True)}, PARAMS, args=(X, Y)).passed
    assert fastcheck.self_test(both, True, PARAMS, args=(X, Y), smallest=False, kinds=["sign"]).passed
    monitor = fastcheck.Monitor(both_wrong, True, on_wrong=lambda report: None)
    assert monitor.step(PARAMS, args=(X, Y)).blocks["b"].verdict is Verdict.WRONG
    problem = fastcheck.Problem(both, True, PARAMS, (X, Y), name="p")
    assert problem.value() == both(PARAMS, X, Y)[0]
    assert np.array_equal(problem.claimed()["dW"], both(PARAMS, X, Y)[1]["dW"])


@pytest.mark.parametrize("gradient", [None, False])
def test_no_gradient_at_all(gradient):
    with pytest.raises(InputError, match=f"gradient={gradient}: pass"):
        fastcheck.check(lambda t: t @ t, gradient, np.ones(2))


def test_a_batched_loss_has_no_such_forms():
    loss = fastcheck.batched(lambda t: np.sum(t**2, axis=1))
    with pytest.raises(InputError, match=r"gradient=True: a fastcheck\.batched loss returns no gradient"):
        fastcheck.check(loss, True, np.ones(2))
    with pytest.raises(InputError, match="takes a tree of float arrays"):
        fastcheck.check(loss, np.ones(2), np.ones(2) * 1j)
    assert fastcheck.check(loss, [2.0, 4.0], [1.0, 2.0]).passed


# Parameters that an object holds ---------------------------------------------------------------------------------


class Net:
    """A net whose backward pass uses what its forward pass left in it."""

    def __init__(self):
        rng = np.random.default_rng(5)
        self.W1, self.b1 = rng.normal(size=(3, 4)), rng.normal(size=4)
        self.W2 = rng.normal(size=(4, 2))
        self.hidden, self.calls = 4, [0]

    def loss(self, X, Y):
        self.A = np.tanh(X @ self.W1 + self.b1)
        self.out = self.A @ self.W2
        return 0.5 * np.mean((self.out - Y) ** 2)

    def backward(self, X, Y):
        d = (self.out - Y) / Y.size
        dZ = d @ self.W2.T * (1 - self.A**2)
        return {"dW1": X.T @ dZ, "db1": dZ.sum(axis=0), "dW2": self.A.T @ d}


class Broken(Net):
    def backward(self, X, Y):
        g = super().backward(X, Y)
        return g | {"db1": 1.25 * g["db1"]}


def state(net):
    return {k: (id(v), v.tobytes() if isinstance(v, np.ndarray) else v) for k, v in vars(net).items()}


@pytest.mark.parametrize("names", [(), ("W1", "b1", "W2")])
@pytest.mark.parametrize("mode", ["full", "sample", "screen"])
def test_attributes_are_the_parameters_and_all_is_put_back(names, mode):
    net = Net()
    before = state(net)
    report = fastcheck.check(net.loss, net.backward, attributes(net, *names), args=(X, Y), mode=mode)
    assert report.verdict is Verdict.CORRECT
    assert list(report.blocks) == ["W1", "b1", "W2"]
    assert state(net) == before
    broken = Broken()
    report = fastcheck.check(broken.loss, broken.backward, attributes(broken, *names), args=(X, Y), mode=mode)
    assert {n for n, block in report.blocks.items() if block.verdict is Verdict.WRONG} == {"b1"}
    assert report.findings[0].kind == "factor"
    assert state(broken) == before | {k: v for k, v in state(broken).items() if k in before}


def test_attributes_give_the_same_numbers_as_a_dict():
    net = Net()
    params = {name: getattr(net, name).copy() for name in ("W1", "b1", "W2")}

    def loss(p, X, Y):
        return 0.5 * np.mean((np.tanh(X @ p["W1"] + p["b1"]) @ p["W2"] - Y) ** 2)

    found = fastcheck.numerical_gradient(net.loss, attributes(net), args=(X, Y))
    wanted = fastcheck.numerical_gradient(loss, params, args=(X, Y))
    assert all(np.array_equal(found[name], wanted[name]) for name in params)


def test_read_only_and_float32_attributes():
    net = Net()
    net.W1.flags.writeable = False
    net.b1 = net.b1.astype(np.float32)
    before = state(net)
    report = fastcheck.check(net.loss, net.backward, attributes(net), args=(X, Y))
    assert report.verdict is Verdict.CORRECT
    assert state(net) == before


def test_a_dict_that_a_net_holds():
    class Cs231n:
        def __init__(self):
            self.params = {name: array.copy() for name, array in PARAMS.items()}

        def loss(self, X, Y):
            J, g = both(self.params, X, Y)
            return J, {"W": g["dW"], "b": g["db"]}

    net = Cs231n()
    before, arrays = dict(net.params), {k: v.copy() for k, v in net.params.items()}
    report = fastcheck.check(net.loss, True, attributes(net.params), args=(X, Y))
    assert report.verdict is Verdict.CORRECT
    assert all(net.params[k] is before[k] and np.array_equal(before[k], arrays[k]) for k in arrays)
    assert fastcheck.check(net.loss, True, attributes(net.params, "b"), args=(X, Y)).passed


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("after", [0, 1, 5, 30])
def test_put_back_after_exceptions_and_ctrl_c(raised, after):
    net = Net()
    before, calls = state(net), 0

    def loss(X, Y):
        nonlocal calls
        calls += 1
        if calls > after:
            net.W1 = None  # and leaves a mess behind
            raise raised("now")
        return net.loss(X, Y)

    try:
        report = fastcheck.check(loss, lambda X, Y: net.backward(X, Y), attributes(net), args=(X, Y), mode="full")
        assert not report.passed
    except (LossError, KeyboardInterrupt):
        pass
    assert state(net) == before


@pytest.mark.parametrize("backend", ["threads", "processes"])
def test_workers(backend):
    net = Net()
    before = state(net)
    serial = fastcheck.check(net.loss, net.backward, attributes(net), args=(X, Y), mode="full")
    report = fastcheck.check(
        net.loss, net.backward, attributes(net), args=(X, Y), mode="full", backend=backend, workers=2
    )
    assert all(np.array_equal(report.numerical[name], serial.numerical[name]) for name in serial.numerical)
    assert state(net) == before


MODULE = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import fastcheck
import held_in_a_module as m

options = {"args": (np.arange(1.0, 40.0),), "mode": "full", "workers": 2}
try:
    fastcheck.check(m.loss, m.gradient, fastcheck.attributes(m.net), backend="processes", **options)
except fastcheck.InputError as error:
    assert "in its module" in str(error), error
    print("refused")
print(fastcheck.check(m.loss, m.gradient, fastcheck.attributes(m.net), **options).verdict.value)
"""


HELD = """
import numpy as np

class Net:
    w = np.linspace(0.1, 1, 39)

net = Net()
net.w = net.w + 0

def loss(x):
    return float(np.sum(np.sin(net.w * x)))

def gradient(x):
    return {"w": x * np.cos(net.w * x)}
"""


def test_an_object_that_a_worker_process_would_find_another_of_is_refused(tmp_path):
    (tmp_path / "held_in_a_module.py").write_text(HELD)
    ran = subprocess.run([sys.executable, "-c", MODULE, str(tmp_path)], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["refused", "correct"]


@pytest.mark.parametrize("raised", [None, ValueError, KeyboardInterrupt])
def test_between_two_calls_the_object_is_what_it_was(raised):
    net, seen = Net(), []

    def loss():
        seen.append(net.W1[0, 0])
        if raised:
            raise raised

    before = state(net)
    called = Called(loss, attributes(net, "W1"))
    with pytest.raises(raised) if raised else contextlib.nullcontext():
        called({"W1": np.full((3, 4), 7.0)})
    assert seen == [7.0]
    assert state(net) == before


class Flat:
    """One vector holds all parameters; the layers are views of it, and the optimiser has a list of them."""

    def __init__(self):
        self.theta = np.linspace(0.2, 1.0, 8)
        self.W, self.b = self.theta[:6].reshape(2, 3), self.theta[6:]
        self.trained = [self.W, self.b]

    def by_views(self, x):
        return np.sum(np.sin(self.W @ x) * self.b)

    def by_vector(self, x):
        return np.sum(np.sin(self.theta[:6].reshape(2, 3) @ x) * self.theta[6:])

    def by_list(self, x):
        return np.sum(np.sin(self.trained[0] @ x) * self.trained[1])

    def backward(self, x):
        z = self.W @ x
        return {"W": np.outer(np.cos(z) * self.b, x), "b": np.sin(z)}


@pytest.mark.parametrize("loss", ["by_views", "by_vector", "by_list"])
def test_other_names_of_the_same_memory_follow(loss):
    net = Flat()
    before = state(net)
    x = np.array([0.3, -0.2, 0.5])
    report = fastcheck.check(getattr(net, loss), net.backward, attributes(net, "W", "b"), args=(x,))
    assert report.verdict is Verdict.CORRECT
    assert state(net) == before


def test_lists_of_arrays():
    class Network:
        def __init__(self):
            rng = np.random.default_rng(0)
            self.weights, self.biases = [rng.normal(size=(2, 3)), rng.normal(size=(1, 2))], [rng.normal(size=2), [0.3]]

        def loss(self, x):
            self.a = np.tanh(self.weights[0] @ x + self.biases[0])
            self.J = (self.weights[1] @ self.a + self.biases[1])[0] ** 2
            return self.J

        def backprop(self, x):
            d = 2 * (self.weights[1] @ self.a + self.biases[1])
            z = (self.weights[1].T @ d) * (1 - self.a**2)
            return {"biases": [z, d], "weights": [np.outer(z, x), np.outer(d, self.a)]}

    net = Network()
    net.biases[1] = np.array([0.3])
    held, arrays = attributes(net, "weights", "biases"), [*net.weights, *net.biases]
    assert held.names == ("weights.0", "weights.1", "biases.0", "biases.1")
    assert fastcheck.check(net.loss, net.backprop, held, args=(np.array([0.1, 0.2, 0.3]),)).verdict is Verdict.CORRECT
    assert all(a is b for a, b in zip([*net.weights, *net.biases], arrays, strict=True))


def test_names_with_dots():
    class Layer:
        def __init__(self, seed):
            self.W = np.random.default_rng(seed).normal(size=(2, 2))

    class Deep:
        def __init__(self):
            self.layers = [Layer(0), Layer(1)]
            self.first = {"W": self.layers[0].W}  # a second name of the same array

        def loss(self, x):
            return np.sum(np.tanh(self.layers[1].W @ np.tanh(self.first["W"] @ x)))

    net, x = Deep(), np.array([0.3, 0.4])
    found = fastcheck.numerical_gradient(net.loss, attributes(net, "layers.0.W", "layers.1.W"), args=(x,))
    W0, W1 = (layer.W for layer in net.layers)
    a = np.tanh(W0 @ x)
    d = 1 - np.tanh(W1 @ a) ** 2
    assert np.allclose(found["layers.1.W"], np.outer(d, a), rtol=1e-8)
    assert np.allclose(found["layers.0.W"], np.outer(W1.T @ d * (1 - a**2), x), rtol=1e-8)
    assert net.first["W"] is net.layers[0].W


def test_a_loss_that_changes_the_attributes_is_seen():
    class Normalises(Net):
        def loss(self, X, Y):
            self.W1 = self.W1 / np.linalg.norm(self.W1)
            return super().loss(X, Y)

    net = Normalises()
    before = state(net)
    report = fastcheck.check(net.loss, net.backward, attributes(net), args=(X, Y))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert kinds(report)[0] == "loss_changes_params"
    assert state(net) == before


def test_attributes_in_the_other_calls():
    net = Net()
    before = state(net)
    held = attributes(net, "W1", "b1", "W2")
    assert fastcheck.self_test(net.loss, net.backward, held, args=(X, Y), smallest=False, kinds=["sign"]).passed
    assert fastcheck.check_terms({"all": (net.loss, net.backward)}, held, args=(X, Y)).passed
    monitor = fastcheck.Monitor(net.loss, net.backward)
    for _ in range(3):
        report = monitor.step(held, args=(X, Y))
        assert report is None or report.passed
        net.W1 = net.W1 * 0.9  # a step of training: another array
    assert state(net) == before | {"W1": state(net)["W1"]}

    def forward(X, Y):
        net.loss(X, Y)
        return net.out

    def pulled(u, X, Y):
        dZ = u @ net.W2.T * (1 - net.A**2)
        return {"W1": X.T @ dZ, "b1": dZ.sum(axis=0), "W2": net.A.T @ u}

    assert fastcheck.check_vjp(forward, pulled, held, args=(X, Y)).passed
    assert not fastcheck.check_vjp(forward, lambda u, *a: pulled(2 * u, *a), held, args=(X, Y)).passed
    hvp = lambda v, *_: {"w": 6 * net.w * v["w"]}  # noqa: E731
    net.w = np.array([0.5, 2.0])
    assert fastcheck.check_hvp(lambda *_: {"dw": 3 * net.w**2}, hvp, attributes(net, "w"), args=(X, Y)).passed
    assert fastcheck.check_jvp(lambda: net.w**3, lambda v: 3 * net.w**2 * v["w"], attributes(net, "w")).passed


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("W9",), r"has no 'W9'; its own float arrays: 'W1', 'b1', 'W2'"),
        (("hidden",), r"hidden \(type=int\) is no array of floats"),
        (("calls",), r"calls\.0 \(type=int\) is no array of floats"),
        ((3,), r"names=3 \(type=int\) must be a text"),
        (("W1", "W1"), "the two share memory"),
    ],
)
def test_bad_names(names, said):
    net = Net()
    if names == ("W1", "W1"):
        net.copy, names = net.W1, ("W1", "copy")
    with pytest.raises(InputError, match=said):
        attributes(net, *names)


def test_one_array_needs_no_name_for_its_gradient():
    net = Net()
    held = attributes(net, "W2")
    assert fastcheck.check(net.loss, lambda *a: net.backward(*a)["dW2"], held, args=(X, Y)).verdict is Verdict.CORRECT
    assert fastcheck.check(net.loss, lambda *a: -net.backward(*a)["dW2"], held, args=(X, Y)).verdict is Verdict.WRONG


def test_what_does_not_go_together_is_refused():
    net = Net()
    for call, said in [
        (lambda: fastcheck.check_hvp(True, lambda p, v: v, np.ones(2)), "gradient=True .* is not callable"),
        (lambda: fastcheck.check_vjp(net.loss, True, attributes(net), args=(X, Y)), "vjp=True .* is not callable"),
        (lambda: fastcheck.check(net.loss, {}, {"net": attributes(net)}), "has dtype object: parameters are arrays"),
        (lambda: fastcheck.check(net.loss, 3, attributes(net)), "gradient has no block 'W1': it is one int"),
    ]:
        with pytest.raises(InputError, match=said):
            call()


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_the_frameworks_refuse_them_by_name(name):
    pytest.importorskip(name)
    adapter, net = getattr(fastcheck, name), Net()
    with pytest.raises(InputError, match=r"params=attributes\(\.\.\.\): a loss of a framework takes a module"):
        adapter.check(net.loss, attributes(net))
    with pytest.raises(InputError, match="gradient=True: pass the loss alone"):
        adapter.check(net.loss, PARAMS, gradient=True)


def test_an_object_without_arrays():
    with pytest.raises(InputError, match=r"holds no float array itself\. Name them, with dots"):
        attributes(object())


def test_the_lines_that_help_with_attributes():
    net = Net()
    with pytest.raises(InputError, match=r"is its `return` missing.*takes no note of what backward left in attributes"):
        fastcheck.check(net.loss, lambda X, Y: None, attributes(net), args=(X, Y))
    net.loss(X, Y)  # leaves A and out behind, which are float arrays too
    with pytest.raises(InputError, match="all float arrays: name the parameters"):
        fastcheck.check(net.loss, net.backward, attributes(net), args=(X, Y))
    with pytest.raises(LossError, match="It must accept args alone"):
        fastcheck.check(lambda p, X, Y: 1.0, net.backward, attributes(net, "W1"), args=(X, Y))


def test_checkpoints_know_the_object(tmp_path):
    path = tmp_path / "run.ckpt"
    first, again = (
        fastcheck.check(n.loss, n.backward, attributes(n), args=(X, Y), checkpoint=path) for n in (Net(), Net())
    )
    assert first.blocks == again.blocks
    other = Net()
    other.W1 = other.W1 + 1
    with pytest.raises(fastcheck.CheckpointError):
        fastcheck.check(other.loss, other.backward, attributes(other), args=(X, Y), checkpoint=path)


# Numbers in lists ------------------------------------------------------------------------------------------------


def rosenbrock(x):
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def rosenbrock_gradient(x):
    return [-2 * (1 - x[0]) - 400 * x[0] * (x[1] - x[0] ** 2), 200 * (x[1] - x[0] ** 2)]


@pytest.mark.parametrize("x0", [[1.3, 0.7], (1.3, 0.7), [2, 3], [np.float64(1.3), 1]])
def test_a_list_of_numbers_is_a_vector(x0):
    report = fastcheck.check(rosenbrock, rosenbrock_gradient, x0)
    assert report.verdict is Verdict.CORRECT
    assert report.blocks["theta"].shape == (2,)
    assert fastcheck.check(rosenbrock, tuple(rosenbrock_gradient(x0)), x0).passed
    found = fastcheck.numerical_gradient(rosenbrock, x0)
    assert np.allclose(found, rosenbrock_gradient(x0), rtol=1e-8)
    wrong = fastcheck.check(rosenbrock, lambda x: [rosenbrock_gradient(x)[0], 0.0], x0)
    assert [c.name for c in wrong.wrong] == ["theta[1]"]


def test_lists_inside_a_tree():
    params = {"w": [0.5, 1.5], "layers": [np.ones((2, 2)), [0.1, 0.2]], "s": 2.0}
    form, tree = Form.of(params)
    assert form.names == ("w", "layers.0", "layers.1", "s")
    assert tree["layers"][1].tolist() == [0.1, 0.2]
    loss = lambda p: np.sum(np.sin(p["w"])) * p["s"] + np.sum(p["layers"][0] @ p["layers"][1])  # noqa: E731

    def gradient(p):
        return {
            "w": (np.cos(p["w"]) * p["s"]).tolist(),
            "layers": [np.tile(p["layers"][1], (2, 1)).tolist(), p["layers"][0].sum(axis=0).tolist()],
            "s": float(np.sum(np.sin(p["w"]))),
        }

    assert fastcheck.check(loss, gradient, params).verdict is Verdict.CORRECT
    assert fastcheck.check_vjp(lambda x: np.array(x) ** 2, lambda x, u: list(2 * x * u), [1.0, 2.0]).passed


def test_integers_are_taken_for_a_vector_only_where_they_are_all_there_is():
    with pytest.raises(InputError, match=r"params\['sizes'\] has dtype int64"):
        fastcheck.check(lambda p: 1.0, {}, {"W": np.ones(2), "sizes": [4, 5]})
    with pytest.raises(InputError, match="has dtype int64"):
        fastcheck.check(lambda p: 1.0, np.ones(2), np.array([4, 5]))


def test_rows_of_a_gradient_as_lists():
    layout = Parameters.of(PARAMS)
    _, g = both(PARAMS, X, Y)
    wanted = match_gradient(g, layout)
    for other in (
        {"W": g["dW"].tolist(), "b": g["db"].tolist()},
        {"dW": list(g["dW"]), "db": tuple(g["db"]), "dZ": [1.0, 2.0]},
    ):
        found = match_gradient(other, layout)
        assert np.array_equal(found.flat, wanted.flat)
    assert set(found.extras) == {"dZ.0", "dZ.1"}
    with pytest.raises(InputError, match="can't be read as an array"):
        match_gradient({"W": [[1.0, 2.0], [3.0]], "b": [0.0, 0.0]}, layout)


# pandas ----------------------------------------------------------------------------------------------------------


def test_a_series_comes_to_the_loss_as_one_and_its_gradient_is_aligned():
    pd = pytest.importorskip("pandas")
    params = pd.Series([1.3, 0.7, -0.2], index=["a", "b", "c"], name="theta")
    before = params.copy()

    def loss(s):
        assert s.name == "theta"
        return s["a"] ** 2 * s["b"] + np.exp(s["c"])

    def gradient(s):
        return pd.Series({"c": np.exp(s["c"]), "a": 2 * s["a"] * s["b"], "b": s["a"] ** 2})

    for mode in ("full", "screen"):
        assert fastcheck.check(loss, gradient, params, mode=mode).verdict is Verdict.CORRECT
    assert fastcheck.check(loss, gradient(params).loc[["a", "b", "c"]].to_numpy(), params).passed
    found = fastcheck.numerical_gradient(loss, params)
    pd.testing.assert_series_equal(found, gradient(params).loc[["a", "b", "c"]], check_names=False, rtol=1e-8)
    wrong = fastcheck.check(loss, lambda s: gradient(s) * pd.Series({"a": 1, "b": 1.5, "c": 1}), params)
    assert [c.name for c in wrong.wrong] == ["theta[1]"]
    pd.testing.assert_series_equal(params, before)


def test_a_loss_that_changes_its_series_is_seen():
    pd = pytest.importorskip("pandas")
    params = pd.Series([1.0, 2.0])

    def loss(s):
        s.iloc[0] += 1.0
        return float((s**2).sum())

    report = fastcheck.check(loss, lambda s: 2 * s, params)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert kinds(report)[0] == "loss_changes_params"
    assert params.tolist() == [1.0, 2.0]


def test_frames_in_a_tree():
    pd = pytest.importorskip("pandas")
    params = {"W": pd.DataFrame(RNG.normal(size=(3, 2)), columns=["u", "v"]), "b": np.array([0.5])}

    def loss(p):
        return float((p["W"]["u"] * p["W"]["v"] ** 2).sum() * p["b"][0])

    def gradient(p):
        u, v, b = p["W"]["u"], p["W"]["v"], p["b"][0]
        return {"dW": pd.DataFrame({"v": 2 * u * v * b, "u": v**2 * b}), "db": [(u * v**2).sum()]}

    report = fastcheck.check(loss, gradient, params)
    assert report.verdict is Verdict.CORRECT
    assert report.blocks["W"].shape == (3, 2)
    assert list(report.numerical["W"].columns) == ["u", "v"]
    assert set(report.to_dict()["numerical"]) == {"W", "b"}


def test_a_frame_of_no_numbers():
    pd = pytest.importorskip("pandas")
    with pytest.raises(InputError, match=r"params\['theta'\] has dtype"):
        fastcheck.check(lambda d: 1.0, np.ones(2), pd.DataFrame({"a": ["x", "y"]}))


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_a_matrix_stays_one():
    W, b, ones = np.matrix([[2.0, 1.0], [0.5, 3.0]]), np.matrix([[1.0], [2.0]]), np.ones((2, 1))
    report = fastcheck.check(lambda W: float((W * W * b).sum()), lambda W: ones * (W * b).T + W.T * ones * b.T, W)
    assert report.verdict is Verdict.CORRECT  # of the product of matrices, which * is
    half = fastcheck.check(lambda W: float((W * W * b).sum()), lambda W: ones * (W * b).T, W)
    assert half.verdict is Verdict.WRONG


# What a loss returns ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda J: np.array([J]), lambda J: np.array([[J]]), lambda J: [J], lambda J: (J,)])
def test_one_number_in_an_array_or_a_list(make):
    at = np.array([0.5, 0.7])
    assert fastcheck.check(lambda t: make(np.sum(np.sin(t))), np.cos(at), at).verdict is Verdict.CORRECT
    assert fastcheck.check(lambda t: make(np.sum(np.sin(t))), np.cos(at), at, scheme="complex").passed


def test_scalars_of_frameworks():
    class Tensor:
        """Like one of TensorFlow: no item(), a shape of its own kind, numpy through __array__."""

        def __init__(self, value):
            self.value, self.shape = np.asarray(value), list(np.shape(value))

        def __array__(self, dtype=None, copy=None):
            return self.value

        def __float__(self):
            return float(self.value)

    assert as_float(Tensor(2.5)) == as_float(Tensor([2.5])) == 2.5
    with pytest.raises(LossError, match=r"shape \(2,\)"):
        as_float(Tensor([1.0, 2.0]))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_scalars_of_torch(shape):
    torch = pytest.importorskip("torch")
    assert as_float(torch.full(shape, 2.5, dtype=torch.float64, requires_grad=True)) == 2.5


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_scalars_of_jax(shape):
    jnp = pytest.importorskip("jax.numpy")
    assert as_float(jnp.full(shape, 2.5)) == 2.5
    assert as_float(jnp.full(shape, 2.5, dtype=jnp.bfloat16)) == 2.5


# Gradients that do not fit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gradient", "params", "hint"),
    [
        (np.ones((8, 3)), np.ones(3), r"of the batch\? Sum over it: return g\.sum\(axis=0\)"),
        (np.ones((3, 8)), np.ones(3), r"g\.sum\(axis=1\)"),
        (np.ones((8, 3)), np.ones((1, 3)), r"g\.sum\(axis=0, keepdims=True\)"),
        (np.ones((3, 1)), np.ones(3), r"return g\.reshape\(\(3,\)\)"),
        (np.ones((1, 3)), np.ones(3), r"return g\.reshape\(\(3,\)\)"),
        (np.ones(6), np.ones((2, 3)), r"return g\.reshape\(\(2, 3\)\)"),
        (np.ones((3, 2)), np.ones((2, 3)), r"return its \.T"),
        (np.ones((1, 3)).view(np.matrix), np.ones(3), r"numpy\.matrix has always two axes.*reshape\(\(3,\)\)"),
        (3.0, np.ones(3), "one number: was it summed over all axes"),
    ],
)
def test_shape_hints(gradient, params, hint):
    with pytest.raises(InputError, match=hint):
        fastcheck.check(lambda p: float(np.sum(p)), lambda p: gradient, params)


@pytest.mark.parametrize("name", ["dJdW", "grad_W", "W_grad", "dJ_dW", "dLdW"])
def test_names_of_gradients(name):
    report = fastcheck.check(lambda p: np.sum(p["W"] ** 2), lambda p: {name: 2 * p["W"]}, {"W": np.ones(2)})
    assert report.passed
    assert not report.findings


def test_a_gradient_of_integers_is_named_where_it_is_wrong():
    at = np.array([0.4, 0.3, 1.2])
    for mode in ("full", "screen"):
        report = fastcheck.check(lambda t: t @ t / 2, lambda t: t.astype(int), at, mode=mode)
        assert report.verdict is Verdict.WRONG
        assert kinds(report)[0] == "integer"
        assert not {"detached", "zero"} & set(kinds(report))
    params, ones = {"a": at, "b": at}, np.ones(3, int)
    report = fastcheck.check(lambda p: p["a"].sum() + p["b"] @ p["b"], lambda p: {"a": ones, "b": p["b"]}, params)
    assert kinds(report)[0] == "factor"  # the integers are right: the other block is to blame
    assert fastcheck.check(lambda t: t.sum(), np.ones(3, int), at).findings == ()


def test_a_forgotten_return():
    with pytest.raises(InputError, match="gradient=None: is its `return` missing"):
        fastcheck.check(lambda t: t @ t, lambda t: None, np.ones(2))
    with pytest.raises(LossError, match="Is its `return` missing"):
        fastcheck.check(lambda t: None, np.ones(2), np.ones(2))


def test_the_line_of_an_exception():
    def helper(t):
        return np.linalg.inv(np.zeros((2, 2)) + 0 * t[0])  # raises inside numpy

    line = helper.__code__.co_firstlineno + 1
    with pytest.raises(LossError, match=rf"loss raised LinAlgError.*\(test_forms\.py, line {line}\)"):
        fastcheck.check(lambda t: helper(t).sum(), np.ones(2), np.ones(2))
    with pytest.raises(LossError, match=rf"gradient raised LinAlgError.*\(test_forms\.py, line {line}\)"):
        fastcheck.check(lambda t: t.sum(), helper, np.ones(2))
    with pytest.raises(LossError, match=rf"vjp raised LinAlgError.*\(test_forms\.py, line {line}\)"):
        fastcheck.check_vjp(lambda t: 2 * t, lambda t, u: helper(t), np.ones(2))


# Complex numbers -------------------------------------------------------------------------------------------------


Z = RNG.normal(size=(3, 2)) + 1j * RNG.normal(size=(3, 2))
C = RNG.normal(size=(4, 3)) + 1j * RNG.normal(size=(4, 3))
D = RNG.normal(size=(4, 2)) + 1j * RNG.normal(size=(4, 2))


def residual(p):
    return float(np.sum(np.abs(C @ p["z"] * p["s"] - D) ** 2))


def residual_gradient(p):
    r = C @ p["z"] * p["s"] - D
    return {"dz": 2 * C.conj().T @ r * p["s"], "ds": 2 * np.sum(np.real(np.conj(C @ p["z"]) * r))}


@pytest.mark.parametrize("mode", ["full", "sample", "screen"])
@pytest.mark.parametrize("dtype", [np.complex128, np.complex64])
def test_complex_parameters(mode, dtype, tmp_path):
    params = {"z": Z.astype(dtype), "s": 1.5}
    report = fastcheck.check(residual, residual_gradient, params, mode=mode)
    assert report.verdict is Verdict.CORRECT
    assert list(report.blocks) == ["z.real", "z.imag", "s"]
    if mode == "full":
        assert np.allclose(report.numerical["z"], residual_gradient(params)["dz"], rtol=1e-6)
        loaded = fastcheck.Report.load(report.save(tmp_path / "run.json")).numerical  # by block: the parts apart
        assert np.array_equal(loaded["z.real"] + 1j * loaded["z.imag"], report.numerical["z"])


@pytest.mark.parametrize("mode", ["full", "screen"])
@pytest.mark.parametrize(
    ("spoil", "convention"),
    [
        (np.conj, "the conjugate"),
        (lambda g: np.conj(g) / 2, "dJ/dz"),
        (lambda g: g / 2, "dJ/dconj(z)"),
    ],
)
def test_another_convention_is_recognised(mode, spoil, convention):
    params = {"z": Z, "s": 1.5}
    gradient = lambda p: residual_gradient(p) | {"dz": spoil(residual_gradient(p)["dz"])}  # noqa: E731
    report = fastcheck.check(residual, gradient, params, mode=mode)
    assert report.verdict is Verdict.WRONG
    assert [f.evidence["convention"] for f in report.findings if f.kind == "conjugate"] == [convention]
    assert kinds(report)[0] == "conjugate"
    assert convention in str(report).splitlines()[0]
    assert report.blocks["s"].verdict is Verdict.CORRECT


def test_a_wrong_gradient_is_not_called_a_convention():
    params = {"z": Z, "s": 1.5}
    for spoil in (lambda g: 1.1 * g, lambda g: -g, lambda g: g.real, lambda g: np.conj(g) + 0.05):
        gradient = residual_gradient(params) | {"dz": spoil(residual_gradient(params)["dz"])}
        report = fastcheck.check(residual, gradient, params)
        assert report.verdict is Verdict.WRONG
        assert "conjugate" not in kinds(report)


def test_complex_numbers_in_the_other_calls():
    found = fastcheck.numerical_gradient(lambda z: np.abs(z) ** 2, 1 + 2j)
    assert np.allclose(found, 2 + 4j)
    assert fastcheck.check(lambda z: np.sum(np.abs(z) ** 2), lambda z: 2 * z, [1 + 2j, 3.0]).passed
    with pytest.raises(InputError, match="scheme='complex' is for real parameters"):
        fastcheck.check(lambda z: np.sum(np.abs(z) ** 2), lambda z: 2 * z, Z, scheme="complex")
    with pytest.raises(InputError, match="theta is complex: check_vjp takes real inputs"):
        fastcheck.check_vjp(lambda z: z, lambda z, u: u, Z)
    with pytest.raises(InputError, match="has dtype complex128"):
        fastcheck.check(lambda t: t @ t, lambda t: 2j * t, np.ones(2))


# The plain form --------------------------------------------------------------------------------------------------


def test_what_is_plain_already_is_left_alone():
    gradient, loss = (lambda p: p), (lambda p: 0.0)
    with plain(loss, gradient, PARAMS) as problem:
        assert problem.loss is loss
        assert problem.params is PARAMS
        assert written(problem.gradient) is gradient
