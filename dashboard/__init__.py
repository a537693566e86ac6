"""Dashboard: the present, shown."""
