"""What all records are: plain, immutable, JSON-ready.

Units everywhere: latencies in milliseconds at batch 1, accuracies in percent, multiply-adds and parameters as counts.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base of all records: immutable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")
