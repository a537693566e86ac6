"""Risk: what may be sent."""
