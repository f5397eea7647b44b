"""Every byte and every access of a training step, counted by a program of its own.

It shares no code with accelsim: it takes a machine's YAML as plain data and tensors as arrays of booleans (where bits
matter of integers), and was written from docs/actions.md, docs/model.md, docs/memory.md and docs/energy.md alone. Slow
on purpose: it makes every stream, walks every job and counts. It knows no time, so only memories that hold what a pass
needs: what then moves does not depend on when.

lowering   a pass of a layer as convolutions: the padded input, the kernel, what memory holds of the input
moved      parts, jobs, formats, and convolutions one after another
streams    what tiled machines put on rows and columns, and which of it when
schedules  the lines that Bit-Tactical and TensorDash execute, the steps of Cambricon-X
machines   what each machine reads, multiplies and adds up, job by job
array      the same of the PE array
bits       the same of machines that multiply bits: tiles, and cycles by the rules of reference_bits
plan       which bytes that makes in buffers, memories and off chip, layer after layer; and its price
"""
