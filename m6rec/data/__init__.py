"""Data: tables and logs, their splits and leaks, what counts as positive, and when a question is asked."""
