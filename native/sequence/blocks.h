// Blocks of kKeys positions of one key head. Keys are laid out so that a vector holds the same
// input of neighbouring keys, values so that a vector holds neighbouring columns.

// How blocks lie and are multiplied: in float32 (or float64) for every instruction set.
template <class X>
struct Plain {
  using Value = X;
  using T = Wide<X>;
  static constexpr bool kWide = true;  // queries are laid out as plain wide numbers

  static int64_t key_bytes(int64_t width) {
    return kKeys * width * static_cast<int64_t>(sizeof(T));
  }
  static int64_t value_bytes(int64_t width) {
    return kKeys * width * static_cast<int64_t>(sizeof(X));
  }
  static int64_t query_bytes(int64_t width) { return width * static_cast<int64_t>(sizeof(T)); }

  // Keys first..last-1 of the block; zeros stand for the others.
  static void keys(const X* const* from, int64_t first, int64_t last, int64_t width, void* to) {
    T* out = static_cast<T*>(to);
    for (int64_t c = 0; c < width; ++c) {
      for (int64_t s = 0; s < kKeys; ++s) {
        out[c * kKeys + s] = s >= first && s < last ? widen(from[s][c]) : T(0);
      }
    }
  }

  static void values(const X* const* from, int64_t first, int64_t last, int64_t width, void* to) {
    X* out = static_cast<X*>(to);
    for (int64_t s = first; s < last; ++s) {
      __builtin_memcpy(out + s * width, from[s], sizeof(X) * static_cast<uint64_t>(width));
    }
  }

  static void query(const X* from, int64_t width, void* to) {
    for (int64_t c = 0; c < width; ++c) static_cast<T*>(to)[c] = widen(from[c]);
  }

  // scores[r][s] of `rows` queries, query_bytes apart, with the keys first..last-1 of the block and
  // with neighbours of them; the others' are left as they are.
  static void score(int64_t rows, const void* queries, const void* keys, int64_t width,
                    int64_t first, int64_t last, T* scores, int64_t step) {
    constexpr int W = kWidth<T>;
    const T *q = static_cast<const T*>(queries), *k = static_cast<const T*>(keys);
    for (int64_t row = 0; row < rows; row += kRows) {
      const int count = static_cast<int>(rows - row < kRows ? rows - row : kRows);
      for (int64_t s = first / kLanes<T> * kLanes<T>; s < last; s += kLanes<T>) {
        Vec<T> sums[kRows][kColumns];
        tiles<T>(count, q + row * width, width, k + s, kKeys, width, kLanes<T>, sums);
        for (int r = 0; r < count; ++r) {
          for (int c = 0; c < kColumns; ++c) {
            store(scores + (row + r) * step + s + c * W, sums[r][c], W);
          }
        }
      }
    }
  }

  // The scores of one token's queries, kKeys apart, with keys that were not laid out; memory:
  // key_bytes of it.
  static void meet(int64_t rows, const void* queries, const X* const* from, int64_t first,
                   int64_t last, int64_t width, void* memory, T* scores) {
    keys(from, first, last, width, memory);
    score(rows, queries, memory, width, first, last, scores, kKeys);
  }

  static void prepare(T*, int64_t) {}

  // out[r] = the sum over keys first..last-1 of weights[r][s] times its value.
  static void weigh(int64_t rows, const T* weights, int64_t step, const void* values, int64_t first,
                    int64_t last, int64_t width, T* out) {
    constexpr int W = kWidth<T>;
    const X* v = static_cast<const X*>(values) + first * width;
    for (int64_t row = 0; row < rows; row += kRows) {
      const int count = static_cast<int>(rows - row < kRows ? rows - row : kRows);
      for (int64_t c = 0; c < width; c += kLanes<T>) {
        const int64_t lanes = width - c < kLanes<T> ? width - c : kLanes<T>;
        Vec<T> sums[kRows][kColumns];
        tiles<X>(count, weights + row * step + first, step, v + c, width, last - first, lanes,
                 sums);
        for (int r = 0; r < count; ++r) {
          T* to = out + (row + r) * width + c;
          for (int d = 0; d < kColumns; ++d) store(to + d * W, sums[r][d], lanes - d * W);
        }
      }
    }
  }
};

#if defined(__AVX512BF16__)
// bfloat16 heads in pairs: a product of pairs is exact before it is summed, and weights are split
// into two bfloat16 numbers, which together keep 16 bits of them.
struct Pairs {
  using Value = Bf16;
  using T = float;
  static constexpr bool kWide = false;
  // By two vectors: 24 sums, and keys and weights read once for 10 heads.
  static constexpr int kRowsAtOnce = 12;

  static bool fits(int64_t width) { return width % 32 == 0; }
  static int64_t key_bytes(int64_t width) { return kKeys * width * 2; }
  static int64_t value_bytes(int64_t width) { return kKeys * width * 2; }
  static int64_t query_bytes(int64_t width) { return width * 2; }

