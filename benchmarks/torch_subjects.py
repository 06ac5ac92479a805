"""Functions and modules of torch whose gradients are right or wrong, and how each checker is asked about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd import Function, gradcheck, gradgradcheck
from torch.nn import functional as F

import fastcheck
from benchmarks.peers import RIGHT, WRONG, Subject
from benchmarks.torch_nets import Loss

SUBJECTS: list[Subject] = []
FUNCTIONS, SECOND, MODULES, KERNELS = (
    "Functions of torch",
    "Their second derivatives",
    "Modules of torch",
    "Kernels of low precision",
)


def draw(*shape: int, seed: int = 0, dtype: Any = torch.float64) -> Any:
    generator = torch.Generator().manual_seed(1000 * seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=dtype if dtype.is_complex else torch.float64).to(dtype)


# -- how they are asked --------------------------------------------------------------------------------------------


LONG = 4000  # inputs above which a Jacobian entry by entry takes minutes


def theirs(check: Any, function: Any, inputs: Sequence[Any]) -> dict[str, Callable[[], Any]]:
    """Return how torch's own checkers are asked."""
    slow = {"gradcheck": lambda: check(function, inputs)} if sum(x.numel() for x in inputs) < LONG else {}
    return {**slow, "gradcheck, fast": lambda: check(function, inputs, fast_mode=True)}


def of_function(name: str, wrong: Sequence[str] | None, made: Callable[[], tuple[Any, Sequence[Any]]]) -> None:
    """Add a function of tensors, all of which are differentiated; `wrong` are the inputs whose gradient is."""

    def make() -> dict[str, Callable[[], Any]]:
        function, inputs = made()
        given = [x.requires_grad_() if x.is_floating_point() or x.is_complex() else x for x in inputs]
        return {
            "fastcheck": lambda: fastcheck.torch.check_function(function, given),
            **theirs(gradcheck, function, given),
        }

    _add(name, FUNCTIONS, wrong, make)


def of_second(name: str, wrong: Sequence[str] | None, made: Callable[[], tuple[Any, Sequence[Any]]]) -> None:
    """Add the backward pass of a function, to be differentiated again."""

    def make() -> dict[str, Callable[[], Any]]:
        function, inputs = made()
        given = [x.requires_grad_() for x in inputs]
        return {
            "fastcheck": lambda: fastcheck.torch.check_function(function, given, order=2),
            **theirs(gradgradcheck, function, given),
        }

    _add(name, SECOND, wrong, make)


def of_module(
    name: str, wrong: Sequence[str] | None, made: Callable[[], tuple[Any, Any, tuple[Any, ...]]], dtype: Any = None
) -> None:
    """Add a loss of (model, *args); in float64 unless a dtype is given, since gradcheck asks for that."""

    def make() -> dict[str, Callable[[], Any]]:
        torch.manual_seed(0)
        loss, model, args = made()
        kind = dtype or torch.float64
        model = model.to(kind)
        args = tuple(x.to(kind) if torch.is_tensor(x) and x.is_floating_point() else x for x in args)
        names = [f"model.{name}" for name, _ in model.named_parameters()]
        whole = Loss(loss, model)

        def function(*values: Any) -> Any:
            return torch.func.functional_call(whole, dict(zip(names, values, strict=True)), args)

        inputs = [p.detach().clone().requires_grad_() for p in model.parameters()]
        return {
            "fastcheck": lambda: fastcheck.torch.check(loss, model, args=args),
            **theirs(gradcheck, function, inputs),
        }

    _add(name, MODULES, wrong, make)


def of_kernel(
    name: str, wrong: Sequence[str] | None, made: Callable[[], tuple[Any, Sequence[Any]]], reference: Any
) -> None:
    """Add a kernel that is asked about in the precision of its inputs: fastcheck is given a reference."""

    def make() -> dict[str, Callable[[], Any]]:
        function, inputs = made()
        given = [x.requires_grad_() for x in inputs]
        return {
            "fastcheck": lambda: fastcheck.torch.check_function(function, given, reference=reference),
            **theirs(gradcheck, function, given),
        }

    _add(name, KERNELS, wrong, make)


