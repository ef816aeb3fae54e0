"""Every payment that can be refused without asking anyone: status, reason and code, and nobody was asked."""

import json
import secrets

import pytest
from eth_account import Account

from .checks import paid, refused, unpaid, untouched
from .client import REFUSED_BY_CLOSING
from .facilitator import refuse, reply
from .payments import (EXACT_PROXY, OTHER, SELLER, Payment, encode, high_s, now, offer, pay, solana_transaction, with_v)

SIGNED = "invalid_exact_evm_payload_signature"
AUTH = "invalid_exact_evm_payload_authorization_"


def signed(**changes):
    """Change the authorization and sign it again."""
    return lambda found: found.but(lambda it: it.payload["authorization"].update(changes), resign=True)


def accepted(**changes):
    """Change what was accepted; the signature stays."""
    return lambda found: found.but(lambda it: it.offer.update(changes))


def signature(change):
    """Replace the signature."""
    return lambda found: found.but(lambda it: it.payload.update(signature=change(it.payload["signature"])))


def domain(**changes):
    """Sign over another domain."""
    return lambda found: found.but(lambda it: None, **changes)


def by_somebody_else(found):
    """Signed by another key than the one it names."""
    return Payment(Account.create(), found.offer, {"authorization": dict(found.authorization)}, found.resource).sign()


EIP3009 = {
    # name: (change, reason, code); a reason or a code of None is not said by any document
    "value too low": (signed(value="9999"), AUTH + "value", "402.1"),
    "value too high": (signed(value="10001"), AUTH + "value", "402.1"),
    "value zero": (signed(value="0"), AUTH + "value", "402.1"),
    "accepted a lower amount": (
        lambda found: accepted(amount="1")(signed(value="1")(found)), None, None),
    "accepted another asset": (accepted(asset=OTHER), "invalid_asset", "402.3"),
    "accepted another network": (accepted(network="eip155:137"), "invalid_network", "402.4"),
    "accepted another scheme": (accepted(scheme="subscription"), "unsupported_scheme", None),
    "accepted another payTo": (
        lambda found: accepted(payTo=OTHER)(signed(to=OTHER)(found)), None, None),
    "accepted another timeout": (accepted(maxTimeoutSeconds=10**6), "invalid_payment_requirements", None),
    "accepted another domain": (accepted(extra={"name": "Fake", "version": "2"}), "invalid_payment_requirements", None),
    "accepted no extra": (accepted(extra={}), "invalid_payment_requirements", None),
    "pays somebody else": (signed(to=OTHER), "invalid_exact_evm_payload_recipient_mismatch", None),
    "expired": (signed(validBefore=str(now() - 60)), AUTH + "valid_before", "402.5"),
    "about to expire": (lambda found: signed(validBefore=str(now() + 10))(found), AUTH + "valid_before", "402.5"),
    "not valid yet": (lambda found: signed(validAfter=str(now() + 240))(found), AUTH + "valid_after", "402.5"),
    "valid too long": (lambda found: signed(validBefore=str(now() + 7200))(found), "validity_too_long", "402.5"),
    "valid for ever": (signed(validBefore=str(2**256 - 1)), "validity_too_long", "402.5"),
    "token's name is wrong": (domain(name="USDC"), SIGNED, "402.2"),
    "token's version is wrong": (domain(version="1"), SIGNED, "402.2"),
    "another chain": (domain(chainId=1), SIGNED, "402.2"),
    "another contract": (domain(verifyingContract=OTHER), SIGNED, "402.2"),
    "high s": (signature(high_s), SIGNED, "402.2"),
    "v is 29": (signature(lambda found: with_v(found, 29)), SIGNED, "402.2"),
    "v is the other one": (signature(lambda found: with_v(found, 55 - int(found[-2:], 16))), SIGNED, "402.2"),
    "zeros": (signature(lambda found: "0x" + "00" * 65), SIGNED, "402.2"),
    "ones": (signature(lambda found: "0x" + "ff" * 65), SIGNED, "402.2"),
    "somebody else's signature": (by_somebody_else, None, "402.2"),
    "nonce changed after signing": (
        lambda found: found.but(lambda it: it.authorization.update(nonce="0x" + secrets.token_hex(32))), None, "402.2"),
    "made for another resource": (
        lambda found: found.but(lambda it: it.resource.update(url="http://api.test/other")), "resource_mismatch", None),
    "made for another host": (
        lambda found: found.but(lambda it: it.resource.update(url="http://evil.test/base-only")), "resource_mismatch",
        None),
    "made for another scheme": (
        lambda found: found.but(lambda it: it.resource.update(url="https://api.test/base-only")), "resource_mismatch",
        None),
}


