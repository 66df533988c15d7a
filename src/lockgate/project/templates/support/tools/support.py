"""The support agent's tools. What a model says is only ever an input here: rules are code."""

import json
from pathlib import Path

ORDERS = Path("data/orders.json")
REFUNDS = Path("data/refunds.jsonl")
REFUND_DAYS = 30


def read_orders(order_id: str) -> dict | None:
    """One order, or None."""
    return json.loads(ORDERS.read_text()).get(order_id)


def issue_refund(order_id: str, amount: float) -> dict:
    """Record the refund, once per order."""
    done = REFUNDS.read_text().splitlines() if REFUNDS.exists() else []
    if not any(json.loads(line)["order_id"] == order_id for line in done):
        with REFUNDS.open("a") as file:
            file.write(json.dumps({"order_id": order_id, "amount": amount}) + "\n")
    return {"order_id": order_id, "amount": amount}


def decide(wants: str, order: dict | None) -> str:
    """What the policy says: approve, deny, inform or escalate."""
    if order is None:
        return "escalate"
    if wants == "status":
        return "inform"
    if wants == "refund":
        return "approve" if order["days_since_delivery"] <= REFUND_DAYS else "deny"
    return "escalate"


async def answer_customer(facts: dict, call) -> dict:
    """The agent's answer to the facts. ``call`` runs another tool, under policy and approval."""
    order = await call("read_orders", order_id=facts["order"]) if facts["order"] else None
    decision = decide(facts["wants"], order)
    if decision == "approve":
        await call("issue_refund", order_id=facts["order"], amount=order["price"])
    return {"order": facts["order"], "wants": facts["wants"], "decision": decision}
