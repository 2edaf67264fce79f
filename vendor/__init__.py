"""Other projects' code, put here by the build."""
