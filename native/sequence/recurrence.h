// A recurrent block's convolution, gates, decay and scan, and their gradient, block by block of the
// gates: what a block needs and makes on the way stays in a core's cache. Widths are padded with
// zeros to whole panels.

// What a step makes of its gates: a sigmoid, a - 1 (fall: log a is this times r), sqrt(1 - a^2).
template <class T>
inline Vec<T> opened(Vec<T> gate) {
  return sigmoid<T>(gate);
}
template <class T>
inline Vec<T> lessening(Vec<T> r, Vec<T> fall) {
  return exp_minus_1(r * fall);
}
template <class T>
inline Vec<T> root_of_rest(Vec<T> less) {
  return square_root<T>(-less * (less + T(2)));
}

#if defined(__AVX512F__)
// The same to the last digit or two, in half of the instructions: this is what the unit would wait
// for. 2^v = scale * (1 + p), p a polynomial whose error is 1e-8.
inline void split_power(__m512 v, __m512& whole, __m512& p) {
  whole = _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(v, whole);
  constexpr float terms[] = {0.00133908668f, 0.00961805694f, 0.05550356954f, 0.24022650719f,
                             0.69314718246f};
  p = _mm512_set1_ps(0.00015461448f);
  for (const float term : terms) p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(term));
  p = _mm512_mul_ps(p, f);
}
constexpr float kLog2e = 1.44269504f;

template <>
inline Vec<float> opened<float>(Vec<float> gate) {
  __m512 whole, p;
  // The second operand of a minimum is what comes of NaN.
  const __m512 v = _mm512_min_ps(_mm512_set1_ps(100), reinterpret_cast<__m512>(gate * -kLog2e));
  split_power(v, whole, p);
  const __m512 one = _mm512_set1_ps(1);
  const __m512 e = _mm512_scalef_ps(_mm512_add_ps(p, one), whole);
  return reciprocal<float>(reinterpret_cast<Vec<float>>(_mm512_add_ps(e, one)));
}
template <>
inline Vec<float> lessening<float>(Vec<float> r, Vec<float> fall) {
  __m512 whole, p;
  split_power(reinterpret_cast<__m512>(r * (fall * kLog2e)), whole, p);
  const __m512 one = _mm512_set1_ps(1), scale = _mm512_scalef_ps(one, whole);
  return reinterpret_cast<Vec<float>>(_mm512_fmadd_ps(scale, p, _mm512_sub_ps(scale, one)));
}
template <>
inline Vec<float> root_of_rest<float>(Vec<float> less) {
  const __m512 rest = reinterpret_cast<__m512>(-less * (less + 2.0f));
  const __m512 v = _mm512_max_ps(_mm512_set1_ps(1e-30f), rest);
  const __m512 y = _mm512_rsqrt14_ps(v), root = _mm512_mul_ps(v, y);
  const __m512 half = _mm512_set1_ps(0.5f);
  const __m512 miss = _mm512_fnmadd_ps(root, _mm512_mul_ps(y, half), half);
  return reinterpret_cast<Vec<float>>(_mm512_fmadd_ps(root, miss, root));
}
#endif

// One after the other in memory, each at the beginning of a cache line.
struct Pieces {
  uint8_t* at;

  template <class V>
  V* take(int64_t count) {
    V* found = reinterpret_cast<V*>(at);
    at += (count * static_cast<int64_t>(sizeof(V)) + 63) / 64 * 64;
    return found;
  }
};

// The gates' weights of a block: panels of both gates' columns for gates = u W, and of its inputs
// for du = dgates W^T.
template <class X>
struct GateWeights {
  using M = Multiplied<X>;
  using Unit = typename M::Unit;
  int64_t size, padded, count;  // count: units of a row of u
  Unit *columns, *inputs;

  GateWeights(const Recurrence& u, int64_t block)
      : size(u.width / u.blocks), padded((size + 31) / 32 * 32), count(padded / M::kValues) {
    columns = reinterpret_cast<Unit*>(u.memory) + block * 4 * padded * count;
    inputs = columns + 2 * padded * count;
  }
  const Unit* columns_of(int64_t gate, int64_t c) const {
    return columns + (gate * padded + c) * count;
  }
  const Unit* inputs_of(int64_t c) const { return inputs + c * 2 * count; }
};

template <class X>
inline int64_t recurrence_bytes_of(const Recurrence& u) {
  const GateWeights<X> w(u, 0);
  return u.blocks * 4 * w.padded * w.count * static_cast<int64_t>(sizeof *w.columns);
}

