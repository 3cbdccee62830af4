"""What the lab shows: tables, progress and plots of suites."""
