"""What a report's page is made of, and how it looks."""
