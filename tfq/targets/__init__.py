"""What a runtime runs, and what it runs fast: one file for each target."""