def _add(name: str, group: str, wrong: Sequence[str] | None, make: Callable[[], Any]) -> None:
    SUBJECTS.append(Subject(name, group, RIGHT if wrong is None else WRONG, frozenset(wrong or ()), make))


def custom(forward: Callable[..., Any], backward: Callable[..., Any], **methods: Any) -> Any:
    """Return ``apply`` of a Function; ``backward(inputs, *upstream)``, inputs as they were saved."""

    def saving(ctx: Any, *inputs: Any) -> Any:
        ctx.save_for_backward(*inputs)
        return forward(*inputs)

    def back(ctx: Any, *upstream: Any) -> Any:
        return backward(ctx.saved_tensors, *upstream)

    made = {"forward": staticmethod(saving), "backward": staticmethod(back)}
    return type("Custom", (Function,), made | {k: staticmethod(v) for k, v in methods.items()}).apply


# -- functions -----------------------------------------------------------------------------------------------------


def swish(by_x: Callable[[Any], Any] = lambda g: g, slope: Callable[..., Any] | None = None) -> Any:
    def right(x: Any, s: Any) -> Any:
        return s + x * s * (1 - s)

    def backward(saved: Any, g: Any) -> Any:
        (x,) = saved
        return by_x(g * (slope or right)(x, torch.sigmoid(x)))

    return custom(lambda x: x * torch.sigmoid(x), backward)


def written(index: Any, factor: float) -> Callable[[Any], Any]:
    def changed(g: Any) -> Any:
        g = g.clone()
        g[index] *= factor
        return g

    return changed


of_function("swish", None, lambda: (swish(), [draw(6, 8)]))
of_function("swish, a factor of 1.01", ["input0"], lambda: (swish(lambda g: 1.01 * g), [draw(6, 8)]))
of_function("swish, a factor of 1.0005", ["input0"], lambda: (swish(lambda g: 1.0005 * g), [draw(6, 8)]))
of_function("swish, the sign", ["input0"], lambda: (swish(lambda g: -g), [draw(6, 8)]))
of_function(
    "swish, an x is missing",
    ["input0"],
    lambda: (swish(slope=lambda x, s: s + s * (1 - s)), [draw(6, 8)]),
)
of_function("swish, the last entry is never written", ["input0"], lambda: (swish(written((-1, -1), 0)), [draw(6, 8)]))
of_function("swish, one entry times 1.01", ["input0"], lambda: (swish(written((2, 3), 1.01)), [draw(6, 8)]))
of_function("swish, one row is never written", ["input0"], lambda: (swish(written(2, 0)), [draw(6, 8)]))
of_function("swish, two rows are exchanged", ["input0"], lambda: (swish(lambda g: g[[1, 0, 2, 3, 4, 5]]), [draw(6, 8)]))


def linear(
    by_w: Callable[..., Any] = lambda x, g: g.T @ x,
    by_x: Callable[..., Any] = lambda w, g: g @ w,
    by_b: Callable[[Any], Any] = lambda g: g.sum(0),
) -> Any:
    return custom(
        lambda x, w, b: x @ w.T + b,
        lambda saved, g: (by_x(saved[1], g), by_w(saved[0], g), by_b(g)),
    )


def square() -> list[Any]:
    return [draw(5, 5), draw(5, 5, seed=1), draw(5)]


of_function("linear", None, lambda: (linear(), square()))
of_function(
    "linear, W in the place of its transpose", ["input0"], lambda: (linear(by_x=lambda w, g: g @ w.T), square())
)
of_function("linear, the transpose of dW", ["input1"], lambda: (linear(by_w=lambda x, g: x.T @ g), square()))
of_function("linear, db summed over the wrong axis", ["input2"], lambda: (linear(by_b=lambda g: g.sum(1)), square()))
of_function("linear, db not summed but broadcast", ["input2"], lambda: (linear(by_b=lambda g: g[0]), square()))
of_function("linear, dW of the mean", ["input1"], lambda: (linear(by_w=lambda x, g: g.T @ x / len(x)), square()))
of_function("linear, dW of zeros", ["input1"], lambda: (linear(by_w=lambda x, g: torch.zeros_like(g)), square()))


