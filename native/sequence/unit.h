// The RG-LRU: gates, decay and scan without a pass over memory between them, and the gradient of
// all but the gates' products.

constexpr double kDecayScale = 8;  // the paper's c
constexpr double kSlopeFloor = 1e-6;  // 1000^-2: where the square root's gradient stops growing

template <class T>
struct Decay {
  Vec<T> i, r, a, rest;  // sigmoids of the gates, a, 1 - a^2

  Decay(Vec<T> gate_i, Vec<T> gate_r, Vec<T> rate) {
    i = sigmoid<T>(gate_i);
    r = sigmoid<T>(gate_r);
    const Vec<T> less = exp_minus_1(r * rate * T(-kDecayScale));  // a - 1, with all its digits
    a = less + T(1);
    rest = -less * (less + T(2));
  }
};

template <class T>
inline Vec<T> advance(Vec<T> h, Vec<T> x, const Decay<T>& d, int64_t position) {
  if (position < 0) return h;
  const Vec<T> input = d.i * x;
  if (position == 0) return input;
  return d.a * h + square_root<T>(d.rest) * input;
}

template <class X>
inline Vec<Wide<X>> rate_of(const Unit& u, int64_t channel, int64_t count) {
  return softplus(load(static_cast<const X*>(u.param) + channel, count));
}

// One channel vector of one step: from the gates' sums to h.
template <class X>
inline Vec<Wide<X>> unit_step(const Unit& u, int64_t step, int64_t channel, int64_t count,
                              Vec<Wide<X>> h, Vec<Wide<X>> gate_i, Vec<Wide<X>> gate_r,
                              Vec<Wide<X>> rate, const X* x) {
  using T = Wide<X>;
  const Decay<T> decay(gate_i + load(static_cast<const X*>(u.bi) + channel, count),
                       gate_r + load(static_cast<const X*>(u.br) + channel, count), rate);
  h = advance<T>(h, load(x, count), decay, u.position[step]);
  store(static_cast<X*>(u.h) + step * u.width + channel, h, count);
  if (u.every && (step + 1) % u.steps) {
    store(static_cast<T*>(u.every) + (step - step / u.steps) * u.width + channel, h, count);
  }
  return h;
}

#if defined(__AMX_TILE__)
// bfloat16 gates are multiplied on tiles where their blocks fill them, so one token is summed in
// the order of tiles. As wide_tile: of 32 inputs the even and the odd ones apart, then both are
// added, as one instruction does with a tile.
inline void paired_tile(const float* x, const Bf16* w, int64_t size, Vec<float>* sums) {
  constexpr int W = kWidth<float>, kSome = 8;
  for (int c = 0; c < kWideColumns; ++c) sums[c] = Vec<float>{};
  for (int64_t i = 0; i < size; i += 32) {
    for (int from = 0; from < kWideColumns; from += kSome) {
      Vec<float> even[kSome] = {}, odd[kSome] = {};
      for (int64_t k = i; k < i + 32; k += 2) {
        const Bf16* row = w + k * size + from * W;
        // Of the next 32 inputs; behind the last ones the prefetch is wasted.
        const Bf16* later = row + 32 * size;
#pragma GCC unroll 4
        for (int c = 0; c < kSome; c += 2) {
          _mm_prefetch(later + c * W, _MM_HINT_T0);
          _mm_prefetch(later + size + c * W, _MM_HINT_T0);
        }
#pragma GCC unroll 8
        for (int c = 0; c < kSome; ++c) {
          even[c] += load(row + c * W, W) * x[k];
          odd[c] += load(row + size + c * W, W) * x[k + 1];
        }
      }
#pragma GCC unroll 8
      for (int c = 0; c < kSome; ++c) sums[from + c] += even[c] + odd[c];
    }
  }
}
#endif

