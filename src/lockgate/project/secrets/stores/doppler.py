"""``${doppler:NAME}`` or ``${doppler:project/config/NAME}``, with ``DOPPLER_TOKEN``."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlencode

from lockgate.project.secrets.asking import ask, needed, pick, refused


def read(name: str, root: Path) -> str:
    *place, secret = name.split("/")
    query = {"name": secret} | dict(zip(("project", "config"), place, strict=False))
    host = os.environ.get("DOPPLER_API_HOST", "https://api.doppler.com").rstrip("/")
    headers = {"authorization": f"Bearer {needed('doppler', 'DOPPLER_TOKEN')}"}
    status, answer = ask("doppler", "GET", f"{host}/v3/configs/config/secret?{urlencode(query)}", headers=headers)
    if status != 200 or not isinstance(answer, dict):
        raise refused("doppler", name, status)
    return pick("doppler", name, answer.get("value"), "computed")
