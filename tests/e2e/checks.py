"""What every refusal and every paid answer must look like, said once."""

from __future__ import annotations

import base64

from .client import Response
from .payments import Payment
from .world import World


def alive(world: World) -> None:
    """Envoy runs, and no VM failed."""
    assert world.envoy.process.running(), world.envoy.process.tail()
    log = world.envoy.log()
    for sign in ("panicked", "Function: proxy_", "in-VM failure", "unreachable", "Wasm VM failed", "Caught "):
        assert sign not in log, log[-4000:]


def refused(answer: Response, status: int, reason: str | None = None, code: str | None = None) -> Response:
    """A refusal by the filter: JSON with error, code and message; a challenge on a 402 and only there."""
    assert answer.status == status, answer
    assert answer.clean, answer
    assert (answer.header("content-type") or "").startswith("application/json"), answer
    body = answer.json()
    assert isinstance(body["error"], str) and isinstance(body["message"], str) and body["message"], body
    if reason is not None:
        assert body["error"] == reason, body
    if status == 402:
        assert body["code"].split(".")[0] == "402", body
        assert answer.challenge["x402Version"] == 2 and answer.challenge["accepts"], answer
        assert answer.challenge["error"] == body["error"]
        assert answer.header("cache-control") == "no-store"
    else:
        assert body["code"] == str(status), body
        if status != 412:
            assert not answer.all("payment-required"), answer
    if code is not None:
        assert body["code"] == code, body
    if status == 503:
        assert int(answer.header("retry-after") or "") >= 1, answer
    return answer


def untouched(world: World, answer: Response) -> None:
    """It never got to the backend."""
    assert world.reached(answer) == 0, world.backend.requests(answer.test_id)


def unpaid(world: World, answer: Response, status: int = 402, reason: str | None = None,
           code: str | None = None) -> Response:
    """Refused, before the backend, and without a receipt."""
    refused(answer, status, reason, code)
    assert not answer.has_receipt, answer
    untouched(world, answer)
    return answer


def paid(world: World, answer: Response, payment: Payment, header: str | None = "payment-response",
         status: int = 200) -> Response:
    """Served and paid for: one receipt, private to its buyer, verified, settled and forwarded once."""
    assert answer.status == status, answer
    assert answer.clean, answer
    receipt = answer.receipt
    assert receipt["success"] is True and receipt["transaction"], receipt
    if header is not None:
        assert answer.all(header), answer
    assert not answer.all("payment-required")
    assert answer.tokens("cache-control") & {"private", "no-store"}, answer
    assert {"payment-signature", "x-payment"} <= answer.tokens("vary"), answer
    assert world.reached(answer) == 1
    assert world.count(payment, "settle") == 1
    return answer


def leaks(text: str, content: bytes) -> bool:
    """Whether a text is there, as it is, in base64 wherever that begins, or as bytes."""
    forms = [text.encode(), text.encode().hex().encode()]
    for before in range(3):
        # What depends on the characters around it is left out.
        encoded = base64.b64encode(b"x" * before + text.encode())
        forms.append(encoded[4 if before else 0:len(encoded) // 4 * 4 - 4])
    if all(letter in "0123456789abcdef" for letter in text):
        forms.append(bytes.fromhex(text))
    lower = content.lower()
    return any(form in content for form in forms) or text.lower().encode() in lower
