"""Side-by-side measurements against other packages; each says its workload and prints a ratio."""
