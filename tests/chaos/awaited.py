"""The rows that must end as they say and do not yet, by name, or by name and flow. Each fails today, or this list is wrong."""

# Paid, and not delivered because the client left: the same payment for the same request is to be served once more.
REDELIVERY = [
    "leaves as it settles", "leaves as it settles, no answer", "leaves in mid-answer", "leaves as the backend works (paid)",
]
# Settled, all answers lost: the payment sent again meets a used nonce, which is evidence of nothing for it.
RESUMED = [
    "settled, and no answer at all", "settled, and then down", "settled behind its back",
]
# Paid, and the backend broke its answer off before a byte of it had left.
BROKEN_OFF = ["backend resets as it is settled"]

AWAITED = {
    **dict.fromkeys(REDELIVERY, "redelivery"),
    **dict.fromkeys(RESUMED, "a used nonce of a payment taken up again"),
    **dict.fromkeys(BROKEN_OFF, "redelivery of what the backend broke off"),
}