def layer_norm(whole: bool = True) -> Any:
    def parts(x: Any) -> tuple[Any, Any]:
        centred = x - x.mean(-1, keepdim=True)
        scale = torch.rsqrt((centred**2).mean(-1, keepdim=True) + 1e-5)
        return centred * scale, scale

    def backward(saved: Any, g: Any) -> Any:
        x, w = saved
        hat, scale = parts(x)
        by_hat = g * w
        last = hat * (by_hat * hat).mean(-1, keepdim=True)
        mean = by_hat.mean(-1, keepdim=True) if whole else 0
        return scale * (by_hat - mean - last), (g * hat).sum(0)

    return custom(lambda x, w: parts(x)[0] * w, backward)


of_function("layer norm", None, lambda: (layer_norm(), [draw(5, 7), draw(7)]))
of_function("layer norm, a mean is missing", ["input0"], lambda: (layer_norm(False), [draw(5, 7), draw(7)]))


def complex_product(conjugate: bool) -> Any:
    def backward(saved: Any, g: Any) -> Any:
        x, w = (s.conj() if conjugate else s for s in saved)
        return g * w, g * x

    return custom(lambda x, w: x * w, backward)


def complexes() -> list[Any]:
    return [draw(6, dtype=torch.complex128), draw(6, seed=1, dtype=torch.complex128)]


of_function("complex product", None, lambda: (complex_product(True), complexes()))
of_function("complex product, not conjugated", ["input0", "input1"], lambda: (complex_product(False), complexes()))


def mean(by_x: Callable[[Any], Any]) -> Any:
    return custom(
        lambda x: torch.sin(x).mean(), lambda saved, g: by_x(g * torch.cos(saved[0]) / saved[0].numel()).contiguous()
    )


of_function("mean of 1,000", None, lambda: (mean(lambda g: g), [draw(1000)]))
of_function("mean of 1,000, one sign", ["input0"], lambda: (mean(written(123, -1)), [draw(1000)]))
of_function("mean of 1,000, all zeros", ["input0"], lambda: (mean(lambda g: 0 * g), [draw(1000)]))
of_function("mean of 1,000, of the sum", ["input0"], lambda: (mean(lambda g: 1000 * g), [draw(1000)]))


def two(mode: str) -> Any:
    """Return a function of two outputs, of which one may have no gradient."""

    def forward(ctx: Any, x: Any, w: Any) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, w)
        return torch.sin(x) * w, x * w**2

    def backward(ctx: Any, g: Any, h: Any) -> Any:
        x, w = ctx.saved_tensors
        if mode == "nothing" and (g is None or h is None):
            return None, None
        if mode != "multiplied":
            other = torch.ones_like if mode == "ones" else torch.zeros_like
            g, h = (other(x) if u is None else u for u in (g, h))
        return g * torch.cos(x) * w + h * w**2, g * torch.sin(x) + h * 2 * x * w

    return type("Two", (Function,), {"forward": staticmethod(forward), "backward": staticmethod(backward)}).apply


def pair() -> list[Any]:
    return [draw(5), draw(5, seed=1)]


of_function("an unused output, None is zero", None, lambda: (two("zeros"), pair()))
of_function("an unused output, None is taken for ones", [], lambda: (two("ones"), pair()))
of_function("an unused output, None is multiplied", [], lambda: (two("multiplied"), pair()))
of_function("an unused output, then nothing is returned", [], lambda: (two("nothing"), pair()))


