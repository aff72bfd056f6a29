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
    uint64_t state;
    int64_t slow, fast, left;
};

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

struct Tables {
    const int32_t* rates;
    const uint8_t *contexts, *magnitudes;
    const int8_t *signs, *levels;
    const uint16_t* coarse;
    const uint32_t* spans;
};

template <bool LOCAL, bool SIGNED>
class Decoder {
  public:
    Decoder(const Layout& layout, const Tables& tables, const uint32_t* words, int64_t length, uint64_t* states,
            int32_t* columns, uint8_t* symbols)
        : layout(layout), tables(tables), shift(bits(layout.prior)), word(words), end(words + length),
          columns(columns), symbols(symbols) {
        for (int64_t number = 0; number < layout.lanes; ++number) lanes[number].state = states[number];
    }

    // A lane is one column behind the one before it: while the first ones are in a
    // group of rows, the others are still at the end of the group before.
    void run() {
        int64_t groups = (layout.count + layout.width * layout.lanes - 1) / (layout.width * layout.lanes);
        for (int64_t group = 0; group <= groups; ++group) {
            int64_t last = group < groups ? layout.width : layout.lanes - 1;
            for (int64_t step = 0; step < last; ++step) {
                int64_t begun = group < groups ? std::min(step + 1, layout.lanes) : 0;
                if (step < layout.lanes && group < groups) {
                    Lane& lane = lanes[step];
                    lane.slow = lane.fast = lane.left = layout.prior;
                }
                for (int64_t number = 0; number < begun; ++number)
                    decode(lanes[number], group * layout.lanes + number, step - number);
                int64_t first = group < groups ? begun : step + 1;
                for (int64_t number = group ? first : layout.lanes; number < layout.lanes; ++number)
                    decode(lanes[number], (group - 1) * layout.lanes + number, step - number + layout.width);
            }
        }
    }

    int64_t read(const uint32_t* words, uint64_t* states) const {
        for (int64_t number = 0; number < layout.lanes; ++number) states[number] = lanes[number].state;
        return word - words;
    }

  private:
    void decode(Lane& lane, int64_t row, int64_t column) {
        int64_t at = row * layout.width + column;
        if (at >= layout.count) return;
        const int64_t* weights = layout.weights;
        int64_t mean = columns[column], slow = lane.slow;
        int64_t total = weights[0] * slow + weights[3] * mean + weights[6] * (slow * mean >> shift);
        if (LOCAL) {
            int64_t up = row ? magnitude(at - layout.width) : layout.prior;
            int64_t channel = column >= layout.period ? magnitude(at - layout.period) : layout.prior;
            total += weights[1] * lane.fast + weights[2] * lane.left + weights[4] * up + weights[5] * channel;
        }
        int64_t context = tables.contexts[bucket(total)];
        if (SIGNED) {
            int sum = 0;
            if (column >= 1) sum += 2 * sign(at - 1);
            if (column >= layout.line) sum += 2 * sign(at - layout.line);
            if (column >= layout.period) sum += sign(at - layout.period);
            if (row) sum += sign(at - layout.width);
            context += tables.levels[sum + 6];
        }
        uint64_t state = lane.state;
        uint32_t slot = state & 0xffff;
        uint32_t symbol = tables.coarse[context * COARSE + (slot >> 4)];
        const uint32_t* of_context = tables.spans + context * SYMBOLS;
        uint32_t span = of_context[symbol & 0xff];
        if (symbol >> 8)  // the cell has slots of several symbols
            while (slot - (span & 0xffff) >= span >> 16) span = of_context[++symbol & 0xff];
        state = uint64_t(span >> 16) * (state >> 16) + slot - (span & 0xffff);
        // No branch, which would be mispredicted at the end of a long chain. Without words left, states end wrong.
        bool reads = (state < LOW) & (word < end);
        uint64_t more = state << 32 | *(word < end ? word : &tables.spans[0]);
        lane.state = reads ? more : state;
        word += reads;
        symbols[at] = uint8_t(symbol);
        int64_t size = int64_t(tables.magnitudes[symbol & 0xff]) << 16;
        lane.slow = slow + ((size - slow) * tables.rates[std::min(column, MEMORY - 1)] >> 15);
        columns[column] = int32_t(mean + ((size - mean) * tables.rates[std::min(row, MEMORY - 1)] >> 15));
        if (LOCAL) {
            lane.fast += (size - lane.fast) >> 2;
            lane.left = size;
        }
    }

    int64_t magnitude(int64_t at) const { return int64_t(tables.magnitudes[symbols[at]]) << 16; }
    int sign(int64_t at) const { return tables.signs[symbols[at]]; }

    const Layout layout;
    const Tables tables;
    const int shift;
    const uint32_t *word, *const end;
    int32_t* __restrict const columns;
    uint8_t* __restrict const symbols;
    Lane lanes[64];
};

template <bool LOCAL, bool SIGNED>
int64_t decode(const Layout& layout, const Tables& tables, const uint32_t* words, int64_t length, uint64_t* states,
               int32_t* columns, uint8_t* symbols) {
    Decoder<LOCAL, SIGNED> decoder(layout, tables, words, length, states, columns, symbols);
    decoder.run();
    return decoder.read(words, states);
}

}  // namespace

extern "C" {

// The number of words read.
int64_t decode(const Layout* layout, const int32_t* rates, const uint8_t* contexts, const uint8_t* magnitudes,
               const int8_t* signs, const int8_t* levels, const uint16_t* coarse, const uint32_t* spans, const uint32_t* words, int64_t length, uint64_t* states,
               int32_t* columns, uint8_t* symbols) {
    const int64_t* weights = layout->weights;
    bool local = weights[1] || weights[2] || weights[4] || weights[5];
    bool with_signs = std::any_of(signs, signs + SYMBOLS, [](int8_t sign) { return sign != 0; });
    auto run = local ? with_signs ? decode<true, true> : decode<true, false>
                     : with_signs ? decode<false, true> : decode<false, false>;
    Tables tables{rates, contexts, magnitudes, signs, levels, coarse, spans};
    return run(*layout, tables, words, length, states, columns, symbols);
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
