"""A token server as registries use them: https://distribution.github.io/distribution/spec/auth/token/."""

from __future__ import annotations

import base64
import datetime
import json
import threading
import time
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

SERVICE, ISSUER = "registry.example", "lockgate-test"


class TokenServer:
    """Gives a token for what a user may do. ``asked`` is each request's method, scope and who it was."""

    def __init__(self, folder: Path, users: dict[str, str], rights: dict[str, list[str]], refresh: str) -> None:
        """``users``: passwords by name. ``rights``: actions by name ('' is nobody). ``refresh``: an identity token."""
        self.asked: list[tuple[str, str, str]] = []
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._der = self._certificate(folder / "token.pem")
        self._users, self._rights, self._refresh = users, rights, refresh
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                scheme, _, given = self.headers.get("authorization", "").partition(" ")
                given = base64.b64decode(given).decode() if scheme == "Basic" else ":"
                name, _, password = given.partition(":")
                outer._answer(self, "GET", query, name, not name or outer._users.get(name) == password)

            def do_POST(self) -> None:
                form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                good = form.get("grant_type") == ["refresh_token"] and form.get("refresh_token") == [outer._refresh]
                outer._answer(self, "POST", form, "me", good)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.realm = f"http://127.0.0.1:{self._server.server_port}/token"
        self.certificate = folder / "token.pem"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: Any, method: str, fields: dict[str, list[str]], name: str, good: bool) -> None:
        scope = fields.get("scope", [""])[0]
        self.asked.append((method, scope, name))
        body = json.dumps({"token": self._token(name, scope)} if good else {"errors": [{"code": "UNAUTHORIZED"}]})
        handler.send_response(200 if good else 401)
        handler.send_header("content-type", "application/json")
        handler.end_headers()
        handler.wfile.write(body.encode())

    def _token(self, name: str, scope: str) -> str:
        kind, _, rest = scope.partition(":")
        repository, _, actions = rest.rpartition(":")
        may = [action for action in actions.split(",") if action in self._rights.get(name, [])]
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": name, "aud": SERVICE, "exp": now + 300, "nbf": now - 10, "iat": now}
        claims |= {"jti": uuid.uuid4().hex, "access": [{"type": kind, "name": repository, "actions": may}]}
        head = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(self._der).decode()]}
        signed = ".".join(_encode(json.dumps(part).encode()) for part in (head, claims))
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_encode(r.to_bytes(32) + s.to_bytes(32))}"

    def _certificate(self, path: Path) -> bytes:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(1)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        return made.public_bytes(serialization.Encoding.DER)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