def needing(right: bool) -> Any:
    def backward(ctx: Any, g: Any) -> Any:
        x, w = ctx.saved_tensors
        by_x = g * torch.cos(x) * w if ctx.needs_input_grad[0] else None
        by_w = g * torch.sin(x) if ctx.needs_input_grad[1] else None
        if not right and not ctx.needs_input_grad[0]:
            by_w = g * torch.cos(x)  # what was computed on the way to by_x is not there
        return by_x, by_w

    def forward(ctx: Any, x: Any, w: Any) -> Any:
        ctx.save_for_backward(x, w)
        return torch.sin(x) * w

    return type("Needing", (Function,), {"forward": staticmethod(forward), "backward": staticmethod(backward)}).apply


of_function("needs_input_grad", None, lambda: (needing(True), pair()))
of_function("needs_input_grad, wrong for one input alone", ["w"], lambda: (needing(False), pair()))


def in_place(marked: bool) -> Any:
    def forward(ctx: Any, x: Any) -> Any:
        if marked:
            ctx.mark_dirty(x)
        ctx.save_for_backward(x.clone())
        x.mul_(2)
        return x if marked else x.clone()

    made = {"forward": staticmethod(forward), "backward": staticmethod(lambda ctx, g: 2 * g)}
    function = type("InPlace", (Function,), made).apply
    return lambda x: function(x.clone()) * 1


def unmarked() -> Any:
    """Scale an input that is used again, without mark_dirty."""

    def forward(ctx: Any, x: Any) -> Any:
        x.mul_(2)
        return x.clone()

    made = {"forward": staticmethod(forward), "backward": staticmethod(lambda ctx, g: 2 * g)}
    return type("Unmarked", (Function,), made).apply


of_function("in place, with mark_dirty", None, lambda: (in_place(True), [draw(6)]))
of_function("in place, without mark_dirty", [], lambda: (unmarked(), [draw(6)]))


def strided(contiguous: bool) -> Any:
    def backward(saved: Any, g: Any) -> Any:
        g = g.contiguous() if contiguous else g
        g = torch.as_strided(g, g.shape, (g.shape[1], 1))  # as a kernel reads a pointer
        return g * torch.cos(saved[0])

    return custom(torch.sin, backward)


of_function("upstream made contiguous", None, lambda: (strided(True), [draw(4, 4)]))
of_function("upstream read as if contiguous", [], lambda: (strided(False), [draw(4, 4)]))


def writing(x: Any) -> Any:
    def backward(saved: Any, g: Any) -> Any:
        return g.mul_(torch.cos(saved[0]))

    return custom(torch.sin, backward)(x)


of_function("upstream is written to", ["x"], lambda: (writing, [draw(6)]))
of_function(
    "a part that does not depend on upstream",
    ["input0"],
    lambda: (custom(torch.sin, lambda saved, g: g * torch.cos(saved[0]) + 0.5), [draw(6)]),
)
of_function(
    "not linear in upstream",
    ["input0"],
    lambda: (custom(torch.sin, lambda saved, g: g * g.abs() * torch.cos(saved[0])), [draw(6)]),
)


def at_random(x: Any) -> Any:
    return custom(torch.sin, lambda saved, g: g * torch.cos(saved[0]) * (1 + 0.1 * torch.rand_like(g)))(x)


of_function("a backward pass that draws at random", [], lambda: (at_random, [draw(6)]))
straight = custom(torch.round, lambda saved, g: g)
of_function("rounding alone, straight through", ["x"], lambda: (lambda x: straight(x), [draw(8)]))
of_function("rounding, straight through", ["x"], lambda: (lambda x: straight(x) * x, [draw(8)]))
of_function("plain: relu, max, abs", None, lambda: (lambda x, w: (F.relu(x @ w).amax(1), w.abs()), square()[:2]))
of_function(
    "plain: differentiates inside",
    None,
    lambda: (lambda x: torch.autograd.grad((x**3).sum(), x, create_graph=True)[0], [draw(6)]),
)
of_function("plain: singular values", None, lambda: (torch.linalg.svdvals, [draw(5, 4)]))
of_function("plain: a detach too many", ["x"], lambda: (lambda x: x * torch.sigmoid(x.detach()), [draw(6)]))