// Pieces: blocks.
template <class X>
inline void recurrence_weights(const Recurrence& u, int64_t first, int64_t last) {
  using M = Multiplied<X>;
  using T = Wide<X>;
  using Value = typename M::Value;
  using Unit = typename M::Unit;
  constexpr int W = kWidth<T>;
  for (int64_t block = first; block < last; ++block) {
    const GateWeights<X> w(u, block);
    const int64_t size = w.size, padded = w.padded;
    Pieces pieces{scratch().get(3 * (padded + 16) * static_cast<int64_t>(sizeof(Value)))};
    Value* rows[2] = {pieces.take<Value>(padded), pieces.take<Value>(padded)};
    for (int64_t gate = 0; gate < 2; ++gate) {
      const T* from = static_cast<const T*>(gate ? u.wr : u.wi) + block * size * size;
      for (int64_t i = 0; i < padded; ++i) {
        Value* row = rows[i % M::kValues];
        for (int64_t c = 0; c < padded; c += W) {
          store(row + c, i < size ? load(from + i * size + c, size - c) : Vec<T>{}, W);
        }
        const Unit* pairs = reinterpret_cast<const Unit*>(row);
        const int64_t lanes = lesser(kLanes<T>, padded - i / kLanes<T> * kLanes<T>);
        Unit* to = w.inputs + i / kLanes<T> * kLanes<T> * 2 * w.count + i % kLanes<T>;
        for (int64_t k = 0; k < w.count; ++k) to[(gate * w.count + k) * lanes] = pairs[k];
        if (i % M::kValues != M::kValues - 1) continue;
        for_panels<T>(padded, [&](int64_t c, int64_t wide) {
          M::join(rows[0] + c, rows[1] + c, wide,
                  w.columns + (gate * padded + c) * w.count + i / M::kValues * wide);
        });
      }
    }
  }
}

// One block of one row, `kKept` steps at a time.
template <class X>
struct Recurring {
  using M = Multiplied<X>;
  using T = Wide<X>;
  using Value = typename M::Value;
  using Unit = typename M::Unit;
  static constexpr int W = kWidth<T>;
  static constexpr int64_t L = kLanes<T>;

  const Recurrence& u;
  const GateWeights<X> weights;
  const int64_t size, padded, reach, channel;  // channel: the block's first
  int64_t row = 0;
  const int64_t* position = nullptr;
  T *taps, *start, *bias[2], *fall;  // taps: newest first; fall: log a is this times r
  T* window;                         // the convolution's inputs, `reach` before the steps at hand
  Value* in;                         // u, (kKept, padded)
  T* gates[2];                       // of a panel: (kKept, lanes)
  T* h;
  int64_t pads = 0;                  // among the steps at hand
  int8_t most[kKept];                // places back that a step sees, within the window

  Recurring(const Recurrence& u, int64_t block, Pieces& pieces)
      : u(u), weights(u, block), size(weights.size), padded(weights.padded), reach(u.taps - 1),
        channel(block * weights.size) {
    taps = pieces.take<T>(u.taps * padded);
    start = pieces.take<T>(padded);
    bias[0] = pieces.take<T>(padded);
    bias[1] = pieces.take<T>(padded);
    fall = pieces.take<T>(padded);
    window = pieces.take<T>((kKept + reach) * padded);
    in = pieces.take<Value>(kKept * padded);
    gates[0] = pieces.take<T>(kKept * L);
    gates[1] = pieces.take<T>(kKept * L);
    h = pieces.take<T>(padded);
  }

  static int64_t bytes(const Recurrence& u) {
    const int64_t padded = GateWeights<X>(u, 0).padded;
    return static_cast<int64_t>(sizeof(T)) *
               ((u.taps + 6) * padded + (2 * kKept + u.taps) * padded + 2 * kKept * L) +
           64 * 16;
  }

  // The block's own weights, once for all rows.
  void begin() {
    for (int64_t c = 0; c < padded; c += W) {
      const int64_t n = size - c;
      Vec<T> tap[kMostTaps] = {};
      for (int64_t k = 0; k < u.taps; ++k) {
        for (int lane = 0; lane < W && lane < n; ++lane) {
          tap[reach - k][lane] = static_cast<const T*>(u.weight)[(channel + c + lane) * u.taps + k];
        }
      }
      for (int64_t k = 0; k < u.taps; ++k) store(taps + k * padded + c, tap[k], W);
      store(start + c, of(u.bias, c), W);
      store(bias[0] + c, of(u.bi, c), W);
      store(bias[1] + c, of(u.br, c), W);
      store(fall + c, softplus(of(u.param, c)) * T(-kDecayScale), W);
    }
  }

