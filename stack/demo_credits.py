"""The part of the demo that shows prepaid credits: an API key without a balance is topped up by a payment, and served from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

from . import tools
from .ledger import Ledger, micros, token_file
from .showing import Failed, color, commands, fetch, head, say, wait

CONFIG = tools.ROOT / "envoy" / "credits.yaml"
# Where envoy/credits.yaml looks for it.
TOKEN = tools.LOCAL / "run" / "ledger-token.yaml"


def start(directory: Path, port: int, facilitator: int) -> Ledger:
    """A ledger with an empty database, and Envoy's token for it where Envoy finds it."""
    for old in directory.glob("ledger.*"):
        old.unlink()
    ledger = Ledger(directory, {
        "pay_to": {"eip155": "0x90F79bf6EB2c4f870365E785982E1f101E93b906"},
        "accept": [{"scheme": "exact", "network": "eip155:84532", "asset": "USDC"}],
        "facilitators": [{"url": f"http://127.0.0.1:{facilitator}"}],
        "credits": {"tiers": ["$1", "$5", "$10", "$20"], "max_topup": "$100"},
    }, port=port)
    token_file(TOKEN, ledger.token)
    say(f"{color(32, '✓')} ledger on port {port}, with its books in {(directory / 'ledger.db').relative_to(tools.ROOT)}")
    return ledger


def show(ledger: Ledger, gateway: str, prompt: str, pay: Callable[[str, str], Any]) -> None:
    """A tenant from nothing to a second request that costs no signature; raises if the books differ from what is seen."""
    head("A tenant and its API key, which has nothing yet")
    account = ledger.account(name="acme")
    say(f"tenant {account.tenant}, key {account.key[:12]}… (shown once, stored as its SHA-256)")
    key, chat = f"authorization: Bearer {account.key}", f"{gateway}/v1/chat/completions"
    pay(chat, key)

    head("The same key again, without a payment")
    status, headers, body = fetch(chat, prompt, key)
    say(f"POST {chat} → {color(32 if status == 200 else 31, str(status))}")
    if status != 200:
        raise Failed(f"expected to be served from the balance: {body.decode(errors='replace')[:300]}")

    head("What the ledger says of it, through the gateway")
    wait("both requests are charged", ledger.process, lambda: account.held == 0 and len(account.rows("usage")) == 2)
    _, _, said = fetch(f"{gateway}/v1/billing/balance", None, key)
    say(f"balance  {said.decode()}")
    for row in reversed(json.loads(fetch(f"{gateway}/v1/billing/transactions", None, key)[2])["data"]):
        say(f"{row['kind']:12}{row['amount']:>10}  {row['debit']} → {row['credit']:10}  {row['balance_after']:>10} available  {row['payment'][:40]}")
    expected = 1_000_000 - 2 * 1_000
    if micros(json.loads(said)["available"]) != expected:
        raise Failed(f"expected {expected} millionths to be left")
    say(ledger.command("check").strip())


def hints(ledger: Ledger, gateway: str, prompt: str, metered_path: str, metered_prompt: str) -> None:
    """What to try."""
    account = ledger.account(name="yours")
    (ledger.directory / "key").write_text(account.key)
    key = f'-H "authorization: Bearer $(cat {(ledger.directory / "key").relative_to(tools.ROOT)})"'
    body = f"-H 'content-type: application/json' -d '{prompt}'"
    commands(
        ("A key of yours, without credits: the 402 with the tiers", f"curl -i {gateway}/v1/chat/completions {key} {body}"),
        ("Top it up and be served", f"node stack/pay.mjs {key} {gateway}/v1/chat/completions"),
        ("Served from the balance, by the token", f"curl -N {gateway}{metered_path} {key} {body.replace(prompt, metered_prompt)}"),
        ("Buy $10.00", f"""node stack/pay.mjs {key} -d '{{"amount": "10.00"}}' {gateway}/v1/billing/x402/fund"""),
        ("What is left, and what for", f"curl {gateway}/v1/billing/balance {key}; curl '{gateway}/v1/billing/transactions?format=csv' {key}"),
        ("Prove the books", f"X402_LEDGER_CONFIG={ledger.file.relative_to(tools.ROOT)} X402_LEDGER_DATABASE_URL={ledger.database} "
                            f"{tools.LEDGER.relative_to(tools.ROOT)} check"),
        ("Without a key, a request pays by itself", f"node stack/pay.mjs {gateway}/v1/chat/completions"),
    )
