// Feeds a circuit with jobs from standard input and writes what it did to standard output. Made for one circuit by
// -D: LINE_BYTES, PORTS, ENTRY_BYTES, BY_ENTRIES (what `length` counts). All numbers are little-endian.
//
// A job:    int32 lines, entries, results; lines × LINE_BYTES; entries × ENTRY_BYTES; int32 places[results]
// Answer:   int32 fill, running, drain cycles (−1 each: it did not end); int64 results[results]
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>
#include "Vtwin.h"

static std::vector<uint8_t> lines, entries;
static std::vector<int32_t> places;
static std::vector<int64_t> results;

// A port's bits beyond its width must be zero.
template <typename Port> static void put(Port& port, const uint8_t* from, size_t bytes) {
    std::memset(&port, 0, sizeof port);
    std::memcpy(&port, from, bytes);
}

static bool read(void* to, size_t bytes) { return std::fread(to, 1, bytes, stdin) == bytes; }

static void edge(Vtwin& twin) {
    twin.clk = 1;
    twin.eval();
    twin.clk = 0;
}

int main() {
    Vtwin twin;
    twin.clk = twin.start = twin.fetch = 0;
    int32_t head[3];
    while (read(head, sizeof head)) {
        // Behind the last line there are zeros: what the ports may see.
        lines.assign(size_t(head[0] + 256) * LINE_BYTES, 0);
        entries.assign(size_t(head[1] + 2) * ENTRY_BYTES, 0);
        places.resize(head[2]);
        results.resize(head[2]);
        if (!read(lines.data(), size_t(head[0]) * LINE_BYTES) || !read(entries.data(), size_t(head[1]) * ENTRY_BYTES)
            || !read(places.data(), places.size() * sizeof places[0])) return 1;
        twin.length = head[BY_ENTRIES];
        twin.start = 1;
        twin.eval();
        edge(twin);
        twin.start = 0;
        int32_t cycles[3] = {0, 0, 0};
        size_t line = 0, entry = 0;
        const int64_t most = 64 * (int64_t(head[0]) + head[1]) + 4096;
        int64_t passed = 0;
        for (bool ran = false; passed < most; passed++) {
            put(twin.lines, lines.data() + line * LINE_BYTES, PORTS * LINE_BYTES);
            put(twin.entry, entries.data() + entry * ENTRY_BYTES, ENTRY_BYTES);
            twin.eval();
            if (twin.done) break;
            ran |= twin.running;
            cycles[twin.running ? 1 : ran ? 2 : 0]++;
            line = line + twin.take < size_t(head[0]) + 1 ? line + twin.take : head[0];
            entry = entry + twin.step < size_t(head[1]) + 1 ? entry + twin.step : head[1];
            edge(twin);
        }
        if (passed == most) cycles[0] = cycles[1] = cycles[2] = -1;
        for (size_t i = 0; i < places.size(); i++) {
            twin.place = places[i];
            twin.fetch = 1;
            twin.eval();
            results[i] = int64_t(twin.result);
            edge(twin);
        }
        twin.fetch = 0;
        std::fwrite(cycles, sizeof cycles, 1, stdout);
        std::fwrite(results.data(), sizeof results[0], results.size(), stdout);
    }
    return 0;
}
