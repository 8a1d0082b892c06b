"""What `look` found in a submission: plain words and numbers, since the submission's own process says them."""

from typing import Annotated

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from lab.judging.advice import Kind

Words = Annotated[str, Field(max_length=2_000)]
Count = Annotated[int, Field(ge=0, le=10**12)]


class Warned(BaseModel):
    """A finding: what is so, where, which section of the lesson explains it, and whether it is a mistake."""

    what: Words
    where: Words = ""
    section: Words = ""
    kind: Kind = "mistake"


class Row(BaseModel):
    """A row of the layer table."""

    name: Words
    output_shape: Annotated[list[Count], Field(max_length=10)]
    kernel: Count | None
    stride: Count | None
    jump: Count
    receptive_field: Count
    parameters: Count


class Ingredients(BaseModel):
    """What the lesson adds, step by step."""

    batch_norm: Count
    global_average: bool
    dropout: Annotated[list[FiniteFloat], Field(max_length=100)]
    convolutions: Count
    capacity_layer: bool


class Looked(BaseModel):
    """The part of `Look.as_dict()` that grades and pages use; empty where there is none that can be read."""

    parameters: Count | None = None
    frozen: Count = 0
    table: Annotated[list[Row], Field(max_length=500)] | None = None
    no_table: Words = ""
    receptive_field: Count | None = None
    ingredients: Ingredients | None = None
    warnings: Annotated[list[Warned], Field(max_length=50)] = []
    errors: Annotated[list[Words], Field(max_length=50)] = []

    def of_kind(self, kind: Kind) -> list[Warned]:
        """Those of its findings that are mistakes, advice or notes."""
        return [warned for warned in self.warnings if warned.kind == kind]

    @classmethod
    def of(cls, said: object) -> "Looked":
        """From what a process said it is."""
        try:
            return cls.model_validate(said)
        except ValidationError:
            return cls(errors=["What the network is could not be read."])
