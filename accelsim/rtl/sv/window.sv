// The lines in sight of one stream, the first in slot 0. When it moves, `advance` lines leave at the front and as many
// of the next PORTS enter behind. `kept` is what of the lines in sight stays: all of the values, of the bits that say
// what is still to be executed those that nobody took.
module window #(
    parameter DEPTH = 3,
    parameter PORTS = 3,
    parameter BITS = 16
) (
    input clk,
    input clear,
    input [7:0] advance,
    input [DEPTH*BITS-1:0] kept,
    input [PORTS*BITS-1:0] incoming,
    output reg [DEPTH*BITS-1:0] lines
);
  wire [(DEPTH+PORTS)*BITS-1:0] ahead = {incoming, kept};
  integer a;
  always @(posedge clk)
    if (clear) lines <= 0;
    else
      for (a = 1; a <= PORTS; a = a + 1)
        if (advance == a[7:0]) lines <= ahead[a*BITS+:DEPTH*BITS];
endmodule
