"""What moves when: traffic → residency → planner → plan → replay."""
