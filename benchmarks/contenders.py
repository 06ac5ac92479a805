"""Gradient checkers at their defaults, all asked about the same plain NumPy loss and gradient.

A contender is a function ``ask(subject, gradient, seed)`` that returns an `Answer`; what it costs is counted by the
subject. Those that measure a whole numerical gradient measure it once for a net, and that cost counts in each answer.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np

import benchmarks.naive as naive
import fastcheck
from fastcheck import Verdict
from fastcheck.parameters import Parameters

Tree = dict[str, np.ndarray]
Gradient = Callable[[Tree], Tree]
Place = tuple[str, tuple[int, ...]]


@dataclass(eq=False)
class Subject:
    """A net at its parameters: what all contenders are asked about.

    Attributes
    ----------
    name : str
    loss, gradient : callable
        Of a dict of arrays; the right ones.
    params : dict of arrays
    decay : float
        Of the loss's term ``decay / 2 * sum(W**2)`` over the weights; 0 where it has none.
    network : callable, optional
        Returns the loss bound to a described `Network`.
    """

    name: str
    plain_loss: Callable[[Tree], float]
    gradient: Gradient
    params: Tree
    decay: float = 0.0
    network: Callable[[], Any] | None = None
    evaluations: int = 0
    remembered_seconds: float = 0.0
    _kept: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.layout = Parameters.of(self.params)
        self.size = self.layout.size
        self.theta = np.concatenate([value.ravel() for value in self.params.values()])  # in its own dtype

    def loss(self, params: Tree) -> float:
        self.evaluations += 1
        return self.plain_loss(params)

    def tree(self, theta: np.ndarray) -> Tree:
        """Return a vector as a dict like ``params``, of the vector's own dtype."""
        return {block.name: theta[block.slice].reshape(block.shape) for block in self.layout.blocks}

    def flat_loss(self, theta: np.ndarray) -> float:
        return self.loss(self.tree(np.asarray(theta)))

    def flat(self, gradient: Gradient, theta: np.ndarray | None = None) -> np.ndarray:
        found = gradient(self.tree(self.theta if theta is None else np.asarray(theta)))
        return np.concatenate([found[block.name].ravel() for block in self.layout.blocks])

    def once(self, key: Any, work: Callable[[], Any]) -> Any:
        """Return what ``work`` returns, done once; its evaluations and seconds count each time."""
        if key not in self._kept:
            before, began = self.evaluations, time.perf_counter()
            value = work()
            self._kept[key] = value, self.evaluations - before, time.perf_counter() - began
        else:
            self.evaluations += self._kept[key][1]
            self.remembered_seconds += self._kept[key][2]
        return self._kept[key][0]

    def places(self, coordinates: Iterable[int]) -> frozenset[Place]:
        found = []
        for i in coordinates:
            block = self.layout.block_at(int(i))
            found.append((block.name, tuple(int(k) for k in block.multi_index(int(i)))))
        return frozenset(found)


@dataclass(frozen=True)
class Answer:
    """What a contender says: alarm or not, None where it says that it cannot tell; and what it names as wrong."""

    alarm: bool | None
    blocks: frozenset[str] = frozenset()
    coordinates: frozenset[Place] = frozenset()
    evaluations: int | None = None  # by its own count; otherwise the subject's counter has it


@dataclass(frozen=True)
class Contender:
    """A checker, what it is called with, and up to how many parameters it is asked."""

    name: str
    call: str
    ask: Callable[[Subject, Gradient, int], Answer]
    limit: float = np.inf
    needs: str = "numpy"

    @property
    def installed(self) -> bool:
        return find_spec(self.needs) is not None

    def suits(self, subject: Subject) -> bool:
        return subject.size <= self.limit and (self.ask is not network or subject.network is not None)


def of_coordinates(subject: Subject, wrong: Iterable[int]) -> Answer:
    """Return the answer of a checker that looks at every coordinate: alarm at any, and name them."""
    named = subject.places(wrong)
    return Answer(bool(named), frozenset(block for block, _ in named), named)


def asserts(work: Callable[[], Any], *errors: type[Exception]) -> str | None:
    """Return None where the work passes, else the message of the error it raises."""
    try:
        work()
    except errors as error:
        return str(error)
    return None


# -- the textbook and the courses ----------------------------------------------------------------------------------


