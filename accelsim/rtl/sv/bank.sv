// An accumulator bank with a queue in front of it. What waits, in order: the queue's products, then those of the pair that
// has just been multiplied (`request`). The first is read, added to and written back, which takes CYCLES; the others enter
// the queue as long as it has room, and what finds none holds the pair up.
module bank #(
    parameter PRODUCTS = 16,
    parameter QUEUE = 8,
    parameter CYCLES = 1,
    parameter ENTRIES = 512,
    parameter ADDRESS = 16,
    parameter PRODUCT = 32,
    parameter SUM = 48
) (
    input clk,
    input start,
    input [PRODUCTS-1:0] request,
    input [PRODUCTS*ADDRESS-1:0] addresses,
    input [PRODUCTS*PRODUCT-1:0] products,
    output reg [PRODUCTS-1:0] granted,
    output waiting,
    input fetch,  // the partial sum at `place` leaves; a new one begins there
    input [ADDRESS-1:0] place,
    output [SUM-1:0] result
);
  /* verilator no_inline_module */
  localparam SLOTS = QUEUE > 0 ? QUEUE : 1;
  localparam ITEM = ADDRESS + PRODUCT;
  reg [SUM-1:0] sums[0:ENTRIES-1];
  reg [7:0] count, timer;
  reg [SLOTS*ITEM-1:0] queue, queue_next;  // the first in the lowest bits
  reg [7:0] count_next, size;
  reg [ITEM-1:0] first;
  reg some, ends;
  integer i, s;
  initial for (i = 0; i < ENTRIES; i = i + 1) sums[i] = 0;

  always @* begin
    first = queue[ITEM-1:0];
    some = count != 0;
    for (i = PRODUCTS - 1; i >= 0; i = i - 1)
      if (count == 0 && request[i]) begin
        first = {addresses[i*ADDRESS+:ADDRESS], products[i*PRODUCT+:PRODUCT]};
        some = 1;
      end
    ends = some && timer == CYCLES - 1;
  end
  always @* begin
    queue_next = ends && count != 0 ? queue >> ITEM : queue;
    size = count - {7'b0, ends && count != 0};
    count_next = size;
    granted = 0;
    for (i = 0; i < PRODUCTS; i = i + 1)
      if (request[i])
        if (count == 0 && ends && granted == 0) granted[i] = 1;
        else if (count_next < QUEUE) begin
          granted[i] = 1;
          for (s = 0; s < QUEUE; s = s + 1)
            if (count_next == s) queue_next[s*ITEM+:ITEM] = {addresses[i*ADDRESS+:ADDRESS], products[i*PRODUCT+:PRODUCT]};
          count_next = count_next + 8'd1;
        end
  end
  assign waiting = count != 0;
  assign result = sums[place];
  always @(posedge clk) begin
    if (start) begin
      count <= 0;
      timer <= 0;
    end else begin
      count <= count_next;
      timer <= some && !ends ? timer + 8'd1 : 8'd0;
    end
    queue <= queue_next;
    if (ends) sums[first[PRODUCT+:ADDRESS]] <= sums[first[PRODUCT+:ADDRESS]] + {{(SUM-PRODUCT){first[PRODUCT-1]}}, first[PRODUCT-1:0]};
    else if (fetch) sums[place] <= 0;
  end
endmodule
