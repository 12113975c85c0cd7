"""Sets as files of several formats, and two sets side by side."""
