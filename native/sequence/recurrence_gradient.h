// The gradient of `recurrence`: from the last kept h to the first, each time the steps up to the
// next one forward once more, and then back.

constexpr double kLeastRoot = 5e-4;  // of 1 - a^2: where the square root's gradient stops growing
constexpr int64_t kStripe = 16;      // steps whose sums stay in registers

template <class X>
struct RecurringBack : Recurring<X> {
  using Base = Recurring<X>;
  using typename Base::M;
  using typename Base::T;
  using typename Base::Unit;
  using typename Base::Value;
  using Base::W, Base::L, Base::u, Base::size, Base::padded, Base::reach, Base::channel, Base::row,
      Base::position, Base::taps, Base::window, Base::in, Base::gates, Base::pads, Base::most;

  const RecurrenceGradient& g;
  T *a, *root, *before;  // of a panel: a - 1, sqrt(1 - a^2) and the h before, (kKept, lanes)
  T* du;                 // (kKept + reach, padded); behind the steps at hand those that come next
  Value* dgates;         // (kKept, 2 padded)
  Unit *in_time, *gates_in_time;  // u and dgates as units of steps; the latter in panels
  T *carry, *side;       // what reaches h from later steps; what the product of a adds to dlog a
  // Sums over the steps: of the gates in panels of columns; of the convolution newest tap first.
  T *dweight, *dbias[2], *drate, *dtaps, *dstart;

  RecurringBack(const RecurrenceGradient& g, int64_t block, Pieces& pieces)
      : Base(g.of, block, pieces), g(g) {
    a = pieces.take<T>(kKept * L);
    root = pieces.take<T>(kKept * L);
    before = pieces.take<T>(kKept * L);
    du = pieces.take<T>((kKept + reach) * padded);
    dgates = pieces.take<Value>(2 * kKept * padded);
    in_time = pieces.take<Unit>(kKept / M::kValues * padded);
    gates_in_time = pieces.take<Unit>(2 * kKept / M::kValues * padded);
    carry = pieces.take<T>(padded);
    side = pieces.take<T>(padded);
    dweight = pieces.take<T>(2 * padded * padded);
    dbias[0] = pieces.take<T>(padded);
    dbias[1] = pieces.take<T>(padded);
    drate = pieces.take<T>(padded);
    dtaps = pieces.take<T>(u.taps * padded);
    dstart = pieces.take<T>(padded);
  }

  static int64_t bytes(const Recurrence& u) {
    const int64_t padded = GateWeights<X>(u, 0).padded, wide = sizeof(T);
    return Base::bytes(u) + wide * (3 * kKept * L + (6 * kKept + 2 * u.taps + 8) * padded +
                                    2 * padded * padded) + 64 * 24;
  }

  void begin() {
    Base::begin();
    const auto clear = [](T* sums, int64_t count) {
      __builtin_memset(sums, 0, sizeof(T) * static_cast<uint64_t>(count));
    };
    clear(dweight, 2 * padded * padded);
    clear(dbias[0], padded);
    clear(dbias[1], padded);
    clear(drate, padded);
    clear(dstart, padded);
    clear(dtaps, u.taps * padded);
  }

  // Steps s..s+n-1 of a panel, forward from the kept h: i and r in the place of the gates, and what
  // else the way back needs.
  void forward(int64_t s, int64_t n, int64_t at, int64_t lanes) {
    const int64_t kept = (u.steps - 1) / kKept;
    for (int64_t c = at; c < lesser(at + lanes, size); c += W) {
      const Vec<T> fall = load(Base::fall + c, W);
      const X* ahead = this->input(s - kKept) + c;
      Vec<T> h = s ? this->of(u.kept, c, row * kept + s / kKept - 1) : this->of(u.h0, c, row);
      for (int64_t t = 0, k = c - at; t < n; ++t, k += lanes) {
        __builtin_prefetch(ahead + t * u.width);
        store(before + k, h, W);
        const int64_t p = position[s + t];
        if (p < 0) continue;
        const Vec<T> i = opened<T>(load(gates[0] + k, W));
        store(gates[0] + k, i, W);
        const Vec<T> input = i * load(in + t * padded + c, W);
        if (p == 0) {
          h = input;
          continue;
        }
        const Vec<T> r = opened<T>(load(gates[1] + k, W));
        const Vec<T> less = lessening<T>(r, fall);
        const Vec<T> scale = root_of_rest<T>(less);
        store(gates[1] + k, r, W);
        store(a + k, less + T(1), W);
        store(root + k, scale, W);
        h = (less + T(1)) * h + scale * input;
      }
    }
  }

