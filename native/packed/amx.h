// Products on tiles: a panel's 16 units of 64 bytes are such a tile as they lie. Included by avx512.cpp within its
// unnamed namespace.

constexpr int64_t kTileAhead = 2048;  // of weights that few rows meet, as kAhead

inline Scratch& scratch() {
  static thread_local Scratch held;
  return held;
}

// sums[a][n] of A tiles of rows, `row_bytes` apart, and N panels, added up in the order of the inputs.
template <class Dot, int A, int N>
inline void tile_sums(const Product& p, int64_t panel, const uint8_t* const (&x)[2], bool once, void* sums) {
  const uint8_t *w = p.data + panel * p.panel_bytes, *second = w + (N - 1) * p.panel_bytes;
  const int64_t whole = p.panel_bytes / kTileBytes, left = p.panel_bytes % kTileBytes;
  tile_zero<0>();
  if constexpr (N == 2) tile_zero<1>();
  if constexpr (A == 2) tile_zero<2>();
  if constexpr (A == 2 && N == 2) tile_zero<3>();
  const auto step = [&](const uint8_t* one, const uint8_t* other, int64_t at) {
    tile_load<6>(one, 64);
    if constexpr (N == 2) tile_load<7>(other, 64);
    tile_load<4>(x[0] + at, p.row_bytes);
    Dot::template run<0, 4, 6>();
    if constexpr (N == 2) Dot::template run<1, 4, 7>();
    if constexpr (A == 2) {
      tile_load<5>(x[1] + at, p.row_bytes);
      Dot::template run<2, 5, 6>();
      if constexpr (N == 2) Dot::template run<3, 5, 7>();
    }
  };
  for (int64_t t = 0; t < whole; ++t, w += kTileBytes, second += kTileBytes) {
    if (once) {
#pragma GCC unroll 16
      for (int line = 0; line < 16; ++line) {
        _mm_prefetch(reinterpret_cast<const char*>(w + kTileAhead + line * 64), _MM_HINT_T0);
        if constexpr (N == 2) _mm_prefetch(reinterpret_cast<const char*>(second + kTileAhead + line * 64), _MM_HINT_T0);
      }
    }
    step(w, second, 64 * t);
  }
  if (left) {  // inputs behind the last count for nothing: zeros
    alignas(64) uint8_t ends[2][kTileBytes] = {};
    __builtin_memcpy(ends[0], w, static_cast<uint64_t>(left));
    if constexpr (N == 2) __builtin_memcpy(ends[1], second, static_cast<uint64_t>(left));
    step(ends[0], ends[1], 64 * whole);
  }
  uint8_t* to = static_cast<uint8_t*>(sums);
  tile_store<0>(to, 64);
  if constexpr (N == 2) tile_store<1>(to + kTileBytes, 64);
  if constexpr (A == 2) tile_store<2>(to + 2 * kTileBytes, 64);
  if constexpr (A == 2 && N == 2) tile_store<3>(to + 3 * kTileBytes, 64);
}

// Up to 32 rows at once.
inline void tile_panels_bf16(const Product& p, int64_t first, int64_t last) {
  Tiles tiles;
  alignas(64) float sums[4][kTileRows][kPanel];
  for (int64_t row = 0; row < p.rows; row += 2 * kTileRows) {
    const int64_t left = p.rows - row, upper = left < kTileRows ? left : kTileRows;
    const int64_t lower = left - upper < kTileRows ? left - upper : kTileRows;
    tiles.shape(upper, lower, 64);
    const uint8_t* const x[2] = {p.prepared + row * p.row_bytes, p.prepared + (row + kTileRows) * p.row_bytes};
    const auto block = [&](int64_t panel, auto panels) {
      constexpr int N = decltype(panels)::value;
      const bool once = p.rows <= 2 * kTileRows;
      lower ? tile_sums<PairsDot, 2, N>(p, panel, x, once, sums) : tile_sums<PairsDot, 1, N>(p, panel, x, once, sums);
      for (int n = 0; n < N; ++n) {
        for (int64_t r = 0; r < upper; ++r) write(p, row + r, panel + n, _mm512_load_ps(sums[n][r]));
        for (int64_t r = 0; r < lower; ++r) write(p, row + kTileRows + r, panel + n, _mm512_load_ps(sums[2 + n][r]));
      }
    };
    int64_t panel = first;
    for (; panel + 2 <= last; panel += 2) block(panel, Count<2>{});
    if (panel < last) block(panel, Count<1>{});
  }
}

// The high and the low bytes of 16 rows at once.
inline void tile_panels_int8(const Product& p, int64_t first, int64_t last) {
  Tiles tiles;
  alignas(64) int32_t sums[4][kTileRows][kPanel];
  for (int64_t row = 0; row < p.rows; row += kTileRows) {
    const int64_t left = p.rows - row, rows = left < kTileRows ? left : kTileRows;
    tiles.shape(rows, rows, 64);
    const uint8_t* const high = p.prepared + row * p.row_bytes;
    const uint8_t* const x[2] = {high, high + p.in_padded};
    const auto block = [&](int64_t panel, auto panels) {
      constexpr int N = decltype(panels)::value;
      tile_sums<BytesDot, 2, N>(p, panel, x, p.rows <= kTileRows, sums);
      for (int n = 0; n < N; ++n) {
        for (int64_t r = 0; r < rows; ++r) {
          write_int8(p, row + r, panel + n, _mm512_load_si512(sums[n][r]), _mm512_load_si512(sums[2 + n][r]));
        }
      }
    };
    int64_t panel = first;
    for (; panel + 2 <= last; panel += 2) block(panel, Count<2>{});
    if (panel < last) block(panel, Count<1>{});
  }
}