  // A vector of this block's channels from a (.., E) tensor, zeros behind the last.
  Vec<T> of(const void* from, int64_t c, int64_t at = 0) const {
    if (c >= size) return Vec<T>{};
    return load(static_cast<const T*>(from) + at * u.width + channel + c, size - c);
  }
  void put(void* to, int64_t c, int64_t at, Vec<T> value) const {
    if (c < size) store(static_cast<T*>(to) + at * u.width + channel + c, value, size - c);
  }
  const X* input(int64_t t) const {
    return static_cast<const X*>(u.x) + (row * u.steps + t) * u.width + channel;
  }
  static Vec<T> part(const X* from, int64_t c, int64_t size) {
    return c < size ? load(from + c, size - c) : Vec<T>{};
  }
  // Channels from c on. Where blocks are whole vectors, the compiler is told.
  template <bool Whole>
  int64_t left(int64_t c) const {
    return Whole ? W : size - c;
  }
  template <class Fn>
  void by_size(const Fn& fn) const {
    size % W ? fn(Count<false>{}) : fn(Count<true>{});
  }

  // The inputs that step s would see, before the first step at hand that is no pad.
  void recall(int64_t s) {
    int64_t at = s - 1, taken = 0;
    bool over = false;
    for (int64_t k = 1; k <= reach; ++k) {
      const X* from = nullptr;
      if (!over && at >= 0 && position[at] >= 0) {
        from = input(at);
        over = position[at--] == 0;
        ++taken;
      } else if (!over) {
        const int64_t slot = row * reach + reach - (k - taken);
        from = static_cast<const X*>(u.cache) + slot * u.width + channel;
      }
      T* to = window + (pads + reach - k) * padded;
      for (int64_t c = 0; c < padded; c += W) {
        store(to + c, from ? part(from, c, size) : Vec<T>{}, W);
      }
    }
  }

  // As the convolution's result is rounded where it is a tensor.
  static Vec<T> rounded(Vec<T> v) {
    if constexpr (__is_same(X, Bf16) && !__is_same(Value, Bf16)) {
      Bf16 half[W];
      store(half, v, W);
      return load(half, W);
    }
    return v;
  }

  // The convolution of steps s..s+n-1 into `in`.
  void convolve(int64_t s, int64_t n) {
    pads = 0;
    while (pads < n && position[s + pads] < 0) ++pads;
    recall(s);
    __builtin_memset(in, 0, sizeof(Value) * static_cast<uint64_t>(pads * padded));
    int64_t back = reach;
    for (int64_t t = pads; t < n; ++t) {
      back = position[s + t] == 0 ? 0 : lesser(back + 1, reach);
      most[t] = static_cast<int8_t>(back);
    }
    if (reach == 3) {
      return by_size([&](auto whole) { convolve_four<decltype(whole)::value>(s, n); });
    }
    for (int64_t t = pads; t < n; ++t) {
      const X* from = input(s + t);
      T* here = window + (reach + t) * padded;
      for (int64_t c = 0; c < padded; c += W) {
        const Vec<T> x = part(from, c, size);
        store(here + c, x, W);
        Vec<T> sum = load(start + c, W) + x * load(taps + c, W);
        for (int64_t k = 1; k <= most[t]; ++k) {
          sum += load(here - k * padded + c, W) * load(taps + k * padded + c, W);
        }
        store(in + t * padded + c, rounded(sum), W);
      }
    }
  }

  // The same with four taps, which every model so far has.
  template <bool Whole>
  void convolve_four(int64_t s, int64_t n) {
    for (int64_t c = 0; c < padded; c += W) {
      const T* here = window + pads * padded + c;
      Vec<T> x3 = load(here, W), x2 = load(here + padded, W), x1 = load(here + 2 * padded, W);
      const Vec<T> first = load(start + c, W), tap0 = load(taps + c, W);
      const Vec<T> tap1 = load(taps + padded + c, W), tap2 = load(taps + 2 * padded + c, W);
      const Vec<T> tap3 = load(taps + 3 * padded + c, W);
      for (int64_t t = pads; t < n; ++t) {
        if (position[s + t] == 0) x1 = x2 = x3 = Vec<T>{};
        const Vec<T> x = c < size ? load(input(s + t) + c, left<Whole>(c)) : Vec<T>{};
        store(window + (3 + t) * padded + c, x, W);
        const Vec<T> sum = first + x * tap0 + x1 * tap1 + x2 * tap2 + x3 * tap3;
        store(in + t * padded + c, rounded(sum), W);
        x3 = x2;
        x2 = x1;
        x1 = x;
      }
    }
  }

