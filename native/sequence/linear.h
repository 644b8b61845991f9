// Products with weights as they lie in a checkpoint, (O, I) row by row: each output is summed along
// the inputs in an order of its own, so a row has the same bits however many are computed with it.
// Packed weights are faster for few rows.

constexpr int64_t kOutputs = 64;  // in a piece

// What is multiplied at once along the inputs, and how.
template <class X>
struct Along {
  using V = Vec<Wide<X>>;
  static constexpr int64_t kInputs = kWidth<Wide<X>>;
  static V take(const X* from, int64_t count) { return load(from, count); }
  static V add(V sum, V x, V w) { return sum + x * w; }
};
#if defined(__AVX512BF16__)
template <>
struct Along<Bf16> {
  using V = __m512i;
  static constexpr int64_t kInputs = 32;
  static V take(const Bf16* from, int64_t count) {
    return count >= kInputs ? _mm512_loadu_si512(from)
                            : _mm512_maskz_loadu_epi16((1u << count) - 1, from);
  }
  static Vec<float> add(Vec<float> sum, V x, V w) {
    return reinterpret_cast<Vec<float>>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum),
                                                         reinterpret_cast<__m512bh>(x),
                                                         reinterpret_cast<__m512bh>(w)));
  }
};
#endif

// sums[r][c] += products of R rows and kColumns outputs along `count` inputs.
template <int R, class X>
inline void along(const X* x, int64_t in, const X* const (&w)[kColumns], int64_t count, bool begin,
                  Vec<Wide<X>> (*sums)[kColumns]) {
  using A = Along<X>;
  Vec<Wide<X>> sum[R][kColumns];
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < kColumns; ++c) sum[r][c] = begin ? Vec<Wide<X>>{} : sums[r][c];
  }
  const auto step = [&](int64_t i, int64_t left) {
    typename A::V weights[kColumns];
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) weights[c] = A::take(w[c] + i, left);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const typename A::V row = A::take(x + r * in + i, left);
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) sum[r][c] = A::add(sum[r][c], row, weights[c]);
    }
  };
  int64_t i = 0;
  for (; i + A::kInputs <= count; i += A::kInputs) step(i, A::kInputs);
  if (i < count) step(i, count - i);
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < kColumns; ++c) sums[r][c] = sum[r][c];
  }
}

// values[o] = the sum of the lanes of output o, of which kColumns lie together and the next ones
// kRows further on.
template <class T>
inline void sum_lanes(Vec<T> (*sums)[kColumns], int64_t outputs, T* values) {
  for (int64_t o = 0; o < outputs; ++o) {
    values[o] = sum_of<T>(sums[o / kColumns * kRows][o % kColumns]);
  }
}
#if defined(__AVX2__) && !defined(__AVX512F__)
// Lane by lane it would be most of the work of few inputs, as an adapter's rank is.
template <>
inline void sum_lanes<float>(Vec<float> (*sums)[kColumns], int64_t outputs, float* values) {
  static_assert(kColumns == 4);
  for (int64_t o = 0; o < outputs; o += kColumns) {
    const Vec<float>* v = sums[o / kColumns * kRows];
    const auto both = [&](int c) {
      return _mm256_hadd_ps(reinterpret_cast<__m256>(v[c]), reinterpret_cast<__m256>(v[c + 1]));
    };
    const __m256 halves = _mm256_hadd_ps(both(0), both(2));
    _mm_storeu_ps(values + o,
                  _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1)));
  }
}
#endif

template <class X>
inline void linear(const Linear& n, int64_t first, int64_t last) {
  using T = Wide<X>;
  // Of many rows so many inputs at a time as leave those of kRows rows in the first-level cache.
  const int64_t slab = n.rows > kRows ? 512 : n.in;
  auto* sums = reinterpret_cast<Vec<T>(*)[kColumns]>(
      scratch().get(kOutputs * kRows * static_cast<int64_t>(sizeof(Vec<T>))));
  for (int64_t piece = first; piece < last; ++piece) {
    const int64_t output = piece * kOutputs, outputs = lesser(kOutputs, n.out - output);
    for (int64_t row = 0; row < n.rows; row += kRows) {
      const X* x = static_cast<const X*>(n.x) + row * n.in;
      const int rows = static_cast<int>(lesser(kRows, n.rows - row));
      for_count<kRows>(rows, [&](auto r) {
        for (int64_t i = 0; i < n.in; i += slab) {
          for (int64_t o = 0; o < outputs; o += kColumns) {
            const X* w[kColumns];
            for (int64_t c = 0; c < kColumns; ++c) {  // behind the last output, the last again
              w[c] = static_cast<const X*>(n.w) + (output + lesser(o + c, outputs - 1)) * n.in + i;
            }
            along<decltype(r)::value>(x + i, n.in, w, lesser(slab, n.in - i), i == 0,
                                      sums + o / kColumns * kRows);
          }
        }
      });
      for (int r = 0; r < rows; ++r) {
        T values[kOutputs];
        sum_lanes<T>(sums + r, outputs, values);
        for (int64_t o = 0; o < outputs; o += kWidth<T>) {
          Vec<T> value = load(values + o, outputs - o);
          if (n.bias) value += load(static_cast<const X*>(n.bias) + output + o, outputs - o);
          store(static_cast<X*>(n.y) + (row + r) * n.out + output + o, value, outputs - o);
        }
      }
    }
  }
}

