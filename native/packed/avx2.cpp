// Products with packed weights, for AVX2 with FMA: two 32-byte vectors hold what AVX-512 has in
// one.
#include <immintrin.h>

#include "kernels.h"
#include "sequence.h"

namespace griffin {
namespace {

#include "rows.h"

// Rows that meet a panel together: the sums of three fill 12 of the 16 registers.
constexpr int kRows = 3;
// Of many rows, so many keep their sums while so many panels go by.
constexpr int64_t kRowsKept = 24, kPanels = 4;
// Inputs of a slab: all rows meet it while its weights are in the first-level cache. An int32 holds
// 256 products of an unsigned byte and an int16, and a lane of sums has half of the inputs.
constexpr int64_t kSlab = 512;
// One group of rows asks for weights so many bytes before it multiplies them.
constexpr int64_t kAhead = 1024;

inline int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }

// Asks for weights further on, a piece with every line that is multiplied, and not for the caches
// below: a weight is needed once. Without it one row reads at 70 to 80% of the machine's rate.
struct Ahead {
  const uint8_t* at;
  int64_t step;

  void ask() {
    _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_NTA);
    at += step;
  }
};

// Adds in place. An instruction, because compilers put additions of whole numbers off and multiply
// first, for which there are no registers.
inline void add16(__m256i& sum, __m256i more) {
  asm volatile("vpaddw %1, %0, %0" : "+x"(sum) : "x"(more));
}

struct Bf16 {
  static constexpr int64_t kUnit = 2, kUnitBytes = 64;  // inputs of a panel that lie together

  struct Sums {
    __m256 even[2], odd[2];
  };

  template <int R>
  static void add(const Product& p, const uint8_t* w, int64_t row, int64_t first, int64_t last,
                  Sums* kept, Ahead ahead) {
    const float* x[R];
    __m256 even[R][2], odd[R][2];
    for (int r = 0; r < R; ++r) {
      x[r] = reinterpret_cast<const float*>(p.prepared + (row + r) * p.row_bytes);
      for (int v = 0; v < 2; ++v) even[r][v] = kept[r].even[v], odd[r][v] = kept[r].odd[v];
    }
    const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
#pragma GCC unroll 2
    for (int64_t k = first; k < last; k += 2, w += 64) {
      ahead.ask();
      const __m256i* pairs = reinterpret_cast<const __m256i*>(w);
      __m256 weights[2];
      for (int v = 0; v < 2; ++v) {
        const __m256i pair = _mm256_loadu_si256(pairs + v);
        weights[v] = _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16));
      }
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const __m256 input = _mm256_set1_ps(x[r][k]);
        for (int v = 0; v < 2; ++v) even[r][v] = _mm256_fmadd_ps(weights[v], input, even[r][v]);
      }
      for (int v = 0; v < 2; ++v) weights[v] = odd_of(w + 32 * v, high);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const __m256 input = _mm256_set1_ps(x[r][k + 1]);
        for (int v = 0; v < 2; ++v) odd[r][v] = _mm256_fmadd_ps(weights[v], input, odd[r][v]);
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < 2; ++v) kept[r].even[v] = even[r][v], kept[r].odd[v] = odd[r][v];
    }
  }

  // The second inputs' weights, read again: kept from the first ones, they would find no register.
  static __m256 odd_of(const uint8_t* w, __m256i high) {
    __m256 weights;
    asm volatile("vpand %1, %2, %0"
                 : "=x"(weights)
                 : "m"(*reinterpret_cast<const uint8_t(*)[32]>(w)), "x"(high));
    return weights;
  }

  static void finish(const Product& p, int64_t row, int64_t panel, const Sums& sums) {
    float each[kPanel];
    for (int v = 0; v < 2; ++v) {
      _mm256_storeu_ps(each + 8 * v, _mm256_add_ps(sums.even[v], sums.odd[v]));
    }
    write(p, row, panel, each);
  }
};

struct Int8 {
  static constexpr int64_t kUnit = 4, kUnitBytes = 64;

  struct Sums {
    __m256i total[4];  // int64, of four outputs each
  };

