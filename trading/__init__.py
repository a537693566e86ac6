"""Trading: deciding and acting."""
