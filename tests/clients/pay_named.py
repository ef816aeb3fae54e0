"""PyPI x402 with requests and the official payment-identifier extension: each payment is called PAYMENT_ID."""

import os

import requests
from x402 import x402ClientSync
from x402.extensions.payment_identifier import append_payment_identifier_to_extensions
from x402.http.clients.requests import wrapRequestsWithPayment

from common import BODY, HEADERS, METHOD, URL, registered, report

client = registered(x402ClientSync())
client.on_before_payment_creation(lambda context: append_payment_identifier_to_extensions(
    context.payment_required.extensions, os.environ["PAYMENT_ID"]) and None)
answer = wrapRequestsWithPayment(requests.Session(), client).request(METHOD, URL, headers=HEADERS, data=BODY, timeout=60)
report(answer.status_code, answer.headers, answer.text)
