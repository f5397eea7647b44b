"""``accelsim validate``: machines beside their own publications, on inputs and results that others published."""
