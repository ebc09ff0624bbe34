"""From files to a dataset: any table read, checked, sorted, split, searched for leaks and kept."""
