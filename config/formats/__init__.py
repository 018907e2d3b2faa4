"""How dates look where no template says it: in the admin, as on the pages, with their zone."""
