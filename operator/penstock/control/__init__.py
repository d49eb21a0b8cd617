"""The operator process: observe, plan, act, report; one loop, one planner, one writer."""
