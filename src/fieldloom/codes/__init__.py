"""Codes of whole data sets: bulk jobs in shards, and files of other layouts."""
