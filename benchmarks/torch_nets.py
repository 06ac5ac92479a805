"""Modules of torch of the shape and size that people train: a transformer like GPT-2, and ResNet-18."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Attention and a feed-forward net, each behind a layer norm and around a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.attn, self.proj = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.ln_2, self.fc, self.out = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Any) -> Any:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.attn(self.ln_1(x)).chunk(3, dim=-1)
        )
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(seen.transpose(1, 2).flatten(-2))
        return x + self.out(F.gelu(self.fc(self.ln_2(x)), approximate="tanh"))


class GPT2(nn.Module):
    """Radford et al. (2019), with the embedding tied to the output; by default of 16.8 million parameters."""

    def __init__(self, vocabulary: int = 8000, width: int = 512, layers: int = 4, length: int = 64) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.h, self.ln_f = nn.ModuleList(Block(width, 8) for _ in range(layers)), nn.LayerNorm(width)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Any) -> Any:
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        for block in self.h:
            x = block(x)
        return self.ln_f(x) @ self.wte.weight.T


class Residual(nn.Module):
    """Two convolutions around a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Any) -> Any:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.downsample(x))


def resnet18(classes: int = 1000) -> nn.Module:
    """Return the net of He et al. (2016): 11.7 million parameters."""
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    widths = [64, 64, 128, 256, 512]
    pairs = zip(widths, widths[1:], (1, 2, 2, 2), strict=False)
    stages = [nn.Sequential(Residual(a, b, stride), Residual(b, b, 1)) for a, b, stride in pairs]
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


class Loss(nn.Module):
    """A loss of a module as a module, which functional_call can give other parameters."""

    def __init__(self, loss: Any, model: Any) -> None:
        super().__init__()
        self.loss, self.model = loss, model

    def forward(self, *args: Any) -> Any:
        return self.loss(self.model, *args)


def next_token(model: Any, tokens: Any) -> Any:
    """Return the mean cross entropy of each token after those before it."""
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def gpt2_subject() -> tuple[Any, Any, tuple[Any, ...]]:
    """Return a loss, a module in float64, and the arguments of the loss: two sentences of 32 tokens."""
    torch.manual_seed(0)
    model = GPT2().double()
    return next_token, model, (torch.randint(0, 8000, (2, 33)),)


def resnet18_subject() -> tuple[Any, Any, tuple[Any, ...]]:
    """Return the like of resnet18 in training: four images of 64 x 64."""
    torch.manual_seed(0)
    model = resnet18().double()
    images, classes = torch.randn(4, 3, 64, 64, dtype=torch.float64), torch.randint(0, 1000, (4,))
    return (lambda model, x, y: F.cross_entropy(model(x), y)), model, (images, classes)
