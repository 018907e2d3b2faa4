"""The same numbers, computed a second time from the definitions. Imports nothing that it checks."""