@pytest.mark.parametrize("name", EIP3009)
def test_eip3009(main, name):
    change, reason, code = EIP3009[name]
    payment = change(main.payment("/base-only"))
    unpaid(main, main.call("/base-only", payment=payment), 402, reason, code)
    main.no_calls(payment)


@pytest.mark.parametrize("dialect", ["v1", "libertai", "plain"])
@pytest.mark.parametrize("name", ["value too low", "pays somebody else", "expired", "another chain", "high s"])
def test_other_dialects(main, dialect, name):
    change, reason, code = EIP3009[name]
    if dialect == "plain" and name == "pays somebody else":
        # The recipient is not sent: the filter's own takes part in the hash, so the signature is wrong.
        reason, code = None, "402.2"
    payment = change(main.payment("/base-only"))
    unpaid(main, main.call("/base-only", payment=payment, dialect=dialect), 402, reason, code)
    main.no_calls(payment)


@pytest.mark.parametrize("network,scheme,reason,code", [
    ("polygon", "exact", "invalid_network", "402.4"),
    ("base", "upto", None, None),
    ("no-such-network", "exact", "invalid_network", "402.4"),
])
def test_v1_names(main, network, scheme, reason, code):
    payment = main.payment("/base-only")
    header = encode({**payment.v1, "network": network, "scheme": scheme})
    unpaid(main, main.call("/base-only", headers=[("x-payment", header)]), 402, reason, code)
    main.no_calls(payment)


def test_clock_skew(main):
    """30 s of it: a payer's clock may be ahead by that much."""
    payment = main.payment("/paid", valid_after=now() + 15)
    paid(main, main.call("/paid", payment=payment), payment)
    payment = main.payment("/paid", valid_for=120)
    paid(main, main.call("/paid", payment=payment), payment)
    payment = main.payment("/paid", valid_for=3540)
    paid(main, main.call("/paid", payment=payment), payment)


def permitted(**changes):
    """Change the Permit2 authorization and sign it again."""
    def change(it):
        for key, value in changes.items():
            target = it.payload["permit2Authorization"]
            *path, last = key.split("__")
            for step in path:
                target = target[step]
            target[last] = value
    return lambda found: found.but(change, resign=True)


PERMIT2 = {
    "another spender": (permitted(spender=OTHER), "invalid_permit2_spender", None),
    "another token": (permitted(permitted__token=OTHER), "permit2_token_mismatch", "402.3"),
    "too low": (permitted(permitted__amount="9999"), None, "402.1"),
    "pays somebody else": (permitted(witness__to=OTHER), None, None),
    "expired": (permitted(deadline=str(now() - 60)), None, "402.5"),
    "not valid yet": (lambda found: permitted(witness__validAfter=str(now() + 240))(found), None, "402.5"),
    "valid too long": (lambda found: permitted(deadline=str(now() + 7200))(found), "validity_too_long", "402.5"),
    "another chain": (domain(chainId=1), None, "402.2"),
    "high s": (signature(high_s), None, "402.2"),
}


@pytest.mark.parametrize("path", ["/permit2", "/upto"])
@pytest.mark.parametrize("name", PERMIT2)
def test_permit2(main, path, name):
    change, reason, code = PERMIT2[name]
    payment = change(main.payment(path))
    unpaid(main, main.call(path, payment=payment), 402, reason, code)
    main.no_calls(payment)