  // 16 rows of 16 pairs become 16 pairs of 16 rows.
  static void transpose(__m512i (&r)[16]) {
    __m512i t[16];
    for (int k = 0; k < 8; ++k) {
      t[2 * k] = _mm512_unpacklo_epi32(r[2 * k], r[2 * k + 1]);
      t[2 * k + 1] = _mm512_unpackhi_epi32(r[2 * k], r[2 * k + 1]);
    }
    for (int k = 0; k < 4; ++k) {
      r[4 * k] = _mm512_unpacklo_epi64(t[4 * k], t[4 * k + 2]);
      r[4 * k + 1] = _mm512_unpackhi_epi64(t[4 * k], t[4 * k + 2]);
      r[4 * k + 2] = _mm512_unpacklo_epi64(t[4 * k + 1], t[4 * k + 3]);
      r[4 * k + 3] = _mm512_unpackhi_epi64(t[4 * k + 1], t[4 * k + 3]);
    }
    for (int k = 0; k < 4; ++k) {
      const __m512i a = _mm512_shuffle_i32x4(r[k], r[4 + k], 0x88);
      const __m512i b = _mm512_shuffle_i32x4(r[k], r[4 + k], 0xdd);
      const __m512i c = _mm512_shuffle_i32x4(r[8 + k], r[12 + k], 0x88);
      const __m512i d = _mm512_shuffle_i32x4(r[8 + k], r[12 + k], 0xdd);
      t[k] = _mm512_shuffle_i32x4(a, c, 0x88);
      t[4 + k] = _mm512_shuffle_i32x4(b, d, 0x88);
      t[8 + k] = _mm512_shuffle_i32x4(a, c, 0xdd);
      t[12 + k] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
    for (int k = 0; k < 16; ++k) r[k] = t[k];
  }

  static void keys(const Bf16* const* from, int64_t first, int64_t last, int64_t width, void* to) {
    uint32_t* out = static_cast<uint32_t*>(to);
    for (int64_t s = 0; s < kKeys; s += 16) {
      for (int64_t c = 0; c < width; c += 32) {
        __m512i rows[16];
        for (int k = 0; k < 16; ++k) {
          const bool there = s + k >= first && s + k < last;
          rows[k] = there ? _mm512_loadu_si512(from[s + k] + c) : _mm512_setzero_si512();
        }
        transpose(rows);
        for (int k = 0; k < 16; ++k) _mm512_storeu_si512(out + (c / 2 + k) * kKeys + s, rows[k]);
      }
    }
  }

  // 32 numbers of one row and of the next become pairs.
  static void interleave(__m512i a, __m512i b, uint32_t* to) {
    // Within 128 bits each.
    const __m512i low = _mm512_unpacklo_epi16(a, b), high = _mm512_unpackhi_epi16(a, b);
    const __m512i first =
        _mm512_permutex2var_epi64(low, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high);
    const __m512i second =
        _mm512_permutex2var_epi64(low, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), high);
    _mm512_storeu_si512(to, first);
    _mm512_storeu_si512(to + 16, second);
  }
  static void interleave(const Bf16* a, const Bf16* b, uint32_t* to) {
    interleave(_mm512_loadu_si512(a), _mm512_loadu_si512(b), to);
  }

  static void values(const Bf16* const* from, int64_t first, int64_t last, int64_t width,
                     void* to) {
    uint32_t* out = static_cast<uint32_t*>(to);
    for (int64_t s = first & ~int64_t{1}; s < last; s += 2) {
      for (int64_t c = 0; c < width; c += 32) {
        const __m512i a = s >= first ? _mm512_loadu_si512(from[s] + c) : _mm512_setzero_si512();
        const __m512i b =
            s + 1 < last ? _mm512_loadu_si512(from[s + 1] + c) : _mm512_setzero_si512();
        interleave(a, b, out + s / 2 * width + c);
      }
    }
  }

  static void query(const Bf16* from, int64_t width, void* to) {
    __builtin_memcpy(to, from, sizeof(Bf16) * static_cast<uint64_t>(width));
  }

  static __m512bh pair(const void* bytes) {  // the same pair for all 16 lanes
    int32_t bits;
    __builtin_memcpy(&bits, bytes, 4);
    return reinterpret_cast<__m512bh>(_mm512_set1_epi32(bits));
  }

