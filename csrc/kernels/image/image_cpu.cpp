#include <algorithm>
#include <vector>

#include "kernels/image/image.h"
#include "kernels/image/lanes.h"

// A strip of 16 source rows is transposed so that a row is a lane: for each pair of columns and each channel, 16 times
// two bytes. The horizontal pass is then a dot product per output column with all lanes busy, whatever the filter's
// length. Its result is transposed back into pairs of rows, a short ring of them per target, so that the vertical pass
// is the same dot product with output columns as lanes.
namespace ivk {
namespace IVK_ISA {
namespace {

constexpr int64_t kColumnPairBytes = 3 * kPairBytes;
constexpr int64_t kRun = 8;     // source columns transposed at a time
constexpr int64_t kBlock = 16;  // output columns resized at a time: 48 values
constexpr int kGroups = 4;      // groups of 16 values that the vertical pass carries in registers
constexpr int64_t kGroupValues = 16 * kGroups;

int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// Eight columns of 16 rows: rows[r] points at the first of them. strip: 4 column pairs.
template <int kPixelBytes>
void transpose_run(const uint8_t* const* rows, uint8_t* strip) {
#if defined(__AVX2__)
    constexpr int n = kPixelBytes;
    // Per half: pixels 0 1 2 3 -> R0R1 G0G1 B0B1 R2R3 G2G3 B2B3 and two unused units.
    const __m128i half = _mm_setr_epi8(0, n, 1, n + 1, 2, n + 2, 2 * n, 3 * n, 2 * n + 1, 3 * n + 1, 2 * n + 2,
                                       3 * n + 2, -1, -1, -1, -1);
    const __m256i pick = _mm256_broadcastsi128_si256(half);
    for (int top = 0; top < kStripRows; top += 8) {
        __m256i v[8];
        for (int r = 0; r < 8; ++r) v[r] = _mm256_shuffle_epi8(load_halves(rows[top + r], rows[top + r] + 4 * n), pick);
        transpose8(v);
        for (int unit = 0; unit < 6; ++unit) {
            uint8_t* to = strip + unit * kPairBytes + 2 * top;
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(v[unit]));
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 2 * kColumnPairBytes),
                             _mm256_extracti128_si256(v[unit], 1));
        }
    }
#else
    for (int r = 0; r < kStripRows; ++r)
        for (int x = 0; x < kRun; ++x)
            for (int c = 0; c < 3; ++c)
                strip[(x / 2) * kColumnPairBytes + c * kPairBytes + 2 * r + x % 2] = rows[r][x * kPixelBytes + c];
#endif
}

// Moves the row pointers.
template <int kPixelBytes>
void transpose_strip(const uint8_t* (&rows)[kStripRows], int64_t width, uint8_t* strip) {
    // A run reads 16 bytes per four pixels, so the last columns go through a padded copy.
    int64_t x = 0;
    for (; kPixelBytes * (x + 4) + 16 <= kPixelBytes * (width - 1) + 3; x += kRun) {
        transpose_run<kPixelBytes>(rows, strip + x / 2 * kColumnPairBytes);
        for (int r = 0; r < kStripRows; ++r) rows[r] += kRun * kPixelBytes;
    }
    for (; x < width; x += kRun) {
        uint8_t copy[kStripRows][kRun * 4 + 16] = {};
        const uint8_t* padded[kStripRows];
        for (int r = 0; r < kStripRows; ++r) {
            // Of the picture's last pixel only three bytes need exist.
            std::memcpy(copy[r], rows[r], kPixelBytes * (std::min(kRun, width - x) - 1) + 3);
            padded[r] = copy[r];
            rows[r] += kRun * kPixelBytes;
        }
        transpose_run<kPixelBytes>(padded, strip + x / 2 * kColumnPairBytes);
    }
}

