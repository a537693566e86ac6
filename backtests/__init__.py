"""Backtests: the past."""
