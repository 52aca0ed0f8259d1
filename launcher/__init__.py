"""The control side: command line, plan, supervisor, agents, console, run directory. Imports no Paddle."""
