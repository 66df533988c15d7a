"""The retail shop of tau2-bench as a world: its sixteen tools over a copy of ``data/db.json``, one copy a trial.

The rules are those of its policy and of its own tools (Sierra Research, MIT). In one place they differ: when several
items of an order are changed, each gets its own new price and options, where tau2's tool gives all those of the last.
"""

from __future__ import annotations

import ast
import json
import operator
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

REASONS = ("no longer needed", "ordered by mistake")
LOOKUPS = (
    "calculate",
    "find_user_id_by_email",
    "find_user_id_by_name_zip",
    "get_item_details",
    "get_order_details",
    "get_product_details",
    "get_user_details",
    "list_all_product_types",
    "transfer_to_human_agents",
)
WRITES = (
    "cancel_pending_order",
    "exchange_delivered_order_items",
    "modify_pending_order_address",
    "modify_pending_order_items",
    "modify_pending_order_payment",
    "modify_user_address",
    "return_delivered_order_items",
)


@lru_cache(1)
def _database() -> str:
    default = Path(__file__).parents[2] / "data"
    return Path(os.environ.get("TAU2_RETAIL", default), "db.json").read_text(encoding="utf-8")


def world(case: Any) -> Shop:
    return Shop(json.loads(_database()))


class Shop:
    """What a tool raises is what the agent is told; a call that is refused changes nothing."""

    lookups = LOOKUPS  # some customers of the tasks give a wrong name or number first: refused, and expected

    def __init__(self, database: dict[str, Any]) -> None:
        self.products, self.users, self.orders = (database[name] for name in ("products", "users", "orders"))
        self.tools: dict[str, Callable[..., Any]] = {name: getattr(self, name) for name in (*LOOKUPS, *WRITES)}

    def state(self) -> Any:
        """What the tools can change; the catalogue stays as it is."""
        return {"orders": self.orders, "users": self.users}

    # Looking up

    def find_user_id_by_email(self, email: str) -> str:
        return self._user_with(lambda user: user["email"].lower() == email.lower())

    def find_user_id_by_name_zip(self, first_name: str, last_name: str, zip: str) -> str:
        wanted = (first_name.lower(), last_name.lower(), zip)

        def fits(user: dict[str, Any]) -> bool:
            name = user["name"]
            return (name["first_name"].lower(), name["last_name"].lower(), user["address"]["zip"]) == wanted

        return self._user_with(fits)

    def get_user_details(self, user_id: str) -> Any:
        return _one(self.users, user_id, "user")

    def get_order_details(self, order_id: str) -> Any:
        return _one(self.orders, order_id, "order")

    def get_product_details(self, product_id: str) -> Any:
        return _one(self.products, product_id, "product")

    def get_item_details(self, item_id: str) -> Any:
        items = (product["variants"].get(item_id) for product in self.products.values())
        return _one({item_id: next(filter(None, items), None)}, item_id, "item")

    def list_all_product_types(self) -> str:
        return json.dumps(dict(sorted((one["name"], one["product_id"]) for one in self.products.values())))

    def calculate(self, expression: str) -> str:
        return str(round(float(_value(ast.parse(expression.strip(), mode="eval").body)), 2))

    def transfer_to_human_agents(self, summary: str) -> str:
        return "Transfer successful"

    # Pending orders

    def cancel_pending_order(self, order_id: str, reason: str) -> Any:
        order = self._order(order_id, "pending")
        if reason not in REASONS:
            raise ValueError(f"reason {reason!r} is not one of {REASONS}")
        refunds = [{**paid, "transaction_type": "refund"} for paid in order["payment_history"]]
        for refund in refunds:
            self._pay(order, refund["payment_method_id"], -refund["amount"])
        order["payment_history"] += refunds
        order |= {"status": "cancelled", "cancel_reason": reason}
        return order

    def modify_pending_order_address(self, order_id: str, **address: str) -> Any:
        order = self._order(order_id, "pending", "pending (item modified)")
        order["address"] = address
        return order

    def modify_pending_order_payment(self, order_id: str, payment_method_id: str) -> Any:
        order = self._order(order_id, "pending", "pending (item modified)")
        history = order["payment_history"]
        if len(history) != 1 or history[0]["transaction_type"] != "payment":
            raise ValueError("the order has not exactly one payment")
        paid = history[0]
        if paid["payment_method_id"] == payment_method_id:
            raise ValueError("the new payment method is the current one")
        self._pay(order, payment_method_id, paid["amount"])
        self._pay(order, paid["payment_method_id"], -paid["amount"])
        history += [{**paid, "payment_method_id": payment_method_id}, {**paid, "transaction_type": "refund"}]
        return order

    def modify_pending_order_items(
        self, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
    ) -> Any:
        order = self._order(order_id, "pending")
        if any(old == new for old, new in zip(item_ids, new_item_ids, strict=False)):
            raise ValueError("the new item is the old one")
        pairs, difference = self._replacements(order, item_ids, new_item_ids)
        self._pay(order, payment_method_id, difference)
        order["payment_history"].append(
            {
                "transaction_type": "payment" if difference > 0 else "refund",
                "amount": abs(difference),
                "payment_method_id": payment_method_id,
            }
        )
        for item, variant in pairs:
            item |= {name: variant[name] for name in ("item_id", "price", "options")}
        order["status"] = "pending (item modified)"
        return order

    # Delivered orders

    def return_delivered_order_items(self, order_id: str, item_ids: list[str], payment_method_id: str) -> Any:
        order = self._order(order_id, "delivered")
        method = self._method(order, payment_method_id)
        if method["source"] != "gift_card" and payment_method_id != order["payment_history"][0]["payment_method_id"]:
            raise ValueError("the refund goes to the original payment method or to a gift card")
        _items(order, item_ids)
        order |= {
            "status": "return requested",
            "return_items": sorted(item_ids),
            "return_payment_method_id": payment_method_id,
        }
        return order

    def exchange_delivered_order_items(
        self, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
    ) -> Any:
        order = self._order(order_id, "delivered")
        _, difference = self._replacements(order, item_ids, new_item_ids)
        self._covers(self._method(order, payment_method_id), difference)
        order |= {
            "status": "exchange requested",
            "exchange_items": sorted(item_ids),
            "exchange_new_items": sorted(new_item_ids),
            "exchange_payment_method_id": payment_method_id,
            "exchange_price_difference": difference,
        }
        return order

    # Customers

    def modify_user_address(self, user_id: str, **address: str) -> Any:
        user = _one(self.users, user_id, "user")
        user["address"] = address
        return user

    # What they share

    def _user_with(self, fits: Callable[[dict[str, Any]], bool]) -> str:
        found = next((user_id for user_id, user in self.users.items() if fits(user)), None)
        if found is None:
            raise ValueError("user not found")
        return str(found)

    def _order(self, order_id: str, *statuses: str) -> Any:
        order = _one(self.orders, order_id, "order")
        if order["status"] not in statuses:
            raise ValueError(f"the order is {order['status']}, not {statuses[0]}")
        return order

    def _method(self, order: dict[str, Any], payment_method_id: str) -> Any:
        return _one(self.users[order["user_id"]]["payment_methods"], payment_method_id, "payment method")

    def _covers(self, method: dict[str, Any], amount: float) -> None:
        if method["source"] == "gift_card" and method["balance"] < amount:
            raise ValueError("the gift card's balance does not cover it")

    def _pay(self, order: dict[str, Any], payment_method_id: str, amount: float) -> None:
        """Only gift cards are charged, or refunded (below 0), at once."""
        method = self._method(order, payment_method_id)
        self._covers(method, amount)
        if method["source"] == "gift_card":
            method["balance"] = round(method["balance"] - amount, 2)

    def _replacements(self, order: dict[str, Any], old: list[str], new: list[str]) -> tuple[list[Any], float]:
        """Each item with the variant of its own product that takes its place, and what that costs more."""
        if len(old) != len(new):
            raise ValueError("as many new items as old ones are needed")
        pairs = []
        for item, new_id in zip(_items(order, old), new, strict=True):
            variant = _one(self.products[item["product_id"]]["variants"], new_id, "item of this product")
            if not variant["available"]:
                raise ValueError(f"item {new_id} is not available")
            pairs.append((item, variant))
        return pairs, round(sum(variant["price"] - item["price"] for item, variant in pairs), 2)


def _one(where: dict[str, Any], key: str, what: str) -> Any:
    if where.get(key) is None:
        raise ValueError(f"{what} {key!r} not found")
    return where[key]


def _items(order: dict[str, Any], item_ids: list[str]) -> list[Any]:
    """The order's items of these ids; an id that stands twice means two of them."""
    left = list(order["items"])
    found = []
    for item_id in item_ids:
        item = next((one for one in left if one["item_id"] == item_id), None)
        if item is None:
            raise ValueError(f"item {item_id!r} is not in the order (so often)")
        left.remove(item)
        found.append(item)
    return found


_OPERATIONS: dict[type, Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}


def _value(node: ast.expr) -> float:
    """Arithmetic and nothing else: a model wrote it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.UnaryOp | ast.BinOp) and type(node.op) in _OPERATIONS:
        sides = (node.operand,) if isinstance(node, ast.UnaryOp) else (node.left, node.right)
        return _OPERATIONS[type(node.op)](*map(_value, sides))
    raise ValueError("only numbers, + - * / and parentheses")
