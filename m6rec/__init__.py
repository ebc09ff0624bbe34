"""One pretrained language model as the foundation of a whole recommender."""
