"""What is to be computed: shapes, masks, traces and the lowering of the three passes. Knows no hardware."""
