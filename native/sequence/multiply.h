// Small products of which everything lies in a core's cache: to = from + A B, where A is met value
// by value and B in panels of vectors.

// How values of X are multiplied: one by one in the wide type, or in pairs of bfloat16. A unit is
// what one lane of an instruction takes.
template <class V>
struct Single {
  using Value = V;
  using Unit = V;
  using T = V;
  static constexpr int64_t kValues = 1;  // in a unit

  static void add(Vec<T>& sum, const Unit* column, Unit x) {
    sum += load(column, kWidth<T>) * x;
  }
  // Units of the same columns of one row, or of two that follow each other.
  static void join(const Value* row, const Value*, int64_t count, Unit* to) {
    __builtin_memcpy(to, row, sizeof(Unit) * static_cast<uint64_t>(count));
  }
};

template <class X>
struct Multiplied : Single<Wide<X>> {};

#if defined(__AVX512BF16__)
struct Paired {
  using Value = Bf16;
  using Unit = uint32_t;
  using T = float;
  static constexpr int64_t kValues = 2;

  static void add(Vec<float>& sum, const Unit* column, Unit x) {
    sum = reinterpret_cast<Vec<float>>(
        _mm512_dpbf16_ps(reinterpret_cast<__m512>(sum),
                         reinterpret_cast<__m512bh>(_mm512_loadu_si512(column)),
                         reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(x)))));
  }
  static void join(const Value* row, const Value* next, int64_t count, Unit* to) {
    for (int64_t c = 0; c < count; ++c) to[c] = row[c] | static_cast<Unit>(next[c]) << 16;
  }
};

template <>
struct Multiplied<Bf16> : Paired {};
#endif

// R rows of A (units a_row apart, its inputs a_step apart) and one panel of B: C vectors of each
// input, one after the other.
template <class M, int R, int C>
inline void add_tile(const typename M::Unit* a, int64_t a_row, int64_t a_step,
                     const typename M::Unit* b, int64_t count, const typename M::T* from,
                     int64_t from_row, typename M::T* to, int64_t to_row) {
  using T = typename M::T;
  constexpr int W = kWidth<T>;
  Vec<T> sum[R][C];
  // Unrolled, so that sums never leave the registers.
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) sum[r][c] = load(from + r * from_row + c * W, W);
  }
  for (int64_t k = 0; k < count; ++k, a += a_step, b += C * W) {
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const typename M::Unit x = a[r * a_row];
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) M::add(sum[r][c], b + c * W, x);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) store(to + r * to_row + c * W, sum[r][c], W);
  }
}

// All rows with a panel of kLanes columns, or half as many.
template <class M>
inline void add_product(int64_t rows, int64_t lanes, const typename M::Unit* a, int64_t a_row,
                        int64_t a_step, const typename M::Unit* b, int64_t count,
                        const typename M::T* from, int64_t from_row, typename M::T* to,
                        int64_t to_row) {
  for (int64_t row = 0; row < rows; row += kRows) {
    for_count<kRows>(static_cast<int>(lesser(kRows, rows - row)), [&](auto r) {
      constexpr int R = decltype(r)::value;
      const auto run = lanes == kLanes<typename M::T> ? add_tile<M, R, kColumns>
                                                      : add_tile<M, R, kColumns / 2>;
      run(a + row * a_row, a_row, a_step, b, count, from + row * from_row, from_row,
          to + row * to_row, to_row);
    });
  }
}

// Call fn(first column, columns) for each panel of `width` columns, a multiple of 32.
template <class T, class Fn>
inline void for_panels(int64_t width, const Fn& fn) {
  for (int64_t c = 0; c < width; c += kLanes<T>) fn(c, lesser(kLanes<T>, width - c));
}