#if defined(__AMX_TILE__)
// bfloat16 on tiles: rows of weights lie as those of activations do, so here they take their place,
// and x is laid out as weights usually are: panels of 16 rows, pairs of inputs side by side, 32
// inputs a tile.
inline int64_t tiled_panel(const Linear& n) { return (n.in + 31) / 32 * kTileBytes; }

inline void tiled_prepare(const Linear& n, int64_t first, int64_t last) {
  for (int64_t panel = first; panel < last; ++panel) {
    uint8_t* to = n.memory + panel * tiled_panel(n);
    const int64_t row = panel * kTileRows, rows = lesser(kTileRows, n.rows - row);
    for (int64_t i = 0; i < n.in; i += 32, to += kTileBytes) {
      __m512i pairs[16];
      for (int64_t r = 0; r < kTileRows; ++r) {
        const Bf16* from = static_cast<const Bf16*>(n.x) + (row + r) * n.in + i;
        pairs[r] = r < rows ? Along<Bf16>::take(from, n.in - i) : _mm512_setzero_si512();
      }
      Pairs::transpose(pairs);
      for (int k = 0; k < 16; ++k) _mm512_storeu_si512(to + k * 64, pairs[k]);
    }
  }
}

// A tiles of outputs with N panels of rows.
template <int A, int N>
inline void tiled_block(const Linear& n, int64_t output, const uint8_t* x, uint8_t* sums) {
  const uint8_t* w = static_cast<const uint8_t*>(n.w) + output * n.in * 2;
  const int64_t row_bytes = n.in * 2, panel = tiled_panel(n), whole = n.in / 32;
  zero_sums<A, N>();
  const auto step = [&](const uint8_t* upper, const uint8_t* lower, int64_t stride) {
    tile_load<6>(x, 64);
    if constexpr (N == 2) tile_load<7>(x + panel, 64);
    add_products<PairsDot, A, N>(upper, lower, stride);
    x += kTileBytes;
  };
  for (int64_t t = 0; t < whole; ++t) {
    step(w + t * 64, w + kTileRows * row_bytes + t * 64, row_bytes);
  }
  if (n.in % 32) {  // only of these rows: behind the last may be no memory
    alignas(64) uint8_t ends[2][kTileBytes];
    for (int64_t r = 0; r < A * kTileRows; ++r) {
      const Bf16* from = reinterpret_cast<const Bf16*>(w + r * row_bytes) + whole * 32;
      const bool there = output + r < n.out;
      _mm512_store_si512(ends[0] + r * 64,
                         there ? Along<Bf16>::take(from, n.in % 32) : _mm512_setzero_si512());
    }
    step(ends[0], ends[1], 64);
  }
  keep_sums<A, N>(sums, 64, kTileBytes, 2 * kTileBytes);
}

inline void tiled_linear(const Linear& n, int64_t first, int64_t last) {
  alignas(64) uint8_t sums[4][kTileBytes];
  const int64_t end = lesser(last * kOutputs, n.out);
  Tiles tiles;
  for (int64_t row = 0; row < n.rows; row += 2 * kTileRows) {
    const uint8_t* x = n.memory + row / kTileRows * tiled_panel(n);
    const bool two_panels = n.rows - row > kTileRows;
    for (int64_t output = first * kOutputs; output < end; output += 2 * kTileRows) {
      const int64_t upper = lesser(kTileRows, end - output);
      const int64_t lower = lesser(kTileRows, end - output - upper);
      tiles.shape(upper, lower, 64);
      if (lower) {
        two_panels ? tiled_block<2, 2>(n, output, x, sums[0])
                   : tiled_block<2, 1>(n, output, x, sums[0]);
      } else {
        two_panels ? tiled_block<1, 2>(n, output, x, sums[0])
                   : tiled_block<1, 1>(n, output, x, sums[0]);
      }
      for (int64_t tile = 0; tile < 4; ++tile) {
        const int64_t from = row + tile % 2 * kTileRows, rows = lesser(kTileRows, n.rows - from);
        const int64_t at = output + tile / 2 * kTileRows, outputs = tile < 2 ? upper : lower;
        if (rows <= 0 || !outputs) continue;
        __m512i turned[16];
        for (int k = 0; k < 16; ++k) turned[k] = _mm512_load_si512(sums[tile] + k * 64);
        Pairs::transpose(turned);
        for (int64_t r = 0; r < rows; ++r) {
          Vec<float> value = reinterpret_cast<Vec<float>>(turned[r]);
          if (n.bias) value += load(static_cast<const Bf16*>(n.bias) + at, outputs);
          store(static_cast<Bf16*>(n.y) + (from + r) * n.out + at, value, outputs);
        }
      }
    }
  }
}
#endif

inline int64_t linear_bytes(const Linear& n) {
#if defined(__AMX_TILE__)
  if (n.type == Type::bf16) return (n.rows + kTileRows - 1) / kTileRows * tiled_panel(n);
#endif
  (void)n;
  return 0;
}

// What `linear` needs first where linear_bytes is not 0.
inline void linear_prepare(const Linear& n, int64_t first, int64_t last) {
#if defined(__AMX_TILE__)
  return tiled_prepare(n, first, last);
#endif
  (void)n, (void)first, (void)last;
}

inline void linear_of_bf16(const Linear& n, int64_t first, int64_t last) {
#if defined(__AMX_TILE__)
  tiled_linear(n, first, last);
#else
  linear<Bf16>(n, first, last);
#endif
}
