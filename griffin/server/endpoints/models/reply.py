"""/v1/models: the models that are served."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType


class ModelExtras(msgspec.Struct, kw_only=True):
    """What only this server tells of a model.

    state_bytes: of a full state. window: tokens kept verbatim. caution: of a toy or a base model.
    sampling: what the chat page asks for where its user does not say otherwise.
    """

    parameters: int
    weights: str
    state_bytes: int
    window: int
    chat: bool
    caution: str
    sampling: dict[str, float]


class ModelObject(msgspec.Struct, kw_only=True):
    """A model that is served. created: seconds since 1970.

    root: what it was loaded from, a repository or a folder's name. parent: of an adapter, the base;
          null for the base itself.
    """

    id: str
    created: int
    root: str
    parent: str | None = None
    owned_by: str = "griffin"
    object: Literal["model"] = "model"
    griffin: ModelExtras | UnsetType = UNSET


class ModelList(msgspec.Struct, kw_only=True):
    """GET /v1/models."""

    data: list[ModelObject]
    object: Literal["list"] = "list"
