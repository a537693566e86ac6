"""Live trading: the engine and everything it does to the outside world."""
