"""Speed, measured against what users have without this project."""
