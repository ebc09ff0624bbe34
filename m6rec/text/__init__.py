"""From files to words: the log of behaviours, the wording of numbers, tokens and batches."""
