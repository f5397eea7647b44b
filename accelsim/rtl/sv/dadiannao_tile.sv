// A DaDianNao tile: ROWS × COLUMNS PEs, a line of every stream in each cycle, whatever stands in it.
module dadiannao_tile #(
    parameter ROWS = 16,
    parameter COLUMNS = 1,
    parameter LANES = 16,
    parameter WIDTH = 16,
    parameter SUM = 48,
    parameter DRAIN = 0
) (
    input clk,
    input start,
    input [23:0] length,
    input [(ROWS+COLUMNS)*LANES*WIDTH-1:0] lines,  // of the next line the rows' values, then the columns'
    output [7:0] take,
    output running,
    output done,
    input [23:0] place,  // a PE, row by row
    output [SUM-1:0] result
);
  localparam LINE = LANES * WIDTH;
  wire [(ROWS+COLUMNS)*LINE-1:0] held;
  wire [ROWS*COLUMNS*SUM-1:0] sums;

  front #(.DEPTH(1), .PORTS(1), .FREE_START(0), .DRAIN(DRAIN)) control (
      .clk(clk), .start(start), .length(length), .empty(1'b0), .take(take), .running(running), .done(done)
  );
  window #(.DEPTH(1), .PORTS(1), .BITS((ROWS+COLUMNS)*LINE)) operands (
      .clk(clk), .clear(start), .advance(take), .kept(held), .incoming(lines), .lines(held)
  );
  genvar r, c;
  generate
    for (r = 0; r < ROWS; r = r + 1) begin : row
      for (c = 0; c < COLUMNS; c = c + 1) begin : column
        pe #(.LANES(LANES), .WIDTH(WIDTH), .SUM(SUM), .DRAIN(DRAIN)) own (
            .clk(clk), .clear(start), .valid(running), .first(held[r*LINE+:LINE]),
            .second(held[(ROWS+c)*LINE+:LINE]), .sum(sums[(r*COLUMNS+c)*SUM+:SUM])
        );
      end
    end
  endgenerate
  assign result = sums[place*SUM+:SUM];
endmodule
