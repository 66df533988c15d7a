"""``${infisical:NAME}`` or ``${infisical:environment/folder/NAME}``, of the project ``INFISICAL_PROJECT_ID``.

A machine identity: ``INFISICAL_TOKEN``, or ``INFISICAL_CLIENT_ID`` and ``INFISICAL_CLIENT_SECRET`` (universal auth).
``INFISICAL_API_URL`` for a server of your own; ``INFISICAL_ENVIRONMENT`` when the reference names none.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import quote, urlencode

from lockgate.errors import Unavailable
from lockgate.project.secrets.asking import ask, needed, pick, refused


def read(name: str, root: Path) -> str:
    *place, secret = name.split("/")
    environment = place[0] if place else needed("infisical", "INFISICAL_ENVIRONMENT")
    host = os.environ.get("INFISICAL_API_URL", "https://app.infisical.com").rstrip("/").removesuffix("/api")
    query = {
        "workspaceId": needed("infisical", "INFISICAL_PROJECT_ID"),
        "environment": environment,
        "secretPath": "/" + "/".join(place[1:]),
    }
    headers = {"authorization": f"Bearer {_token(host)}"}
    url = f"{host}/api/v3/secrets/raw/{quote(secret, safe='')}?{urlencode(query)}"
    status, answer = ask("infisical", "GET", url, headers=headers)
    if status != 200 or not isinstance(answer, dict):
        raise refused("infisical", name, status)
    return pick("infisical", name, answer.get("secret"), "secretValue")


def _token(host: str) -> str:
    if os.environ.get("INFISICAL_TOKEN"):
        return os.environ["INFISICAL_TOKEN"]
    given = {
        "clientId": needed("infisical", "INFISICAL_CLIENT_ID"),
        "clientSecret": needed("infisical", "INFISICAL_CLIENT_SECRET"),
    }
    url, headers = f"{host}/api/v1/auth/universal-auth/login", {"content-type": "application/json"}
    status, answer = ask("infisical", "POST", url, headers=headers, body=json.dumps(given).encode())
    if status != 200 or not isinstance(answer, dict) or not answer.get("accessToken"):
        raise Unavailable(f"infisical does not take this identity ({status})", remedy="renew INFISICAL_CLIENT_SECRET")
    return str(answer["accessToken"])
