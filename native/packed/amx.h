// Products on tiles: a panel's 16 units of 64 bytes are such a tile as they lie. Included by
// avx512.cpp within its unnamed namespace.

inline int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }

// Tiles of inputs taken at a time, so that those of the rows and panels at hand stay in the
// second-level cache; and rows, so that their unfinished sums do.
constexpr int64_t kDeep = 96, kRowsKept = 512;

// Two tiles of rows, and how many of their 16 rows there are.
struct Rows {
  const uint8_t* x[2];
  int64_t upper, lower;
};

// Weights that will be needed after those at hand: a few lines are prefetched every step.
struct Later {
  const uint8_t *next, *end;

  void ask() {
    if (next >= end) return;
    _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T1);
    _mm_prefetch(reinterpret_cast<const char*>(next + 64), _MM_HINT_T1);
    next += 128;
  }
};

// sums[a][n] of A tiles of rows and N panels, over the inputs of tiles first..last-1 in their
// order, added to those of the tiles before.
template <class Dot, int A, int N>
inline void tile_sums(const Product& p, int64_t panel, const Rows& rows, int64_t first,
                      int64_t last, bool once, Later& later, uint8_t* sums) {
  const uint8_t* w = p.data + panel * p.panel_bytes + first * kTileBytes;
  const uint8_t* second = w + (N - 1) * p.panel_bytes;
  first ? load_sums<A, N>(sums, 64, kTileBytes, 2 * kTileBytes) : zero_sums<A, N>();
  const auto step = [&](const uint8_t* one, const uint8_t* other, int64_t at) {
    tile_load<6>(one, 64);
    if constexpr (N == 2) tile_load<7>(other, 64);
    add_products<Dot, A, N>(rows.x[0] + at, rows.x[1] + at, p.row_bytes);
  };
  const int64_t whole = p.panel_bytes / kTileBytes, left = p.panel_bytes % kTileBytes;
  for (int64_t t = first; t < last && t < whole; ++t, w += kTileBytes, second += kTileBytes) {
    if (once) {
#pragma GCC unroll 16
      for (int line = 0; line < 16; ++line) {
        _mm_prefetch(reinterpret_cast<const char*>(w + kAheadOfOne + line * 64), _MM_HINT_T0);
        if constexpr (N == 2) {
          _mm_prefetch(reinterpret_cast<const char*>(second + kAheadOfOne + line * 64),
                       _MM_HINT_T0);
        }
      }
    } else {
      later.ask();
    }
    step(w, second, 64 * t);
  }
  if (last > whole && left) {  // inputs behind the last count for nothing: zeros
    alignas(64) uint8_t ends[2][kTileBytes] = {};
    __builtin_memcpy(ends[0], w, static_cast<uint64_t>(left));
    if constexpr (N == 2) __builtin_memcpy(ends[1], second, static_cast<uint64_t>(left));
    step(ends[0], ends[1], 64 * whole);
  }
  keep_sums<A, N>(sums, 64, kTileBytes, 2 * kTileBytes);
}

