"""What `look` found in a submission: plain words and numbers, since the submission's own process says them."""

from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

Words = Annotated[str, Field(max_length=2_000)]


class Looked(BaseModel):
    """The part of `Look.as_dict()` that grades and pages use; empty where there is none that can be read."""

    parameters: int | None = None
    errors: Annotated[list[Words], Field(max_length=50)] = []
    warnings: Annotated[list[Words], Field(max_length=50)] = []

    @classmethod
    def of(cls, said: object) -> "Looked":
        """From what a process said it is."""
        try:
            return cls.model_validate(said)
        except ValidationError:
            return cls(warnings=["what the network is could not be read"])
