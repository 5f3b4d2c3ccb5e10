"""Finetuned weights leave as a folder that the `hsf` command uses as it is."""