  static void score(int64_t rows, const void* queries, const void* keys, int64_t width,
                    int64_t first, int64_t last, float* scores, int64_t step) {
    for (int64_t row = 0; row < rows; row += kRowsAtOnce) {
      const Bf16* q = static_cast<const Bf16*>(queries) + row * width;
      for_count<kRowsAtOnce>(static_cast<int>(rows - row < kRowsAtOnce ? rows - row : kRowsAtOnce),
                             [&](auto r) {
        constexpr int R = decltype(r)::value;
        for (int64_t s = first / 32 * 32; s < last; s += 32) {
          const uint32_t* k = static_cast<const uint32_t*>(keys) + s;
          __m512 sums[R][2];
#pragma GCC unroll 12
          for (int n = 0; n < R; ++n) sums[n][0] = sums[n][1] = _mm512_setzero_ps();
          for (int64_t i = 0; i < width; i += 2, k += kKeys) {
            const __m512bh left = reinterpret_cast<__m512bh>(_mm512_loadu_si512(k));
            const __m512bh right = reinterpret_cast<__m512bh>(_mm512_loadu_si512(k + 16));
#pragma GCC unroll 12
            for (int n = 0; n < R; ++n) {
              const __m512bh x = pair(q + n * width + i);
              sums[n][0] = _mm512_dpbf16_ps(sums[n][0], left, x);
              sums[n][1] = _mm512_dpbf16_ps(sums[n][1], right, x);
            }
          }
#pragma GCC unroll 12
          for (int n = 0; n < R; ++n) {
            _mm512_storeu_ps(scores + (row + n) * step + s, sums[n][0]);
            _mm512_storeu_ps(scores + (row + n) * step + s + 16, sums[n][1]);
          }
        }
      });
    }
  }

  // The scores of one token's queries, kKeys apart, with keys that were not laid out; memory:
  // key_bytes of it.
  static void meet(int64_t rows, const void* queries, const Bf16* const* from, int64_t first,
                   int64_t last, int64_t width, void* memory, float* scores) {
    keys(from, first, last, width, memory);
    score(rows, queries, memory, width, first, last, scores, kKeys);
  }

  // Weights of a block, in place: 64 pairs of their leading 8 bits, then 64 pairs of what is left.
  static void prepare(float* weights, int64_t) {
    __m512i high[4], low[4];
    for (int k = 0; k < 4; ++k) {
      const __m512 a = _mm512_loadu_ps(weights + 32 * k);
      const __m512 b = _mm512_loadu_ps(weights + 32 * k + 16);
      const __m512bh both = _mm512_cvtne2ps_pbh(b, a);
      high[k] = reinterpret_cast<__m512i>(both);
      const __m512i first =
          _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(high[k])), 16);
      const __m512i second =
          _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(high[k], 1)), 16);
      low[k] = reinterpret_cast<__m512i>(
          _mm512_cvtne2ps_pbh(b - _mm512_castsi512_ps(second), a - _mm512_castsi512_ps(first)));
    }
    for (int k = 0; k < 4; ++k) _mm512_storeu_si512(weights + 16 * k, high[k]);
    for (int k = 0; k < 4; ++k) _mm512_storeu_si512(weights + 64 + 16 * k, low[k]);
  }

  static void weigh(int64_t rows, const float* weights, int64_t step, const void* values,
                    int64_t first, int64_t last, int64_t width, float* out) {
    for (int64_t row = 0; row < rows; row += kRowsAtOnce) {
      for_count<kRowsAtOnce>(static_cast<int>(rows - row < kRowsAtOnce ? rows - row : kRowsAtOnce),
                             [&](auto r) {
        constexpr int R = decltype(r)::value;
        const float* w = weights + row * step;
        for (int64_t c = 0; c < width; c += 32) {
          __m512 sums[R][2];
#pragma GCC unroll 12
          for (int n = 0; n < R; ++n) sums[n][0] = sums[n][1] = _mm512_setzero_ps();
          for (int64_t u = first / 2; u < (last + 1) / 2; ++u) {
            const uint32_t* v = static_cast<const uint32_t*>(values) + u * width + c;
            const __m512bh left = reinterpret_cast<__m512bh>(_mm512_loadu_si512(v));
            const __m512bh right = reinterpret_cast<__m512bh>(_mm512_loadu_si512(v + 16));
#pragma GCC unroll 12
            for (int n = 0; n < R; ++n) {
              const __m512bh high = pair(w + n * step + u), low = pair(w + n * step + 64 + u);
              sums[n][0] = _mm512_dpbf16_ps(sums[n][0], left, high);
              sums[n][1] = _mm512_dpbf16_ps(sums[n][1], right, high);
              sums[n][0] = _mm512_dpbf16_ps(sums[n][0], left, low);
              sums[n][1] = _mm512_dpbf16_ps(sums[n][1], right, low);
            }
          }
#pragma GCC unroll 12
          for (int n = 0; n < R; ++n) {
            _mm512_storeu_ps(out + (row + n) * width + c, sums[n][0]);
            _mm512_storeu_ps(out + (row + n) * width + c + 16, sums[n][1]);
          }
        }
      });
    }
  }
};
#endif
