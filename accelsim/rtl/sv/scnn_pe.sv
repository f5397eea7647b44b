// SCNN's PE: a vector of I activations meets a vector of F weights, all with all, and the products are scattered to the
// banks of the accumulators. QUEUE 0: banks without queues, as the PE array has them. Coordinates come divided by the
// stride, {value, row, column, k and remainders, address}; a product is needed if remainders agree and its output exists.
module scnn_pe #(
    parameter I = 4,
    parameter F = 4,
    parameter WIDTH = 16,
    parameter SUM = 48,
    parameter BANKS = 32,
    parameter BANK_BITS = 5,
    parameter QUEUE = 8,
    parameter CYCLES = 1,
    parameter ENTRIES = 512,
    parameter DRAIN = 0
) (
    input clk,
    input start,
    input [23:0] length,  // pairs of vectors
    input [(I+F)*80-1:0] lines,  // the next pair
    output [7:0] take,
    input [47:0] entry,  // of the layer: rows and columns of the output, and of a bank's addresses those of a row
    output step,
    output running,
    output done,
    input fetch,
    input [23:0] place,
    output [SUM-1:0] result
);
  localparam N = I * F;
  localparam ITEM = 1 + 5 + 16 + 2 * WIDTH;  // needed, bank, address, product
  wire [N*ITEM-1:0] made;  // by the multipliers
  wire [N*ITEM-1:0] pair;  // in front of the banks
  wire present, move, ended;
  reg [23:0] left;  // pairs to multiply
  reg [N-1:0] served;  // products of the pair that have left
  assign step = 0;

  genvar a, w, b, i;
  generate
    for (a = 0; a < I; a = a + 1) begin : activation
      wire [79:0] item = lines[a*80+:80];
      for (w = 0; w < F; w = w + 1) begin : product
        wire [79:0] weight = lines[(I+w)*80+:80];
        wire needed;
        wire [20:0] where;
        wire [2*WIDTH-1:0] z;
        wire [15:0] address = where >> BANK_BITS;
        wire [4:0] into = where[4:0] & (BANKS - 1);
        coordinates of_product (
            .item(item), .weight(weight), .entry(entry), .needed(needed), .where(where)
        );
        multiplier #(.WIDTH(WIDTH)) of_values (
            .x(item[WIDTH-1:0]), .y(weight[WIDTH-1:0]), .z(z)
        );
        assign made[(a*F+w)*ITEM+:ITEM] = {needed, into, address, z};
      end
    end
    for (i = 0; i <= DRAIN; i = i + 1) begin : stage
      reg [N*ITEM-1:0] value;
      reg arrived;
      if (i == 0)
        always @* begin
          value = made;
          arrived = left != 0;
        end
      else
        always @(posedge clk)
          if (start) arrived <= 0;
          else if (move) begin
            value <= stage[i-1].value;
            arrived <= stage[i-1].arrived;
          end
      wire on_its_way;  // a pair that is on its way to the banks
      if (i == 0) assign on_its_way = arrived;
      else assign on_its_way = arrived | stage[i-1].on_its_way;
    end
    wire [N-1:0] request, needed;
    wire [N*16-1:0] addresses;
    wire [N*2*WIDTH-1:0] products;
    for (i = 0; i < N; i = i + 1) begin : lane
      assign needed[i] = pair[i*ITEM+ITEM-1];
      assign request[i] = present & needed[i] & ~served[i];
      assign addresses[i*16+:16] = pair[i*ITEM+2*WIDTH+:16];
      assign products[i*2*WIDTH+:2*WIDTH] = pair[i*ITEM+:2*WIDTH];
    end
    for (b = 0; b < BANKS; b = b + 1) begin : store
      wire [N-1:0] own, granted, all;
      wire waiting, busy;
      wire [SUM-1:0] sum;
      for (i = 0; i < N; i = i + 1) begin : lane
        assign own[i] = request[i] & pair[i*ITEM+2*WIDTH+16+:5] == b;
      end
      bank #(
          .PRODUCTS(N), .QUEUE(QUEUE), .CYCLES(CYCLES), .ENTRIES(ENTRIES), .ADDRESS(16), .PRODUCT(2 * WIDTH), .SUM(SUM)
      ) own_bank (
          .clk(clk), .start(start), .request(own), .addresses(addresses), .products(products), .granted(granted),
          .waiting(waiting), .fetch(fetch & place % BANKS == b), .place(place >> BANK_BITS), .result(sum)
      );
      wire [SUM-1:0] chosen = place % BANKS == b ? sum : 0;
      wire [SUM-1:0] so_far;
      if (b == 0) begin : head
        assign all = granted;
        assign busy = waiting;
        assign so_far = chosen;
      end else begin : others
        assign all = granted | store[b-1].all;
        assign busy = waiting | store[b-1].busy;
        assign so_far = chosen | store[b-1].so_far;
      end
    end
  endgenerate
  assign pair = stage[DRAIN].value;
  assign present = stage[DRAIN].arrived;
  assign ended = (request & ~store[BANKS-1].all) == 0;
  assign move = ~present | ended;
  assign take = {7'b0, move & left != 0};
  assign running = stage[DRAIN].on_its_way | store[BANKS-1].busy;
  assign done = ~running;
  assign result = store[BANKS-1].so_far;
  always @(posedge clk)
    if (start) begin
      left <= length;
      served <= 0;
    end else begin
      if (take[0]) left <= left - 24'd1;
      served <= ended ? 0 : served | store[BANKS-1].all;
    end
endmodule

// Where a product goes: {address, number of the bank}; and whether its output exists.
module coordinates (
    input [79:0] item,
    input [79:0] weight,
    input [47:0] entry,
    output needed,
    output [20:0] where
);
  wire signed [15:0] rows = entry[15:0];
  wire signed [15:0] columns = entry[31:16];
  wire [15:0] pitch = entry[47:32];
  wire signed [15:0] p = item[31:16] - weight[31:16];
  wire signed [15:0] q = item[47:32] - weight[47:32];
  wire [4:0] number = {weight[59] ^ p[1] ^ q[1], p[0], q[0], weight[58:57]};
  // Halves of coordinates were summed up beforehand, in the addresses; what a subtraction borrows comes off here.
  wire [15:0] at = item[79:64] + weight[79:64] - (weight[16] & ~item[16] ? pitch : 16'd0)
      - {15'b0, weight[32] & ~item[32]};
  assign needed = item[56] & weight[56] & item[55:48] == weight[55:48] & p >= 0 & q >= 0 & p < rows & q < columns;
  assign where = {at, number};
endmodule

module multiplier #(
    parameter WIDTH = 16
) (
    input signed [WIDTH-1:0] x,
    input signed [WIDTH-1:0] y,
    output signed [2*WIDTH-1:0] z
);
  assign z = x * y;
endmodule
