// Where a tile is in a job: filling its window, running, draining, done. Line 0 of the window takes a cycle; empty lines
// right behind it leave with it, as many as the window has ports for. FREE_START: those at the start leave with the line
// before the first, which is none.
module front #(
    parameter DEPTH = 3,
    parameter PORTS = 3,
    parameter FREE_START = 1,
    parameter DRAIN = 0
) (
    input clk,
    input start,
    input [23:0] length,
    input [DEPTH-1:0] empty,
    output [7:0] take,
    output running,
    output done
);
  reg signed [24:0] position;  // of the line in slot 0
  reg busy;
  reg [7:0] left;  // cycles until the last line is summed up
  wire signed [24:0] unfilled = -25'sd1 - position;  // lines to fill
  wire signed [24:0] behind = position + $signed({17'b0, take});
  reg [7:0] skipped;
  reg stopped;
  integer i;
  always @* begin
    skipped = 0;
    stopped = 0;
    for (i = 1; i < DEPTH; i = i + 1) begin
      stopped = stopped | ~empty[i] | (i >= PORTS);
      if (!stopped) skipped = skipped + 8'd1;
    end
  end
  assign running = busy & ~position[24];
  assign take = !busy ? 8'd0
      : unfilled > 0 ? (unfilled < PORTS ? unfilled[7:0] : PORTS[7:0])
      : (unfilled < 0 || FREE_START) ? 8'd1 + skipped : 8'd1;
  assign done = ~busy & left == 0;
  always @(posedge clk)
    if (start) begin
      position <= -DEPTH;
      busy <= 1;
      left <= 0;
    end else begin
      if (busy) position <= behind;
      if (busy && behind >= $signed({1'b0, length})) busy <= 0;
      if (running) left <= DRAIN;
      else if (left != 0) left <= left - 8'd1;
    end
endmodule
