"""Where and in what order work runs: the plan, the map over row blocks, the fixed-tree sum."""
