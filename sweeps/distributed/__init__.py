"""Trials on one machine or a cluster; the only part that imports Ray."""
