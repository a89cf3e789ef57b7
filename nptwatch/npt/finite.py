"""NaN and infinity, found at the cost of one sum."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def all_finite(tensor: Tensor) -> bool:
    """Tell whether no element is NaN or infinite.

    A sum over such an element is never finite, so a finite sum proves the tensor sound in one pass
    (isfinite().all() takes five). A sum may also overflow over sound elements: then they are
    looked at one by one.
    """
    return math.isfinite(tensor.sum().item()) or bool(torch.isfinite(tensor).all())