  // And back, to the gradients of the gates and to that of u but for its way through the gates.
  template <bool Whole>
  void back(int64_t s, int64_t n, int64_t at, int64_t lanes) {
    for (int64_t c = at; c < at + lanes; c += W) {
      const Vec<T> fall = load(Base::fall + c, W), extra = load(side + c, W);
      Vec<T> reaching = load(carry + c, W), rate = load(drate + c, W);
      Vec<T> sum_i = load(dbias[0] + c, W), sum_r = load(dbias[1] + c, W);
      const X* dh = g.dh ? static_cast<const X*>(g.dh) + (row * u.steps + s) * u.width + channel + c
                         : nullptr;
      for (int64_t t = n - 1; t >= 0; --t) {
        const int64_t k = t * lanes + c - at, p = position[s + t];
        Vec<T> direct{}, di{}, dr{};
        if (c < size) {
          Vec<T> all_of_it = reaching;
          if (dh) {
            __builtin_prefetch(dh + (t - kKept) * u.width);
            all_of_it += load(dh + t * u.width, this->template left<Whole>(c));
          }
          if (p < 0) {
            reaching = all_of_it;
          } else {
            const Vec<T> x = load(in + t * padded + c, W), i = load(gates[0] + k, W);
            Vec<T> drive = all_of_it;
            reaching = Vec<T>{};
            if (p > 0) {
              const Vec<T> r = load(gates[1] + k, W), scale = load(root + k, W);
              const Vec<T> decay = load(a + k, W), least = all(T(kLeastRoot));
              drive = all_of_it * scale;
              reaching = all_of_it * decay;
              const Vec<T> slope = reciprocal<T>(scale < least ? least : scale);
              const Vec<T> dlog = reaching * (load(before + k, W) - i * x * decay * slope) + extra;
              const Vec<T> moved = dlog * r;
              rate += moved;
              dr = moved * (T(1) - r) * fall;
            }
            direct = drive * i;
            di = direct * x * (T(1) - i);
          }
        }
        sum_i += di;
        sum_r += dr;
        store(du + t * padded + c, direct, W);
        store(dgates + 2 * t * padded + c, di, W);
        store(dgates + (2 * t + 1) * padded + c, dr, W);
      }
      store(carry + c, reaching, W);
      store(drate + c, rate, W);
      store(dbias[0] + c, sum_i, W);
      store(dbias[1] + c, sum_r, W);
    }
  }

  // Rows of a matrix as units of steps that follow each other; one behind the last is zeros.
  static void in_units(const Value* from, int64_t step, int64_t n, int64_t columns, Unit* to) {
    static const Value none[kLanes<T>] = {};
    for (int64_t t = 0; t < n; t += M::kValues, to += columns) {
      for_panels<T>(columns, [&](int64_t c, int64_t wide) {
        M::join(from + t * step + c, t + 1 < n ? from + (t + 1) * step + c : none, wide, to + c);
      });
    }
  }

  // du through the gates, and the gates' weights.
  void multiply_back(int64_t n) {
    const Unit* rows = reinterpret_cast<const Unit*>(dgates);
    const int64_t count = this->weights.count, steps = (n + M::kValues - 1) / M::kValues;
    for_panels<T>(padded, [&](int64_t c, int64_t lanes) {
      add_product<M>(n, lanes, rows, 2 * count, 1, this->weights.inputs_of(c), 2 * count, du + c,
                     padded, du + c, padded);
    });
    in_units(in, padded, n, padded, in_time);
    for (int64_t gate = 0; gate < 2; ++gate) {
      for_panels<T>(padded, [&](int64_t c, int64_t lanes) {
        Unit* panel = gates_in_time + (gate * padded + c) * (kKept / M::kValues);
        in_units(dgates + gate * padded + c, 2 * padded, n, lanes, panel);
        T* sums = dweight + (gate * padded + c) * padded;
        add_product<M>(padded, lanes, in_time, 1, padded, panel, steps, sums, lanes, sums, lanes);
      });
    }
  }