// One token of one row, a whole block's channels at a time: the gates' weights are read in one
// stream.
template <class X>
inline void unit_of_one(const Unit& u, int64_t block, int64_t size) {
  using T = Wide<X>;
  constexpr int W = kWidth<T>;
  const X* wi = static_cast<const X*>(u.wi) + block * size * size;
  const X* wr = static_cast<const X*>(u.wr) + block * size * size;
  const X* x = static_cast<const X*>(u.x) + block * size;
  T wide[kLargestGate];
  for (int64_t n = 0; n < size; ++n) wide[n] = widen(x[n]);
  for (int64_t inner = 0; inner < size; inner += kWideColumns * W) {
    Vec<T> gate_i[kWideColumns], gate_r[kWideColumns];
#if defined(__AMX_TILE__)
    if constexpr (__is_same(X, Bf16)) {
      paired_tile(wide, wi + inner, size, gate_i);
      paired_tile(wide, wr + inner, size, gate_r);
    } else
#endif
    {
      wide_tile<X>(wide, wi + inner, size, size, gate_i);
      wide_tile<X>(wide, wr + inner, size, size, gate_r);
    }
    for (int c = 0; c < kWideColumns; ++c) {
      const int64_t at = inner + c * W, channel = block * size + at;
      const Vec<T> h = load(static_cast<const T*>(u.h0) + channel, W);
      const Vec<T> next = unit_step<X>(u, 0, channel, W, h, gate_i[c], gate_r[c],
                                       rate_of<X>(u, channel, W), x + at);
      store(static_cast<T*>(u.last) + channel, next, W);
    }
  }
}

#if defined(__AMX_TILE__)
// What `unit` does, on tiles: 16 rows or steps at a time, the piece's part of the gates' weights in
// pairs of inputs.
inline void tiled_unit(const Unit& u, int64_t first, int64_t last) {
  constexpr int W = kWidth<float>;
  constexpr int64_t L = kLanes<float>;
  const int64_t size = u.width / u.blocks, chunks = (size + L - 1) / L, pairs = size / 2;
  const bool together = u.steps == 1;
  const int64_t items = together ? u.rows : u.steps;
  // (gate, pair, channel)
  auto* laid = reinterpret_cast<uint32_t(*)[L]>(scratch().get(2 * pairs * L * 4));
  alignas(64) float sums[2][kTileRows][L];
  Tiles tiles;
  for (int64_t piece = first; piece < last; ++piece) {
    const int64_t from = together ? 0 : piece / (u.blocks * chunks);
    const int64_t block = piece / chunks % u.blocks;
    if (together && piece >= u.blocks * chunks) return;
    const int64_t inner = piece % chunks * L;
    const int64_t channel = block * size + inner;
    const int64_t lanes = lesser(L, size - inner);
    for (int gate = 0; gate < 2; ++gate) {
      const Bf16* w = static_cast<const Bf16*>(gate ? u.wr : u.wi) + block * size * size + inner;
      for (int64_t n = 0; n < pairs; ++n) {
        for (int64_t c = 0; c < lanes; c += 32) {
          Pairs::interleave(w + 2 * n * size + c, w + (2 * n + 1) * size + c,
                            laid[gate * pairs + n] + c);
        }
      }
    }
    Vec<float> h[kColumns], rate[kColumns];
    for (int c = 0; c < lanes / W; ++c) rate[c] = rate_of<Bf16>(u, channel + c * W, W);
    for (int64_t t = 0; t < items; t += kTileRows) {
      const int64_t rows = lesser(kTileRows, items - t);
      const Bf16* x = static_cast<const Bf16*>(u.x) + (from * u.steps + t) * u.width + block * size;
      tiles.shape(rows, rows, 64);
      for (int gate = 0; gate < 2; ++gate) {
        zero_sums<2, 2>();
        for (int64_t n = 0; n < pairs; n += 16) {
          const uint32_t* w = laid[gate * pairs + n];
          tile_load<4>(x + 2 * n, u.width * 2);
          tile_load<6>(w, L * 4);
          tile_load<7>(w + 16, L * 4);
          PairsDot::run<0, 4, 6>();
          PairsDot::run<1, 4, 7>();
          if (lanes < L) continue;
          tile_load<6>(w + 32, L * 4);
          tile_load<7>(w + 48, L * 4);
          PairsDot::run<2, 4, 6>();
          PairsDot::run<3, 4, 7>();
        }
        tile_store<0>(sums[gate][0], L * 4);
        tile_store<1>(sums[gate][0] + 16, L * 4);
        tile_store<2>(sums[gate][0] + 32, L * 4);
        tile_store<3>(sums[gate][0] + 48, L * 4);
      }
      for (int64_t k = 0; k < rows; ++k) {
        const int64_t step = from * u.steps + t + k;
        const int64_t row = together ? t + k : from;
        const int64_t at = row * u.width + channel;
        const Bf16* own = static_cast<const Bf16*>(u.x) + step * u.width + channel;
        for (int c = 0; c < lanes / W; ++c) {
          if (together || t + k == 0) h[c] = load(static_cast<const float*>(u.h0) + at + c * W, W);
          h[c] = unit_step<Bf16>(u, step, channel + c * W, W, h[c], load(sums[0][k] + c * W, W),
                                 load(sums[1][k] + c * W, W), rate[c], own + c * W);
          if (together || t + k == u.steps - 1) {
            store(static_cast<float*>(u.last) + at + c * W, h[c], W);
          }
        }
      }
    }
  }
}
#endif

