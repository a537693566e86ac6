"""Wiring: settings, addresses and the ASGI application. Nothing imports it but Django."""
