"""Files that hold rows, as strangers make them: their kind, unpacked under a limit, row by row."""
