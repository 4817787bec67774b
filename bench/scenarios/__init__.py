"""The scenarios: each answers one question of the budget table."""
