"""How large a weight is once it is quantized."""

from __future__ import annotations

from app.recipes.schema import Group

SCALE_BYTES = 2
SHAPE_BYTES = 16


def packed_bytes(rows: int, columns: int, group: Group) -> int:
    """The bytes of a weight's tensors in a checkpoint: packed integers or float8, scales in half
    precision, zero points and the shape."""
    scales = rows * (columns // (group.group_size or columns))
    if group.type == "float":
        return rows * columns + SCALE_BYTES * scales
    zero_points = 0 if group.symmetric else -(-scales * group.bits // 8)
    words = rows * -(-columns * group.bits // 32)
    return 4 * words + SCALE_BYTES * scales + zero_points + SHAPE_BYTES
