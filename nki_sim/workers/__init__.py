"""Launches over ranks on the workers of a cluster: the same bits and times as in one process."""
