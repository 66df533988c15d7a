"""The base of everything that is read from a file."""

from __future__ import annotations

import os
from typing import Any

from pydantic import BaseModel, ConfigDict

_NO_PLUGINS = "PYDANTIC_DISABLE_PLUGINS"


class Late(BaseModel):
    """Made ready when it is first used, and without looking for plugins of pydantic: that reads what every installed
    package says of itself, and takes longer than all the rest of reading a project."""

    model_config = ConfigDict(defer_build=True)

    @classmethod
    def model_rebuild(cls, *, _parent_namespace_depth: int = 2, **options: Any) -> bool | None:
        before = os.environ.get(_NO_PLUGINS)
        os.environ[_NO_PLUGINS] = "__all__"
        try:
            return super().model_rebuild(_parent_namespace_depth=_parent_namespace_depth + 1, **options)
        finally:
            if before is None:
                os.environ.pop(_NO_PLUGINS, None)
            else:
                os.environ[_NO_PLUGINS] = before


class Strict(Late):
    """Unknown keys are errors, values are not coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
