# The dashboard owns no tables.
