"""``${aws:name}`` or ``${aws:name#field}``: AWS Secrets Manager, by its JSON protocol.

``AWS_REGION``, ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, and ``AWS_SESSION_TOKEN`` where there is one.
Requests are signed with Signature Version 4, which is forty lines; the vendor's library is 16 MB.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from lockgate.errors import Unavailable
from lockgate.project.secrets.asking import ask, needed, pick, refused

SERVICE = "secretsmanager"


def read(name: str, root: Path) -> str:
    secret, _, field = name.partition("#")
    region = needed("aws", "AWS_REGION", "AWS_DEFAULT_REGION")
    given = os.environ.get("AWS_ENDPOINT_URL_SECRETS_MANAGER") or os.environ.get("AWS_ENDPOINT_URL")
    url = (given or f"https://{SERVICE}.{region}.amazonaws.com").rstrip("/") + "/"
    body = json.dumps({"SecretId": secret}).encode()
    headers = {
        "content-type": "application/x-amz-json-1.1",
        "host": urlsplit(url).netloc,
        "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
        "x-amz-target": f"{SERVICE}.GetSecretValue",
    }
    if os.environ.get("AWS_SESSION_TOKEN"):
        headers["x-amz-security-token"] = os.environ["AWS_SESSION_TOKEN"]
    headers["authorization"] = authorization(
        headers,
        body,
        region=region,
        service=SERVICE,
        key_id=needed("aws", "AWS_ACCESS_KEY_ID"),
        secret_key=needed("aws", "AWS_SECRET_ACCESS_KEY"),
    )
    status, answer = ask("aws", "POST", url, headers=headers, body=body)
    if status != 200 or not isinstance(answer, dict):
        kind = str(answer.get("__type", "")).rpartition("#")[2] if isinstance(answer, dict) else ""
        raise refused("aws", secret, 404 if kind == "ResourceNotFoundException" else 403 if status == 400 else status)
    text = answer.get("SecretString")
    if not isinstance(text, str) or not text:
        raise Unavailable(f"aws: the secret {secret!r} is binary or empty", remedy="store it as text")
    if not field:
        return text
    try:
        return pick("aws", secret, msgspec.json.decode(text), field)
    except msgspec.DecodeError:
        raise Unavailable(f"aws: the secret {secret!r} has no fields", remedy="leave out #FIELD") from None


def authorization(
    headers: Mapping[str, str], body: bytes, *, region: str, service: str, key_id: str, secret_key: str
) -> str:
    """Signature Version 4 of ``POST /``; ``headers`` (lower case, with host and x-amz-date) are all signed.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """
    at = headers["x-amz-date"]
    scope = f"{at[:8]}/{region}/{service}/aws4_request"
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name].strip()}\n" for name in sorted(headers))
    request = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{secret_key}".encode()
    for step in (at[:8], region, service, "aws4_request"):
        key = hmac.digest(key, step.encode(), "sha256")
    signature = hmac.new(key, text.encode(), "sha256").hexdigest()
    return f"AWS4-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
