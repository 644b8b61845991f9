// Products with packed weights, for AVX-512 with VNNI: one 64-byte load holds the same inputs of 16
// outputs.
#include <immintrin.h>

#include <cstdlib>
#include <new>

#include "kernels.h"
#include "sequence.h"

namespace griffin {
namespace {

#include "rows.h"
#include "scratch.h"

template <int N>
struct Count {
  static constexpr int value = N;
};

inline __m512i four(const void* bytes) {  // the same four bytes for all 16 outputs
  int32_t bits;
  __builtin_memcpy(&bits, bytes, 4);
  return _mm512_set1_epi32(bits);
}

// Weights are prefetched this many bytes before they are multiplied. With several rows the hardware
// alone does not look far enough ahead. With one row AMD's does better alone, while on Intel's,
// which have tiles, asking gains a tenth. Weights of several panels are in the cache already.
constexpr int64_t kAhead = 3072;
#if defined(__AMX_TILE__)
constexpr int64_t kAheadOfOne = 2048;
#else
constexpr int64_t kAheadOfOne = 0;
#endif

template <int R, int P>
inline void ahead(const uint8_t* weights) {
  constexpr int64_t distance = R > 1 ? kAhead : kAheadOfOne;
  if constexpr (P == 1 && distance > 0) {
    _mm_prefetch(reinterpret_cast<const char*>(weights + distance), _MM_HINT_T0);
  }
}

inline __m512 halves(const uint8_t* from) {  // 16 numbers in half precision
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

// As `write` of rows.h, of a whole panel at once.
inline void write(const Product& p, int64_t row, int64_t panel, __m512 sums) {
  const int64_t first = panel * kPanel;
  if (p.out - first < kPanel) {
    alignas(64) float each[kPanel];
    _mm512_store_ps(each, sums);
    return write(p, row, panel, each);
  }
  const auto widened = [](const void* from) {
    const __m256i bits = _mm256_loadu_si256(static_cast<const __m256i*>(from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  };
  if (p.bias && p.bias_type == Type::bf16) {
    sums += widened(static_cast<const uint16_t*>(p.bias) + first);
  }
  if (p.bias && p.bias_type != Type::bf16) {
    sums += _mm512_loadu_ps(static_cast<const float*>(p.bias) + first);
  }
  if (p.y_type != Type::bf16) {
    return _mm512_storeu_ps(static_cast<float*>(p.y) + row * p.out + first, sums);
  }
  auto* to = reinterpret_cast<__m256i*>(static_cast<uint16_t*>(p.y) + row * p.out + first);
#if defined(__AVX512BF16__)
  return _mm256_storeu_si256(to, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(sums)));
#else
  const __m512i bits = _mm512_castps_si512(sums), upper = _mm512_srli_epi32(bits, 16);
  const __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
  const __m512i more = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __mmask16 numbers = _mm512_cmp_ps_mask(sums, sums, _CMP_ORD_Q);
  const __m512i nan = _mm512_or_si512(upper, _mm512_set1_epi32(0x40));
  const __m512i rounded = _mm512_mask_blend_epi32(numbers, nan, _mm512_srli_epi32(more, 16));
  _mm256_storeu_si256(to, _mm512_cvtepi32_epi16(rounded));
#endif
}

// As `write_int8` of rows.h, from the exact sums of the high and the low bytes.
inline void write_int8(const Product& p, int64_t row, int64_t panel, __m512i high, __m512i low) {
  const __m512i offset = _mm512_set1_epi64(128 * p.row_sum[row]);
  const __m512d step = _mm512_set1_pd(p.row_scale[row]);
  const auto half = [&](__m256i h, __m256i l, const float* scale) {
    const __m512i whole =
        _mm512_add_epi64(_mm512_slli_epi64(_mm512_cvtepi32_epi64(h), 8), _mm512_cvtepi32_epi64(l));
    const __m512d both = _mm512_mul_pd(step, _mm512_cvtps_pd(_mm256_loadu_ps(scale)));
    return _mm512_cvtpd_ps(
        _mm512_mul_pd(_mm512_cvtepi64_pd(_mm512_sub_epi64(whole, offset)), both));
  };
  const float* scale = p.scale + panel * kPanel;
  const __m256 first = half(_mm512_castsi512_si256(high), _mm512_castsi512_si256(low), scale);
  const __m256 second =
      half(_mm512_extracti64x4_epi64(high, 1), _mm512_extracti64x4_epi64(low, 1), scale + 8);
  write(p, row, panel, _mm512_insertf32x8(_mm512_castps256_ps512(first), second, 1));
}

// bf16 weights, float32 activations: pairs of inputs in a lane, so two accumulators.
template <int R, int P>
struct Bf16 {
  static void run(const Product& p, int64_t panel, int64_t row) {
    static_assert(P == 1);
    const uint8_t* w = p.data + panel * p.panel_bytes;
    const float* x[R];
    __m512 even[R], odd[R];
    for (int r = 0; r < R; ++r) {
      x[r] = reinterpret_cast<const float*>(p.prepared + (row + r) * p.row_bytes);
      even[r] = odd[r] = _mm512_setzero_ps();
    }
    const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    for (int64_t k = 0; k < p.in_padded; k += 2, w += 64) {
      const __m512i pair = _mm512_loadu_si512(w);
      ahead<R, P>(w);
      const __m512 first = _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16));
      const __m512 second = _mm512_castsi512_ps(_mm512_and_si512(pair, high));
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        even[r] = _mm512_fmadd_ps(first, _mm512_set1_ps(x[r][k]), even[r]);
        odd[r] = _mm512_fmadd_ps(second, _mm512_set1_ps(x[r][k + 1]), odd[r]);
      }
    }
    for (int r = 0; r < R; ++r) {
      write(p, row + r, panel, _mm512_add_ps(even[r], odd[r]));
    }
  }
};

#if defined(__AVX512BF16__)
// bf16 weights and activations: one instruction multiplies and adds a pair of inputs of 16 outputs.
template <int R, int P>
struct Bf16Pairs {
  static void run(const Product& p, int64_t panel, int64_t row) {
    const uint8_t* w = p.data + panel * p.panel_bytes;
    const uint8_t* x = p.prepared + row * p.row_bytes;
    __m512 sum[R][P];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < P; ++n) sum[r][n] = _mm512_setzero_ps();
    }
    for (int64_t k = 0; k < p.in_padded; k += 2, w += 64, x += 4) {
      __m512bh weights[P];
#pragma GCC unroll 4
      for (int n = 0; n < P; ++n) {
        weights[n] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(w + n * p.panel_bytes));
        ahead<R, P>(w + n * p.panel_bytes);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512bh pair = reinterpret_cast<__m512bh>(four(x + r * p.row_bytes));
#pragma GCC unroll 4
        for (int n = 0; n < P; ++n) sum[r][n] = _mm512_dpbf16_ps(sum[r][n], weights[n], pair);
      }
    }
    alignas(64) float sums[R][P][kPanel];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < P; ++n) _mm512_store_ps(sums[r][n], sum[r][n]);
    }
    for (int n = 0; n < P; ++n) {
      for (int r = 0; r < R; ++r) write(p, row + r, panel + n, _mm512_load_ps(sums[r][n]));
    }
  }
};
#endif

