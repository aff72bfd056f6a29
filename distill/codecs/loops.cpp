// The inner loops of codecs, which NumPy does as well, to the same bytes and slower: of _lanes.py, interleaved range
// asymmetric numeral systems (Duda, arXiv:1311.2540) whose table is chosen by an estimate of each weight's magnitude, of
// _parts.py and of huffman.py.
//
// Nothing here allocates, and nothing is read or written outside of what the caller's lengths promise.

#include <algorithm>
#include <cstdint>

namespace {

constexpr uint64_t LOW = uint64_t(1) << 32;  // states are in [2^32, 2^64)
constexpr int64_t TOP = int64_t(1) << 47;
constexpr int64_t MEMORY = 256;
constexpr int64_t SLOTS = 1 << 16;
constexpr int64_t SYMBOLS = 256;
constexpr int64_t CELLS = 1024;  // of 64 slots: a table's record has the first symbol of each, then the symbols' spans
constexpr int LEVELS = 8;  // places for the five levels of expected signs
constexpr int WIDTH = 8;   // lanes of a vector

typedef int64_t Vector __attribute__((vector_size(8 * WIDTH)));
typedef double Doubles __attribute__((vector_size(8 * WIDTH)));
typedef int32_t Halves __attribute__((vector_size(4 * WIDTH), aligned(4)));

struct Layout {
    int64_t count, width, period, line, lanes, states, prior;
    int64_t weights[7];  // row, near, left, column, up, channel, both
};

struct Tables {
    const int32_t* rates;
    const uint32_t* contexts;
    const uint8_t* records;
    int64_t zero, centre;
};

int64_t rows(const Layout& layout) { return (layout.count + layout.width - 1) / layout.width; }

Vector all(int64_t value) { return Vector{} + value; }

Vector loaded(const uint8_t* from) {
    Vector vector;
    for (int lane = 0; lane < WIDTH; ++lane) vector[lane] = from[lane];
    return vector;
}

Vector loaded(const int32_t* from) { return __builtin_convertvector(*reinterpret_cast<const Halves*>(from), Vector); }

// The lanes of `right`, moved on by one; the last of `left` comes first.
Vector moved(Vector left, Vector right) { return __builtin_shuffle(left, right, Vector{7, 8, 9, 10, 11, 12, 13, 14}); }

// All lanes' weights of one step: their estimates and what is learned of them are vectors of eight lanes, their symbols
// are looked up one by one. Symbols are stored step by step, so that neighbours in the row are vectors as well. Columns
// lie in reverse, for each lane is one column behind the lane before it.
template <int PARTS, bool LOCAL, bool SIGNED>
class Decoder {
  public:
    Decoder(const Layout& layout, const Tables& tables, const uint32_t* words, int64_t length, uint64_t* states,
            uint8_t* history, int32_t* columns, int32_t* rates)
        : layout(layout), tables(tables), shift(layout.prior ? 64 - __builtin_clzll(layout.prior) : 0), word(words),
          end(words + length), states(states), history(history), columns(columns), rates(rates) {
        for (int64_t at = 0; at < layout.width + PARTS * WIDTH; ++at) {
            int64_t column = (2 * layout.width - 1 - at % layout.width) % layout.width;
            columns[at] = int32_t(layout.prior);
            rates[at] = tables.rates[std::min(column, MEMORY - 1)];
        }
    }

    const uint32_t* run() {
        int64_t lanes = layout.lanes, steps = 0, full = layout.count + lanes;
        for (int64_t lane = 0; lane < PARTS * WIDTH; ++lane) {
            int64_t weights = lane < lanes ? (rows(layout) - lane + lanes - 1) / lanes * layout.width : 0;
            if ((rows(layout) - 1) % lanes == lane) weights -= rows(layout) * layout.width - layout.count;
            ends[lane / WIDTH][lane % WIDTH] = lane + weights;
            column[lane / WIDTH][lane % WIDTH] = -lane;
            steps = std::max(steps, lane + weights);
            if (lane < lanes) full = std::min(full, lane + weights);
        }
        for (int64_t step = 0, place = 0, group = 0; step < steps; ++step, ++place) {
            if (place == layout.width) place = 0, ++group;
            start(step, place, group);
            bool all = step >= lanes - 1 && step < full;
            all && end - word >= lanes ? look<true>(step) : look<false>(step);
            all ? update<true>(step, place) : update<false>(step, place);
        }
        return word;
    }

