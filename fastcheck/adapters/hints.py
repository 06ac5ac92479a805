"""What of a torch module a reader of its report must know: what was left out, and why a right module may not pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from fastcheck.adapters.borrowed import Borrowed
from fastcheck.adapters.precision import remark
from fastcheck.adapters.tensors import Start
from fastcheck.findings import Finding, Kind
from fastcheck.replay import said_of_draws
from fastcheck.report import Report

__all__ = ["frozen", "hinted", "remarks", "replayed"]

UNSTEADY = (Kind.RANDOM_LOSS, Kind.STATEFUL_LOSS, Kind.COUNTING_LOSS, Kind.LOSS_CHANGES_PARAMS, Kind.LOSS_CHANGES_ARGS)


def hinted(report: Report, borrowed: Borrowed) -> Report:
    """Return the report of autograd's gradient with what may be the reason where it does not pass.

    Parameters
    ----------
    report : Report
        Of the check.
    borrowed : Borrowed
        The module, still borrowed.
    """
    unsteady = any(finding.kind in UNSTEADY for finding in report.findings)
    if report.passed or unsteady or not borrowed.modules:
        return report
    found = [*_padding_rows(report, borrowed), *_moving_buffers(borrowed)]
    return replace(report, findings=(*found, *report.findings)) if found else report


def _moving_buffers(borrowed: Borrowed) -> Iterator[Finding]:
    """Yield a finding of buffers that the forward pass writes and computes the loss with."""
    try:
        names = borrowed.moving_buffers()
    except Exception:  # it is a hint: the report stands without it
        return
    if names:
        yield Finding(
            Kind.MOVING_BUFFERS,
            None,
            f"The forward pass writes to the buffers {_listed(names)} and computes the loss with them, as a spectral "
            "norm does in training. They move with the parameters, which differences see, and autograd takes them for "
            "constants. Call model.eval() before the check, in which they are.",
            {"buffers": names},
        )


def _padding_rows(report: Report, borrowed: Borrowed) -> Iterator[Finding]:
    """Yield a finding for each embedding whose padding row is used, and without a gradient by design."""
    for name, module in borrowed.model.named_modules():
        row, block = getattr(module, "padding_idx", None), f"{name}.weight" if name else "weight"
        if not isinstance(row, int) or block not in report.blocks or not report.blocks[block].verdict.refuted:
            continue
        listed = [c for c in report.wrong if c.block == block]
        inside = [c for c in listed if c.index[0] == row and c.analytic == 0]
        if not inside:
            continue
        rest = "" if len(inside) == len(listed) else " Other rows are wrong, too."
        yield Finding(
            Kind.PADDING_ROW,
            block,
            f"Row {row} of {block} is its padding_idx: torch leaves the gradient of that row zero, though the loss "
            f"depends on it. Mask the padded positions out of the loss, or leave padding_idx out.{rest}",
            {"row": row, "only": len(inside) == len(listed)},
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def remarks(borrowed: Borrowed, report: Report) -> list[Finding]:
    """Return what a reader of the report must know of the module."""
    found = remark(borrowed.dtype, {f"torch.{name}" for name in borrowed.own})
    active = _dropouts(borrowed) if any(finding.kind is Kind.RANDOM_LOSS for finding in report.findings) else []
    if active:
        found.append(
            Finding(
                Kind.DROPOUT,
                None,
                f"Dropout is on in {', '.join(active)}: call model.eval() before the check, or pass fixed_rng=True, "
                "which gives every evaluation the same draws.",
                {"modules": active},
            )
        )
    if borrowed.frozen:
        found.append(frozen(list(borrowed.frozen)))
    return found


def replayed(start: Start) -> list[Finding]:
    """Return the finding of draws that every evaluation of a loss replayed."""
    return [said_of_draws("torch's global generator")] if start.drew else []


def frozen(names: Sequence[str]) -> Finding:
    """Return the finding of what was left out."""
    shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    message = f"Left out, as frozen (requires_grad=False): {shown}."
    return Finding(Kind.FROZEN, None, message, {"names": tuple(names)})


def _dropouts(borrowed: Borrowed) -> list[str]:
    """Return the modules that draw at random: dropout layers, and recurrent or attention layers with some inside."""
    if not borrowed.modules:
        return []
    rates = {
        name: module.p
        if "Dropout" in type(module).__name__ and hasattr(module, "p")
        else module.__dict__.get("dropout")
        for name, module in borrowed.model.named_modules()
        if module.training
    }
    return [name for name, rate in rates.items() if isinstance(rate, float) and rate > 0]
