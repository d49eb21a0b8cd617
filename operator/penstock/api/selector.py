"""Label selectors as Kubernetes writes them, bounded."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penstock.api.meta import Model, Rule, Word

NO_LABELS: dict[str, str] = {}


class SelectorExpression(Model):
    key: Annotated[str, Field(min_length=1, max_length=317)]
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: Annotated[tuple[Word, ...], Field(max_length=512)] = ()

    def __str__(self) -> str:
        """As `kubectl --selector` spells it."""
        if self.operator in ("In", "NotIn"):
            return f"{self.key} {self.operator.lower()} ({', '.join(self.values)})"
        return self.key if self.operator == "Exists" else f"!{self.key}"

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
            "In and NotIn need values, Exists and DoesNotExist take none",
            lambda expression: (expression.operator in ("In", "NotIn")) == bool(expression.values),
            ".values",
        ),
    )


class LabelSelector(Model):
    """Labels that must all match. Empty selects everything."""

    match_labels: Annotated[dict[str, Word], Field(max_length=64)] = NO_LABELS
    match_expressions: Annotated[tuple[SelectorExpression, ...], Field(max_length=64)] = ()

    def __str__(self) -> str:
        """As `kubectl --selector` spells it; `{}` where it selects everything."""
        labels = (f"{key}={value}" for key, value in sorted(self.match_labels.items()))
        return ",".join((*labels, *map(str, self.match_expressions))) or "{}"
