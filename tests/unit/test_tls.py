"""aiohttp comes without certificates, and has them for the first connection over TLS."""

from __future__ import annotations

import subprocess
import sys

WHAT_IT_TRUSTS = """
import ssl
from lockgate.tls import aiohttp

inherited = "set_default_verify_paths" not in vars(ssl.SSLContext)
contexts = [found for found in vars(aiohttp.connector).values() if isinstance(found, ssl.SSLContext)]
before = [context.get_ca_certs() for context in contexts]
for context in contexts:
    context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="example.com")
fresh = ssl.create_default_context()
print(inherited, len(contexts), before, all(one.get_ca_certs() == fresh.get_ca_certs() for one in contexts))
print(contexts[0].verify_mode == fresh.verify_mode, contexts[0].check_hostname)
"""


def test_certificates_are_read_for_the_first_connection_over_tls() -> None:
    found = subprocess.run(
        [sys.executable, "-c", WHAT_IT_TRUSTS], capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout == "True 2 [[], []] True\nTrue True\n"
