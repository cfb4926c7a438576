"""Shapes of tensors as types: `Float[Tensor, "batch genes"]`. Tests enforce them (tests/conftest.py), runs do not.

They are jaxtyping's. Where it is not installed, which a node that only trains or embeds may do without, they stand
for the tensor type itself.
"""

from typing import Any, Protocol, runtime_checkable

__all__ = ["Bool", "Float", "Int", "RowReader", "UInt8"]

try:
    from jaxtyping import Bool, Float, Int, UInt8
except ModuleNotFoundError:

    class _AnyShape:
        def __class_getitem__(cls, item: tuple[type, str]) -> type:
            return item[0]

    Bool = Float = Int = UInt8 = _AnyShape


@runtime_checkable
class RowReader(Protocol):
    """An array or tensor [n, ...], or something that reads rows of one: `reader[start:stop]`, `reader[positions]`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> Any: ...