# -- second derivatives --------------------------------------------------------------------------------------------


def cube(second: Callable[[Any], Any] = lambda x: x) -> Any:
    return custom(lambda x: x**3, lambda saved, g: 3 * second(saved[0]) ** 2 * g)


class Scaled(Function):
    """The identity, with another derivative."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return 1.01 * g


def kept_softplus() -> Any:
    def forward(ctx: Any, x: Any) -> Any:
        s = torch.sigmoid(x)
        ctx.save_for_backward(s)  # computed in the forward pass: autograd keeps no graph of it
        return F.softplus(x)

    made = {"forward": staticmethod(forward), "backward": staticmethod(lambda ctx, g: ctx.saved_tensors[0] * g)}
    return type("Softplus", (Function,), made).apply


of_second("cube", None, lambda: (cube(), [draw(6)]))
of_second("cube, detached", ["input0"], lambda: (cube(lambda x: x.detach()), [draw(6)]))
of_second("cube, 1.01 in the second", ["input0"], lambda: (cube(Scaled.apply), [draw(6)]))
of_second("softplus, what was saved has no graph", ["x"], lambda: (kept_softplus(), [draw(6)]))
of_second("softmax", None, lambda: (lambda x: F.softmax(x, -1), [draw(3, 4)]))
of_second("linear", None, lambda: (linear(), square()))
of_second(
    "cube, once_differentiable",
    ["x", "cotangent"],
    lambda: (
        type(
            "Once",
            (Function,),
            {
                "forward": staticmethod(lambda ctx, x: (ctx.save_for_backward(x), x**3)[1]),
                "backward": staticmethod(
                    torch.autograd.function.once_differentiable(lambda ctx, g: 3 * ctx.saved_tensors[0] ** 2 * g)
                ),
            },
        ).apply,
        [draw(6)],
    ),
)


# -- modules -------------------------------------------------------------------------------------------------------


def cross_entropy(model: Any, x: Any, y: Any) -> Any:
    return F.cross_entropy(model(x), y)


def squares(model: Any, x: Any) -> Any:
    found = model(x)
    return (found[0] if isinstance(found, tuple) else found).square().mean()


def labels(count: int, classes: int) -> Any:
    return torch.randint(0, classes, (count,), generator=torch.Generator().manual_seed(3))


def net(*layers: Any, x: Any, classes: int = 3) -> tuple[Any, Any, tuple[Any, ...]]:
    return cross_entropy, nn.Sequential(*layers), (x, labels(len(x), classes))


def relu_net() -> Any:
    return net(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 3), x=draw(32, 10))


def trained() -> Any:
    loss, model, args = relu_net()
    model = model.double()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        loss(model, *args).backward()
        optimizer.step()
    model.zero_grad()
    return loss, model, args


class Step(nn.Module):
    """A custom function in the middle of a net."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


def around(function: Any) -> Any:
    return net(nn.Linear(6, 12), Step(function), nn.Linear(12, 3), x=draw(16, 6))


of_module("linear", None, lambda: net(nn.Linear(10, 3), x=draw(16, 10)))
of_module("tanh net", None, lambda: net(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 3), x=draw(32, 10)))
of_module("relu net", None, relu_net)
of_module("relu net, trained", None, trained)


def convolutions() -> list[Any]:
    pooled = [nn.MaxPool2d(2), nn.Conv2d(4, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(32, 3)]
    return [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), *pooled]


of_module("convolutions", None, lambda: net(*convolutions(), x=draw(4, 1, 8, 8)))