// A panel is unpacked once, then all rows go past it: a tile of sums for each group of inputs, scaled and added in the
// order of the groups.
template <bool Min>
struct Int4Tiles {
  static constexpr int kGroups = 4;  // whose sums are under way while those before them are added

  const Product& p;
  const int64_t groups = p.in_padded / kGroup4;
  int8_t* weights = reinterpret_cast<int8_t*>(scratch().get(groups * (8 * 64 + 2 * 64) + 2 * kGroups * kTileBytes));
  float *scales = reinterpret_cast<float*>(weights + groups * 512), *least = scales + groups * kPanel;
  int32_t* sums = reinterpret_cast<int32_t*>(least + groups * kPanel);  // of 2 * kGroups groups in turn

  void unpack(int64_t panel) {
    const __m512i nibble = _mm512_set1_epi8(15), middle = _mm512_set1_epi8(Min ? 0 : 8);
    const uint8_t* w = p.data + panel * p.panel_bytes;
    for (int64_t group = 0; group < groups; ++group) {
      const uint8_t* from = w + group / 2 * (Min ? 640 : 576);
      for (int j = 0; j < 4; ++j) {
        const __m512i both = _mm512_loadu_si512(from + group % 2 * 256 + j * 64);
        const __m512i low = _mm512_and_si512(both, nibble), high = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
        _mm512_store_si512(weights + group * 512 + j * 128, _mm512_sub_epi8(low, middle));
        _mm512_store_si512(weights + group * 512 + j * 128 + 64, _mm512_sub_epi8(high, middle));
      }
      _mm512_store_ps(scales + group * kPanel, halves(from + 512 + group % 2 * 32));
      if constexpr (Min) _mm512_store_ps(least + group * kPanel, halves(from + 576 + group % 2 * 32));
    }
  }

  template <int G>
  void dot(const uint8_t* x, int64_t group) const {
    if (group >= groups) return;
    tile_zero<G>();
    tile_load<4 + G % 2>(x + group * kGroup4, p.row_bytes);
    tile_load<6 + G % 2>(weights + group * 512, 64);
    SignedDot::run<G, 4 + G % 2, 6 + G % 2>();
    tile_store<G>(sums + group % (2 * kGroups) * kTileRows * kPanel, 64);
  }

  void add(int64_t group, const float* steps, const float* wholes, __m512 (&total)[kTileRows]) const {
    const __m512 scale = _mm512_load_ps(scales + group * kPanel), low = _mm512_load_ps(least + group * kPanel);
    const int32_t* from = sums + group % (2 * kGroups) * kTileRows * kPanel;
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) {
      if constexpr (Min) total[r] = _mm512_fmadd_ps(low, _mm512_set1_ps(wholes[r * groups + group]), total[r]);
      const __m512 step = _mm512_mul_ps(scale, _mm512_set1_ps(steps[r * groups + group]));
      total[r] = _mm512_fmadd_ps(step, _mm512_cvtepi32_ps(_mm512_load_si512(from + r * kPanel)), total[r]);
    }
  }

  void rows(int64_t panel, int64_t row, int64_t count) const {
    const uint8_t* x = p.prepared + row * p.row_bytes;
    const float *steps = p.group_scale + row * groups, *wholes = p.group_sum + row * groups;
    __m512 total[kTileRows];
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) total[r] = _mm512_setzero_ps();
    dot<0>(x, 0);
    dot<1>(x, 1);
    dot<2>(x, 2);
    dot<3>(x, 3);
    for (int64_t group = 0; group < groups; group += kGroups) {
      dot<0>(x, group + 4);
      add(group, steps, wholes, total);
      dot<1>(x, group + 5);
      add(group + 1, steps, wholes, total);
      if (group + 2 == groups) break;
      dot<2>(x, group + 6);
      add(group + 2, steps, wholes, total);
      dot<3>(x, group + 7);
      add(group + 3, steps, wholes, total);
    }
    alignas(64) float out[kTileRows][kPanel];
#pragma GCC unroll 16
    for (int r = 0; r < kTileRows; ++r) _mm512_store_ps(out[r], total[r]);
    for (int64_t r = 0; r < count; ++r) write(p, row + r, panel, _mm512_load_ps(out[r]));
  }

  static void run(const Product& p, int64_t first, int64_t last) {
    Int4Tiles work{p};
    Tiles tiles;
    for (int64_t panel = first; panel < last; ++panel) {
      work.unpack(panel);
      for (int64_t row = 0; row < p.rows; row += kTileRows) {
        const int64_t count = p.rows - row < kTileRows ? p.rows - row : kTileRows;
        tiles.shape(count, count, 32);
        work.rows(panel, row, count);
      }
    }
  }
};
