"""Envoy may be told to retry what goes to the facilitator's cluster. A settlement is not retried: it was perhaps done."""

import pytest

from stack.envoy import UPSTREAM_KEY
from stack.tools import ENVOY_VERSIONS

from .checks import paid, refused, unpaid
from .facilitator import ok, refuse, reply, reset, reset_in_body
from .world import MAIN, World

# Clusters have a retry policy since 1.37.
VERSIONS = [version for version in ENVOY_VERSIONS if not version.startswith("1.36.")]
EVERYTHING = "5xx,gateway-error,reset,reset-before-request,connect-failure,refused-stream,retriable-4xx,retriable-status-codes"


def retry(config):
    """Whatever can be retried, at the facilitator's cluster."""
    for cluster in config["static_resources"]["clusters"]:
        if cluster["name"] == "facilitator":
            cluster["typed_extension_protocol_options"][UPSTREAM_KEY]["retry_policy"] = {
                "retry_on": EVERYTHING, "num_retries": 3, "retriable_status_codes": [409, 500, 503]}


@pytest.fixture(scope="module", params=VERSIONS)
def retrying(request, worlds) -> World:
    """The facilitator's cluster retries."""
    return worlds.world(f"retrying-{request.param}", MAIN, version=request.param, edit=retry)


OPEN = {
    "reset": reset(),
    "reset in mid-body": reset_in_body(),
    "500": reply(500, b"oops"),
    "503": reply(503, b"busy"),
    "409": reply(409, {"error": "conflict"}),
}


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize("then", ["nonce used", "ok"])
def test_settlement_is_sent_once(retrying, name, then):
    """Retried, it would be refused as used, and the client asked for another payment."""
    after = refuse("invalid_exact_evm_nonce_already_used") if then == "nonce used" else ok()
    payment = retrying.payment("/paid")
    retrying.facilitator.script(payment.payload, settle=[OPEN[name], after])
    refused(retrying.call("/paid", payment=payment), 503, "settlement_pending")
    assert retrying.count(payment, "settle") == 1
    # Only the client's own resending has it asked about again.
    again = retrying.call("/paid", payment=payment)
    assert retrying.count(payment, "settle") == 2
    if then == "ok":
        assert again.status == 200 and again.receipt["success"], again
    else:
        unpaid(retrying, again, 503, "settlement_pending")


def test_good_payments_are_settled_once(retrying, protocol):
    payment = retrying.payment("/paid")
    paid(retrying, retrying.call("/paid", payment=payment, protocol=protocol), payment)
