"""Tools and rules are code: tested like code."""

from tools.support import decide, read_orders


def test_an_order_is_found_by_its_number():
    assert read_orders("44120")["item"] == "kettle"


def test_a_refund_within_thirty_days_is_approved():
    assert decide("refund", {"days_since_delivery": 30}) == "approve"


def test_a_refund_after_thirty_days_is_denied():
    assert decide("refund", {"days_since_delivery": 31}) == "deny"


def test_what_is_not_known_goes_to_a_person():
    assert decide("refund", None) == "escalate"
