// A TensorDash tile: ROWS × COLUMNS PEs whose operands come from a window of DEPTH lines, scheduled as they stream by.
// TWO_SIDED 0: a scheduler for each row, of the row's zeros; 1: one for each PE, of the zeros of both operands.
module tensordash_tile #(
    parameter ROWS = 4,
    parameter COLUMNS = 4,
    parameter LANES = 16,
    parameter WIDTH = 16,
    parameter SUM = 48,
    parameter DRAIN = 0,
    parameter DEPTH = 3,
    parameter PORTS = 3,
    parameter FREE_START = 1,
    parameter TWO_SIDED = 0,
    parameter CHOICES = 8,
    parameter [8*CHOICES-1:0] AHEAD = 0,
    parameter [8*CHOICES-1:0] ASIDE = 0,
    parameter [8*LANES-1:0] ORDER = 0
) (
    input clk,
    input start,
    input [23:0] length,
    input [PORTS*(ROWS+COLUMNS)*LANES*WIDTH-1:0] lines,  // the next ones; of each the rows' values, then the columns'
    output [7:0] take,  // how many of them enter
    output running,  // a line is executed
    output done,
    input [23:0] place,  // a PE, row by row
    output [SUM-1:0] result
);
  localparam LINE = LANES * WIDTH;
  localparam STREAMS = ROWS + COLUMNS;
  localparam UNITS = TWO_SIDED ? ROWS * COLUMNS : ROWS;  // schedulers
  wire [ROWS*COLUMNS*SUM-1:0] sums;
  wire [DEPTH-1:0] empty;  // lines without work, after what line 0 took

  front #(.DEPTH(DEPTH), .PORTS(PORTS), .FREE_START(FREE_START), .DRAIN(DRAIN)) control (
      .clk(clk), .start(start), .length(length), .empty(empty), .take(take), .running(running), .done(done)
  );

  genvar s, i, r, c;
  generate
    for (s = 0; s < STREAMS; s = s + 1) begin : stream
      wire [PORTS*LINE-1:0] incoming;
      wire [PORTS*LANES-1:0] filled;
      wire [DEPTH*LINE-1:0] values;
      for (i = 0; i < PORTS; i = i + 1) begin : port
        assign incoming[i*LINE+:LINE] = lines[(i*STREAMS+s)*LINE+:LINE];
      end
      for (i = 0; i < PORTS * LANES; i = i + 1) begin : value
        assign filled[i] = |incoming[i*WIDTH+:WIDTH];
      end
      window #(.DEPTH(DEPTH), .PORTS(PORTS), .BITS(LINE)) held (
          .clk(clk), .clear(start), .advance(take), .kept(values), .incoming(incoming), .lines(values)
      );
    end
    for (s = 0; s < UNITS; s = s + 1) begin : unit
      localparam ROW = TWO_SIDED ? s / COLUMNS : s;
      localparam COLUMN = TWO_SIDED ? s % COLUMNS : 0;
      wire [DEPTH*LANES-1:0] pending, left;
      wire [LANES*CHOICES-1:0] select;
      wire [PORTS*LANES-1:0] incoming = TWO_SIDED ? stream[ROW].filled & stream[ROWS+COLUMN].filled : stream[ROW].filled;
      wire [LANES*DEPTH-1:0] kept = running ? left : pending;
      wire [DEPTH-1:0] none;
      for (i = 0; i < DEPTH; i = i + 1) begin : line
        assign none[i] = ~|kept[i*LANES+:LANES];
      end
      window #(.DEPTH(DEPTH), .PORTS(PORTS), .BITS(LANES)) held (
          .clk(clk), .clear(start), .advance(take), .kept(kept), .incoming(incoming), .lines(pending)
      );
      scheduler #(
          .LANES(LANES), .DEPTH(DEPTH), .CHOICES(CHOICES), .AHEAD(AHEAD), .ASIDE(ASIDE), .ORDER(ORDER)
      ) schedule (
          .pending(pending), .left(left), .select(select)
      );
      wire [LINE-1:0] chosen;
      pick #(
          .LANES(LANES), .DEPTH(DEPTH), .WIDTH(WIDTH), .CHOICES(CHOICES), .AHEAD(AHEAD), .ASIDE(ASIDE)
      ) of_row (
          .select(select), .lines(stream[ROW].values), .values(chosen)
      );
    end
    for (i = 0; i < DEPTH; i = i + 1) begin : line
      wire [UNITS-1:0] of_unit;
      for (s = 0; s < UNITS; s = s + 1) begin : of
        assign of_unit[s] = unit[s].none[i];
      end
      assign empty[i] = &of_unit;
    end
    for (r = 0; r < ROWS; r = r + 1) begin : row
      for (c = 0; c < COLUMNS; c = c + 1) begin : column
        localparam UNIT = TWO_SIDED ? r * COLUMNS + c : r;
        wire [LINE-1:0] chosen;
        pick #(
            .LANES(LANES), .DEPTH(DEPTH), .WIDTH(WIDTH), .CHOICES(CHOICES), .AHEAD(AHEAD), .ASIDE(ASIDE)
        ) of_column (
            .select(unit[UNIT].select), .lines(stream[ROWS+c].values), .values(chosen)
        );
        pe #(.LANES(LANES), .WIDTH(WIDTH), .SUM(SUM), .DRAIN(DRAIN)) own (
            .clk(clk), .clear(start), .valid(running), .first(unit[UNIT].chosen), .second(chosen),
            .sum(sums[(r*COLUMNS+c)*SUM+:SUM])
        );
      end
    end
  endgenerate
  assign result = sums[place*SUM+:SUM];
endmodule
