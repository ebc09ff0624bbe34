"""Rules for English: what a conversation wants, what texts may say, what reviews tell. A domain brings its words."""
