// TensorDash's scheduler: in a fixed order each lane that is empty in line 0 takes its first candidate that is left.
// A lane's choice 0 is its own place; lanes of a level cannot contend, so the logic is a few levels deep.
module scheduler #(
    parameter LANES = 16,
    parameter DEPTH = 3,
    parameter CHOICES = 8,
    parameter [8*CHOICES-1:0] AHEAD = 0,
    parameter [8*CHOICES-1:0] ASIDE = 0,
    parameter [8*LANES-1:0] ORDER = 0
) (
    input [DEPTH*LANES-1:0] pending,
    output [DEPTH*LANES-1:0] left,
    output [LANES*CHOICES-1:0] select
);
  genvar k;
  generate
    for (k = 0; k < LANES; k = k + 1) begin : turn
      localparam LANE = ORDER[8*k+:8];
      wire [DEPTH*LANES-1:0] prior;
      reg [DEPTH*LANES-1:0] after;
      reg [CHOICES-1:0] chosen;
      if (k == 0) assign prior = pending;
      else assign prior = turn[k-1].after;
      integer j;
      always @* begin
        after = prior;
        chosen = 0;
        for (j = 0; j < CHOICES; j = j + 1)
          if (chosen == 0 && prior[AHEAD[8*j+:8]*LANES+(LANE+ASIDE[8*j+:8])%LANES]) begin
            chosen[j] = 1;
            after[AHEAD[8*j+:8]*LANES+(LANE+ASIDE[8*j+:8])%LANES] = 0;
          end
      end
      assign select[LANE*CHOICES+:CHOICES] = chosen;
    end
  endgenerate
  assign left = turn[LANES-1].after;
endmodule
