"""What a kind of recommendation needs to be put into words: one small file a domain."""