  // Weights stay as they are stored, 128 too large: the row's sum makes up for it in the end.
  template <int R>
  static void add(const Product& p, const uint8_t* w, int64_t row, int64_t first, int64_t last,
                  Sums* kept, Ahead ahead) {
    const uint8_t* x = p.prepared + row * p.row_bytes;
    __m256i sums[R][4];
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < 4; ++v) sums[r][v] = _mm256_setzero_si256();
    }
    for (int64_t k = first; k < last; k += 4, w += 64) {
      ahead.ask();
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        const __m128i* from = reinterpret_cast<const __m128i*>(w + 16 * v);
        const __m256i weights = _mm256_cvtepu8_epi16(_mm_loadu_si128(from));  // of 4 outputs
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
          const uint8_t* from = x + r * p.row_bytes + 2 * k;
          r < 2 ? multiply(sums[r][v], weights, four(from)) : multiply(sums[r][v], weights, from);
        }
      }
    }
    const __m256i one = _mm256_set1_epi64x(1);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {  // a lane's neighbour has the same output's other two inputs
        const __m256i even = _mm256_mul_epi32(sums[r][v], one);
        const __m256i odd = _mm256_mul_epi32(_mm256_srli_epi64(sums[r][v], 32), one);
        const __m256i both = _mm256_add_epi64(even, odd);
        kept[r].total[v] = _mm256_add_epi64(kept[r].total[v], both);
      }
    }
  }

  static __m256i four(const uint8_t* x) {  // four inputs, for four outputs
    int64_t bits;
    __builtin_memcpy(&bits, x, 8);
    return _mm256_set1_epi64x(bits);
  }

  // Adds products in place, instruction by instruction: in an order of its own, a compiler keeps
  // more at a time than there are registers.
  static void multiply(__m256i& sum, __m256i weights, __m256i inputs) {
    __m256i product;
    asm volatile("vpmaddwd %2, %3, %1\n\tvpaddd %1, %0, %0"
                 : "+x"(sum), "=&x"(product)
                 : "x"(inputs), "x"(weights));
  }

  // As above with inputs that have no register either.
  static void multiply(__m256i& sum, __m256i weights, const uint8_t* x) {
    __m256i product;
    asm volatile("vpbroadcastq %2, %1\n\tvpmaddwd %1, %3, %1\n\tvpaddd %1, %0, %0"
                 : "+x"(sum), "=&x"(product)
                 : "m"(*reinterpret_cast<const uint8_t(*)[8]>(x)), "x"(weights));
  }

  static void finish(const Product& p, int64_t row, int64_t panel, const Sums& sums) {
    const __m256i offset = _mm256_set1_epi64x(128 * p.row_sum[row]);
    alignas(32) int64_t totals[kPanel];
    for (int v = 0; v < 4; ++v) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(totals + 4 * v),
                         _mm256_sub_epi64(sums.total[v], offset));
    }
    write_int8(p, row, panel, totals);
  }
};

// int4 and int2: a byte holds 8 / Bits values, of as many fours of inputs. Two bits stand for -3,
// -1, 1 and 3; with a third, which is the lowest and lies elsewhere, for -7, -5, ..., 7 half steps.
template <int Bits, bool Low = false>
struct Groups {
  static constexpr int64_t kUnit = kBlock, kUnitBytes = block_bytes(Bits);
  static constexpr int kFours = 8 / Bits;

  struct Sums {
    __m256 total[2];
  };

  template <int R>
  static void add(const Product& p, const uint8_t* w, int64_t row, int64_t first, int64_t last,
                  Sums* kept, Ahead ahead) {
    const __m256i mask = _mm256_set1_epi8(Low ? 6 : (1 << Bits) - 1), one = _mm256_set1_epi8(1);
    const __m256i factor = _mm256_set1_epi16(Bits == 4 ? 1 : 2);
    const uint8_t* low = Low ? low_bits(p, w, first) : nullptr;
    // As the upper bits: of the next slab, which may be another panel's.
    Ahead low_ahead{!Low                 ? nullptr
                    : last < p.in_padded ? low + (last - first) / kGroup * 64
                                         : low_bits(p, w + p.panel_bytes, 0), 64};
    const int64_t groups = p.in_padded / kGroup;
    const uint8_t* x = p.prepared + row * p.row_bytes + first;
    const float* steps[R];
    const int32_t* offsets[R];
    __m256 total[R][2];
    for (int r = 0; r < R; ++r) {
      const int64_t at = (row + r) * groups + first / kGroup;
      steps[r] = p.group_scale + at;
      offsets[r] = p.group_offset + at;
      for (int h = 0; h < 2; ++h) total[r][h] = kept[r].total[h];
    }
    // A whole block at a time, so that every load goes ahead by the same stride.
#pragma GCC unroll 1
    for (int64_t group = 0; group < (last - first) / kGroup; group += 2, w += kUnitBytes) {
      ahead.ask();
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half, x += kGroup) {
        const uint8_t *v = w + half * 64 * Bits, *scales = w + 128 * Bits + half * 32;
        // Two products of 15 and 127 in an int16, and eight of those: 30,480 at most, so nothing
        // saturates.
        __m256i sums[R][2];
        for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
        if constexpr (Low) low_ahead.ask();
#pragma GCC unroll 4
        for (int j = 0; j < Bits; ++j) {
          ahead.ask();
#pragma GCC unroll 2
          for (int h = 0; h < 2; ++h) {
            const __m256i all =
                _mm256_loadu_si256(reinterpret_cast<const __m256i*>(v + j * 64 + h * 32));
            __m256i values[kFours];
#pragma GCC unroll 4
            for (int k = 0; k < kFours; ++k) {
              values[k] = take(all, k, mask);
              if constexpr (Low) {
                const __m256i bits =
                    _mm256_loadu_si256(reinterpret_cast<const __m256i*>(low + h * 32));
                const __m256i bit = _mm256_srli_epi16(bits, low_at(kFours * j + k));
                values[k] = _mm256_or_si256(values[k], _mm256_and_si256(bit, one));
              }
            }
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) {
              const uint8_t* from = x + r * p.row_bytes + 4 * kFours * j;
#pragma GCC unroll 4
              for (int k = 0; k < kFours; ++k) {
                add16(sums[r][h], _mm256_maddubs_epi16(values[k], four(from + 4 * k)));
              }
            }
          }
        }
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
          const __m128i* halves = reinterpret_cast<const __m128i*>(scales + 16 * h);
          const __m256 scale = _mm256_cvtph_ps(_mm_loadu_si128(halves));
#pragma GCC unroll 4
          for (int r = 0; r < R; ++r) {
            __m256i whole = _mm256_madd_epi16(sums[r][h], factor);
            whole = _mm256_add_epi32(whole, _mm256_set1_epi32(offsets[r][group + half]));
            const __m256 step = _mm256_mul_ps(scale, _mm256_set1_ps(steps[r][group + half]));
            total[r][h] = _mm256_fmadd_ps(step, _mm256_cvtepi32_ps(whole), total[r][h]);
          }
        }
        if constexpr (Low) low += kLowBytes / 2;
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int h = 0; h < 2; ++h) kept[r].total[h] = total[r][h];
    }
  }

  static __m256i take(__m256i all, int k, __m256i mask) {
    if (Low && !k) return _mm256_and_si256(_mm256_slli_epi16(all, 1), mask);
    return _mm256_and_si256(k ? _mm256_srli_epi16(all, Bits * k - Low) : all, mask);
  }

  static __m256i four(const uint8_t* x) {  // four inputs, for eight outputs
    int32_t bits;
    __builtin_memcpy(&bits, x, 4);
    return _mm256_set1_epi32(bits);
  }

  static void finish(const Product& p, int64_t row, int64_t panel, const Sums& sums) {
    float totals[kPanel];
    for (int h = 0; h < 2; ++h) _mm256_storeu_ps(totals + 8 * h, sums.total[h]);
    write(p, row, panel, totals);
  }
};

