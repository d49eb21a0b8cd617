"""One value per node, as small integers into a vocabulary: a rule is judged once per distinct value, not per node."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

Value = TypeVar("Value", bound=Hashable)
Bools = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
SPARE = 64


@dataclass(frozen=True, slots=True, eq=False)
class Column(Generic[Value]):
    """`values[codes[row]]` is the value of that row."""

    values: tuple[Value, ...]
    codes: Codes

    @classmethod
    def of(cls, values: Iterable[Value]) -> Column[Value]:
        vocabulary: dict[Value, int] = {}
        codes = [vocabulary.setdefault(value, len(vocabulary)) for value in values]
        return cls(tuple(vocabulary), np.array(codes, dtype=np.int64))

    def __getitem__(self, row: int) -> Value:
        return self.values[int(self.codes[row])]

    def where(self, judge: Callable[[Value], bool]) -> Bools:
        """For each row, whether its value passes."""
        passes = np.fromiter((judge(value) for value in self.values), dtype=np.bool_, count=len(self.values))
        return passes[self.codes]

    def replaced(self, rows: Sequence[int], values: Sequence[Value]) -> Column[Value]:
        """The same column with other values in these rows."""
        vocabulary = {value: code for code, value in enumerate(self.values)}
        codes = self.codes.copy()
        for row, value in zip(rows, values, strict=True):
            codes[row] = vocabulary.setdefault(value, len(vocabulary))
        column = Column(tuple(vocabulary), codes)
        # Values that no row has any more, such as times of yesterday, are dropped before they outnumber those it has.
        return (
            column if len(vocabulary) <= 2 * len(codes) + SPARE else Column.of(column[row] for row in range(len(codes)))
        )

    @property
    def present(self) -> list[Value]:
        """The values that some row has; `values` may hold others that rows had before."""
        return [self.values[code] for code in np.unique(self.codes)]
