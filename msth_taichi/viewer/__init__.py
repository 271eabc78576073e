"""A run in a browser, while it trains or after; optional extra `viewer`."""
