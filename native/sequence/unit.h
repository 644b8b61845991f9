// The RG-LRU: gates, decay and scan without a pass over memory between them, and the gradient of all but the
// gates' products.

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

// One channel vector of one step: from the gates' sums to h.
template <class X>
inline Vec<Wide<X>> unit_step(const Unit& u, int64_t step, int64_t channel, int64_t count, Vec<Wide<X>> h,
                              Vec<Wide<X>> gate_i, Vec<Wide<X>> gate_r, const X* x) {
  using T = Wide<X>;
  const Vec<T> rate = softplus(load(static_cast<const X*>(u.param) + channel, count));
  const Decay<T> decay(gate_i + load(static_cast<const X*>(u.bi) + channel, count),
                       gate_r + load(static_cast<const X*>(u.br) + channel, count), rate);
  h = advance<T>(h, load(x, count), decay, u.position[step]);
  store(static_cast<X*>(u.h) + step * u.width + channel, h, count);
  return h;
}

// One token of one row, a whole block's channels at a time: the gates' weights are read in one stream.
template <class X>
inline void unit_of_one(const Unit& u, int64_t block, int64_t size) {
  using T = Wide<X>;
  constexpr int W = kWidth<T>;
  const X *wi = static_cast<const X*>(u.wi) + block * size * size, *wr = static_cast<const X*>(u.wr) + block * size * size;
  const X* x = static_cast<const X*>(u.x) + block * size;
  T wide[kLargestGate];
  for (int64_t n = 0; n < size; ++n) wide[n] = widen(x[n]);
  for (int64_t inner = 0; inner < size; inner += kWideColumns * W) {
    Vec<T> gate_i[kWideColumns], gate_r[kWideColumns];
    wide_tile<X>(wide, wi + inner, size, size, gate_i);
    wide_tile<X>(wide, wr + inner, size, size, gate_r);
    for (int c = 0; c < kWideColumns; ++c) {
      const int64_t at = inner + c * W, channel = block * size + at;
      const Vec<T> h = load(static_cast<const T*>(u.h0) + channel, W);
      store(static_cast<T*>(u.last) + channel, unit_step<X>(u, 0, channel, W, h, gate_i[c], gate_r[c], x + at), W);
    }
  }
}

// Pieces of blocks and, within them, of kLanes channels; of rows too, unless each has one step: then rows go
// past the gates' weights together.
template <class X>
inline void unit(const Unit& u, int64_t first, int64_t last) {
  using T = Wide<X>;
  constexpr int W = kWidth<T>;
  constexpr int64_t L = kLanes<T>;
  const int64_t size = u.width / u.blocks, chunks = (size + L - 1) / L;
  if (u.rows == 1 && u.steps == 1 && size % (kWideColumns * W) == 0) {
    // Whoever has a block's first piece does it all.
    for (int64_t piece = first; piece < last; ++piece) {
      if (piece % chunks == 0) unit_of_one<X>(u, piece / chunks, size);
    }
    return;
  }
  const bool together = u.steps == 1;
  const int64_t items = together ? u.rows : u.steps;
  for (int64_t piece = first; piece < last; ++piece) {
    const int64_t from = together ? 0 : piece / (u.blocks * chunks), block = piece / chunks % u.blocks;
    if (together && piece >= u.blocks * chunks) return;
    const int64_t inner = piece % chunks * L, channel = block * size + inner;
    const int64_t lanes = size - inner < L ? size - inner : L;
    const X *wi = static_cast<const X*>(u.wi) + block * size * size + inner;
    const X *wr = static_cast<const X*>(u.wr) + block * size * size + inner;
    Vec<T> h[kColumns];
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
          h[c] = unit_step<X>(u, step, channel + c * W, count, h[c], gate_i[k][c], gate_r[k][c], x + c * W);
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
      const int64_t step = row * u.steps + t, from = step * u.width + at, position = u.position[step];
      const T* before = t ? static_cast<const T*>(u.every) + from - u.width : static_cast<const T*>(u.h0) + side;
      for (int64_t c = 0; c < count; c += W) {
        const int64_t n = count - c;
        const Vec<T> g = load(static_cast<const X*>(u.dh) + from + c, n) + load(carry + c, n);
        Vec<T> next = g, dx{}, dgate_i{}, dgate_r{};  // what a pad passes on, and the nothing it takes
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
            const Vec<T> dlog_a = next * load(before + c, n) - g * d.i * x * slope * T(2) * d.a * d.a;
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
