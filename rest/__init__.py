"""How the API speaks, whatever it speaks of: errors, parameters, numbers, pages, request ids, waiting.

Knows Django REST framework and nothing of GPUs. The apps' `api` modules build on it.
"""
