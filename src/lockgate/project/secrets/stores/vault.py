"""``${vault:path#field}``: HashiCorp Vault and OpenBao, key-value engine of version 1 or 2.

``VAULT_ADDR`` (or ``BAO_ADDR``), and a token: ``VAULT_TOKEN``, ``BAO_TOKEN``, an AppRole (``VAULT_ROLE_ID`` and
``VAULT_SECRET_ID``), or ``~/.vault-token``. ``VAULT_NAMESPACE`` and ``VAULT_CACERT`` as their own tools take them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lockgate.errors import Unavailable
from lockgate.project.secrets.asking import ask, needed, pick, refused


def read(name: str, root: Path) -> str:
    path, _, field = name.partition("#")
    path = path.strip("/")
    address = needed("vault", "VAULT_ADDR", "BAO_ADDR").rstrip("/")
    headers = {"x-vault-request": "true"}
    if os.environ.get("VAULT_NAMESPACE"):
        headers["x-vault-namespace"] = os.environ["VAULT_NAMESPACE"]
    headers["x-vault-token"] = _token(address, headers)
    status, answer = _ask("GET", f"{address}/v1/sys/internal/ui/mounts/{path}", headers)
    if status != 200:
        raise refused("vault", path, status)
    mount = str(answer["data"]["path"]).strip("/")
    second = (answer["data"].get("options") or {}).get("version") == "2"
    inside = path.removeprefix(mount).strip("/")
    status, answer = _ask("GET", f"{address}/v1/{mount}/{'data/' if second else ''}{inside}", headers)
    if status != 200:
        raise refused("vault", path, status)
    data = answer["data"]["data"] if second else answer["data"]
    return pick("vault", path, data, field)


def _token(address: str, headers: dict[str, str]) -> str:
    role, secret = os.environ.get("VAULT_ROLE_ID"), os.environ.get("VAULT_SECRET_ID")
    if role and secret:
        body = json.dumps({"role_id": role, "secret_id": secret}).encode()
        status, answer = _ask("POST", f"{address}/v1/auth/approle/login", headers, body)
        if status != 200:
            raise Unavailable(f"vault does not take this AppRole ({status})", remedy="renew VAULT_SECRET_ID")
        return str(answer["auth"]["client_token"])
    file = Path.home() / ".vault-token"
    if not (os.environ.get("VAULT_TOKEN") or os.environ.get("BAO_TOKEN")) and file.is_file():
        return file.read_text(encoding="utf-8").strip()
    return needed("vault", "VAULT_TOKEN", "BAO_TOKEN")


def _ask(method: str, url: str, headers: dict[str, str], body: bytes | None = None) -> tuple[int, Any]:
    return ask("vault", method, url, headers=headers, body=body, cafile=os.environ.get("VAULT_CACERT") or None)
