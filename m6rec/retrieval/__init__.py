"""What is recommended at all: item-item models, and one score of all items for warm and cold alike."""