// int8 weights, stored with 128 added because VNNI multiplies unsigned by signed bytes.
template <int R, int P>
struct Int8 {
  static void run(const Product& p, int64_t panel, int64_t row) {
    const uint8_t* w = p.data + panel * p.panel_bytes;
    const uint8_t *high = p.prepared + row * p.row_bytes, *low = high + p.in_padded;
    __m512i highs[R][P], lows[R][P];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < P; ++n) highs[r][n] = lows[r][n] = _mm512_setzero_si512();
    }
    for (int64_t k = 0; k < p.in_padded; k += 4, w += 64, high += 4, low += 4) {
      __m512i weights[P];
#pragma GCC unroll 4
      for (int n = 0; n < P; ++n) {
        weights[n] = _mm512_loadu_si512(w + n * p.panel_bytes);
        ahead<R, P>(w + n * p.panel_bytes);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512i upper = four(high + r * p.row_bytes), lower = four(low + r * p.row_bytes);
#pragma GCC unroll 4
        for (int n = 0; n < P; ++n) {
          highs[r][n] = _mm512_dpbusd_epi32(highs[r][n], weights[n], upper);
          lows[r][n] = _mm512_dpbusd_epi32(lows[r][n], weights[n], lower);
        }
      }
    }
    // Out of the registers first: loops that end in more than a store are not unrolled, and an
    // array that is indexed by a loop lives in memory.
    alignas(64) int32_t h[R][P][kPanel], l[R][P][kPanel];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < P; ++n) {
        _mm512_store_si512(h[r][n], highs[r][n]);
        _mm512_store_si512(l[r][n], lows[r][n]);
      }
    }
    for (int n = 0; n < P; ++n) {
      for (int r = 0; r < R; ++r) {
        write_int8(p, row + r, panel + n, _mm512_load_si512(h[r][n]), _mm512_load_si512(l[r][n]));
      }
    }
  }
};