// All rows, `height` at a time, meet the panels, two at a time: take(row) gives the rows,
// finish(row, panel, panels, sums) gets their sums, as [two tiles of rows][two panels][16 rows]
// [16 outputs].
template <class Dot, class Take, class Finish>
inline void tile_panels(const Product& p, int64_t first, int64_t last, int64_t height,
                        const Take& take, const Finish& finish) {
  const int64_t depth = (p.panel_bytes + kTileBytes - 1) / kTileBytes;
  const int64_t slabs = (depth + kDeep - 1) / kDeep;
  const int64_t pairs = (last - first + 1) / 2, most = lesser(p.rows, kRowsKept);
  const bool once = p.rows <= height;
  uint8_t* kept =
      scratch().get((slabs > 1 ? (most + height - 1) / height * pairs : 1) * 4 * kTileBytes);
  const int64_t after = lesser(last + (last - first), (p.out + kPanel - 1) / kPanel);
  Later later{p.data + last * p.panel_bytes, p.data + after * p.panel_bytes};
  Tiles tiles;
  for (int64_t begin = 0; begin < p.rows; begin += kRowsKept) {
    const int64_t stop = lesser(begin + kRowsKept, p.rows);
    for (int64_t slab = 0; slab < slabs; ++slab) {
      const int64_t from = depth * slab / slabs, to = depth * (slab + 1) / slabs;
      for (int64_t row = begin; row < stop; row += height) {
        const Rows rows = take(row);
        tiles.shape(rows.upper, rows.lower, 64);
        const auto block = [&](int64_t panel, auto panels) {
          constexpr int N = decltype(panels)::value;
          const int64_t place = (row - begin) / height * pairs + (panel - first) / 2;
          uint8_t* sums = kept + (slabs > 1 ? place : 0) * 4 * kTileBytes;
          rows.lower ? tile_sums<Dot, 2, N>(p, panel, rows, from, to, once, later, sums)
                     : tile_sums<Dot, 1, N>(p, panel, rows, from, to, once, later, sums);
          if (slab == slabs - 1) finish(row, panel, N, sums);
        };
        int64_t panel = first;
        for (; panel + 2 <= last; panel += 2) block(panel, Count<2>{});
        if (panel < last) block(panel, Count<1>{});
      }
    }
  }
}

// Up to 32 rows at once.
inline void tile_panels_bf16(const Product& p, int64_t first, int64_t last) {
  const auto take = [&](int64_t row) {
    const int64_t left = p.rows - row, upper = lesser(left, kTileRows);
    const uint8_t* x = p.prepared + row * p.row_bytes;
    return Rows{{x, x + kTileRows * p.row_bytes}, upper, lesser(left - upper, kTileRows)};
  };
  tile_panels<PairsDot>(p, first, last, 2 * kTileRows, take,
                        [&](int64_t row, int64_t panel, int panels, const uint8_t* sums) {
    const int64_t count = lesser(2 * kTileRows, p.rows - row);
    for (int64_t r = 0; r < count; ++r) {
      const uint8_t* at = sums + r / kTileRows * 2 * kTileBytes + r % kTileRows * 64;
      write(p, row + r, panel, _mm512_load_ps(at));
      if (panels == 2) write(p, row + r, panel + 1, _mm512_load_ps(at + kTileBytes));
    }
  });
}

// The high and the low bytes of 16 rows at once.
inline void tile_panels_int8(const Product& p, int64_t first, int64_t last) {
  const auto take = [&](int64_t row) {
    const uint8_t* high = p.prepared + row * p.row_bytes;
    const int64_t rows = lesser(p.rows - row, kTileRows);
    return Rows{{high, high + p.in_padded}, rows, rows};
  };
  tile_panels<BytesDot>(p, first, last, kTileRows, take,
                        [&](int64_t row, int64_t panel, int panels, const uint8_t* sums) {
    const int64_t count = lesser(kTileRows, p.rows - row);
    for (int64_t r = 0; r < count; ++r) {
      for (int n = 0; n < panels; ++n) {
        const uint8_t* high = sums + n * kTileBytes + r * 64;
        write_int8(p, row + r, panel + n, _mm512_load_si512(high),
                   _mm512_load_si512(high + 2 * kTileBytes));
      }
    }
  });
}

// A panel is unpacked once, then all rows go past it: a tile of sums for each group of inputs,
// scaled and added in the order of the groups.
template <int Bits, bool Low = false>
struct GroupTiles {
  static constexpr int kGroups = 4;  // whose sums are under way while those before them are added

  const Product& p;
  const int64_t groups = p.in_padded / kGroup;
  int8_t* weights =
      reinterpret_cast<int8_t*>(scratch().get(groups * (8 * 64 + 64) + 2 * kGroups * kTileBytes));
  float* scales = reinterpret_cast<float*>(weights + groups * 512);
  // Of 2 * kGroups groups in turn.
  int32_t* sums = reinterpret_cast<int32_t*>(scales + groups * kPanel);

