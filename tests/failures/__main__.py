"""Records the answers anew: `python -m tests.failures [--only WORDS] [facilitator]...`"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from stack.tools import ROOT
from tests.clients import world

from .facilitators import KINDS, RECEIPT_TIMEOUT, Kind
from .recorder import Case, Constant
from .scenarios import scenarios

WIRE = ROOT / "tests" / "wire" / "failures"


def record(kind: Kind, chain: world.Chain, directory: Path, only: str) -> list[dict[str, Any]]:
    """All scenarios in turn."""
    answers: list[dict[str, Any]] = []
    for transfer, name, run, options in scenarios(kind.has_store):
        if only not in f"{transfer} {name}":
            continue
        case = Case(kind, chain, directory, transfer, name, *options)
        try:
            run(case)
            case.dust_settles()
        finally:
            answers += Constant()(case.end())
        print(f"{kind.name}: {transfer}: {name}", file=sys.stderr)
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="scenarios with this in `transfer name`; printed, not written")
    parser.add_argument("facilitators", nargs="*", metavar="facilitator", help=" | ".join(KINDS))
    options = parser.parse_args()
    kinds = [KINDS[name] for name in options.facilitators or KINDS]
    world.ensure_node()
    with tempfile.TemporaryDirectory(prefix="x402-failures-") as directory:
        chain = world.Chain(Path(directory), 84532)
        for kind in kinds:
            recorded = {
                "facilitator": kind.name, "versions": kind.versions(), "receipt_timeout_seconds": RECEIPT_TIMEOUT,
                "network": "eip155:84532", "answers": record(kind, chain, Path(directory), options.only),
            }
            text = json.dumps(recorded, indent=1, ensure_ascii=False) + "\n"
            if options.only:
                print(text)
            else:
                WIRE.mkdir(exist_ok=True)
                (WIRE / f"{kind.name}.json").write_text(text)


if __name__ == "__main__":
    main()
