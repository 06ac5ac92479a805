"""The backward passes that are easiest to get wrong, against an independent forward pass and automatic gradients."""

import numpy as np
import pytest

from fastcheck import examples
from fastcheck.bugs.mutation import Subject
from tests import zoo

torch = pytest.importorskip("torch")
F = torch.nn.functional


def gru(p, sequences, y):
    units = p["output"].shape[1]
    h = torch.zeros(len(y), units, dtype=torch.float64)
    for t in range(sequences.shape[1]):
        i = [sequences[:, t] @ p["input"][g].T + p["gate_bias"][g] for g in range(3)]
        s = [h @ p["recurrent"][g].T for g in range(3)]
        z, r = torch.sigmoid(i[0] + s[0]), torch.sigmoid(i[1] + s[1])
        h = z * h + (1 - z) * torch.tanh(i[2] + r * s[2])
    return F.cross_entropy(h @ p["output"].T + p["output_bias"], y)


def rnn(p, sequences, y):
    cell = torch.nn.RNN(8, p["cell.bias"].shape[0], batch_first=True, dtype=torch.float64)
    weights = {
        "weight_ih_l0": p["cell.input"].T,
        "weight_hh_l0": p["cell.recurrent"].T,
        "bias_ih_l0": p["cell.bias"],
        "bias_hh_l0": torch.zeros_like(p["cell.bias"]),
    }
    _, last = torch.func.functional_call(cell, weights, (sequences,))
    return F.cross_entropy(last[0] @ p["output.weight"] + p["output.bias"], y)


def conv(p, images, y, l2):
    maps = F.conv2d(images[:, None], p["kernel"][:, None], p["kernel_bias"])
    features = F.max_pool2d(F.relu(maps), 2).flatten(1)
    penalty = (p["kernel"] ** 2).sum() + (p["weight"] ** 2).sum()
    return F.cross_entropy(features @ p["weight"] + p["bias"], y) + 0.5 * l2 * penalty


def attention(p, tokens, y):
    x = F.layer_norm(tokens, (8,), p["norm.gain"], p["norm.shift"])
    q, k, v = (x @ p[f"attention.{name}"] for name in ("query", "key", "value"))
    mixed = tokens + F.scaled_dot_product_attention(q, k, v) @ p["attention.output"]
    return F.cross_entropy(mixed.mean(dim=1) @ p["head.weight"] + p["head.bias"], y)


def batchnorm(p, X, y, l2):
    Z = F.batch_norm(X @ p["0.weight"], None, None, p["0.gain"], p["0.shift"], training=True, eps=1e-5)
    penalty = (p["0.weight"] ** 2).sum() + (p["1.weight"] ** 2).sum()
    return F.cross_entropy(torch.tanh(Z) @ p["1.weight"] + p["1.bias"], y) + 0.5 * l2 * penalty


def embedding(p, tokens, y):
    return F.cross_entropy(F.embedding_bag(tokens, p["table"], mode="mean") @ p["weight"] + p["bias"], y)


def hinge(p, X, y, l2):
    scores = F.leaky_relu(X @ p["hidden"] + p["hidden_bias"], 0.1) @ p["output"] + p["output_bias"]
    data = F.multi_margin_loss(scores, y) * scores.shape[1]  # torch divides by the number of classes
    return data + 0.5 * l2 * ((p["hidden"] ** 2).sum() + (p["output"] ** 2).sum())


def course(p, x, y):
    hidden = F.relu(p["W2"] @ F.relu(p["W1"] @ x + p["b1"]) + p["b2"])
    return F.binary_cross_entropy_with_logits(p["W3"] @ hidden + p["b3"], y)


PAIRS = [
    (examples.course_net, course),
    (zoo.gru, gru),
    (zoo.rnn, rnn),
    (zoo.conv_net, conv),
    (zoo.attention_block, attention),
    (zoo.batchnorm_net, batchnorm),
    (zoo.embedding_net, embedding),
    (zoo.hinge_net, hinge),
]


@pytest.mark.parametrize("make, forward", PAIRS, ids=[forward.__name__ for _, forward in PAIRS])
def test_loss_and_gradient_agree_to_rounding(make, forward):
    net = make()
    subject = Subject.of(net)
    tensors = {
        block.name: torch.tensor(block.view(subject.theta), requires_grad=True) for block in subject.layout.blocks
    }
    args = [torch.as_tensor(arg) if isinstance(arg, np.ndarray) else arg for arg in net.args]
    loss = forward(tensors, *args)
    loss.backward()
    assert loss.item() == pytest.approx(net.value(), rel=1e-13)
    for block in subject.layout.blocks:
        np.testing.assert_allclose(
            block.view(subject.g), tensors[block.name].grad.numpy(), rtol=1e-9, atol=1e-14, err_msg=block.name
        )