def textbook(subject: Subject, gradient: Gradient, seed: int) -> Answer:
    def loop() -> np.ndarray:
        return naive.gradient_check(subject.loss, subject.params, subject.params)[1].ravel()

    n, g = subject.once("textbook", loop), subject.flat(gradient)
    return Answer(bool(np.linalg.norm(g - n) > 2e-7 * (np.linalg.norm(g) + np.linalg.norm(n))))


def sampled(subject: Subject, gradient: Gradient, seed: int) -> Answer:
    count = min(1000, subject.size)
    some = np.random.default_rng(seed).choice(subject.size, count, replace=False)

    def loop() -> np.ndarray:
        found, theta = [], subject.theta.copy()
        for i in some:
            kept = theta[i]
            theta[i] = kept + 1e-5
            plus = subject.flat_loss(theta)
            theta[i] = kept - 1e-5
            minus = subject.flat_loss(theta)
            theta[i] = kept
            found.append((plus - minus) / 2e-5)
        return np.array(found)

    n, g = subject.once(("sampled", seed), loop), subject.flat(gradient)[some]
    sizes = np.abs(g) + np.abs(n)
    error = np.divide(np.abs(g - n), sizes, out=np.zeros(count), where=sizes > 0)
    return of_coordinates(subject, some[error > 1e-4])


# -- libraries -----------------------------------------------------------------------------------------------------


def torch_gradcheck(fast: bool) -> Callable[[Subject, Gradient, int], Answer]:
    def ask(subject: Subject, gradient: Gradient, seed: int) -> Answer:
        import torch

        torch.set_num_threads(1)
        # Its answer stands by now; for the message it would measure all coordinates, which takes hours in a large net.
        sys.modules["torch.autograd.gradcheck"]._run_slow_mode_and_get_error = lambda *args, **options: ""
        names = list(subject.params)

        class Loss(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *tensors: Any) -> Any:
                ctx.save_for_backward(*tensors)
                arrays = {name: tensor.detach().numpy() for name, tensor in zip(names, tensors, strict=True)}
                return tensors[0].new_tensor(subject.loss(arrays))

            @staticmethod
            def backward(ctx: Any, upstream: Any) -> Any:
                arrays = [tensor.detach().numpy() for tensor in ctx.saved_tensors]
                found = gradient(dict(zip(names, arrays, strict=True)))
                return tuple(upstream * torch.as_tensor(found[name]) for name in names)

        inputs = [torch.tensor(value, requires_grad=True) for value in subject.params.values()]
        said = asserts(lambda: torch.autograd.gradcheck(Loss.apply, inputs, fast_mode=fast), RuntimeError)
        named = re.search(r"with respect to input (\d+)", said or "")
        return Answer(said is not None, frozenset([names[int(named[1])]] if named else ()))

    return ask


def jax_check_grads(subject: Subject, gradient: Gradient, seed: int) -> Answer:
    import jax
    from jax.test_util import check_grads

    dtype = subject.theta.dtype
    jax.config.update("jax_enable_x64", dtype == np.float64)  # for all threads: that of the callback is another one
    shape, number = jax.ShapeDtypeStruct(subject.theta.shape, dtype), jax.ShapeDtypeStruct((), dtype)

    @jax.custom_vjp
    def loss(theta: Any) -> Any:
        return jax.pure_callback(lambda t: np.asarray(subject.flat_loss(t), dtype), number, theta)

    def backward(theta: Any, upstream: Any) -> Any:
        return (upstream * jax.pure_callback(lambda t: subject.flat(gradient, t), shape, theta),)

    loss.defvjp(lambda theta: (loss(theta), theta), backward)
    theta = jax.numpy.asarray(subject.theta)
    return Answer(asserts(lambda: check_grads(loss, (theta,), 1, modes=["rev"]), AssertionError) is not None)


def autograd_check_grads(subject: Subject, gradient: Gradient, seed: int) -> Answer:
    from autograd.extend import defvjp, primitive
    from autograd.test_util import check_grads

    loss = primitive(subject.flat_loss)
    defvjp(loss, lambda value, theta: lambda upstream: upstream * subject.flat(gradient, theta))
    np.random.seed(seed)  # noqa: NPY002 (its directions come from the global generator)
    return Answer(asserts(lambda: check_grads(loss, modes=["rev"], order=1)(subject.theta), AssertionError) is not None)