// Pieces of blocks and, within them, of kLanes channels; of rows too, unless each has one step:
// then rows go past the gates' weights together.
template <class X>
inline void unit(const Unit& u, int64_t first, int64_t last) {
  using T = Wide<X>;
  constexpr int W = kWidth<T>;
  constexpr int64_t L = kLanes<T>;
  const int64_t size = u.width / u.blocks, chunks = (size + L - 1) / L;
  if (u.rows == 1 && u.steps == 1 && size % (kWideColumns * W) == 0) {
    // The thread that gets a block's first piece does the whole block.
    for (int64_t piece = first; piece < last; ++piece) {
      if (piece % chunks == 0) unit_of_one<X>(u, piece / chunks, size);
    }
    return;
  }
#if defined(__AMX_TILE__)
  if constexpr (__is_same(X, Bf16)) {
    if (size % 32 == 0) return tiled_unit(u, first, last);
  }
#endif
  const bool together = u.steps == 1;
  const int64_t items = together ? u.rows : u.steps;
  for (int64_t piece = first; piece < last; ++piece) {
    const int64_t from = together ? 0 : piece / (u.blocks * chunks);
    const int64_t block = piece / chunks % u.blocks;
    if (together && piece >= u.blocks * chunks) return;
    const int64_t inner = piece % chunks * L, channel = block * size + inner;
    const int64_t lanes = size - inner < L ? size - inner : L;
    const X *wi = static_cast<const X*>(u.wi) + block * size * size + inner;
    const X *wr = static_cast<const X*>(u.wr) + block * size * size + inner;
    Vec<T> h[kColumns], rate[kColumns];
    for (int c = 0; c * W < lanes; ++c) rate[c] = rate_of<X>(u, channel + c * W, lanes - c * W);
    T wide[kRows * kLargestGate];
    for (int64_t t = 0; t < items; t += kRows) {
      const int rows = static_cast<int>(items - t < kRows ? items - t : kRows);
      for (int k = 0; k < rows; ++k) {
        const X* x = static_cast<const X*>(u.x) + (from * u.steps + t + k) * u.width + block * size;
        for (int64_t n = 0; n < size; ++n) wide[k * size + n] = widen(x[n]);
      }
      Vec<T> gate_i[kRows][kColumns], gate_r[kRows][kColumns];
      tiles<X>(rows, wide, size, wi, size, size, lanes, gate_i);
      tiles<X>(rows, wide, size, wr, size, size, lanes, gate_r);
      for (int k = 0; k < rows; ++k) {
        const int64_t step = from * u.steps + t + k, row = together ? t + k : from;
        const X* x = static_cast<const X*>(u.x) + step * u.width + channel;
        for (int c = 0; c < kColumns; ++c) {
          const int64_t count = lanes - c * W, at = row * u.width + channel + c * W;
          if (count <= 0) break;
          if (together || t + k == 0) h[c] = load(static_cast<const T*>(u.h0) + at, count);
          h[c] = unit_step<X>(u, step, channel + c * W, count, h[c], gate_i[k][c], gate_r[k][c],
                              rate[c], x + c * W);
          if (together || t + k == u.steps - 1) store(static_cast<T*>(u.last) + at, h[c], count);
        }
      }
    }
  }
}