// 48 values of 16 rows -> eight row pairs of 48 values.
void transpose_back(const uint8_t* block, uint8_t* const* pairs, int64_t offset) {
    for (int i = 0; i < 3 * kBlock; i += 16) {
#if defined(__AVX2__)
        __m256i v[8];
        for (int k = 0; k < 8; ++k) v[k] = load_halves(block + (i + k) * kStripRows, block + (i + k + 8) * kStripRows);
        transpose8(v);
        for (int k = 0; k < 8; ++k) _mm256_storeu_si256(reinterpret_cast<__m256i*>(pairs[k] + 2 * (offset + i)), v[k]);
#else
        for (int v = i; v < i + 16; ++v)
            for (int r = 0; r < kStripRows; ++r) pairs[r / 2][2 * (offset + v) + r % 2] = block[v * kStripRows + r];
#endif
    }
}

// The rows of one target that this band writes, and the ring of horizontally resized row pairs they are made from.
class Output {
  public:
    Output(const TileParams& p, const ResizeTarget& target, int64_t band, int64_t bands)
        : p_(p), target_(target), values_(static_cast<int64_t>(target.x->windows.size()) * 3) {
        const int64_t height = static_cast<int64_t>(target.y->windows.size());
        next_ = height * band / bands;
        end_ = height * (band + 1) / bands;
        slots_ = target.y->longest + kStripRows / 2;
        pitch_ = 2 * round_up(std::max(round_up(values_, kGroupValues), round_up(values_, 3 * kBlock)), 32);
        ring_.resize(slots_ * pitch_);
        line_.resize(pitch_ / 2);
        window_.resize(target.y->longest);
    }

    bool done() const { return next_ == end_; }
    int64_t first_pair() const { return target_.y->windows[next_].first; }

    // Horizontal pass over a strip whose first row is 2 * pair.
    void resize_strip(const uint8_t* strip, int64_t pair) {
        if (done() || pair + kStripRows / 2 <= first_pair()) return;
        uint8_t* pairs[kStripRows / 2];
        for (int k = 0; k < kStripRows / 2; ++k) pairs[k] = slot(pair + k);
        const ResizeAxis& axis = *target_.x;
        const int64_t width = values_ / 3;
        uint8_t block[3 * kBlock * kStripRows] = {};
        for (int64_t x = 0; x < width; x += kBlock) {
            const int64_t count = std::min(kBlock, width - x);
            for (int64_t i = 0; i < count; ++i) {
                const Window& window = axis.windows[x + i];
                const WeightPair* weights = axis.weights.data() + window.offset;
                const uint8_t* from = strip + window.first * kColumnPairBytes;
                Dot red, green, blue;
                for (int64_t k = 0; k < window.count; ++k, from += kColumnPairBytes) {
                    const Weights w(weights[k]);
                    red.add(from, w);
                    green.add(from + kPairBytes, w);
                    blue.add(from + 2 * kPairBytes, w);
                }
                uint8_t* to = block + 3 * i * kStripRows;
                red.store(to);
                green.store(to + kStripRows);
                blue.store(to + 2 * kStripRows);
            }
            transpose_back(block, pairs, 3 * x);
        }
    }

    // Vertical pass for every row whose source pairs are all below `ready`.
    void write_rows(int64_t ready) {
        for (; next_ < end_; ++next_) {
            const Window& window = target_.y->windows[next_];
            if (window.first + window.count > ready) return;
            for (int64_t k = 0; k < window.count; ++k) window_[k] = slot(window.first + k);
            const WeightPair* weights = target_.y->weights.data() + window.offset;
            for (int64_t v = 0; v < values_; v += kGroupValues) {
                Dot group[kGroups];
                for (int64_t k = 0; k < window.count; ++k) {
                    const Weights w(weights[k]);
                    for (int g = 0; g < kGroups; ++g) group[g].add(window_[k] + 2 * (v + 16 * g), w);
                }
                for (int g = 0; g < kGroups; ++g) group[g].store(line_.data() + v + 16 * g);
            }
            const int64_t size = p_.size, side = 3 * size;
            uint8_t* tile = target_.tiles + ((next_ / size) * target_.columns * size + next_ % size) * side;
            for (int64_t c = 0; c < target_.columns; ++c)
                std::memcpy(tile + c * size * side, line_.data() + c * side, side);
        }
    }