  private:
    // Without being inlined, each of the next three has all registers.
    __attribute__((noinline)) void start(int64_t step, int64_t place, int64_t group) {
        const int64_t width = layout.width, lanes = layout.lanes;
        // Lanes at the end of the row before go on in copies of the first columns, behind the last.
        if (place == 0) std::copy(columns, columns + lanes - 1, columns + width);
        if (place && place < lanes) columns[lanes - 1 - place] = columns[width + lanes - 1 - place];
        Vector symbol = all(group ? history[(step - width + lanes - 1) * lanes + lanes - 1] : tables.zero);
        Vector above = group ? magnitude(symbol) : all(layout.prior), above_sign = sign(symbol);
        Vector up[PARTS], up_sign[PARTS];
        for (int part = 0; part < PARTS; ++part) {
            if (LOCAL) up[part] = moved(part ? left[part - 1] : above, left[part]);
            if (SIGNED) up_sign[part] = moved(part ? left_sign[part - 1] : above_sign, left_sign[part]);
        }
        if (place < lanes) {
            int part = int(place / WIDTH), lane = int(place % WIDTH);
            slow[part][lane] = fast[part][lane] = left[part][lane] = layout.prior;
            row_rate[part][lane] = tables.rates[std::min(group * lanes + place, MEMORY - 1)];
        }
        estimate(step, place, up, up_sign);
    }

    void estimate(int64_t step, int64_t place, const Vector* up, const Vector* up_sign) {
        const int64_t *weights = layout.weights, lanes = layout.lanes;
        const int32_t* mean_of = columns + layout.width - 1 - place;
        const uint8_t* channel_of = history + std::max<int64_t>(0, step - layout.period) * lanes;
        const uint8_t* line_of = history + std::max<int64_t>(0, step - layout.line) * lanes;
        for (int part = 0; part < PARTS; ++part) {
            Vector mean = loaded(mean_of + part * WIDTH), channel = {}, place = column[part];
            Vector total = weights[0] * slow[part] + weights[3] * mean + weights[6] * (slow[part] * mean >> shift);
            if (LOCAL || SIGNED) channel = loaded(channel_of + part * WIDTH);
            if (LOCAL) {
                total += weights[1] * fast[part] + weights[2] * left[part] + weights[4] * up[part];
                total += weights[5] * (place >= layout.period ? magnitude(channel) : all(layout.prior));
            }
            total += 1;
            total = total < TOP ? total : all(TOP);
            // A double's exponent and four bits of its fraction: buckets are a sixteenth of a power of two wide.
            Vector key = (Vector(__builtin_convertvector(total, Doubles)) >> 48) - 1023 * 16;
            if (SIGNED) {
                Vector sum = (place >= 1) & left_sign[part];
                sum += (place >= layout.line) & sign(loaded(line_of + part * WIDTH));
                sum += sum + up_sign[part] + ((place >= layout.period) & sign(channel));
                key = key * LEVELS + 2 + (sum < 0) + (sum < -2) - (sum > 0) - (sum > 2);
            }
            keys[part] = key;
        }
    }

    // PLENTY: of words, and all lanes are at work.
    template <bool PLENTY>
    __attribute__((noinline)) void look(int64_t step) {
        const uint32_t *contexts = tables.contexts, *next = word, *last = end;
        const uint8_t* records = tables.records;
        const int64_t lanes = layout.lanes, number = layout.states;
        for (int64_t first = 0; first < lanes; first += number) {
            const int64_t* key = reinterpret_cast<const int64_t*>(keys) + first;
            const int64_t* end_of = reinterpret_cast<const int64_t*>(ends) + first;
            const int64_t count = std::min(number, lanes - first);
            uint64_t* __restrict state_of = states;
            uint8_t* __restrict symbols = history + step * lanes + first;
            for (int64_t at = 0; at < count; ++at) {
                if (!PLENTY && (first + at > step || step >= end_of[at])) continue;
                uint64_t state = state_of[at];
                const uint8_t* record = records + contexts[key[at]];
                const uint32_t* spans = reinterpret_cast<const uint32_t*>(record + CELLS);
                uint32_t slot = state & 0xffff, symbol = record[slot / (SLOTS / CELLS)], span = spans[symbol];
                while (slot - (span & 0xffff) >= span >> 16) span = spans[++symbol];
                symbols[at] = uint8_t(symbol);
                state = uint64_t(span >> 16) * (state >> 16) + (slot - (span & 0xffff));
                // No branch, which would be mispredicted at a long chain's end. Without words left, states end wrong.
                uint64_t reads = (state < LOW) & (PLENTY | (next < last));
                state_of[at] = state << 32 * reads | (PLENTY || next < last ? *next & -reads : 0);
                next += reads;
            }
        }
        word = next;
    }

    template <bool FULL>
    __attribute__((noinline)) void update(int64_t step, int64_t place) {
        const int64_t base = layout.width - 1 - place, width = layout.width;
        const uint8_t* symbols = history + step * layout.lanes;
        for (int part = 0; part < PARTS; ++part) {
            Vector symbol = loaded(symbols + part * WIDTH), size = magnitude(symbol);
            Vector mean = loaded(columns + base + part * WIDTH), rate = loaded(rates + base + part * WIDTH);
            Vector moves = (size - mean) * row_rate[part] >> 15;
            if (!FULL || (part + 1) * WIDTH > layout.lanes) moves &= (column[part] >= 0) & (ends[part] > step);
            *reinterpret_cast<Halves*>(columns + base + part * WIDTH) = __builtin_convertvector(mean + moves, Halves);
            slow[part] += (size - slow[part]) * rate >> 15;
            if (LOCAL) fast[part] += (size - fast[part]) >> 2;
            if (LOCAL) left[part] = size;
            if (SIGNED) left_sign[part] = sign(symbol);
            column[part] += 1;
            column[part] &= column[part] != width;
        }
    }

