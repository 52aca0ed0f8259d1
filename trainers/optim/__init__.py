"""Learning-rate schedules, parameter groups, AdamW's state by structured names, weight averaging."""
