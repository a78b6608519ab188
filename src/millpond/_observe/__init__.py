"""What a run costs and how near it comes to the best: memory of a process tree, the ceiling, the report."""
