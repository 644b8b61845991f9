// Memory a thread keeps between calls, so that a small kernel allocates nothing.
// Included within a namespace of the including file, after <cstdint>, <cstdlib> and <new>: compiled with the
// flags of one instruction set, its code must not serve another.

class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  ~Scratch() { std::free(held_); }

  // At least `bytes`, at the beginning of a page; what was in it is lost.
  uint8_t* get(int64_t bytes) {
    if (bytes > size_) {
      std::free(held_);
      size_ = (bytes + 4095) / 4096 * 4096;
      held_ = static_cast<uint8_t*>(std::aligned_alloc(4096, static_cast<size_t>(size_)));
      if (!held_) {
        size_ = 0;
        throw std::bad_alloc();
      }
    }
    return held_;
  }

 private:
  uint8_t* held_ = nullptr;
  int64_t size_ = 0;
};
