"""From files to arrays of scores, with what is missing counted."""
