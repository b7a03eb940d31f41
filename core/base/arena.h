// arena.h — memory of one iteration (Scratch) and buffers lent to connections (BufferPool).
// Owns:   ScratchArena, TextBuf (a growing text inside it), BufferPool, PooledBuffer.
// Holds:  scratch memory dies at reset(), poisoned under ASan; nothing may keep it longer.
// Why:    a message's path allocates nothing from the heap in steady state.
// Not:    rows (table.h), durable bytes (store/), secrets (core/crypto/slab.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "core/base/bytes.h"

namespace cm {

// Bump allocator. Blocks are kept across reset() up to `keep_bytes`, so a steady load never
// touches the heap. Not for objects with destructors.
class ScratchArena {
 public:
  explicit ScratchArena(std::size_t block_bytes = 256 * 1024,
                        std::size_t keep_bytes = 4 * 1024 * 1024);
  ~ScratchArena();
  ScratchArena(const ScratchArena&) = delete;
  ScratchArena& operator=(const ScratchArena&) = delete;

  // Never fails short of memory exhaustion. `align` is a power of two, at most 16.
  std::uint8_t* allocate(std::size_t size, std::size_t align = 8);
  // Copies; the view lives until reset().
  std::string_view copy(std::string_view text);
  Bytes copy(Bytes bytes);
  // Grows the newest allocation in place when there is room; used by TextBuf.
  bool try_extend(std::uint8_t* last, std::size_t old_size, std::size_t new_size);

  void reset();
  // reset(), and what was there is overwritten: for arenas that held secrets.
  void wipe() noexcept;
  std::size_t used_bytes() const noexcept { return used_; }

 private:
  struct Block {
    std::uint8_t* data;
    std::size_t size;
  };
  void add_block(std::size_t size);

  std::size_t block_bytes_;
  std::size_t keep_bytes_;
  std::vector<Block> blocks_;
  std::size_t current_ = 0;  // index into blocks_
  std::size_t offset_ = 0;   // within the current block
  std::size_t used_ = 0;     // since reset()
};

// A growing contiguous text in a scratch arena. view() lives until the arena's reset().
class TextBuf {
 public:
  explicit TextBuf(ScratchArena& arena, std::size_t initial = 256);
  void append(std::string_view text) {
    if (!text.empty()) std::memcpy(grow(text.size()), text.data(), text.size());
  }
  void append(char c) { *grow(1) = c; }
  void append_number(std::int64_t number);
  void append_unsigned(std::uint64_t number);
  // Room for `size` more bytes, to be filled by the caller before the next call.
  char* grow(std::size_t size) {
    if (size > capacity_ - size_) reserve(size_ + size);
    char* const at = data_ + size_;
    size_ += size;
    return at;
  }
  void truncate(std::size_t size) noexcept;
  std::string_view view() const noexcept { return {data_, size_}; }
  std::size_t size() const noexcept { return size_; }
  ScratchArena& arena() noexcept { return *arena_; }

 private:
  void reserve(std::size_t size);

  ScratchArena* arena_;
  char* data_;
  std::size_t size_ = 0;
  std::size_t capacity_;
};

// Power-of-two blocks from 4 KiB to 32 MiB with a free list per class. Freed blocks are kept up
// to `keep_bytes` in all, the rest goes back to the heap. lent_bytes() is bounded by the callers,
// who refuse to grow past their own limit before they ask.
class BufferPool {
 public:
  static constexpr std::size_t kSmallest = 4 * 1024;
  static constexpr std::size_t kClasses = 14;

  explicit BufferPool(std::size_t keep_bytes = 8 * 1024 * 1024) : keep_bytes_(keep_bytes) {}
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  MutableBytes lend(std::size_t at_least);
  void give_back(MutableBytes block) noexcept;
  std::size_t lent_bytes() const noexcept { return lent_; }

 private:
  std::array<std::vector<std::uint8_t*>, kClasses> free_;
  std::size_t keep_bytes_;
  std::size_t kept_ = 0;
  std::size_t lent_ = 0;
};

// A byte queue in a pooled block: bytes are appended at the end and consumed at the front. Owns
// no memory while empty. Not copyable; moving leaves the source empty.
class PooledBuffer {
 public:
  explicit PooledBuffer(BufferPool& pool) noexcept : pool_(&pool) {}
  ~PooledBuffer() { release(); }
  PooledBuffer(PooledBuffer&& other) noexcept;
  PooledBuffer& operator=(PooledBuffer&& other) noexcept;

  Bytes bytes() const noexcept { return {block_.data() + begin_, end_ - begin_}; }
  std::size_t size() const noexcept { return end_ - begin_; }
  bool empty() const noexcept { return begin_ == end_; }
  // Of the block that is held; 0 without one.
  std::size_t capacity() const noexcept { return block_.size(); }
  // That of the block after prepare(size).
  std::size_t capacity_for(std::size_t size) const noexcept;

  // Free space of at least `size` bytes behind the end; fill it, then call commit(n).
  MutableBytes prepare(std::size_t size);
  void commit(std::size_t size) noexcept;
  void append(Bytes bytes);
  // Drops `size` bytes at the front; an empty buffer returns its block to the pool.
  void consume(std::size_t size) noexcept;
  // Moves a small rest into a small block, if that gives back three quarters or more.
  void fit();
  void release() noexcept;

 private:
  BufferPool* pool_;
  MutableBytes block_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

}  // namespace cm
