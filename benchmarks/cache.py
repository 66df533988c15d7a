"""What the cache's store takes: a hit in memory, a hit in the file, an answer kept, a look for near questions.

python benchmarks/cache.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lockgate.gateway.cache.store import Answers, Kept

ANSWERS, BODY = 5000, b"x" * 2000


def micros(work: Callable[[int], object], rounds: int) -> float:
    began = time.perf_counter()
    for number in range(rounds):
        work(number)
    return (time.perf_counter() - began) / rounds * 1e6


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        answers = Answers(Path(folder) / "cache.db")
        keys = [number.to_bytes(32) for number in range(ANSWERS)]
        kept = Kept(BODY, "application/json", 1000, 0.0, 1e12)
        took = micros(lambda n: answers.put(keys[n], kept, 1.0), ANSWERS)
        print(f"an answer of {len(BODY):,} bytes kept: {took:.1f} µs")
        print(f"a hit in memory: {micros(lambda n: answers.get(keys[-1 - n % 1000], 2.0), 20_000):.2f} µs")
        other = Answers(Path(folder) / "cache.db", memory_bytes=0)
        print(f"a hit in the file: {micros(lambda n: other.get(keys[n * 7919 % ANSWERS], 2.0), 10_000):.1f} µs")
        print(f"a miss: {micros(lambda n: other.get(b'no' * 16, 2.0), 10_000):.1f} µs")
        random = np.random.default_rng(1)
        for number in range(2000):
            vector = random.normal(size=384).astype(np.float32)
            answers.put_question(b"s", number.to_bytes(32), "a question", vector / np.linalg.norm(vector), 1e12)
        vector = random.normal(size=384).astype(np.float32)
        vector /= np.linalg.norm(vector)
        answers.near(b"s", vector, 0.95, 2.0)  # read once
        took = micros(lambda n: answers.near(b"s", vector, 0.95, 2.0), 50)
        print(f"the nearest of 2,000 questions of 384 numbers: {took:,.0f} µs")


if __name__ == "__main__":
    main()
