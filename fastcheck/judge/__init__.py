"""What the measurements mean: verdicts, grades, bounds."""
