"""Speed, memory and error of the public functions, measured together: `facerecon bench`."""
