"""The promises of `providers.base`, one file for each subject. A test's name is the promise."""
