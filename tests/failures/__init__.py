"""What the published facilitators really answer when a payment fails, and what the chain says of it: recorded for tests/failures.rs.

    make record-failures [F="typescript python x402-rs"]
"""