of_module("LSTM", None, lambda: (squares, nn.LSTM(4, 8, batch_first=True), (draw(3, 6, 4),)))
of_module("GRU", None, lambda: (squares, nn.GRU(4, 6, batch_first=True), (draw(3, 6, 4),)))
of_module(
    "batch norm in training",
    None,
    lambda: net(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.Tanh(), nn.Linear(10, 3), x=draw(16, 6)),
)
of_module("layer norm", None, lambda: net(nn.Linear(6, 10), nn.LayerNorm(10), nn.Linear(10, 3), x=draw(16, 6)))
of_module(
    "attention",
    None,
    lambda: (
        lambda m, x: m(x, x, x)[0].square().mean(),
        nn.MultiheadAttention(8, 2, batch_first=True),
        (draw(2, 5, 8),),
    ),
)
of_module(
    "transformer layer",
    None,
    lambda: (squares, nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), (draw(2, 5, 8),)),
)


class Words(nn.Module):
    """An embedding with padding, of which the loss may see the padded positions."""

    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.table, self.out, self.masked = nn.Embedding(9, 4, padding_idx=0), nn.Linear(4, 1), masked
        nn.init.normal_(self.table.weight)

    def forward(self, words: Any) -> Any:
        found = torch.tanh(self.out(self.table(words))).squeeze(-1)
        return found * (words != 0) if self.masked else found


def sentences() -> Any:
    return torch.tensor([[1, 2, 3, 0], [4, 5, 0, 0], [6, 7, 8, 1]])


of_module("embedding, padding masked", None, lambda: (squares, Words(True), (sentences(),)))
of_module(
    "embedding, padding used: no gradient by design", ["table.weight"], lambda: (squares, Words(False), (sentences(),))
)


def spectral() -> Any:
    return net(
        nn.Linear(6, 9), nn.utils.parametrizations.spectral_norm(nn.Linear(9, 20)), nn.Linear(20, 3), x=draw(16, 6)
    )


def evaluated() -> Any:
    loss, model, args = spectral()
    return loss, model.eval(), args


of_module("spectral norm in training: vectors held fixed by design", ["1.parametrizations.weight.original"], spectral)
of_module("spectral norm in evaluation", None, evaluated)
of_module(
    "weight norm",
    None,
    lambda: net(nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)), nn.Tanh(), nn.Linear(8, 3), x=draw(16, 6)),
)
of_module("dropout in training", None, lambda: net(nn.Linear(6, 16), nn.Dropout(0.5), nn.Linear(16, 3), x=draw(16, 6)))


class Casting(nn.Module):
    """A norm and a softmax in float32, as every transformer has them."""

    def __init__(self, act: Any = F.gelu) -> None:
        super().__init__()
        self.into, self.scale, self.out = nn.Linear(6, 8), nn.Parameter(torch.ones(8)), nn.Linear(8, 3)
        self.act = act

    def forward(self, x: Any) -> Any:
        x = self.into(x)
        wide = x.float()
        normed = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * self.scale
        return self.out(self.act(normed)).softmax(-1, dtype=torch.float32)


def casting(act: Any = F.gelu) -> Any:
    return lambda m, x, y: F.nll_loss(m(x).log(), y), Casting(act), (draw(16, 6), labels(16, 3))


def wrong_gelu() -> Any:
    def backward(saved: Any, g: Any) -> Any:
        (x,) = saved
        density = torch.exp(-x * x / 2) / (2 * torch.pi) ** 0.5
        return 1.05 * g * (0.5 * (1 + torch.erf(x / 2**0.5)) + x * density)

    return custom(F.gelu, backward)


HIDDEN = ["0.weight", "0.bias"]
of_module("casts to float32 inside", None, casting)
of_module(
    "casts to float32 inside, gelu times 1.05", ["into.weight", "into.bias", "scale"], lambda: casting(wrong_gelu())
)
of_module("float32 parameters", None, relu_net, dtype=torch.float32)
of_module("a custom swish", None, lambda: around(swish()))
of_module("a custom swish, times 1.01", HIDDEN, lambda: around(swish(lambda g: 1.01 * g)))
of_module("a custom swish, one row is lost", HIDDEN, lambda: around(swish(written(3, 0))))
of_module(
    "a custom swish, times 1.05, float32",
    HIDDEN,
    lambda: around(swish(lambda g: 1.05 * g)),
    dtype=torch.float32,
)
of_module("rounding, straight through", HIDDEN, lambda: around(straight))
of_module("a branch detached", HIDDEN, lambda: around(lambda x: x * torch.sigmoid(x.detach())))


