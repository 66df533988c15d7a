"""The retail shop of tau2-bench as a world: the tools that change its database, over a copy of it."""

from __future__ import annotations

import copy
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any


@lru_cache(1)
def _database() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(os.environ["TAU2_RETAIL"], "db.json").read_text())
    return found


class Shop:
    def __init__(self) -> None:
        self.db = copy.deepcopy(_database())
        self.tools = {
            name: getattr(self, name)
            for name in (
                "find_user_id_by_name_zip",
                "get_order_details",
                "cancel_pending_order",
                "modify_pending_order_address",
                "modify_user_address",
                "return_delivered_order_items",
            )
        }

    def state(self) -> Any:
        return {"orders": self.db["orders"], "users": self.db["users"]}

    def find_user_id_by_name_zip(self, first_name: str, last_name: str, zip: str) -> str:
        for user_id, user in self.db["users"].items():
            name = (user["name"]["first_name"].lower(), user["name"]["last_name"].lower(), user["address"]["zip"])
            if name == (first_name.lower(), last_name.lower(), zip):
                return str(user_id)
        raise ValueError("User not found")

    def get_order_details(self, order_id: str) -> Any:
        return self._order(order_id)

    def cancel_pending_order(self, order_id: str, reason: str) -> Any:
        order = self._order(order_id, "pending")
        if reason not in ("no longer needed", "ordered by mistake"):
            raise ValueError("Invalid reason")
        for payment in list(order["payment_history"]):
            refund = {
                "transaction_type": "refund",
                "amount": payment["amount"],
                "payment_method_id": payment["payment_method_id"],
            }
            order["payment_history"].append(refund)
            if "gift_card" in payment["payment_method_id"]:
                card = self.db["users"][order["user_id"]]["payment_methods"][payment["payment_method_id"]]
                card["balance"] = round(card["balance"] + payment["amount"], 2)
        order |= {"status": "cancelled", "cancel_reason": reason}
        return order

    def modify_pending_order_address(self, order_id: str, **address: str) -> Any:
        order = self._order(order_id, "pending")
        order["address"] = address
        return order

    def modify_user_address(self, user_id: str, **address: str) -> Any:
        self.db["users"][user_id]["address"] = address
        return self.db["users"][user_id]

    def return_delivered_order_items(self, order_id: str, item_ids: list[str], payment_method_id: str) -> Any:
        order = self._order(order_id, "delivered")
        owned = [item["item_id"] for item in order["items"]]
        if any(item_ids.count(item) > owned.count(item) for item in item_ids):
            raise ValueError("Some item not found")
        order |= {
            "status": "return requested",
            "return_items": sorted(item_ids),
            "return_payment_method_id": payment_method_id,
        }
        return order

    def _order(self, order_id: str, status: str | None = None) -> Any:
        if order_id not in self.db["orders"]:
            raise ValueError("Order not found")
        order = self.db["orders"][order_id]
        if status is not None and not order["status"].startswith(status):
            raise ValueError(f"Non-{status} order cannot be changed")
        return order


def world(case: Any) -> Shop:
    return Shop()
