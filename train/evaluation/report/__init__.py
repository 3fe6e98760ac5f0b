"""The evaluation page and its pictures."""