class Tied(nn.Module):
    """One matrix used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm = nn.Embedding(9, 4), nn.LayerNorm(4)

    def forward(self, words: Any) -> Any:
        return (self.norm(self.table(words)) @ self.table.weight.T).softmax(-1)


of_module(
    "linear, batch norm without a scale, float32: all rounding",
    None,
    lambda: (squares, nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, affine=False)), (draw(6, 4),)),
    dtype=torch.float32,
)
of_module("tied weights", None, lambda: (squares, Tied(), (sentences(),)))


class Clipping(nn.Module):
    """A gradient that a layer clips on the way back."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 6))

    def forward(self, x: Any) -> Any:
        return custom(lambda w: w.clone(), lambda saved, g: g.clamp(-1e-2, 1e-2))(self.weight) @ x.T


of_module(
    "a gradient clipped on the way back",
    ["weight"],
    lambda: (lambda m, x: torch.tanh(m(x)).square().mean(), Clipping(), (draw(16, 6),)),
)


# -- kernels of low precision --------------------------------------------------------------------------------------


def normed(x: Any, w: Any) -> Any:
    x = x - x.mean(-1, keepdim=True)
    return x * torch.rsqrt((x**2).mean(-1, keepdim=True) + 1e-5) * w


def kernel(by_x: Callable[[Any], Any] = lambda g: g, by_w: Callable[..., Any] | None = None) -> Any:
    """A layer norm that sums in float32, rounds once, and refuses float64."""

    def parts(x: Any) -> tuple[Any, Any]:
        wide = x.float()
        centred = wide - wide.mean(-1, keepdim=True)
        scale = torch.rsqrt((centred**2).mean(-1, keepdim=True) + 1e-5)
        return centred * scale, scale

    def forward(x: Any, w: Any) -> Any:
        if x.dtype == torch.float64:
            raise TypeError("no float64")
        return (parts(x)[0] * w.float()).to(x.dtype)

    def backward(saved: Any, g: Any) -> Any:
        x, w = saved
        hat, scale = parts(x)
        up = g.float() * w.float()
        found = scale * (up - up.mean(-1, keepdim=True) - hat * (up * hat).mean(-1, keepdim=True))
        summed = by_w(g, hat) if by_w else (g.float() * hat).sum(0)
        return by_x(found.to(x.dtype)), summed.to(w.dtype)

    return custom(forward, backward)


def summed_in_bfloat16(g: Any, hat: Any) -> Any:
    total = torch.zeros_like(g[0])
    for row in (g.float() * hat).to(g.dtype):
        total = total + row
    return total


def rounded(factor: float) -> Callable[[Any], Any]:
    return lambda g: (factor * g.float()).to(g.dtype)


def low(dtype: Any, rows: int = 32, columns: int = 16) -> list[Any]:
    return [draw(rows, columns).to(dtype), (1 + 0.5 * draw(columns)).to(dtype)]


for dtype, word in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
    of_kernel(f"layer norm in {word}", None, lambda dtype=dtype: (kernel(), low(dtype)), normed)
    of_kernel(
        f"layer norm in {word}, the last entry is never written",
        ["input0"],
        lambda dtype=dtype: (kernel(written((-1, -1), 0)), low(dtype)),
        normed,
    )
of_kernel(
    "layer norm in float32, times 1.001",
    ["input0"],
    lambda: (kernel(rounded(1.001)), low(torch.float32)),
    normed,
)
of_kernel(
    "layer norm in bfloat16, times 1.01",
    ["input0"],
    lambda: (kernel(rounded(1.01)), low(torch.bfloat16, 64, 48)),
    normed,
)
of_kernel(
    "layer norm in bfloat16, summed in bfloat16",
    ["input1"],
    lambda: (kernel(by_w=summed_in_bfloat16), low(torch.bfloat16, 512, 4)),
    normed,
)
