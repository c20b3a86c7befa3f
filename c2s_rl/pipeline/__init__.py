"""Stages: each reads files, writes files and can be run by itself."""
