"""Jobs over all users, and what a service of a given size takes."""
