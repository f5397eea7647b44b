// A Bit-Tactical tile: replays a schedule that was made beforehand. An entry says of every lane of every row its weight
// and which place of the window its activation comes from; whether it executes (entries that fill the window do not);
// and how many lines the window moves on behind it.
module bit_tactical_tile #(
    parameter ROWS = 16,
    parameter COLUMNS = 16,
    parameter LANES = 16,
    parameter WIDTH = 16,
    parameter SUM = 48,
    parameter DRAIN = 0,
    parameter DEPTH = 3,
    parameter PORTS = 3,
    parameter CHOICES = 8,
    parameter CHOICE = 3,  // bits of a choice
    parameter [8*CHOICES-1:0] AHEAD = 0,
    parameter [8*CHOICES-1:0] ASIDE = 0
) (
    input clk,
    input start,
    input [23:0] length,  // entries
    input [PORTS*COLUMNS*LANES*WIDTH-1:0] lines,  // the next ones of the activations, of all columns
    output [7:0] take,
    input [8+ROWS*LANES*(WIDTH+CHOICE)-1:0] entry,  // {choices, weights, execute, 7 bits of lines to move on}
    output step,
    output running,
    output done,
    input [23:0] place,  // a PE, row by row
    output [SUM-1:0] result
);
  localparam LINE = LANES * WIDTH;
  wire [ROWS*COLUMNS*SUM-1:0] sums;

  reg [23:0] left;  // entries
  reg [7:0] draining;
  assign step = left != 0;
  assign take = step ? {1'b0, entry[6:0]} : 8'd0;
  assign running = step & entry[7];
  assign done = !step & draining == 0;
  always @(posedge clk)
    if (start) begin
      left <= length;
      draining <= 0;
    end else begin
      if (step) left <= left - 24'd1;
      if (running) draining <= DRAIN;
      else if (draining != 0) draining <= draining - 8'd1;
    end

  genvar r, c, i, j;
  generate
    for (c = 0; c < COLUMNS; c = c + 1) begin : stream
      wire [PORTS*LINE-1:0] incoming;
      wire [DEPTH*LINE-1:0] values;
      for (i = 0; i < PORTS; i = i + 1) begin : port
        assign incoming[i*LINE+:LINE] = lines[(i*COLUMNS+c)*LINE+:LINE];
      end
      window #(.DEPTH(DEPTH), .PORTS(PORTS), .BITS(LINE)) held (
          .clk(clk), .clear(start), .advance(take), .kept(values), .incoming(incoming), .lines(values)
      );
    end
    for (r = 0; r < ROWS; r = r + 1) begin : row
      wire [LANES*CHOICES-1:0] select;
      for (i = 0; i < LANES; i = i + 1) begin : lane
        wire [CHOICE-1:0] choice = entry[8+ROWS*LINE+(r*LANES+i)*CHOICE+:CHOICE];
        for (j = 0; j < CHOICES; j = j + 1) begin : one
          assign select[i*CHOICES+j] = choice == j;
        end
      end
      for (c = 0; c < COLUMNS; c = c + 1) begin : column
        wire [LINE-1:0] chosen;
        pick #(
            .LANES(LANES), .DEPTH(DEPTH), .WIDTH(WIDTH), .CHOICES(CHOICES), .AHEAD(AHEAD), .ASIDE(ASIDE)
        ) of_column (
            .select(select), .lines(stream[c].values), .values(chosen)
        );
        pe #(.LANES(LANES), .WIDTH(WIDTH), .SUM(SUM), .DRAIN(DRAIN)) own (
            .clk(clk), .clear(start), .valid(running), .first(entry[8+r*LINE+:LINE]), .second(chosen),
            .sum(sums[(r*COLUMNS+c)*SUM+:SUM])
        );
      end
    end
  endgenerate
  assign result = sums[place*SUM+:SUM];
endmodule
