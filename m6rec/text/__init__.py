"""Words: the wording of numbers, tokens and batches."""
