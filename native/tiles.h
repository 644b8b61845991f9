// Tiles: registers of 16 rows of 64 bytes, one instruction multiplies two. Rows of activations (64
// bytes of inputs deep) meet 16 outputs, whose inputs lie in fours of bytes or pairs of bfloat16,
// those of all outputs side by side. Included within an unnamed namespace of files that are
// compiled for AMX.

constexpr int64_t kTileRows = 16, kTileBytes = 1024;

// The instructions themselves: the compiler's own intrinsics do not say that they touch memory.
template <int N>
inline void tile_load(const void* from, int64_t step) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(step), "i"(N) : "memory");
}
template <int N>
inline void tile_store(void* to, int64_t step) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(step), "i"(N) : "memory");
}
template <int N>
inline void tile_zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(N));
}

// sums += A B in float32, of bfloat16 pairs. Of one instruction's 32 inputs the even and the odd
// ones are summed apart, then both are added: so one row has to take this instruction too, to come
// to the same bits.
struct PairsDot {
  template <int Sum, int A, int B>
  static void run() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(A), "i"(B));
  }
};
// The same of signed by unsigned and of signed by signed bytes, into exact 32-bit sums.
struct BytesDot {
  template <int Sum, int A, int B>
  static void run() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(A), "i"(B));
  }
};
struct SignedDot {
  template <int Sum, int A, int B>
  static void run() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(A), "i"(B));
  }
};

// Tiles 0..3 hold sums, of two tiles of activations (4, 5) times two of weights (6, 7), `depth`
// bytes of inputs deep. Released at the end: what tiles hold is saved at every switch of threads.
class Tiles {
 public:
  Tiles() = default;
  Tiles(const Tiles&) = delete;
  ~Tiles() {
    if (first_ >= 0) asm volatile("tilerelease");
  }

  void shape(int64_t first, int64_t second, int64_t depth) {
    if (first == first_ && second == second_) return;
    first_ = first;
    second_ = second;
    struct {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t bytes[16] = {};
      uint8_t rows[16] = {};
    } to;
    const int64_t rows[8] = {first, first, second, second, first, second, depth / 4, depth / 4};
    for (int tile = 0; tile < 8; ++tile) {
      to.rows[tile] = static_cast<uint8_t>(rows[tile]);
      to.bytes[tile] =
          rows[tile] ? static_cast<uint16_t>(tile == 4 || tile == 5 ? depth : 64) : uint16_t{0};
    }
    asm volatile("ldtilecfg %0" ::"m"(to));
  }

 private:
  int64_t first_ = -1, second_ = -1;
};

// Sums of A tiles of rows with N tiles of columns: tile 2a + n of row tile a and column tile n.
// Where they are kept, rows of a tile are `step` bytes apart, the tile to the right begins `right`
// bytes further and the one below `down`.
template <int A, int N>
inline void zero_sums() {
  tile_zero<0>();
  if constexpr (N == 2) tile_zero<1>();
  if constexpr (A == 2) tile_zero<2>();
  if constexpr (A == 2 && N == 2) tile_zero<3>();
}
template <int A, int N>
inline void load_sums(const uint8_t* from, int64_t step, int64_t right, int64_t down) {
  tile_load<0>(from, step);
  if constexpr (N == 2) tile_load<1>(from + right, step);
  if constexpr (A == 2) tile_load<2>(from + down, step);
  if constexpr (A == 2 && N == 2) tile_load<3>(from + down + right, step);
}
template <int A, int N>
inline void keep_sums(uint8_t* to, int64_t step, int64_t right, int64_t down) {
  tile_store<0>(to, step);
  if constexpr (N == 2) tile_store<1>(to + right, step);
  if constexpr (A == 2) tile_store<2>(to + down, step);
  if constexpr (A == 2 && N == 2) tile_store<3>(to + down + right, step);
}

// sums += rows, `step` bytes apart, times the columns that lie in tiles 6 and 7.
template <class Dot, int A, int N>
inline void add_products(const void* upper, const void* lower, int64_t step) {
  tile_load<4>(upper, step);
  Dot::template run<0, 4, 6>();
  if constexpr (N == 2) Dot::template run<1, 4, 7>();
  if constexpr (A == 2) {
    tile_load<5>(lower, step);
    Dot::template run<2, 5, 6>();
    if constexpr (N == 2) Dot::template run<3, 5, 7>();
  }
}