// The same from gates that were computed before: what training runs, since it needs them again.
template <class X>
inline void unit_of_gates(const Unit& u, int64_t first, int64_t last) {
  using T = Wide<X>;
  constexpr int W = kWidth<T>;
  for_runs(first, last, u.width, kLanes<float>, [&](int64_t row, int64_t at, int64_t count) {
    T* h = static_cast<T*>(u.last) + row * u.width + at;
    __builtin_memcpy(h, static_cast<const T*>(u.h0) + row * u.width + at, sizeof(T) * count);
    for (int64_t t = 0; t < u.steps; ++t) {
      const int64_t step = row * u.steps + t, from = step * u.width + at;
      for (int64_t c = 0; c < count; c += W) {
        const int64_t n = count - c;
        const Decay<T> decay(load(static_cast<const T*>(u.gate_i) + from + c, n),
                             load(static_cast<const T*>(u.gate_r) + from + c, n),
                             softplus(load(static_cast<const T*>(u.param) + at + c, n)));
        const Vec<T> x = load(static_cast<const X*>(u.x) + from + c, n);
        const Vec<T> value = advance<T>(load(h + c, n), x, decay, u.position[step]);
        store(h + c, value, n);
        store(static_cast<T*>(u.every) + from + c, value, n);
        store(static_cast<X*>(u.h) + from + c, value, n);
      }
    }
  });
}

template <class X>
inline void unit_gradient(const UnitGradient& u, int64_t first, int64_t last) {
  using T = Wide<X>;
  constexpr int W = kWidth<T>;
  for_runs(first, last, u.width, kLanes<float>, [&](int64_t row, int64_t at, int64_t count) {
    const int64_t side = row * u.width + at;
    T* carry = static_cast<T*>(u.dh0) + side;
    T* drate = static_cast<T*>(u.drate) + side;
    __builtin_memcpy(carry, static_cast<const T*>(u.dlast) + side, sizeof(T) * count);
    __builtin_memset(drate, 0, sizeof(T) * count);
    for (int64_t t = u.steps - 1; t >= 0; --t) {
      const int64_t step = row * u.steps + t;
      const int64_t from = step * u.width + at;
      const int64_t position = u.position[step];
      const T* before =
          t ? static_cast<const T*>(u.every) + from - u.width : static_cast<const T*>(u.h0) + side;
      for (int64_t c = 0; c < count; c += W) {
        const int64_t n = count - c;
        const Vec<T> g = load(static_cast<const X*>(u.dh) + from + c, n) + load(carry + c, n);
        // A pad passes the gradient on and takes none of it.
        Vec<T> next = g, dx{}, dgate_i{}, dgate_r{};
        if (position >= 0) {
          const Vec<T> rate = softplus(load(static_cast<const T*>(u.param) + at + c, n));
          const Decay<T> d(load(static_cast<const T*>(u.gate_i) + from + c, n),
                           load(static_cast<const T*>(u.gate_r) + from + c, n), rate);
          const Vec<T> x = load(static_cast<const X*>(u.x) + from + c, n);
          Vec<T> drive = g;
          next = Vec<T>{};
          if (position > 0) {
            drive = g * square_root<T>(d.rest);
            next = g * d.a;
            const Vec<T> floor = all(T(kSlopeFloor)), steep = d.rest * T(4);
            const Vec<T> slope = T(1) / square_root<T>(steep < floor ? floor : steep);
            const Vec<T> dlog_a =
                next * load(before + c, n) - g * d.i * x * slope * T(2) * d.a * d.a;
            const Vec<T> dr = dlog_a * T(-kDecayScale);
            store(drate + c, load(drate + c, n) + dr * d.r, n);
            dgate_r = dr * rate * d.r * (T(1) - d.r);
          }
          dx = drive * d.i;
          dgate_i = drive * x * d.i * (T(1) - d.i);
        }
        store(carry + c, next, n);
        store(static_cast<T*>(u.dx) + from + c, dx, n);
        store(static_cast<T*>(u.dgate_i) + from + c, dgate_i, n);
        store(static_cast<T*>(u.dgate_r) + from + c, dgate_r, n);
      }
    }
  });
}
