// Memory a thread keeps between calls, so that a small kernel allocates nothing.
// Included within a namespace of the including file, after <cstdlib>, <new> and kernels.h: compiled
// with the flags of one instruction set, its code must not serve another.

class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  ~Scratch() { std::free(held_); }

  // At least `bytes`, at the beginning of a page; what was in it is lost. Much of it comes in large
  // pages: products of many rows took a third longer while they looked up small ones.
  uint8_t* get(int64_t bytes) {
    if (bytes > size_) {
      std::free(held_);
      constexpr int64_t kLarge = 2 << 20;
      const int64_t page = bytes < kLarge ? 4096 : kLarge;
      size_ = (bytes + page - 1) / page * page;
      held_ = static_cast<uint8_t*>(
          std::aligned_alloc(static_cast<size_t>(page), static_cast<size_t>(size_)));
      if (!held_) {
        size_ = 0;
        throw std::bad_alloc();
      }
#if defined(MADV_HUGEPAGE)
      if (page == kLarge) madvise(held_, static_cast<size_t>(size_), MADV_HUGEPAGE);
#endif
    }
    return held_;
  }

 private:
  uint8_t* held_ = nullptr;
  int64_t size_ = 0;
};

// The thread's own, for a kernel that calls no other which uses it.
inline Scratch& scratch() {
  static thread_local Scratch held;
  return held;
}
