"""``${gcp:name#field}`` or ``${gcp:projects/P/secrets/S/versions/V}``: Google Cloud Secret Manager.

The token: ``GOOGLE_OAUTH_ACCESS_TOKEN``, else the metadata server's, as on Google's own machines.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

import msgspec

from lockgate.errors import Unavailable
from lockgate.project.secrets.asking import ask, needed, pick, refused


def read(name: str, root: Path) -> str:
    secret, _, field = name.partition("#")
    path = secret
    if not path.startswith("projects/"):
        path = f"projects/{needed('gcp', 'GOOGLE_CLOUD_PROJECT')}/secrets/{secret}"
    if "/versions/" not in path:
        path += "/versions/latest"
    host = os.environ.get("LOCKGATE_GCP_SECRETS_URL", "https://secretmanager.googleapis.com").rstrip("/")
    headers = {"authorization": f"Bearer {_token()}"}
    status, answer = ask("gcp", "GET", f"{host}/v1/{path}:access", headers=headers)
    if status != 200:
        raise refused("gcp", path, status)
    try:
        value = base64.b64decode(answer["payload"]["data"]).decode()
    except (KeyError, TypeError, ValueError):
        raise Unavailable(f"gcp: the secret {path!r} is no text", remedy="store it as UTF-8 text") from None
    if not field:
        return value
    try:
        return pick("gcp", path, msgspec.json.decode(value), field)
    except msgspec.DecodeError:
        raise Unavailable(f"gcp: the secret {path!r} has no fields", remedy="leave out #FIELD") from None


def _token() -> str:
    given = os.environ.get("GOOGLE_OAUTH_ACCESS_TOKEN")
    if given:
        return given
    host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
    url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token"
    # Plain HTTP is this server's protocol; it is on the machine's own link.
    status, answer = ask("gcp", "GET", url, headers={"metadata-flavor": "Google"}, plain=True, timeout=2.0)
    if status != 200 or not isinstance(answer, dict) or not answer.get("access_token"):
        raise Unavailable(f"gcp: the metadata server gave no token ({status})", remedy="give the machine an account")
    return str(answer["access_token"])