#include "avx512_groups.h"

#if defined(__AMX_TILE__)
#include "tiles.h"

#include "amx.h"

// Integer sums are exact, so few rows may take other instructions; bfloat16 pairs have to take the
// same.
constexpr int kFew = 3;

// float32 activations, or pairs on tiles.
struct AnyBf16 {
  static void run(const Product& p, int64_t first, int64_t last) {
    p.pairs ? tile_panels_bf16(p, first, last) : Each<Bf16, 12, 12, 1>::run(p, first, last);
  }
};

// Few rows, or many on tiles.
struct AnyInt8 {
  static void run(const Product& p, int64_t first, int64_t last) {
    p.rows > kFew ? tile_panels_int8(p, first, last) : Each<Int8, kFew, 1, 1>::run(p, first, last);
  }
};
struct AnyInt4 {
  static void run(const Product& p, int64_t first, int64_t last) {
    p.rows > kFew ? GroupTiles<4>::run(p, first, last)
                  : Each<Int4, kFew, 1, 1>::run(p, first, last);
  }
};
struct AnyInt2 {
  static void run(const Product& p, int64_t first, int64_t last) {
    p.rows > kFew ? GroupTiles<2>::run(p, first, last)
                  : Each<Int2, kFew, 1, 1>::run(p, first, last);
  }
};
struct AnyInt3 {
  static void run(const Product& p, int64_t first, int64_t last) {
    p.rows > kFew ? GroupTiles<2, true>::run(p, first, last)
                  : Each<Int3, kFew, 1, 1>::run(p, first, last);
  }
};

}  // namespace

const Kernels amx_kernels = {
    "amx", prepare_rows<true>, panels<AnyBf16, AnyInt8, AnyInt4, AnyInt2, AnyInt3>,
    &amx_sequences, true, read_words, 768 << 10, kDeep * kTileBytes};
#else
using AnyInt8 = Each<Int8, 8, 6, 2>;
using AnyInt4 = Each<Int4, 8, 4, 2>;
using AnyInt2 = Each<Int2, 8, 4, 2>;
using AnyInt3 = Each<Int3, 8, 4, 2>;

#if defined(__AVX512BF16__)
// float32 activations, or pairs.
struct AnyBf16 {
  static void run(const Product& p, int64_t first, int64_t last) {
    p.pairs ? Each<Bf16Pairs, 8, 6, 4>::run(p, first, last)
            : Each<Bf16, 12, 12, 1>::run(p, first, last);
  }
};

}  // namespace

const Kernels avx512_bf16_kernels = {
    "avx512_bf16", prepare_rows<true>, panels<AnyBf16, AnyInt8, AnyInt4, AnyInt2, AnyInt3>,
    &avx512_bf16_sequences, true, read_words};
#else
}  // namespace

const Kernels avx512_kernels = {
    "avx512", prepare_rows<true>, panels<Each<Bf16, 12, 12, 1>, AnyInt8, AnyInt4, AnyInt2, AnyInt3>,
    &avx512_sequences, false, read_words};
#endif
#endif

}  // namespace griffin
