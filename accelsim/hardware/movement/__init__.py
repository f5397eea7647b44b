"""What moves when: traffic → residency → placement → planner → plan → replay."""
