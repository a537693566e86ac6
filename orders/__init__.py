"""Orders: what an order is and how it lives."""
