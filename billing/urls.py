"""The API of every room, under /api/v1/."""
