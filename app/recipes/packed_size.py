"""How large a weight is once it is quantized."""

from __future__ import annotations

from app.recipes.schema import Group

SHAPE_BYTES = 16


def scale_bytes_of(stored: float) -> int:
    """The bytes of a scale of weights that take ``stored`` bytes each in the source: their own
    type's, of float8 half precision's."""
    return max(2, int(stored))


def packed_bytes(rows: int, columns: int, group: Group, scale_bytes: int) -> int:
    """The bytes of a weight's tensors in a checkpoint: packed integers or float8, scales of
    ``scale_bytes`` each (they have the source's type, of a source in float8 the model's), zero
    points and the shape."""
    scales = rows * (columns // (group.group_size or columns))
    if group.type == "float":
        return rows * columns + scale_bytes * scales
    zero_points = 0 if group.symmetric else 4 * -(-rows * group.bits // 32) * (scales // rows)
    words = rows * -(-columns * group.bits // 32)
    return 4 * words + scale_bytes * scales + zero_points + SHAPE_BYTES
