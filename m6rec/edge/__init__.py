"""The recommender on a phone: a tuned task as a folder that ``m6rec.device`` runs without torch."""
