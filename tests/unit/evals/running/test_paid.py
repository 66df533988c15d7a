"""What is kept in a file until the database has it."""

from __future__ import annotations

import os
from pathlib import Path

from lockgate.evals.running.paid import PaidFile


def test_what_a_dead_process_left_is_read_in_the_order_it_came(tmp_path: Path) -> None:
    for turn, (line, at) in enumerate((("later", 20), ("sooner", 10))):
        file = tmp_path / f"v-1-1.{turn}"
        file.write_text(f"{line}\ncut off")
        os.utime(file, (at, at))
    assert list(PaidFile(tmp_path, "v").left_behind()) == [[b"sooner"], [b"later"]]
    assert list(tmp_path.iterdir()) == []