def scipy_check_grad(direction: str) -> Callable[[Subject, Gradient, int], Answer]:
    def ask(subject: Subject, gradient: Gradient, seed: int) -> Answer:
        from scipy.optimize import check_grad

        random = {"direction": "random", "rng": seed} if direction == "random" else {}
        error = check_grad(subject.flat_loss, lambda theta: subject.flat(gradient, theta), subject.theta, **random)
        return Answer(not error <= 1e-6)

    return ask


def numdifftools_gradient(subject: Subject, gradient: Gradient, seed: int) -> Answer:
    import numdifftools

    numerical = subject.once("numdifftools", lambda: numdifftools.Gradient(subject.flat_loss)(subject.theta))
    return of_coordinates(subject, np.flatnonzero(~np.isclose(subject.flat(gradient), numerical)))


def derivcheck_assert(subject: Subject, gradient: Gradient, seed: int) -> Answer:
    from derivcheck import assert_deriv

    try:
        said = asserts(
            lambda: assert_deriv(subject.flat_loss, lambda t: subject.flat(gradient, t), subject.theta), AssertionError
        )
    except FloatingPointError:  # "Inaccurate estimate of the derivative"
        return Answer(None)
    named = re.search(r"derivative toward \((?:np\.int64\()?(\d+)", said or "")
    return of_coordinates(subject, [int(named[1])] if named else [])


# -- fastcheck -----------------------------------------------------------------------------------------------------


def ours(mode: Any) -> Callable[[Subject, Gradient, int], Answer]:
    def ask(subject: Subject, gradient: Gradient, seed: int) -> Answer:
        return answer(fastcheck.check(subject.loss, gradient, subject.params, mode=mode, seed=seed, progress=False))

    return ask


def network(subject: Subject, gradient: Gradient, seed: int) -> Answer:
    assert subject.network is not None
    return answer(fastcheck.check(subject.network(), gradient, subject.params, mode="full", seed=seed, progress=False))


def answer(report: fastcheck.Report) -> Answer:
    alarms = (Verdict.WRONG, Verdict.SUSPICIOUS)
    return Answer(
        None if report.verdict is Verdict.INCONCLUSIVE else not report.passed,
        frozenset(name for name, block in report.blocks.items() if block.verdict in alarms),
        frozenset((c.block, tuple(int(k) for k in c.index)) for c in report.wrong),
        report.evaluations,
    )


CONTENDERS = (
    Contender("textbook loop", "every coordinate, eps = 1e-7, the ratio > 2e-7", textbook, 10_000),
    Contender("sampled loop", "1,000 random coordinates, h = 1e-5, relative error > 1e-4", sampled),
    Contender("torch gradcheck", "`gradcheck(f, inputs)`", torch_gradcheck(False), 10_000, "torch"),
    Contender("torch gradcheck, fast", "`gradcheck(f, inputs, fast_mode=True)`", torch_gradcheck(True), needs="torch"),
    Contender("jax check_grads", '`check_grads(f, args, 1, modes=["rev"])`', jax_check_grads, needs="jax"),
    Contender("autograd check_grads", '`check_grads(f, ["rev"], 1)(x)`', autograd_check_grads, needs="autograd"),
    Contender("scipy check_grad", "`check_grad(f, g, x)` > 1e-6", scipy_check_grad("all"), 10_000, "scipy"),
    Contender(
        "scipy check_grad, random", '`check_grad(f, g, x, direction="random")` > 1e-6', scipy_check_grad("random")
    ),
    Contender(
        "numdifftools", "`np.allclose(g(x), Gradient(f)(x))`", numdifftools_gradient, 10_000, needs="numdifftools"
    ),
    Contender("derivcheck", "`assert_deriv(f, g, x)`", derivcheck_assert, 10_000, needs="derivcheck"),
    Contender("fastcheck, full", '`check(f, g, x, mode="full")`', ours("full"), 10_000),
    Contender("fastcheck, screen", '`check(f, g, x, mode="screen")`', ours("screen")),
    Contender("fastcheck", "`check(f, g, x)`", ours("auto")),
    Contender("fastcheck, Network", '`check(network.bind(X, y), g, x, mode="full")`', network),
)
