"""What a run is measured by: tables beside classical baselines on the same questions, and checks of the examples."""
