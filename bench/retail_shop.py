"""The retail shop of tau2-bench (Barres et al. 2025) as our tools: its database is data, these are ours, written from its policy and
checked against its own tools (bench/retail.py). The database is the JSON that the benchmark gives: products, users, orders by id."""

import ast
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from myna.apps.tools import Tool, tool
from myna.records import Json, ToolError

READS = (
    "find_user_id_by_email", "find_user_id_by_name_zip", "get_user_details", "get_order_details", "get_product_details",
    "get_item_details", "list_all_product_types", "calculate", "transfer_to_human_agents",
)  # fmt: skip
WRITES = (
    "cancel_pending_order", "modify_pending_order_address", "modify_pending_order_items", "modify_pending_order_payment",
    "modify_user_address", "return_delivered_order_items", "exchange_delivered_order_items",
)  # fmt: skip
Reason = Literal["no longer needed", "ordered by mistake"]
MATH = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


@dataclass(frozen=True)
class Shop:
    """The database, and what may be done with it. What is against the rules raises ToolError, and nothing is changed."""

    db: Json

    def tools(self) -> tuple[Tool, ...]:
        """All of them; those that change the database are writes."""
        effects: dict[str, Literal["read", "write"]] = dict.fromkeys(READS, "read") | dict.fromkeys(WRITES, "write")
        return tuple(tool(effect=effect, egress=False)(getattr(self, name)) for name, effect in effects.items())

    def find_user_id_by_email(self, email: str) -> str:
        """Find a user's id by e-mail address."""
        return _first(id for id, user in self.db["users"].items() if user["email"].lower() == email.lower())

    def find_user_id_by_name_zip(self, first_name: str, last_name: str, zip: str) -> str:
        """Find a user's id by name and zip code, where the e-mail address is not known."""
        name = (first_name.lower(), last_name.lower())
        return _first(
            id for id, user in self.db["users"].items()
            if (user["name"]["first_name"].lower(), user["name"]["last_name"].lower()) == name and user["address"]["zip"] == zip
        )  # fmt: skip

    def get_user_details(self, user_id: str) -> Json:
        """A user's profile: name, address, payment methods, ids of orders."""
        return self._row("users", user_id)

    def get_order_details(self, order_id: str) -> Json:
        """An order: items, status, payments. Its id begins with #."""
        return self._row("orders", order_id)

    def get_product_details(self, product_id: str) -> Json:
        """A product with all its variants, what they cost and whether they are available."""
        return self._row("products", product_id)

    def get_item_details(self, item_id: str) -> Json:
        """One variant of a product."""
        return _first(
            product["variants"][item_id] for product in self.db["products"].values() if item_id in product["variants"]
        )

    def list_all_product_types(self) -> dict[str, str]:
        """The names of all products and their ids."""
        return {
            product["name"]: id
            for id, product in sorted(self.db["products"].items(), key=lambda row: str(row[1]["name"]))
        }

    def calculate(self, expression: str) -> str:
        """Work out an expression of numbers, + - * / and parentheses."""
        try:
            return str(round(_value(ast.parse(expression, mode="eval").body), 2))
        except (SyntaxError, ZeroDivisionError, RecursionError, ValueError) as e:
            raise ToolError(f"this cannot be worked out: {e}") from None

    def transfer_to_human_agents(self, summary: str) -> str:
        """Hand the user over to a person, with a summary."""
        return "Transfer successful"

    def cancel_pending_order(self, order_id: str, reason: Reason) -> Json:
        """Cancel an order that is pending. A gift card gets its money back at once."""
        order = self._order(order_id, "pending")
        refunds = [payment | {"transaction_type": "refund"} for payment in order["payment_history"]]
        for refund in refunds:
            _pay(self._method(order, refund["payment_method_id"]), -refund["amount"])
        order |= {"status": "cancelled", "cancel_reason": reason, "payment_history": order["payment_history"] + refunds}
        return order

    def modify_pending_order_address(
        self, order_id: str, address1: str, address2: str, city: str, state: str, country: str, zip: str
    ) -> Json:
        """Send a pending order to another address."""
        order = self._row("orders", order_id)
        if "pending" not in order["status"]:
            raise ToolError(f"{order_id} is {order['status']}, not pending")
        order["address"] = _address(address1, address2, city, state, country, zip)
        return order

    def modify_user_address(
        self, user_id: str, address1: str, address2: str, city: str, state: str, country: str, zip: str
    ) -> Json:
        """Give a user another default address."""
        user = self._row("users", user_id)
        user["address"] = _address(address1, address2, city, state, country, zip)
        return user

    def modify_pending_order_items(
        self, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
    ) -> Json:
        """Change items of a pending order to other variants of the same products. Once for an order."""
        order = self._order(order_id, "pending")
        if any(old == new for old, new in zip(item_ids, new_item_ids, strict=False)):
            raise ToolError("an item cannot be changed to itself")
        variants, difference = self._variants(order, item_ids, new_item_ids)
        method = self._method(order, payment_method_id)
        _afford(method, difference)
        paid = {"transaction_type": "payment" if difference > 0 else "refund", "amount": abs(difference)}
        order["payment_history"].append(paid | {"payment_method_id": payment_method_id})
        _pay(method, difference)
        for old, new in zip(item_ids, new_item_ids, strict=True):
            # Each should get its own variant's price and options. The benchmark gives all of them the last one's, and the states
            # it expects have it so (tau2/domains/retail/tools.py, modify_pending_order_items; one task of 114 shows it).
            last = variants[-1]
            _first(item for item in order["items"] if item["item_id"] == old).update(
                item_id=new, price=last["price"], options=last["options"]
            )
        order["status"] = "pending (item modified)"
        return order

    def modify_pending_order_payment(self, order_id: str, payment_method_id: str) -> Json:
        """Pay a pending order in another way."""
        order = self._row("orders", order_id)
        history = order["payment_history"]
        if "pending" not in order["status"] or [one["transaction_type"] for one in history] != ["payment"]:
            raise ToolError(f"{order_id} is not pending with a single payment")
        amount, before = history[0]["amount"], history[0]["payment_method_id"]
        if before == payment_method_id:
            raise ToolError("it is paid in that way already")
        new, old = self._method(order, payment_method_id), self._method(order, before)
        _afford(new, amount)
        for kind, id in (("payment", payment_method_id), ("refund", before)):
            history.append({"transaction_type": kind, "amount": amount, "payment_method_id": id})
        _pay(new, amount)
        _pay(old, -amount)
        return order

    def return_delivered_order_items(self, order_id: str, item_ids: list[str], payment_method_id: str) -> Json:
        """Take back items of a delivered order. The money goes to what it was paid with, or to a gift card."""
        order = self._order(order_id, "delivered")
        method = self._method(order, payment_method_id)
        if method["source"] != "gift_card" and payment_method_id != order["payment_history"][0]["payment_method_id"]:
            raise ToolError("the money goes back to where it came from, or to a gift card")
        _has(order, item_ids)
        order |= {
            "status": "return requested",
            "return_items": sorted(item_ids),
            "return_payment_method_id": payment_method_id,
        }
        return order

    def exchange_delivered_order_items(
        self, order_id: str, item_ids: list[str], new_item_ids: list[str], payment_method_id: str
    ) -> Json:
        """Exchange items of a delivered order for other variants of the same products. Once for an order."""
        order = self._order(order_id, "delivered")
        difference = round(self._variants(order, item_ids, new_item_ids)[1], 2)
        _afford(self._method(order, payment_method_id), difference)
        order |= {"status": "exchange requested", "exchange_items": sorted(item_ids), "exchange_new_items": sorted(new_item_ids),
                  "exchange_payment_method_id": payment_method_id, "exchange_price_difference": difference}  # fmt: skip
        return order

    def _row(self, table: str, id: str) -> Json:
        if id not in self.db[table]:
            raise ToolError(f"{id} is not among the {table}")
        row: Json = self.db[table][id]
        return row

    def _order(self, id: str, status: str) -> Json:
        order = self._row("orders", id)
        if order["status"] != status:
            raise ToolError(f"{id} is {order['status']}, not {status}")
        return order

    def _method(self, order: Json, id: str) -> Json:
        methods = self._row("users", order["user_id"])["payment_methods"]
        if id not in methods:
            raise ToolError(f"{order['user_id']} has no payment method {id}")
        method: Json = methods[id]
        return method

    def _variants(self, order: Json, old: Sequence[str], new: Sequence[str]) -> tuple[list[Json], float]:
        """(the new variants, what they cost more than the old items)."""
        _has(order, old)
        if len(old) != len(new) or not old:
            raise ToolError(f"{len(old)} items cannot be changed to {len(new)}")
        found, difference = [], 0.0
        for one, other in zip(old, new, strict=True):
            item = _first(item for item in order["items"] if item["item_id"] == one)
            variant = self._row("products", item["product_id"])["variants"].get(other)
            if variant is None or not variant["available"]:
                raise ToolError(f"{other} is no available variant of {item['name']}")
            found.append(variant)
            difference += variant["price"] - item["price"]
        return found, difference


def _first(found):  # type: ignore[no-untyped-def]
    for one in found:
        return one
    raise ToolError("there is none")


def _has(order: Json, items: Sequence[str]) -> None:
    there = [item["item_id"] for item in order["items"]]
    for one in items:
        if items.count(one) > there.count(one):
            raise ToolError(f"{order['order_id']} has {there.count(one)} of {one}")


def _afford(method: Json, amount: float) -> None:
    if method["source"] == "gift_card" and method["balance"] < amount:
        raise ToolError(f"{method['id']} has {method['balance']}, and {amount:.2f} are needed")


def _pay(method: Json, amount: float) -> None:
    """Only gift cards have a balance here."""
    if method["source"] == "gift_card":
        method["balance"] = round(method["balance"] - amount, 2)


def _address(address1: str, address2: str, city: str, state: str, country: str, zip: str) -> Json:
    return {"address1": address1, "address2": address2, "city": city, "country": country, "state": state, "zip": zip}


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.BinOp(left, op, right) if type(op) in MATH:
            return float(MATH[type(op)](_value(left), _value(right)))
        case ast.UnaryOp(ast.USub(), one):
            return -_value(one)
    raise ValueError("only numbers, + - * / and parentheses")
