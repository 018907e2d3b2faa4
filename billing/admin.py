"""Django finds the rooms' admin pages here."""