  // Steps that follow step t in its document, as far as a tap reaches.
  int64_t following(int64_t t) const {
    int64_t after = 0;
    while (after < reach && t + after + 1 < u.steps && position[t + after + 1] != 0) ++after;
    return after;
  }

  // The convolution's gradients for steps s..s+n-1, from du.
  void convolve_back(int64_t s, int64_t n) {
    for (int64_t t = 0; t < n; t += kStripe) {
      const int64_t end = lesser(t + kStripe, n);
      bool whole = reach == 3 && t >= pads;
      for (int64_t k = t; whole && k < end; ++k) whole = most[k] == 3 && following(s + k) == 3;
      if (!whole) {
        steps_back(s, t, end);
        continue;
      }
      this->by_size([&](auto all) { stripe<decltype(all)::value>(s, t, end); });
    }
    // The next steps back see the first of these.
    __builtin_memcpy(du + kKept * padded, du, sizeof(T) * static_cast<uint64_t>(reach * padded));
  }

  X* dx(int64_t t) const {
    return static_cast<X*>(g.dx) + (row * u.steps + t) * u.width + channel;
  }

  template <bool Whole>
  void stripe(int64_t s, int64_t first, int64_t end) {
    for (int64_t c = 0; c < size; c += W) {
      Vec<T> tap[4], sum[4], start = load(dstart + c, W);
      for (int k = 0; k < 4; ++k) tap[k] = load(taps + k * padded + c, W);
      for (int k = 0; k < 4; ++k) sum[k] = load(dtaps + k * padded + c, W);
      for (int64_t t = first; t < end; ++t) {
        const T *d = du + t * padded + c, *x = window + (3 + t) * padded + c;
        const Vec<T> own = load(d, W);
        Vec<T> value = own * tap[0];
        start += own;
        sum[0] += own * load(x, W);
#pragma GCC unroll 3
        for (int k = 1; k < 4; ++k) {
          value += load(d + k * padded, W) * tap[k];
          sum[k] += own * load(x - k * padded, W);
        }
        store(dx(s + t) + c, value, this->template left<Whole>(c));
      }
      store(dstart + c, start, W);
      for (int k = 0; k < 4; ++k) store(dtaps + k * padded + c, sum[k], W);
    }
  }

  void steps_back(int64_t s, int64_t first, int64_t end) {
    for (int64_t t = first; t < end; ++t) {
      const bool pad = t < pads;
      const int64_t after = pad ? 0 : following(s + t), left = u.steps - 1 - s - t;
      // The last inputs go to the next cache.
      const X* kept = nullptr;
      if (g.dleft && !pad && left < reach && after == left) {
        const int64_t slot = row * reach + reach - 1 - left;
        kept = static_cast<const X*>(g.dleft) + slot * u.width + channel;
      }
      for (int64_t c = 0; c < size; c += W) {
        Vec<T> value = kept ? load(kept + c, size - c) : Vec<T>{};
        if (!pad) {
          const Vec<T> own = load(du + t * padded + c, W);
          for (int64_t k = 0; k <= after; ++k) {
            value += load(du + (t + k) * padded + c, W) * load(taps + k * padded + c, W);
          }
          for (int64_t k = 0; k <= most[t]; ++k) {
            T* sum = dtaps + k * padded + c;
            store(sum, load(sum, W) + own * load(window + (reach + t - k) * padded + c, W), W);
          }
          store(dstart + c, load(dstart + c, W) + own, W);
        }
        store(dx(s + t) + c, value, size - c);
      }
    }
  }

