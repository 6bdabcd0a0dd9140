"""What an error of somebody else's code says, short enough for a sentence."""

from __future__ import annotations

__all__ = ["reason_of"]

_WIDTH = 300


def reason_of(error: BaseException) -> str:
    r"""Return the type and the message of ``error`` on one line.

    >>> reason_of(ValueError("size mismatch:\n\tconv1"))
    'ValueError: size mismatch: conv1'
    """
    text = " ".join(str(error).split())
    shown = text if len(text) <= _WIDTH else f"{text[:_WIDTH]}..."
    return f"{type(error).__name__}: {shown}" if shown else type(error).__name__
