"""The same inputs give the same digest: another folder, another day, another order, CRLF or LF."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockgate.project.service import load_project
from lockgate.versions.bundle import pack
from lockgate.versions.source import read_agent

AGENT = "agents/triage.v1.yaml"


def digest(root: Path) -> str:
    source = read_agent(root / AGENT, load_project(root))
    return pack(source.version, source.code).digest


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    order=st.randoms(use_true_random=False),
    day=st.integers(0, 4_000_000_000),
    name=st.text(st.sampled_from("abcé ü_"), min_size=1, max_size=8),
)
def test_machine_day_folder_order_and_line_ends_do_not_matter(
    acme: Path, order: random.Random, day: int, name: str
) -> None:
    paths = sorted(path.relative_to(acme) for path in acme.rglob("*") if path.is_file())
    order.shuffle(paths)
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder, "p" + name)
        for path in paths:
            data = (acme / path).read_bytes()
            if order.random() < 0.5:
                data = data.replace(b"\n", b"\r\n")
            if order.random() < 0.3:
                data = b"\xef\xbb\xbf" + data
            (other / path).parent.mkdir(parents=True, exist_ok=True)
            (other / path).write_bytes(data)
            os.utime(other / path, (day, day))
        assert digest(other) == digest(acme)
