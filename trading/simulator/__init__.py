"""The built-in market: a server on loopback that speaks Alpaca's wire protocol, with synthetic or recorded bars."""