  void unpack(int64_t panel) {
    constexpr int kFours = Values<Bits>::kFours;
    const __m512i middle = _mm512_set1_epi8(Bits == 4 ? 8 : Low ? 7 : 3);
    const uint8_t* w = p.data + panel * p.panel_bytes;
    const uint8_t* low = Low ? low_bits(p, w, 0) : nullptr;
    for (int64_t group = 0; group < groups; ++group) {
      const uint8_t* from = w + group / 2 * block_bytes(Bits);
#pragma GCC unroll 4
      for (int j = 0; j < Bits; ++j) {
        const __m512i all = _mm512_loadu_si512(from + (group % 2 * Bits + j) * 64);
        __m512i third = all;
        if constexpr (Low) third = _mm512_loadu_si512(low + group * (kLowBytes / 2));
#pragma GCC unroll 4
        for (int k = 0; k < kFours; ++k) {
          _mm512_store_si512(weights + group * 512 + (kFours * j + k) * 64,
                             _mm512_sub_epi8(Values<Bits, Low>::take(all, k, third, j), middle));
        }
      }
      _mm512_store_ps(scales + group * kPanel, halves(from + 128 * Bits + group % 2 * 32));
    }
  }

  template <int G>
  void dot(const uint8_t* x, int64_t group) const {
    if (group >= groups) return;
    tile_zero<G>();
    tile_load<4 + G % 2>(x + group * kGroup, p.row_bytes);
    tile_load<6 + G % 2>(weights + group * 512, 64);
    SignedDot::run<G, 4 + G % 2, 6 + G % 2>();
    tile_store<G>(sums + group % (2 * kGroups) * kTileRows * kPanel, 64);
  }

  void add(int64_t group, const float* steps, __m512 (&total)[kTileRows]) const {
    const __m512 scale = _mm512_load_ps(scales + group * kPanel);
    const int32_t* from = sums + group % (2 * kGroups) * kTileRows * kPanel;
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) {
      const __m512 step = _mm512_mul_ps(scale, _mm512_set1_ps(steps[r * groups + group]));
      total[r] =
          _mm512_fmadd_ps(step, _mm512_cvtepi32_ps(_mm512_load_si512(from + r * kPanel)), total[r]);
    }
  }

  void rows(int64_t panel, int64_t row, int64_t count) const {
    const uint8_t* x = p.prepared + row * p.row_bytes;
    const float* steps = p.group_scale + row * groups;
    __m512 total[kTileRows];
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) total[r] = _mm512_setzero_ps();
    dot<0>(x, 0);
    dot<1>(x, 1);
    dot<2>(x, 2);
    dot<3>(x, 3);
    for (int64_t group = 0; group < groups; group += kGroups) {
      dot<0>(x, group + 4);
      add(group, steps, total);
      dot<1>(x, group + 5);
      add(group + 1, steps, total);
      if (group + 2 == groups) break;
      dot<2>(x, group + 6);
      add(group + 2, steps, total);
      dot<3>(x, group + 7);
      add(group + 3, steps, total);
    }
    alignas(64) float out[kTileRows][kPanel];
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) _mm512_store_ps(out[r], total[r]);
    for (int64_t r = 0; r < count; ++r) write(p, row + r, panel, _mm512_load_ps(out[r]));
  }

  static void run(const Product& p, int64_t first, int64_t last) {
    GroupTiles work{p};
    Tiles tiles;
    for (int64_t panel = first; panel < last; ++panel) {
      work.unpack(panel);
      for (int64_t row = 0; row < p.rows; row += kTileRows) {
        const int64_t count = lesser(kTileRows, p.rows - row);
        tiles.shape(count, count, 32);
        work.rows(panel, row, count);
      }
    }
  }
};
