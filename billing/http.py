"""HTTP manners that the API of every room shares."""
