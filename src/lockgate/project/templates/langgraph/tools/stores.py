"""The agent's tools."""

import json
import re
from pathlib import Path

STORES = Path("data/stores.json")


def find_store(question: str) -> dict | None:
    """The store whose city stands in the question; None when no store's does."""
    words = set(re.findall(r"\w+", question.casefold()))
    stores = json.loads(STORES.read_text("utf-8"))
    return next((store for store in stores if store["city"].casefold() in words), None)
