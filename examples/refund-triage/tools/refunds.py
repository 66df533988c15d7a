"""The refund agent's tools. The model only states facts; the refund policy is code, and can be tested like code."""

import json
from pathlib import Path
from typing import Any

ORDERS = Path("data/orders.json")
REFUNDS = Path("data/refunds.jsonl")
REFUND_DAYS = 30
LARGEST_REFUND = 200.0

REPLIES = {
    "ask": "Which order is it? Please send us the number.",
    "deny": "I am sorry: this order can no longer be refunded.",
    "escalate": "A colleague will look at this and write to you today.",
    "approve": "Your refund is on its way.",
}


def read_orders(order_id: str) -> dict[str, Any] | None:
    """One order, or None."""
    order: dict[str, Any] | None = json.loads(ORDERS.read_text()).get(order_id)
    return order


def issue_refund(order_id: str, item: str, amount: float) -> dict[str, Any]:
    """Write the refund down for the payment run."""
    refund = {"order_id": order_id, "item": item, "amount": amount}
    with REFUNDS.open("a") as file:
        file.write(json.dumps(refund) + "\n")
    return refund


def decide(order_number: str, item: str, order: dict[str, Any] | None) -> str:
    """The policy: ask, deny, escalate or approve."""
    if order_number == "none":
        return "ask"
    if order is None or item not in order["items"]:
        return "escalate"
    if order["final_sale"] or order["days_since_delivery"] > REFUND_DAYS:
        return "deny"
    return "escalate" if order["items"][item] > LARGEST_REFUND else "approve"


async def triage_refund(facts: dict[str, Any], call: Any) -> dict[str, Any]:
    """The answer to a message whose facts are known. ``call`` runs another tool, under policy and approval."""
    number, item = facts["order"].strip(), facts["item"].strip().lower()
    order = None if number == "none" else await call("read_orders", order_id=number)
    decision = decide(number, item, order)
    if decision == "approve" and order is not None:
        await call("issue_refund", order_id=number, item=item, amount=order["items"][item])
    return {"order": number, "item": item, "decision": decision, "reply": REPLIES[decision]}
