"""How fast inference is, and whether it ranks as the published procedure does. Needs neither mteb nor pandas."""
