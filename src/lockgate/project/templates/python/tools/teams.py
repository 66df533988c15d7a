"""The agent's tools."""

import json
from pathlib import Path

TEAMS = Path("data/teams.json")


def find_team(topic: str) -> dict:
    """The team for a topic; the front desk for what nobody else takes."""
    teams = json.loads(TEAMS.read_text("utf-8"))
    return {"team": teams.get(topic, teams["other"])}
