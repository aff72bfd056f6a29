// Park et al.: Faster CNNs with Direct Sparse Convolutions and Guided Pruning. arXiv:1608.01409; Zhang, Franchetti &
// Low: High Performance Zero-Memory Overhead Direct Convolutions. arXiv:1809.10170.
//
// Plain C entry points, so that the file compiles in a second or two: no header of torch or Python is read.
// Nothing here allocates memory: every buffer is the caller's.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16, COLUMNS = 14;
#elif defined(__AVX__)
constexpr int LANES = 8, COLUMNS = 6;
#else
constexpr int LANES = 4, COLUMNS = 4;
#endif
constexpr int VECTORS = 12;  // with a weight they fill the registers

template <int N>
struct Vector {
    typedef float type __attribute__((vector_size(N * sizeof(float))));
};
template <int N>
using Floats = typename Vector<N>::type;

template <int N>
inline Floats<N> load(const float* from) {
    Floats<N> values;
    std::memcpy(&values, from, sizeof values);  // at any address
    return values;
}

template <int N>
inline void store(float* to, const Floats<N>& values) {
    std::memcpy(to, &values, sizeof values);
}

}  // namespace

extern "C" {

// One layer and its input; the same fields, in the same order, as `Shape` in _native.py.
struct Shape {
    int64_t images, channels, height, width;
    int64_t outputs, out_height, out_width;
    int64_t kernel_height, kernel_width, stride_height, stride_width;
    int64_t padding_height, padding_width, dilation_height, dilation_width;
    int64_t in_block, out_block;         // of blocked layouts
    int64_t phase_height, phase_width;   // of the padded input, split by stride
    int64_t threads;
};
}

namespace {

// --- Direct sparse convolution -------------------------------------------------------------------------------------

// One channel of the input, padded and split by stride: phase (a, b) holds the rows a, a + stride, ... and the columns
// b, b + stride, ... of it, so that a convolution of any stride reads contiguous values.
void pad(const Shape& s, const float* plane, float* to) {
    for (int64_t a = 0; a < s.stride_height; a++)
        for (int64_t b = 0; b < s.stride_width; b++)
            for (int64_t i = 0; i < s.phase_height; i++, to += s.phase_width) {
                std::fill_n(to, s.phase_width, 0.0f);
                const int64_t row = a + i * s.stride_height - s.padding_height;
                if (row < 0 || row >= s.height) continue;
                const float* from = plane + row * s.width;
                const int64_t shift = s.padding_width - b;  // the first column inside the image, rounded up
                const int64_t first = shift > 0 ? (shift + s.stride_width - 1) / s.stride_width : 0;
                const int64_t end = std::min(s.phase_width, (s.width - 1 + shift) / s.stride_width + 1);
                for (int64_t j = first; j < end; j++) to[j] = from[j * s.stride_width - shift];
            }
}

// N vectors of neighbouring output positions stay in registers while all non-zeros of one filter pass by.
template <int N>
void gather(const float* input, const float* values, const int32_t* offsets, int64_t count, float bias, float* sums) {
    Floats<LANES> held[N];
    for (int v = 0; v < N; v++) held[v] = Floats<LANES>{} + bias;
    for (int64_t k = 0; k < count; k++) {
        const float* from = input + offsets[k];
        const float value = values[k];
#pragma GCC unroll 16
        for (int v = 0; v < N; v++) held[v] += value * load<LANES>(from + v * LANES);
    }
    for (int v = 0; v < N; v++) store<LANES>(sums + v * LANES, held[v]);
}

using Gather = void (*)(const float*, const float*, const int32_t*, int64_t, float, float*);

template <int... N>
constexpr std::array<Gather, sizeof...(N)> gathers(std::integer_sequence<int, N...>) {
    return {gather<N + 1>...};
}
constexpr auto GATHERS = gathers(std::make_integer_sequence<int, VECTORS>{});

// Positions [from, from + count) of an output plane whose rows are as long as the padded input's; the columns that only
// the longer rows have are left out.
void keep(const Shape& s, const float* sums, int64_t from, int64_t count, float* plane) {
    for (int64_t done = 0; done < count;) {
        const int64_t row = (from + done) / s.phase_width, column = (from + done) % s.phase_width;
        const int64_t run = std::min(s.phase_width - column, count - done);
        const int64_t inside = std::min(run, s.out_width - column);
        if (inside > 0) std::copy_n(sums + done, inside, plane + row * s.out_width + column);
        done += run;
    }
}

// --- Direct convolution on blocked layouts -------------------------------------------------------------------------

constexpr float ZEROS[16] = {};  // as many as the largest block

// One tile of N columns by B output channels, over one block of input channels. STEP is the distance of the columns'
// inputs where that is known when this is compiled, else 0.
template <int B, int N, int STEP>
void tile(const Shape& s, const float* input, const float* weight, const float* bias, int64_t y, int64_t x, float* to) {
    const int64_t step = STEP ? STEP : s.stride_width * s.in_block;
    Floats<B> held[N];
    for (int n = 0; n < N; n++) held[n] = bias ? load<B>(bias) : load<B>(to + n * B);
    for (int64_t r = 0; r < s.kernel_height; r++) {
        const int64_t row = y * s.stride_height + r * s.dilation_height - s.padding_height;
        if (row < 0 || row >= s.height) continue;
        for (int64_t c = 0; c < s.kernel_width; c++) {
            const int64_t column = x * s.stride_width + c * s.dilation_width - s.padding_width;
            const float* from = input + (row * s.width + column) * s.in_block;
            const float* factors = weight + (r * s.kernel_width + c) * s.in_block * B;
            if (column >= 0 && column + (N - 1) * s.stride_width < s.width) {
                for (int64_t i = 0; i < s.in_block; i++, factors += B) {
                    const Floats<B> factor = load<B>(factors);
#pragma GCC unroll 16
                    for (int n = 0; n < N; n++) held[n] += factor * from[n * step + i];
                }
                continue;
            }
            const float* inside[N];  // what lies beside the image is zero
            for (int n = 0; n < N; n++) {
                const int64_t at = column + n * s.stride_width;
                inside[n] = at >= 0 && at < s.width ? from + n * step : ZEROS;
            }
            for (int64_t i = 0; i < s.in_block; i++, factors += B) {
                const Floats<B> factor = load<B>(factors);
#pragma GCC unroll 16
                for (int n = 0; n < N; n++) held[n] += factor * inside[n][i];
            }
        }
    }
    for (int n = 0; n < N; n++) store<B>(to + n * B, held[n]);
}

using Tile = void (*)(const Shape&, const float*, const float*, const float*, int64_t, int64_t, float*);

template <int B, int STEP, int... N>
constexpr std::array<Tile, sizeof...(N)> tiles(std::integer_sequence<int, N...>) {
    return {tile<B, N + 1, STEP>...};
}

template <int B>
const Tile* tiles_for(const Shape& s) {
    static constexpr auto dense = tiles<B, B>(std::make_integer_sequence<int, COLUMNS>{});
    static constexpr auto any = tiles<B, 0>(std::make_integer_sequence<int, COLUMNS>{});
    return s.stride_width == 1 && s.in_block == B ? dense.data() : any.data();
}

// As many tiles as it takes, as equally wide as can be.
inline int64_t parts(int64_t length, int64_t longest) { return (length + longest - 1) / longest; }

}  // namespace

