"""Word vectors, mean pooling and a softmax: a gradient whose rows are mostly zero."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastcheck.arrays import FloatArray, IntArray
from fastcheck.bugs.mutation import Net, rows, with_bugs

__all__ = ["EmbeddingParams", "embedding_net"]


@dataclass
class EmbeddingParams:
    """Parameters of `embedding_net`.

    Attributes
    ----------
    table : float64, shape (words, width)
    weight : float64, shape (width, classes)
    bias : float64, shape (classes,)
    """

    table: FloatArray
    weight: FloatArray
    bias: FloatArray


def _loss(params: EmbeddingParams, tokens: IntArray, y: IntArray) -> float:
    """Return the mean softmax cross-entropy; tokens are (m, length) word numbers."""
    pooled = np.stack([params.table[sentence].mean(axis=0) for sentence in tokens])
    scores = pooled @ params.weight + params.bias
    return float(np.mean(np.logaddexp.reduce(scores, axis=1) - scores[np.arange(len(y)), y]))


def _gradient(params: EmbeddingParams, tokens: IntArray, y: IntArray, *, bug: str = "") -> EmbeddingParams:
    m, length = tokens.shape
    pooled = params.table[tokens].sum(axis=1) / length
    scores = pooled @ params.weight + params.bias
    P = np.exp(scores - scores.max(axis=1, keepdims=True))
    P /= P.sum(axis=1, keepdims=True)
    dS = (P - np.eye(P.shape[1], dtype=P.dtype)[y]) / m
    if bug == "softmax_diagonal":
        dS = np.where(dS < 0, dS, 0)
    dwords = np.repeat((dS @ params.weight.T / length)[:, None], length, axis=1)
    dtable = np.zeros_like(params.table)
    if bug == "repeats_overwritten":
        dtable[tokens] += dwords  # fancy indexing adds once per word, however often it stands there
    else:
        np.add.at(dtable, tokens, dwords)
    return EmbeddingParams(dtable, pooled.T @ dS, dS.sum(axis=0))


def embedding_net(
    *, words: int = 60, width: int = 6, length: int = 7, batch: int = 32, classes: int = 4, seed: int = 0
) -> Net:
    """Return an embedding table, mean pooling and a softmax on random sentences, its parameters in a dataclass.

    Parameters
    ----------
    words, width : int
        Rows and columns of the table.
    length, batch, classes : int
        Words in a sentence, number of sentences, number of labels.
    seed : int
        Of the sentences and the parameters.
    """
    rng = np.random.default_rng(seed)
    # word frequencies fall like 1 / rank, as in text: many repeats, and some words that never occur
    frequency = 1 / np.arange(1, words + 1)
    tokens = rng.choice(words, (batch, length), p=frequency / frequency.sum()).astype(np.int64)
    y = rng.integers(0, classes, batch)
    params = EmbeddingParams(
        rng.standard_normal((words, width)),
        rng.standard_normal((width, classes)),
        0.1 * rng.standard_normal(classes),
    )
    return Net(
        _loss,
        _gradient,
        params,
        (tokens, y),
        name="embedding_net",
        description="embedding, mean pooling and softmax on random sentences",
        batch=batch,
        classes=classes,
        biases=("bias",),
        take=rows,
        bugs=with_bugs(_gradient, "softmax_diagonal", "repeats_overwritten"),
    )
