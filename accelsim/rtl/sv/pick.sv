// The multiplexers in front of a PE's lanes: of each lane one input for its own place in line 0 (choice 0) and one for
// each candidate of the search map. `select` is one-hot, or zero where the lane stays empty.
module pick #(
    parameter LANES = 16,
    parameter DEPTH = 3,
    parameter WIDTH = 16,
    parameter CHOICES = 8,
    parameter [8*CHOICES-1:0] AHEAD = 0,
    parameter [8*CHOICES-1:0] ASIDE = 0
) (
    input [LANES*CHOICES-1:0] select,
    input [DEPTH*LANES*WIDTH-1:0] lines,
    output [LANES*WIDTH-1:0] values
);
  genvar l;
  generate
    for (l = 0; l < LANES; l = l + 1) begin : lane
      reg [WIDTH-1:0] value;
      integer j;
      always @* begin
        value = 0;
        for (j = 0; j < CHOICES; j = j + 1)
          value = value | ({WIDTH{select[l*CHOICES+j]}}
                  & lines[(AHEAD[8*j+:8]*LANES+(l+ASIDE[8*j+:8])%LANES)*WIDTH+:WIDTH]);
      end
      assign values[l*WIDTH+:WIDTH] = value;
    end
  endgenerate
endmodule