  private:
    uint8_t* slot(int64_t pair) { return ring_.data() + pair % slots_ * pitch_; }

    const TileParams& p_;
    const ResizeTarget& target_;
    int64_t values_, next_, end_, slots_, pitch_;
    std::vector<uint8_t> ring_, line_;
    std::vector<const uint8_t*> window_;
};

// One row of the picture after a vertical pass, in the picture's pixel layout.
void resize_row(const TileParams& p, const ResizeAxis& axis, int64_t row, uint8_t* to) {
    const Window& window = axis.windows[row];
    const WeightPair* weights = axis.weights.data() + window.offset;
    const auto source = [&](int64_t y) { return p.rows[std::min(y, p.height - 1)]; };
    const int64_t bytes = (p.width - 1) * p.pixel_bytes + 3;  // of the last pixel only three bytes need exist
    int64_t v = 0;
    for (; v + kGroupValues <= bytes; v += kGroupValues) {
        Dot group[kGroups];
        for (int64_t k = 0; k < window.count; ++k) {
            const Weights w(weights[k]);
            const uint8_t *first = source(2 * (window.first + k)) + v, *second = source(2 * (window.first + k) + 1) + v;
            for (int g = 0; g < kGroups; ++g) group[g].add(first + 16 * g, second + 16 * g, w);
        }
        for (int g = 0; g < kGroups; ++g) group[g].store(to + v + 16 * g);
    }
    for (; v < bytes; v += 16) {
        Dot last;
        for (int64_t k = 0; k < window.count; ++k) {
            uint8_t first[16] = {}, second[16] = {};
            std::memcpy(first, source(2 * (window.first + k)) + v, std::min<int64_t>(16, bytes - v));
            std::memcpy(second, source(2 * (window.first + k) + 1) + v, std::min<int64_t>(16, bytes - v));
            last.add(first, second, Weights(weights[k]));
        }
        last.store(to + v);
    }
}

template <int kPixelBytes>
void tile_band(const TileParams& p, int64_t band, int64_t bands) {
    std::vector<uint8_t> strip(round_up(p.width, kRun) / 2 * kColumnPairBytes);
    std::vector<Output> outputs;
    int64_t pair = p.height;
    const uint8_t* rows[kStripRows];
    for (int t = 0; t < p.num_targets; ++t) {
        Output output(p, p.targets[t], band, bands);
        if (output.done()) continue;
        const ResizeAxis* before = p.targets[t].before;
        if (before == nullptr) {
            pair = std::min(pair, output.first_pair());
            outputs.push_back(std::move(output));
            continue;
        }
        const int64_t pitch = round_up(p.width * kPixelBytes, 16) + 16;
        std::vector<uint8_t> resized(kStripRows * pitch);
        for (int64_t at = output.first_pair(); !output.done(); at += kStripRows / 2) {
            for (int64_t r = 0; r < kStripRows; ++r) {
                rows[r] = resized.data() + r * pitch;
                if (2 * at + r < static_cast<int64_t>(before->windows.size()))
                    resize_row(p, *before, 2 * at + r, resized.data() + r * pitch);
            }
            transpose_strip<kPixelBytes>(rows, p.width, strip.data());
            output.resize_strip(strip.data(), at);
            output.write_rows(at + kStripRows / 2);
        }
    }
    const auto done = [](const Output& output) { return output.done(); };
    for (; !std::all_of(outputs.begin(), outputs.end(), done); pair += kStripRows / 2) {
        for (int r = 0; r < kStripRows; ++r) rows[r] = p.rows[std::min(2 * pair + r, p.height - 1)];
        transpose_strip<kPixelBytes>(rows, p.width, strip.data());
        for (Output& output : outputs) {
            output.resize_strip(strip.data(), pair);
            output.write_rows(pair + kStripRows / 2);
        }
    }
}

void tile_any_band(const TileParams& p, int64_t band, int64_t bands) {
    (p.pixel_bytes == 3 ? tile_band<3> : tile_band<4>)(p, band, bands);
}

}  // namespace

const ImageTable image_table = {tile_any_band};

}  // namespace IVK_ISA
}  // namespace ivk
