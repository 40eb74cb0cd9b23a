"""Tests of lesion_core."""