def test_upto_of_another_facilitator(main):
    payment = permitted(witness__facilitator=OTHER)(main.payment("/upto"))
    unpaid(main, main.call("/upto", payment=payment), 402, "upto_facilitator_mismatch")
    main.no_calls(payment)


def test_exact_spender_on_upto(main):
    payment = permitted(spender=EXACT_PROXY)(main.payment("/upto"))
    unpaid(main, main.call("/upto", payment=payment), 402, "invalid_permit2_spender")
    main.no_calls(payment)


def test_transfer_method_that_is_not_offered(main):
    """A Permit2 payment on an EIP-3009 offer, and the other way round."""
    good = main.payment("/base-only")
    other = pay(offer(10_000, transfer="permit2"))
    mixed = Payment(other.payer, good.offer, other.payload)
    unpaid(main, main.call("/base-only", payment=mixed), 402, "unsupported_transfer_method")
    main.no_calls(mixed)
    good, other = main.payment("/permit2"), pay(offer(10_000))
    mixed = Payment(other.payer, good.offer, other.payload)
    unpaid(main, main.call("/permit2", payment=mixed), 402, "unsupported_transfer_method")
    main.no_calls(mixed)


PERMIT_TERMS = offer(100_000, scheme="upto", pay_to=OTHER, primaryType="Permit", recipientAddress=SELLER)
PERMITS = {
    "another spender": signed(to=EXACT_PROXY),
    "too low": signed(value="99999"),
    "expired": signed(validBefore=str(now() - 60)),
    "another chain": domain(chainId=1),
}


@pytest.mark.parametrize("name", PERMITS)
def test_permit(main, name):
    payment = PERMITS[name](pay(PERMIT_TERMS))
    answer = main.call("/permit", payment=payment, dialect="libertai")
    assert answer.status == 402 and answer.json()["code"].startswith("402") and not answer.has_receipt
    untouched(main, answer)
    main.no_calls(payment)


SOLANA_CHANGES = {
    "amount": {"amount": 9_999},
    "mint": {"mint": "4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU"},
    "fee payer": {"fee_payer": "2wKupLR9q6wXYppw8Gr2NvWxKBUqm4PPJKkQfoxHDBg4"},
    "no transfer": {"instructions": ["limit", "price", "memo"]},
    "two transfers": {"instructions": ["limit", "price", "transfer", "transfer"]},
    # Neither expires with a blockhash: the payer could settle or void it whenever it suits.
    "durable nonce": {"instructions": ["nonce", "limit", "price", "transfer", "memo"]},
    "durable nonce, and nothing more than needed": {"instructions": ["nonce", "limit", "price", "transfer"]},
}


@pytest.mark.parametrize("name", SOLANA_CHANGES)
def test_solana(main, name):
    payment = main.payment("/solana")
    payment = payment.but(lambda it: it.payload.update(
        transaction=solana_transaction(it.offer, **SOLANA_CHANGES[name])))
    unpaid(main, main.call("/solana", payment=payment), 402)
    main.no_calls(payment)


@pytest.mark.parametrize("transaction", ["", "!!!!", "AAAA", encode(b"\xff" * 1200), encode(b"\x01" + bytes(64))])
def test_solana_garbage(main, transaction):
    payment = main.payment("/solana").but(lambda it: it.payload.update(transaction=transaction))
    answer = main.call("/solana", payment=payment)
    assert answer.status in (400, 402)
    refused(answer, answer.status)
    untouched(main, answer)
    main.no_calls(payment)


def good(main):
    """Something to spoil."""
    return main.payment("/base-only")


def text(payment):
    """A payment as JSON text."""
    return json.dumps(payment.v2)