extern "C" {

// Floats that the sparse convolution may read behind its padded input.
int64_t sparse_slack() { return VECTORS * LANES; }

// offsets: of each non-zero, into the padded input; starts: of each filter's first one; padded: room for one image.
void sparse_conv(const Shape* shape, const float* input, float* padded, const float* values, const int32_t* offsets,
                 const int32_t* starts, const float* bias, float* output) {
    const Shape& s = *shape;
    const int64_t plane = s.stride_height * s.stride_width * s.phase_height * s.phase_width;
    const int64_t positions = (s.out_height - 1) * s.phase_width + s.out_width;
    const int64_t chunks = parts(positions, VECTORS * LANES);
    const int64_t vectors = parts(parts(positions, chunks), LANES), chunk = vectors * LANES;
    std::fill_n(padded + s.channels * plane, sparse_slack(), 0.0f);
#pragma omp parallel num_threads(s.threads)
    for (int64_t image = 0; image < s.images; image++) {
#pragma omp for schedule(static)
        for (int64_t c = 0; c < s.channels; c++)
            pad(s, input + (image * s.channels + c) * s.height * s.width, padded + c * plane);
#pragma omp for collapse(2) schedule(static)
        for (int64_t part = 0; part < chunks; part++)
            for (int64_t n = 0; n < s.outputs; n++) {
                alignas(64) float sums[VECTORS * LANES];
                const int64_t from = part * chunk, count = std::min(chunk, positions - from);
                if (count <= 0) continue;
                GATHERS[vectors - 1](padded + from, values + starts[n], offsets + starts[n], starts[n + 1] - starts[n],
                                     bias ? bias[n] : 0.0f, sums);
                keep(s, sums, from, count, output + (image * s.outputs + n) * s.out_height * s.out_width);
            }
    }
}

// input and output: (images, channels / block, height, width, block); weight: (outputs / out_block, channels / in_block,
// kernel_height, kernel_width, in_block, out_block); bias: (outputs), or null; out_block: 16, 8 or 1.
void blocked_conv(const Shape* shape, const float* input, const float* weight, const float* bias, float* output) {
    const Shape& s = *shape;
    const int64_t in_blocks = s.channels / s.in_block, out_blocks = s.outputs / s.out_block;
    const int64_t in_plane = s.height * s.width * s.in_block, out_plane = s.out_height * s.out_width * s.out_block;
    const int64_t factors = s.kernel_height * s.kernel_width * s.in_block * s.out_block;
    const int64_t columns = parts(s.out_width, parts(s.out_width, COLUMNS));
    const Tile* tiles = s.out_block == 16 ? tiles_for<16>(s) : s.out_block == 8 ? tiles_for<8>(s) : tiles_for<1>(s);
#pragma omp parallel for collapse(2) num_threads(s.threads) schedule(static)
    for (int64_t image = 0; image < s.images; image++)
        for (int64_t o = 0; o < out_blocks; o++) {
            const float* first = bias ? bias + o * s.out_block : ZEROS;
            for (int64_t i = 0; i < in_blocks; i++)
                for (int64_t y = 0; y < s.out_height; y++)
                    for (int64_t x = 0; x < s.out_width; x += columns) {
                        const int64_t wide = std::min(columns, s.out_width - x);
                        tiles[wide - 1](s, input + (image * in_blocks + i) * in_plane,
                                        weight + (o * in_blocks + i) * factors, i ? nullptr : first, y, x,
                                        output + (image * out_blocks + o) * out_plane +
                                            (y * s.out_width + x) * s.out_block);
                    }
        }
}
}
