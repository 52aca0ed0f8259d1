"""The environment door behind run.sh: makes and checks the interpreter every command runs in.

Standard library only, and nothing else of the project: it runs on a bare system Python 3.10 or newer, before
anything is installed.
"""
