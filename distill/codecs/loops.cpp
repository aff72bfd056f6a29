// The inner loops of codecs, which NumPy does as well, to the same bytes and slower:
// of _lanes.py, interleaved range asymmetric numeral systems (Duda, arXiv:1311.2540) whose table is chosen by an estimate
// of each weight's magnitude, and of huffman.py.
//
// Nothing here allocates, and nothing is read or written outside of what the caller's lengths promise.

#include <algorithm>
#include <cstdint>

namespace {

constexpr uint64_t LOW = uint64_t(1) << 32;  // states are in [2^32, 2^64)
constexpr uint64_t TOP = uint64_t(1) << 47;
constexpr int64_t MEMORY = 256;
constexpr int64_t COARSE = 4096;  // cells of 16 slots each; 2^16 slots
constexpr int64_t SYMBOLS = 256;

struct Layout {
    int64_t count, width, period, line, lanes, prior;
    int64_t weights[7];  // row, near, left, column, up, channel, both
};

struct Lane {
    int64_t at;      // position of its next weight in the tensor
    int64_t column;  // negative while the lane waits for its turn
    int64_t row, seen;
    int64_t slow, fast, left;
};

void start(Lane& lane, int64_t number, const Layout& layout) {
    lane = {number * layout.width - number, -number, number, 0, layout.prior, layout.prior, layout.prior};
}

void next_row(Lane& lane, const Layout& layout) {
    lane.at += (layout.lanes - 1) * layout.width;
    lane.column = 0;
    lane.row += layout.lanes;
    lane.slow = lane.fast = lane.left = layout.prior;
}

int64_t steps(const Layout& layout) {
    int64_t rows = (layout.count + layout.width - 1) / layout.width;
    return (rows + layout.lanes - 1) / layout.lanes * layout.width + layout.lanes - 1;
}

int bits(uint64_t value) { return value ? 64 - __builtin_clzll(value) : 0; }

// A sixteenth of a power of two wide.
int64_t bucket(uint64_t estimate) {
    estimate = std::min(estimate + 1, TOP);
    int exponent = bits(estimate);
    uint64_t fraction = exponent > 5 ? estimate >> (exponent - 5) : estimate << (5 - exponent);
    return exponent * 16 + int64_t(fraction) - 32;
}

template <bool LOCAL, bool SIGNED>
int64_t decode(const Layout layout, const int32_t* __restrict rates, const uint8_t* __restrict contexts,
               const uint8_t* __restrict magnitudes, const int8_t* __restrict signs, const int8_t* __restrict levels,
               const uint16_t* __restrict coarse, const uint32_t* __restrict spans, const uint32_t* words, int64_t length,
               uint64_t* __restrict states, int32_t* __restrict columns, uint8_t* __restrict symbols) {
    Lane lanes[64];
    for (int64_t number = 0; number < layout.lanes; ++number) start(lanes[number], number, layout);
    int64_t weights[7];
    std::copy(layout.weights, layout.weights + 7, weights);
    const int shift = bits(layout.prior);
    const uint32_t *word = words, *end = words + length;
    for (int64_t step = steps(layout); step > 0; --step) {
        for (int64_t number = 0; number < layout.lanes; ++number) {
            Lane& lane = lanes[number];
            int64_t at = lane.at++, column = lane.column++;
            if (column < 0) continue;
            if (at < layout.count) {
                int64_t mean = columns[column];
                int64_t total = weights[0] * lane.slow + weights[3] * mean + weights[6] * (lane.slow * mean >> shift);
                if (LOCAL) {
                    int64_t up = lane.row ? int64_t(magnitudes[symbols[at - layout.width]]) << 16 : layout.prior;
                    int64_t channel = column >= layout.period
                        ? int64_t(magnitudes[symbols[at - layout.period]]) << 16 : layout.prior;
                    total += weights[1] * lane.fast + weights[2] * lane.left + weights[4] * up + weights[5] * channel;
                }
                int64_t context = contexts[bucket(total)];
                if (SIGNED) {
                    int sum = 0;
                    if (column >= 1) sum += 2 * signs[symbols[at - 1]];
                    if (column >= layout.line) sum += 2 * signs[symbols[at - layout.line]];
                    if (column >= layout.period) sum += signs[symbols[at - layout.period]];
                    if (lane.row) sum += signs[symbols[at - layout.width]];
                    context += levels[sum + 6];
                }
                uint64_t state = states[number];
                uint32_t slot = state & 0xffff;
                uint32_t symbol = coarse[context * COARSE + (slot >> 4)];
                const uint32_t* of_context = spans + context * SYMBOLS;
                uint32_t span = of_context[symbol & 0xff];
                if (symbol >> 8)  // the cell has slots of several symbols
                    while (slot - (span & 0xffff) >= span >> 16) span = of_context[++symbol & 0xff];
                state = uint64_t(span >> 16) * (state >> 16) + slot - (span & 0xffff);
                if (state < LOW) {
                    if (word < end) state = state << 32 | *word++;
                    else if (layout.lanes > 1) return -1;
                }
                states[number] = state;
                symbols[at] = uint8_t(symbol);
                int64_t magnitude = int64_t(magnitudes[symbol & 0xff]) << 16;
                lane.slow += (magnitude - lane.slow) * rates[std::min(column, MEMORY - 1)] >> 15;
                columns[column] = int32_t(mean + ((magnitude - mean) * rates[std::min(lane.row, MEMORY - 1)] >> 15));
                if (LOCAL) {
                    lane.fast += (magnitude - lane.fast) >> 2;
                    lane.left = magnitude;
                }
            }
            if (lane.column == layout.width) next_row(lane, layout);
        }
    }
    return word - words;
}

}  // namespace