    Vector magnitude(Vector symbol) const {
        Vector distance = 2 * symbol - tables.centre;
        distance = ((distance < 0 ? -distance : distance) + 1) >> 1;
        distance = distance > 1 ? distance : all(1);
        distance = distance < 255 ? distance : all(255);
        return (symbol != tables.zero) & distance << 16;
    }

    Vector sign(Vector symbol) const {
        Vector distance = 2 * symbol - tables.centre;
        return (symbol != tables.zero) & ((distance < 0) - (distance > 0));
    }

    const Layout layout;
    const Tables tables;
    const int64_t shift;
    const uint32_t *word, *const end;
    uint64_t* const states;
    uint8_t* const history;
    int32_t *const columns, *const rates;
    Vector slow[PARTS] = {}, fast[PARTS] = {}, left[PARTS] = {}, left_sign[PARTS] = {}, row_rate[PARTS] = {};
    Vector keys[PARTS], ends[PARTS], column[PARTS];
};

template <int PARTS, bool LOCAL, bool SIGNED>
const uint32_t* decode(const Layout& layout, const Tables& tables, const uint32_t* words, int64_t length,
                       uint64_t* states, uint8_t* history, int32_t* columns, int32_t* rates) {
    return Decoder<PARTS, LOCAL, SIGNED>(layout, tables, words, length, states, history, columns, rates).run();
}

template <int PARTS>
auto decoder(bool local, bool with_signs) {
    return local ? with_signs ? decode<PARTS, true, true> : decode<PARTS, true, false>
                 : with_signs ? decode<PARTS, false, true> : decode<PARTS, false, false>;
}

// From steps to rows.
void sort(const Layout& layout, const uint8_t* history, uint8_t* symbols) {
    constexpr int64_t BLOCK = 64;
    int64_t lanes = layout.lanes, width = layout.width;
    for (int64_t top = 0; top < rows(layout); top += lanes)
        for (int64_t from = 0; from < width; from += BLOCK)
            for (int64_t row = top; row < std::min(rows(layout), top + lanes); ++row) {
                int64_t lane = row - top, at = row * width + from;
                const uint8_t* source = history + (top / lanes * width + from + lane) * lanes + lane;
                int64_t size = std::min({BLOCK, width - from, layout.count - at});
                for (int64_t column = 0; column < size; ++column) symbols[at + column] = source[column * lanes];
            }
}

}  // namespace

extern "C" {

// The number of words read.
int64_t decode(const Layout* layout, int64_t zero, int64_t centre, int64_t with_signs, const int32_t* rate_table,
               const uint32_t* contexts, const uint8_t* records, const uint32_t* words, int64_t length,
               uint64_t* states, uint8_t* history, int32_t* columns, int32_t* rates, uint8_t* symbols) {
    const int64_t* weights = layout->weights;
    bool local = weights[1] || weights[2] || weights[4] || weights[5];
    Tables seen{rate_table, contexts, records, zero, centre};
    auto run = layout->lanes <= 8 ? decoder<1> : layout->lanes <= 16 ? decoder<2> : decoder<4>;
    const uint32_t* last = run(local, with_signs)(*layout, seen, words, length, states, history, columns, rates);
    sort(*layout, history, symbols);
    return last - words;
}

// Symbols of some rows and channels of ``size`` each, to their places in a tensor that has ``all`` channels.
void spread(const uint8_t* symbols, const int64_t* rows, int64_t row_count, const int64_t* channels,
            int64_t channel_count, int64_t all, int64_t size, uint8_t* whole) {
    for (int64_t row = 0; row < row_count; ++row)
        for (int64_t channel = 0; channel < channel_count; ++channel, symbols += size)
            std::copy(symbols, symbols + size, whole + (rows[row] * all + channels[channel]) * size);
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
    int64_t steps = (rows(*layout) + lanes - 1) / lanes * width + lanes - 1;
    for (int64_t step = steps - 1; step >= 0; --step) {
        for (int64_t number = lanes - 1; number >= 0; --number) {
            int64_t place = step - number, at = (place / width * lanes + number) * width + place % width;
            if (place < 0 || at >= layout->count) continue;
            uint32_t span = spans[contexts[at] * SYMBOLS + symbols[at]];
            uint64_t frequency = span >> 16, state = states[number % layout->states];
            if (state >= frequency << 48) *--word = uint32_t(state), state >>= 32;
            states[number % layout->states] = (state / frequency << 16) + state % frequency + (span & 0xffff);
        }
    }
    return words + length - word;
}

}  // extern "C"
