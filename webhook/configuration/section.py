"""The base of everything in the configuration file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A mapping in the file, read once: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
