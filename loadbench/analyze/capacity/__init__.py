"""How many users or requests per second fit."""
