"""Django's SQLite backend, with a queue for the threads of this process that want to write."""