// All rows meet all panels, slab by slab, kRows at a time. The groups of rows that read a slab one
// after the other ask for the next one between them.
template <class Of>
struct Slabs {
  using Sums = typename Of::Sums;

  template <int R>
  static void some(const Product& p, const uint8_t* w, int64_t row, int64_t left, int64_t first,
                   int64_t last, Sums* sums, Ahead ahead) {
    if constexpr (R > 0) {
      left >= R ? Of::template add<R>(p, w, row, first, last, sums, ahead)
                : some<R - 1>(p, w, row, left, first, last, sums, ahead);
    }
  }

  static void block(const Product& p, int64_t panel, int64_t panels, int64_t row, int64_t rows) {
    const int64_t slab = kSlab / Of::kUnit * Of::kUnitBytes, groups = (rows + kRows - 1) / kRows;
    // Whether something else lies between a panel's weights and the next one's.
    const bool apart = p.panel_bytes > p.in_padded / Of::kUnit * Of::kUnitBytes;
    Sums sums[kPanels][kRowsKept];
    for (int64_t n = 0; n < panels; ++n) {
      for (int64_t r = 0; r < rows; ++r) sums[n][r] = Sums{};
    }
    for (int64_t k = 0; k < p.in_padded; k += kSlab) {
      const int64_t end = lesser(k + kSlab, p.in_padded);
      for (int64_t n = 0; n < panels; ++n) {
        const uint8_t* w = p.data + (panel + n) * p.panel_bytes + k / kSlab * slab;
        const uint8_t* next = w + (groups == 1 && !apart ? kAhead : slab);
        if (apart && end == p.in_padded) next = p.data + (panel + n + 1) * p.panel_bytes;
        for (int64_t g = 0; g < groups; ++g) {
          some<kRows>(p, w, row + g * kRows, rows - g * kRows, k, end, sums[n] + g * kRows,
                      Ahead{next + slab * g / groups, 64 / groups});
        }
      }
    }
    for (int64_t n = 0; n < panels; ++n) {
      for (int64_t r = 0; r < rows; ++r) Of::finish(p, row + r, panel + n, sums[n][r]);
    }
  }

  static void run(const Product& p, int64_t first, int64_t last) {
    const int64_t together = p.rows > kRowsKept ? kPanels : 1;
    for (int64_t panel = first; panel < last; panel += together) {
      for (int64_t row = 0; row < p.rows; row += kRowsKept) {
        block(p, panel, lesser(together, last - panel), row, lesser(kRowsKept, p.rows - row));
      }
    }
  }
};

}  // namespace

const Kernels avx2_kernels = {
    "avx2", prepare_rows<false>,
    panels<Slabs<Bf16>, Slabs<Int8>, Slabs<Groups<4>>, Slabs<Groups<2>>, Slabs<Groups<2, true>>>,
    &avx2_sequences, false, read_words};

}  // namespace griffin
