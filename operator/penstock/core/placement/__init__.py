"""Who fits where, and which place is best: a frozen fleet, filters, scores, one plan."""