  // The cache's gradient, while du has the row's first tokens, of which the first is step `first`
  // (u.steps: all are pads) and the steps at hand begin at s.
  void cache_back(int64_t s, int64_t first) {
    const int64_t tokens = u.steps - first;
    int64_t seen = 0;  // tokens of the document that the cache belongs to, as far as a tap reaches
    while (seen < reach && seen < tokens && position[first + seen] != 0) ++seen;
    for (int64_t slot = 0; slot < reach; ++slot) {
      const int64_t near = reach - slot;  // places before the first token
      X* to = static_cast<X*>(g.dcache) + (row * reach + slot) * u.width + channel;
      // Where it is in the next cache, if it is still there.
      const int64_t place = slot - tokens;
      const X* kept = nullptr;
      if (g.dleft && place >= 0 && seen == tokens) {
        kept = static_cast<const X*>(g.dleft) + (row * reach + place) * u.width + channel;
      }
      for (int64_t c = 0; c < size; c += W) {
        Vec<T> value = kept ? load(kept + c, size - c) : Vec<T>{};
        for (int64_t t = 0; t < seen && t + near <= reach; ++t) {
          value += load(du + (first + t - s) * padded + c, W) *
                   load(taps + (t + near) * padded + c, W);
        }
        store(to + c, value, size - c);
      }
    }
  }

  void run(int64_t r) {
    this->enter(r, u.h0, r);
    for (int64_t c = 0; c < padded; c += W) {
      store(carry + c, g.dlast ? this->of(g.dlast, c, r) : Vec<T>{}, W);
      store(side + c, g.ddecay ? this->of(g.ddecay, c, r) : Vec<T>{}, W);
    }
    int64_t first = 0;
    while (first < u.steps && position[first] < 0) ++first;
    if (first == u.steps) cache_back(0, first);
    for (int64_t s = (u.steps - 1) / kKept * kKept; s >= 0; s -= kKept) {
      const int64_t n = lesser(kKept, u.steps - s);
      this->convolve(s, n);
      for_panels<T>(padded, [&](int64_t at, int64_t lanes) {
        this->multiply(at, lanes, n);
        forward(s, n, at, lanes);
        this->by_size([&](auto all) { back<decltype(all)::value>(s, n, at, lanes); });
      });
      multiply_back(n);
      if (s <= first && first < s + n) cache_back(s, first);
      convolve_back(s, n);
    }
    for (int64_t c = 0; c < padded; c += W) this->put(g.dh0, c, r, load(carry + c, W));
  }

  // The sums, where the block's lie.
  void finish(T* to) {
    for (int64_t gate = 0; gate < 2; ++gate) {
      for (int64_t i = 0; i < size; ++i, to += size) {
        for_panels<T>(size, [&](int64_t c, int64_t) {
          const int64_t lanes = lesser(L, padded - c);
          const T* from = dweight + (gate * padded + c) * padded + i * lanes;
          for (int64_t k = 0; k < lesser(lanes, size - c); ++k) to[c + k] = from[k];
        });
      }
    }
    for (int64_t c = 0; c < size; ++c) *to++ = dbias[0][c];
    for (int64_t c = 0; c < size; ++c) *to++ = dbias[1][c];
    for (int64_t c = 0; c < size; ++c) *to++ = drate[c] * T(-kDecayScale);
    for (int64_t c = 0; c < size; ++c) {
      for (int64_t k = 0; k < u.taps; ++k) *to++ = dtaps[(reach - k) * padded + c];
    }
    for (int64_t c = 0; c < size; ++c) *to++ = dstart[c];
  }
};

// Pieces: groups * blocks.
template <class X>
inline void recurrence_gradient(const RecurrenceGradient& g, int64_t first, int64_t last) {
  const Recurrence& u = g.of;
  const int64_t size = u.width / u.blocks, sums = size * (2 * size + u.taps + 4);
  for (int64_t piece = first; piece < last; ++piece) {
    const int64_t group = piece / u.blocks;
    Pieces pieces{scratch().get(RecurringBack<X>::bytes(u))};
    RecurringBack<X> pass(g, piece % u.blocks, pieces);
    pass.begin();
    for (int64_t row = group * u.rows / g.groups; row < (group + 1) * u.rows / g.groups; ++row) {
      pass.run(row);
    }
    pass.finish(static_cast<Wide<X>*>(g.dweights) + piece * sums);
  }
}
