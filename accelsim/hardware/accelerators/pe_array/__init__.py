"""The PE array: its parameters and mapping, the model that counts, its replay, and what it moves."""
