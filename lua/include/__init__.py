"""Lua functions shared by the scripts, pulled in by `--#include name`."""
