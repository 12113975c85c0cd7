"""A model's modules as a recipe sees them: names and shapes after linearization, without torch.

The engine writes an outline from the meta device (``workers.engine.outline``); the web process
reads it, so that a recipe can be checked while a person types, in a process without torch.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Outline(BaseModel):
    """What can be known of a model without its weights.

    ``linears`` maps each Linear module, in the model's order, to its rows and columns (out, in).
    ``stored_as`` maps those among them that have a tensor of their own in the checkpoint to the
    checkpoint's name of that module (without ``.weight``); a Linear that is missing there is kept
    fused with others and cannot be written packed. ``routers`` are the names of the routers,
    ``readers`` the weights that read each norm's output, in the order they run, experts' included.
    """

    model_config = ConfigDict(extra="forbid")

    version: int = 1
    fingerprint: str
    architecture: str
    layers: int
    experts: int
    top_k: int
    hidden: int
    dtype: str
    linears: dict[str, tuple[int, int]]
    stored_as: dict[str, str]
    routers: list[str]
    readers: dict[str, list[str]]
    unsmoothable: dict[str, str]
