"""Exact masks of scores, 1 = kept, and their straight-through gradient."""

from iterand_tf.masks.structured import GLOBAL, PER_KERNEL, nm_mask, parse_nm, protect_largest
from iterand_tf.masks.top_k import (
    mask_of_largest,
    masks_of_largest,
    num_kept,
    straight_through,
    topk_mask,
)

__all__ = [
    "GLOBAL",
    "PER_KERNEL",
    "mask_of_largest",
    "masks_of_largest",
    "nm_mask",
    "num_kept",
    "parse_nm",
    "protect_largest",
    "straight_through",
    "topk_mask",
]
