// LANES multipliers, a tree of adders, DRAIN registers and an accumulator.
module pe #(
    parameter LANES = 16,
    parameter WIDTH = 16,
    parameter SUM = 48,
    parameter DRAIN = 0
) (
    input clk,
    input clear,
    input valid,
    input [LANES*WIDTH-1:0] first,
    input [LANES*WIDTH-1:0] second,
    output reg signed [SUM-1:0] sum
);
  // A heap: node i adds nodes 2i + 1 and 2i + 2 up, and the last LANES nodes are the products.
  genvar i;
  generate
    for (i = 2 * LANES - 2; i >= 0; i = i - 1) begin : node
      wire signed [SUM-1:0] value;
      if (i < LANES - 1) assign value = node[2*i+1].value + node[2*i+2].value;
      else begin : leaf
        wire signed [WIDTH-1:0] a = first[(i-LANES+1)*WIDTH+:WIDTH];
        wire signed [WIDTH-1:0] b = second[(i-LANES+1)*WIDTH+:WIDTH];
        wire signed [2*WIDTH-1:0] product = a * b;
        assign value = product;
      end
    end
    for (i = 0; i <= DRAIN; i = i + 1) begin : stage
      reg signed [SUM-1:0] value;
      reg arrived;
      if (i == 0)
        always @* begin
          value = node[0].value;
          arrived = valid;
        end
      else
        always @(posedge clk) begin
          value <= stage[i-1].value;
          arrived <= stage[i-1].arrived & ~clear;
        end
    end
  endgenerate
  always @(posedge clk)
    if (clear) sum <= 0;
    else if (stage[DRAIN].arrived) sum <= sum + stage[DRAIN].value;
endmodule
