"""Features of a user with an item: columns of numbers, and compiled functions that keep and read them."""
