// Attention's blocks on tiles: laid out as Pairs are, and multiplied 32 rows by 32 columns at a
// time.

struct TiledPairs : Pairs {
  // Pairs of values that are no keys are zeros as far as their tile goes: a weight of 0 times
  // whatever lies in memory could be NaN.
  static void values(const Bf16* const* from, int64_t first, int64_t last, int64_t width,
                     void* to) {
    Pairs::values(from, first, last, width, to);
    uint32_t* out = static_cast<uint32_t*>(to);
    const auto clear = [&](int64_t begin, int64_t end) {
      __builtin_memset(out + begin * width, 0, static_cast<uint64_t>(4 * (end - begin) * width));
    };
    clear(first / 2 & ~15, first / 2);
    clear((last + 1) / 2, (last + 31) / 32 * 16);
  }

  // Call fn(row, one or two tiles of rows) for all rows, with the tiles in shape.
  template <class Fn>
  static void by_rows(int64_t rows, const Fn& fn) {
    Tiles tiles;
    for (int64_t row = 0; row < rows; row += 2 * kTileRows) {
      const int64_t upper = lesser(kTileRows, rows - row);
      const int64_t lower = lesser(kTileRows, rows - row - upper);
      tiles.shape(upper, lower, 64);
      lower ? fn(row, Count<2>{}) : fn(row, Count<1>{});
    }
  }

  template <int A, class X>
  static void add(const X* rows, int64_t step) {
    add_products<PairsDot, A, 2>(rows, reinterpret_cast<const uint8_t*>(rows) + kTileRows * step,
                                 step);
  }
  template <int A>
  static void keep(float* to, int64_t step) {
    keep_sums<A, 2>(reinterpret_cast<uint8_t*>(to), step * 4, 64, kTileRows * step * 4);
  }

  static void score(int64_t rows, const void* queries, const void* keys, int64_t width,
                    int64_t first, int64_t last, float* scores, int64_t step) {
    by_rows(rows, [&](int64_t row, auto count) {
      constexpr int A = decltype(count)::value;
      const Bf16* q = static_cast<const Bf16*>(queries) + row * width;
      for (int64_t s = first / 32 * 32; s < last; s += 32) {
        const uint32_t* k = static_cast<const uint32_t*>(keys) + s;
        zero_sums<A, 2>();
        for (int64_t c = 0; c < width; c += 32, k += 16 * kKeys) {
          tile_load<6>(k, kKeys * 4);
          tile_load<7>(k + 16, kKeys * 4);
          add<A>(q + c, width * 2);
        }
        keep<A>(scores + row * step + s, step);
      }
    });
  }

  // The same without laying out the keys: here they are the rows, as they lie in memory, and the
  // few queries are the columns. A product's factors may change places, so the bits are those of
  // `score`.
  static void meet(int64_t rows, const void* queries, const Bf16* const* from, int64_t first,
                   int64_t last, int64_t width, void* memory, float* scores) {
    // 16 queries: pairs of inputs side by side, 32 inputs a tile.
    uint8_t* laid = static_cast<uint8_t*>(memory);
    Tiles tiles;
    tiles.shape(kTileRows, kTileRows, 64);
    for (int64_t row = 0; row < rows; row += kTileRows) {
      const int64_t count = lesser(kTileRows, rows - row);
      const Bf16* q = static_cast<const Bf16*>(queries) + row * width;
      for (int64_t c = 0; c < width; c += 32) {
        __m512i pairs[16];
        for (int k = 0; k < 16; ++k) {
          pairs[k] = k < count ? _mm512_loadu_si512(q + k * width + c) : _mm512_setzero_si512();
        }
        transpose(pairs);
        for (int k = 0; k < 16; ++k) _mm512_storeu_si512(laid + c * 32 + k * 64, pairs[k]);
      }
      // Scores of no keys are never looked at.
      for (int64_t s = first / 32 * 32; s < last; s += 2 * kTileRows) {
        alignas(64) float sums[2][kTileRows][kTileRows];
        const Bf16* keys[2];
        int64_t step[2];
        for (int half = 0; half < 2; ++half) {
          const int64_t begin = s + half * kTileRows;
          keys[half] = in_step(from, begin, first, last, step[half]);
          if (keys[half]) continue;
          Bf16* copy = reinterpret_cast<Bf16*>(laid + width * 32) + half * kTileRows * width;
          for (int64_t k = 0; k < kTileRows; ++k) {
            const bool there = begin + k >= first && begin + k < last;
            const uint64_t bytes = static_cast<uint64_t>(width) * 2;
            there ? static_cast<void>(__builtin_memcpy(copy + k * width, from[begin + k], bytes))
                  : static_cast<void>(__builtin_memset(copy + k * width, 0, bytes));
          }
          keys[half] = copy;
          step[half] = width * 2;
        }
        // A column of a tile is far from the next in memory: the hardware does not foresee what is
        // needed next.
        for (int64_t k = s + 2 * kTileRows; k < last && k < s + 4 * kTileRows; ++k) {
          for (int64_t c = 0; k >= first && c < width; c += 32) {
            _mm_prefetch(from[k] + c, _MM_HINT_T0);
          }
        }
        tile_zero<0>();
        tile_zero<1>();
        for (int64_t c = 0; c < width; c += 32) {
          tile_load<6>(laid + c * 32, 64);
          tile_load<4>(keys[0] + c, step[0]);
          tile_load<5>(keys[1] + c, step[1]);
          PairsDot::run<0, 4, 6>();
          PairsDot::run<1, 5, 6>();
        }
        tile_store<0>(sums[0], 64);
        tile_store<1>(sums[1], 64);
        for (int half = 0; half < 2; ++half) {
          __m512i turned[16];
          for (int k = 0; k < 16; ++k) turned[k] = _mm512_load_si512(sums[half][k]);
          transpose(turned);
          for (int64_t k = 0; k < count; ++k) {
            _mm512_storeu_si512(scores + (row + k) * kKeys + s + half * kTileRows, turned[k]);
          }
        }
      }
    }
  }

  // Where 16 keys begin if all are there and equally far apart, by `step` bytes; otherwise null.
  static const Bf16* in_step(const Bf16* const* from, int64_t begin, int64_t first, int64_t last,
                             int64_t& step) {
    if (begin < first || begin + kTileRows > last) return nullptr;
    const int64_t apart = from[begin + 1] - from[begin];
    for (int64_t k = 1; k < kTileRows; ++k) {
      if (from[begin + k] - from[begin + k - 1] != apart) return nullptr;
    }
    step = apart * 2;
    return from[begin];
  }

  static void weigh(int64_t rows, const float* weights, int64_t step, const void* values,
                    int64_t first, int64_t last, int64_t width, float* out) {
    by_rows(rows, [&](int64_t row, auto count) {
      constexpr int A = decltype(count)::value;
      const float* w = weights + row * step;
      for (int64_t c = 0; c < width; c += 32) {
        zero_sums<A, 2>();
        for (int64_t u = first / 2 & ~15; u < (last + 1) / 2; u += 16) {
          const uint32_t* v = static_cast<const uint32_t*>(values) + u * width + c;
          tile_load<6>(v, width * 4);
          tile_load<7>(v + 16, width * 4);
          add<A>(w + u, step * 4);       // the weights' leading bits
          add<A>(w + 64 + u, step * 4);  // and what is left
        }
        keep<A>(out + row * width + c, width);
      }
    });
  }
};
