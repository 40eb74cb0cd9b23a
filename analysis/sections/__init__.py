"""The report's sections: a question, a frame, a table, a drawing and words each."""
