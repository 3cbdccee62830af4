"""Many tasks, encoders, ways of adaptation and label budgets: run, stored, compared."""