extern "C" {

// The number of words read, or -1 if there are too few.
int64_t decode(const Layout* layout, const int32_t* rates, const uint8_t* contexts, const uint8_t* magnitudes,
               const int8_t* signs, const int8_t* levels, const uint16_t* coarse, const uint32_t* spans, const uint32_t* words, int64_t length, uint64_t* states,
               int32_t* columns, uint8_t* symbols) {
    const int64_t* weights = layout->weights;
    bool local = weights[1] || weights[2] || weights[4] || weights[5];
    bool with_signs = std::any_of(signs, signs + SYMBOLS, [](int8_t sign) { return sign != 0; });
    auto run = local ? with_signs ? decode<true, true> : decode<true, false>
                     : with_signs ? decode<false, true> : decode<false, false>;
    return run(*layout, rates, contexts, magnitudes, signs, levels, coarse, spans, words, length, states, columns, symbols);
}

// Symbols of a Huffman-coded stream, which four more bytes follow: -1 if a segment's words go on after its end.
int64_t huffman(const uint8_t* stream, const int64_t* ends, int64_t segments, int64_t per_segment, int64_t count,
                const int32_t* table, const uint8_t* lengths, int32_t* symbols) {
    int64_t place = 0;  // in bits
    for (int64_t segment = 0; segment < segments; ++segment) {
        int64_t last = std::min(count, (segment + 1) * per_segment);
        for (int64_t at = segment * per_segment; at < last; ++at) {
            const uint8_t* byte = stream + (place >> 3);
            uint32_t word = (uint32_t(byte[0]) << 16 | uint32_t(byte[1]) << 8 | byte[2]) >> (8 - (place & 7)) & 0xffff;
            symbols[at] = table[word];
            place += lengths[word];
            if (place > ends[segment]) return -1;
        }
        place = ends[segment];
    }
    return 0;
}

// The number of words written, which are the last ones of `words`.
int64_t encode(const Layout* layout, const uint8_t* contexts, const uint32_t* spans, const uint8_t* symbols,
               int64_t length, uint64_t* states, uint32_t* words) {
    uint32_t* word = words + length;
    int64_t lanes = layout->lanes, width = layout->width;
    for (int64_t step = steps(*layout) - 1; step >= 0; --step) {
        for (int64_t number = lanes - 1; number >= 0; --number) {
            int64_t place = step - number;
            if (place < 0) continue;
            int64_t at = (place / width * lanes + number) * width + place % width;
            if (at >= layout->count) continue;
            uint32_t span = spans[contexts[at] * SYMBOLS + symbols[at]];
            uint64_t frequency = span >> 16, state = states[number];
            if (state >= frequency << 48) {
                *--word = uint32_t(state);
                state >>= 32;
            }
            states[number] = (state / frequency << 16) + state % frequency + (span & 0xffff);
        }
    }
    return words + length - word;
}

}  // extern "C"
