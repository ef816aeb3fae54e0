"""PyPI x402 with requests."""

from x402 import x402ClientSync
from x402.http.clients.requests import x402_requests

from common import BODY, HEADERS, METHOD, URL, registered, report

with x402_requests(registered(x402ClientSync())) as session:
    answer = session.request(METHOD, URL, headers=HEADERS, data=BODY, timeout=60)
    report(answer.status_code, answer.headers, answer.text)
