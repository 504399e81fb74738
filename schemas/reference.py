"""Scores that others published, with what is known to be wrong with each: shown beside our tables, never ranked."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from wellkit.schemas.document import Document, Model

Quantity = Literal["one_step", "rollout 6:12", "rollout 13:30"]
PublishedScore = Annotated[float, Field(gt=0, allow_inf_nan=False)] | Annotated[str, Field(pattern=r"^>\d+(\.\d+)?$")]


class ReferenceSource(Model):
    """Where the figures were printed."""

    title: str
    authors: str
    year: int
    arxiv: str
    tables: str = Field(description="which of its tables")


class Taint(Model):
    """A reason not to read a figure as the score of a model on today's data. An empty scope is every figure."""

    text: str = Field(min_length=1)
    datasets: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    quantities: tuple[Quantity, ...] = ()

    def holds_for(self, dataset: str, model: str, split: str, quantity: str) -> bool:
        """Whether a figure is inside the scope."""
        scopes = ((self.datasets, dataset), (self.models, model), (self.splits, split), (self.quantities, quantity))
        return all(not scope or value in scope for scope, value in scopes)


class Column(Model):
    """What a column of the table holds."""

    split: Literal["valid", "test"]
    quantity: Quantity


class ReferenceRow(Model):
    """One published figure."""

    table: str = Field(description="who printed it, in a few words")
    url: str
    dataset: str
    model: str
    split: Literal["valid", "test"]
    quantity: Quantity
    value: float = Field(description="of the metric, or what it lies above")
    is_bound: bool = Field(default=False, description="whether only 'above value' was printed")
    taints: tuple[str, ...] = Field(description="ids of all reasons to mistrust it")
    reasons: tuple[str, ...] = Field(description="what each of them says, in the same order")

    @property
    def shown(self) -> str:
        """As it was printed: 0.3691, or >10."""
        return f"{'>' if self.is_bound else ''}{self.value:g}"


class ReferenceTable(Document):
    """A published table of scores."""

    KIND: ClassVar[str] = "reference-table"

    name: str = Field(description="in a few words, as a table shows it")
    source: ReferenceSource
    metric: str
    protocol: str = Field(description="how the source says it was measured")
    taints: dict[str, Taint]
    columns: tuple[Column, ...] = Field(min_length=1)
    scores: dict[str, dict[str, tuple[PublishedScore | None, ...]]] = Field(
        description="dataset -> model -> one figure a column; null where none was printed"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        models = {model for by_model in self.scores.values() for model in by_model}
        for name, taint in self.taints.items():
            for unknown in (*(set(taint.datasets) - set(self.scores)), *(set(taint.models) - models)):
                raise ValueError(f"taint {name!r} is about {unknown!r}, of which there is no figure")
        for dataset, by_model in self.scores.items():
            for model, figures in by_model.items():
                if len(figures) != len(self.columns):
                    raise ValueError(f"{dataset}, {model}: {len(figures)} figures for {len(self.columns)} columns")
        return self

    def rows(self, dataset: str) -> tuple[ReferenceRow, ...]:
        """The figures of one dataset, model by model, each with its own taints; none where there is no such dataset."""
        return tuple(
            self._row(dataset, model, column, figure)
            for model, figures in self.scores.get(dataset, {}).items()
            for column, figure in zip(self.columns, figures, strict=True)
            if figure is not None
        )

    def _row(self, dataset: str, model: str, column: Column, figure: float | str) -> ReferenceRow:
        place = (dataset, model, column.split, column.quantity)
        taints = {name: taint.text for name, taint in self.taints.items() if taint.holds_for(*place)}
        return ReferenceRow(
            table=self.name,
            url=f"https://arxiv.org/abs/{self.source.arxiv}",
            dataset=dataset,
            model=model,
            split=column.split,
            quantity=column.quantity,
            value=float(figure.removeprefix(">")) if isinstance(figure, str) else figure,
            is_bound=isinstance(figure, str),
            taints=tuple(taints),
            reasons=tuple(taints.values()),
        )
