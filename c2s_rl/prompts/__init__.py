"""Prompt texts: tasks and the templates they are rendered from."""
