"""The table [grades]: where grades begin."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from nptwatch.sections import Section

Cosine = Annotated[float, Field(ge=-1, le=1)]


class GradeSettings(Section):
    """Where grades begin, instead of where the guide says; the worse of the two grades counts."""

    excellent_mse: Annotated[float, Field(ge=0)] = 0.05
    """EXCELLENT is below; 0: never."""
    good_mse: Annotated[float, Field(ge=0)] = 0.1
    """GOOD is below."""
    fair_mse: Annotated[float, Field(ge=0)] = 0.5
    """FAIR is below."""
    excellent_cosine: Cosine = 0.95
    """EXCELLENT is above; 1: never."""
    good_cosine: Cosine = 0.9
    """GOOD is above."""
    fair_cosine: Cosine = 0.8
    """FAIR is here or above."""

    @field_validator("good_mse", "fair_mse", "good_cosine", "fair_cosine")
    @classmethod
    def _descends(cls, value: float, info: ValidationInfo) -> float:
        """Refuse a lower grade that is harder to get than a higher one."""
        grade, _, number = str(info.field_name).partition("_")
        higher = f"{'excellent' if grade == 'good' else 'good'}_{number}"
        above = info.data.get(higher, value)
        if (value < above) if number == "mse" else (value > above):
            raise ValueError(f"{higher} = {above:g} would be easier to reach than this")
        return value