  // Both gates of a panel, before their sigmoid.
  void multiply(int64_t c, int64_t lanes, int64_t n) {
    for (int64_t gate = 0; gate < 2; ++gate) {
      add_product<M>(n, lanes, reinterpret_cast<const Unit*>(in), weights.count, 1,
                     weights.columns_of(gate, c), weights.count, bias[gate] + c, 0, gates[gate],
                     lanes);
    }
  }

  void enter(int64_t r, const void* state, int64_t at) {
    row = r;
    position = u.position + r * u.steps;
    for (int64_t c = 0; c < padded; c += W) store(h + c, of(state, c, at), W);
  }
};

// Steps s..s+n-1 of a panel of channels, from their gates to h. What the next steps read is
// prefetched on the way: a block's channels are a short piece of a step, and the hardware does not
// know where the next one begins.
template <class X, bool Whole>
inline void advance_panel(Recurring<X>& pass, Wide<X>* product, int64_t s, int64_t n, int64_t at,
                          int64_t lanes) {
  using T = Wide<X>;
  constexpr int W = kWidth<T>;
  const Recurrence& u = pass.u;
  const int64_t* position = pass.position + s;
  for (int64_t c = at; c < lesser(at + lanes, pass.size); c += W) {
    const Vec<T> fall = load(pass.fall + c, W);
    Vec<T> h = load(pass.h + c, W), decay = load(product + c, W);
    X* to = static_cast<X*>(u.h) + (pass.row * u.steps + s) * u.width + pass.channel + c;
    const X* ahead = pass.input(s + kKept) + c;
    const T *gate_i = pass.gates[0] + c - at, *gate_r = pass.gates[1] + c - at;
    for (int64_t t = 0; t < n; ++t) {
      __builtin_prefetch(ahead + t * u.width);
      if (position[t] >= 0) {
        const Vec<T> input =
            opened<T>(load(gate_i + t * lanes, W)) * load(pass.in + t * pass.padded + c, W);
        if (position[t] == 0) {
          h = input;
          decay = Vec<T>{};
        } else {
          const Vec<T> less = lessening<T>(opened<T>(load(gate_r + t * lanes, W)), fall);
          const Vec<T> a = less + T(1);
          h = a * h + root_of_rest<T>(less) * input;
          decay *= a;
        }
      }
      store(to + t * u.width, h, pass.template left<Whole>(c));
    }
    store(pass.h + c, h, W);
    store(product + c, decay, W);
  }
}

// Pieces: rows * blocks.
template <class X>
inline void recurrence(const Recurrence& u, int64_t first, int64_t last) {
  using R = Recurring<X>;
  using T = typename R::T;
  constexpr int W = kWidth<T>;
  const int64_t kept = (u.steps - 1) / kKept;
  for (int64_t piece = first; piece < last; ++piece) {
    Pieces pieces{scratch().get(R::bytes(u) + static_cast<int64_t>(sizeof(T)) * u.width + 64)};
    const int64_t row = piece / u.blocks;
    R pass(u, piece % u.blocks, pieces);
    T* product = pieces.take<T>(pass.padded);
    pass.begin();
    pass.enter(row, u.h0, row);
    for (int64_t c = 0; c < pass.padded; c += W) store(product + c, all(T(1)), W);
    for (int64_t s = 0; s < u.steps; s += kKept) {
      const int64_t n = lesser(kKept, u.steps - s);
      pass.convolve(s, n);
      for_panels<T>(pass.padded, [&](int64_t at, int64_t lanes) {
        pass.multiply(at, lanes, n);
        pass.by_size([&](auto whole) {
          advance_panel<X, decltype(whole)::value>(pass, product, s, n, at, lanes);
        });
      });
      for (int64_t c = 0; s + n < u.steps && c < pass.padded; c += W) {
        pass.put(u.kept, c, row * kept + s / kKept, load(pass.h + c, W));
      }
    }
    for (int64_t c = 0; c < pass.padded; c += W) {
      pass.put(u.last, c, row, load(pass.h + c, W));
      pass.put(u.decay, c, row, load(product + c, W));
    }
    pass.pads = 0;
    pass.recall(u.steps);
    for (int64_t slot = 0; slot < pass.reach; ++slot) {
      X* to = static_cast<X*>(u.left) + (row * pass.reach + slot) * u.width + pass.channel;
      for (int64_t c = 0; c < pass.size; c += W) {
        store(to + c, load(pass.window + slot * pass.padded + c, W), pass.size - c);
      }
    }
  }
}