MALFORMED = {
    "not base64": lambda found: "!!!not-base64!!!",
    "empty": lambda found: "",
    "not JSON": lambda found: encode(b"hello"),
    "an array": lambda found: encode(b"[]"),
    "a number": lambda found: encode(b"1"),
    "null": lambda found: encode(b"null"),
    "nothing in it": lambda found: encode(b"{}"),
    "cut off": lambda found: encode(text(found)[:-20].encode()),
    "something after it": lambda found: encode((text(found) + "x").encode()),
    "not UTF-8": lambda found: encode(text(found).replace("eip155", "eip\\u00ff").encode() + b"\xff"),
    "too deep": lambda found: encode(text(found)[:-1].encode() + b',"x":' + b"[" * 40 + b"]" * 40 + b"}"),
    "far too deep": lambda found: encode(text(found)[:-1].encode() + b',"x":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "duplicate key": lambda found: encode(text(found)[:-1].encode() + b',"x402Version":2}'),
    "duplicate key further in": lambda found: encode(
        text(found).replace('"value": "10000"', '"value": "10000", "value": "10000"').encode()),
    "duplicate key by escape": lambda found: encode(
        text(found).replace('"value": "10000"', '"value": "1", "valu\\u0065": "10000"').encode()),
    "over 16 KiB": lambda found: encode(json.dumps({**found.v2, "x": "y" * 16000}).encode()),
    "no payload": lambda found: encode({key: value for key, value in found.v2.items() if key != "payload"}),
    "no accepted": lambda found: encode({key: value for key, value in found.v2.items() if key != "accepted"}),
    "no signature": lambda found: encode({**found.v2, "payload": {"authorization": found.authorization}}),
    "nonce is short": lambda found: encode(found.but(lambda it: it.authorization.update(nonce="0x1234")).v2),
    "nonce is long": lambda found: encode(
        found.but(lambda it: it.authorization.update(nonce="0x" + "11" * 33)).v2),
    "nonce is not hexadecimal": lambda found: encode(
        found.but(lambda it: it.authorization.update(nonce="0x" + "zz" * 32)).v2),
    "signature is not hexadecimal": lambda found: encode(
        found.but(lambda it: it.payload.update(signature="0x" + "zz" * 65)).v2),
    "address is short": lambda found: encode(found.but(lambda it: it.authorization.update({"from": "0x12"})).v2),
    "value is negative": lambda found: encode(found.but(lambda it: it.authorization.update(value="-1")).v2),
    "value has an exponent": lambda found: encode(found.but(lambda it: it.authorization.update(value="1e4")).v2),
    "value is hexadecimal": lambda found: encode(found.but(lambda it: it.authorization.update(value="0x2710")).v2),
    "value has a space": lambda found: encode(found.but(lambda it: it.authorization.update(value=" 10000")).v2),
    "value is over 2^256": lambda found: encode(
        found.but(lambda it: it.authorization.update(value=str(2**256 + 10_000))).v2),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(main, protocol, name):
    payment = good(main)
    answer = main.call("/base-only", headers=[("payment-signature", MALFORMED[name](payment))], protocol=protocol)
    if name == "empty" and answer.status == 402:
        unpaid(main, answer, 402, "Payment required")  # an empty header may count as none
    elif name == "nothing in it":
        unpaid(main, answer, 400)  # the version is missing first of all
    else:
        unpaid(main, answer, 400, "invalid_payload")
    main.no_calls(payment)


def test_version(main):
    payment = good(main)
    header = encode({**payment.v2, "x402Version": 3})
    unpaid(main, main.call("/base-only", headers=[("payment-signature", header)]), 400, "invalid_x402_version")
    main.no_calls(payment)


def test_two_payments_at_once(main, protocol):
    one, two = good(main), good(main)
    for headers in (one.headers("v2") + two.headers("v1"), one.headers("v2") + two.headers("v2"),
                    one.headers("v2") + one.headers("v2"), one.headers("v1") + one.headers("v1"),
                    one.headers("v1") + one.headers("v2")):
        answer = main.call("/base-only", headers=headers, protocol=protocol)
        unpaid(main, answer, 400, "invalid_payload")
    main.no_calls(one)
    main.no_calls(two)


def test_plain_headers_repeated(main):
    payment = good(main)
    fields = payment.plain()
    unpaid(main, main.call("/base-only", headers=fields + [("X-Payment-Nonce", "1")]), 400, "invalid_payload")
    main.no_calls(payment)


@pytest.mark.parametrize("name", ["payment-signature", "x-payment", "x-payment-signature", "x-payment-nonce", "cookie",
                                  "authorization", "x-anything", "user-agent", "accept", "origin", "x-internal-caller",
                                  "content-type", "content-encoding", "x-tier", "x-x402-payer"])
def test_bytes_above_127(main, protocol, name):
    """The SDK's string getters panic on these; nothing here may use them."""
    answer = main.call("/base-only", headers=[(name, b"caf\xc3\xa9 \xff\xfe\x80")], protocol=protocol)
    assert answer.status in (400, 402), answer
    untouched(main, answer)
    answer = main.call("/free", headers=[(name, b"\xff\xfe")], protocol=protocol)
    assert answer.status == 200, answer
    assert main.call("/tier", headers=[(name, b"\xff\xfe")], protocol=protocol).status == 400


def test_bytes_above_127_in_path_and_host(main, protocol):
    for path in (b"/base-only?\xff\xfe", b"/reports/\xff"):
        answer = main.call(path, protocol=protocol, may_close=True)
        assert answer.status in (REFUSED_BY_CLOSING, 400, 402), answer
        untouched(main, answer)
    answer = main.call("/base-only", host=b"\xff\xfe.test", protocol=protocol, may_close=True)
    assert answer.status in (REFUSED_BY_CLOSING, 400, 402), answer
    untouched(main, answer)
    assert main.call("/base-only").status == 402, "the workers live"


@pytest.mark.parametrize("line", ["\r\nset-cookie: a=b", "\nset-cookie: a=b", "\rset-cookie: a=b", "\0set-cookie: a=b"])
def test_no_response_splitting(main, protocol, line):
    """What others say goes into JSON and headers, never as a new header."""
    payment = main.payment("/paid")
    main.facilitator.script(payment.payload, verify=refuse("insufficient_funds" + line, "text" + line))
    answer = main.call("/paid", payment=payment, protocol=protocol)
    assert answer.status == 402 and answer.clean and not answer.all("set-cookie")
    untouched(main, answer)
    payment = main.payment("/paid")
    main.facilitator.script(payment.payload, settle=reply(200, {
        "success": True, "transaction": "0xab" + line, "network": "eip155:8453" + line, "payer": "0x1" + line}))
    answer = main.call("/paid", payment=payment, protocol=protocol)
    assert answer.clean and not answer.all("set-cookie")
    payment = main.payment("/paid").but(lambda it: it.resource.update(url="http://api.test/" + line))
    answer = main.call("/paid", payment=payment, protocol=protocol)
    assert answer.status in (400, 402) and not answer.all("set-cookie")
    payment = main.payment("/paid").but(lambda it: it.offer.update(scheme="exact" + line, network="eip155:1" + line))
    answer = main.call("/paid", payment=payment, protocol=protocol)
    assert answer.status in (400, 402) and not answer.all("set-cookie")
    answer = main.call("/reports/%0d%0aset-cookie:%20a=b?%0d%0aset-cookie:a=b", protocol=protocol)
    assert answer.status in (400, 402) and not answer.all("set-cookie")


def test_huge_headers_do_no_harm(main):
    payment = good(main)
    for size in (17_000, 40_000):
        answer = main.call("/base-only", headers=[("payment-signature", "A" * size)])
        unpaid(main, answer, 400, "invalid_payload")
    answer = main.call("/base-only", headers=[("x-payment", "{" * 10_000)])
    unpaid(main, answer, 400, "invalid_payload")
    main.no_calls(payment)
